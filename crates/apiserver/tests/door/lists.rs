//! Lists: pages of one moment, selectors, and how new they have to be.

use crate::house::Door;
use serde_json::{Value, json};
use store::Revision;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn fill(door: &Door, names: &[&str]) {
    for name in names {
        let labels = json!({"first": &name[..1]});
        door.post(MAPS, json!({"metadata": {"name": name, "labels": labels}})).await.is(201);
    }
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pages_show_one_moment_whatever_happens_between_them() {
    let door = Door::open().await;
    fill(&door, &["a", "c", "e", "g", "i"]).await;
    let first = door.get(&format!("{MAPS}?limit=2")).await.is(200).body;
    assert_eq!(names(&first), ["a", "c"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    fill(&door, &["b", "f", "z"]).await;
    door.delete(&format!("{MAPS}/e")).await.is(200);
    let mut all = names(&first);
    let mut next = first["metadata"]["continue"].as_str().map(str::to_owned);
    while let Some(token) = next {
        let page = door.get(&format!("{MAPS}?limit=2&continue={token}")).await.is(200).body;
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        all.extend(names(&page));
        next = page["metadata"]["continue"].as_str().map(str::to_owned);
    }
    assert_eq!(all, ["a", "c", "e", "g", "i"]);
}

#[tokio::test]
async fn a_page_of_a_forgotten_moment_is_expired() {
    let door = Door::open().await;
    fill(&door, &["a", "b", "c"]).await;
    let first = door.get(&format!("{MAPS}?limit=1")).await.is(200).body;
    fill(&door, &["d"]).await;
    let latest = door.store.latest().await.unwrap();
    door.store.compact(latest).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let expired = door.get(&format!("{MAPS}?limit=1&continue={token}")).await.is(410);
    assert_eq!(expired.body["reason"], "Expired");
    assert!(expired.message().starts_with("The provided continue parameter is too old"));
    // Whoever can live with it goes on from there.
    let token = expired.body["metadata"]["continue"].as_str().expect("a token to go on with");
    let rest = door.get(&format!("{MAPS}?continue={token}")).await.is(200).body;
    assert_eq!(names(&rest), ["b", "c", "d"]);
    let old = format!("{MAPS}?resourceVersion=2&resourceVersionMatch=Exact");
    assert_eq!(
        door.get(&old).await.is(410).message(),
        "The resourceVersion for the provided list is too old."
    );
}

#[tokio::test]
async fn selectors_choose() {
    let door = Door::open().await;
    fill(&door, &["aa", "ab", "b"]).await;
    let list = async |query: &str| names(&door.get(&format!("{MAPS}?{query}")).await.is(200).body);
    assert_eq!(list("labelSelector=first%3Da").await, ["aa", "ab"]);
    assert_eq!(list("labelSelector=first+notin+(a)").await, ["b"]);
    assert_eq!(list("fieldSelector=metadata.name%3Dab").await, ["ab"]);
    assert_eq!(
        list("fieldSelector=metadata.name!%3Dab,metadata.namespace%3Ddefault").await,
        ["aa", "b"]
    );
    let unknown = door.get(&format!("{MAPS}?fieldSelector=spec.x%3D1")).await.is(400);
    assert_eq!(
        unknown.message(),
        "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
    let pods = "/api/v1/namespaces/default/pods";
    for (name, node) in [("p", "n1"), ("q", "n2")] {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
        door.post(pods, json!({"metadata": {"name": name}, "spec": spec})).await.is(201);
    }
    let placed = format!("{pods}?fieldSelector=spec.nodeName%3Dn2,status.phase!%3DFailed");
    assert_eq!(names(&door.get(&placed).await.is(200).body), ["q"]);
    let unknown = door.get(&format!("{pods}?fieldSelector=spec.x%3D1")).await.is(400);
    assert_eq!(unknown.message(), "field label not supported: spec.x");
    let deleted = door.delete(&format!("{MAPS}?labelSelector=first%3Da")).await.is(200);
    assert_eq!(names(&deleted.body), ["aa", "ab"]);
    assert_eq!(list("").await, ["b"]);
}

#[tokio::test]
async fn a_list_is_as_new_as_was_asked() {
    let door = Door::open().await;
    fill(&door, &["a"]).await;
    let at = door.get(MAPS).await.body["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    fill(&door, &["b"]).await;
    let exact = format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=Exact");
    assert_eq!(names(&door.get(&exact).await.is(200).body), ["a"]);
    let newer = format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=NotOlderThan");
    assert_eq!(names(&door.get(&newer).await.is(200).body), ["a", "b"]);
    let Revision(latest) = door.store.latest().await.unwrap();
    for query in [
        "resourceVersionMatch=Exact",
        "resourceVersion=0&resourceVersionMatch=Exact",
        "resourceVersion=1&resourceVersionMatch=Roughly",
    ] {
        door.get(&format!("{MAPS}?{query}")).await.is(422);
    }
    door.get(&format!("{MAPS}?resourceVersion=x")).await.is(400);
    let future = door.get(&format!("{MAPS}?resourceVersion={}", latest + 100)).await.is(504);
    assert_eq!(
        future.message(),
        format!("Timeout: Too large resource version: {}, current: {latest}", latest + 100)
    );
    assert_eq!(future.headers["retry-after"], "1");
}

/// Each cell of the table in upstream's "Resource versions" (Using API > API concepts), for lists.
#[tokio::test]
async fn every_pair_of_version_and_match_means_one_thing() {
    let door = Door::open().await;
    fill(&door, &["a", "b"]).await;
    let first = door.get(&format!("{MAPS}?limit=1")).await.is(200).body;
    let at = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    fill(&door, &["c"]).await;
    let (then, now) = ("a b", "a b c");
    for (query, expected) in [
        // Unset: the most recent, in pages or not.
        ("", now),
        ("limit=9", now),
        ("resourceVersionMatch=&resourceVersion=", now),
        // Any: whatever is at hand, which here is everything.
        ("resourceVersion=0", now),
        ("resourceVersion=0&limit=9", now),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan", now),
        // Not older than, unless in pages: then exactly.
        ("resourceVersion=AT", now),
        ("resourceVersion=AT&resourceVersionMatch=NotOlderThan", now),
        ("resourceVersion=AT&resourceVersionMatch=NotOlderThan&limit=9", now),
        ("resourceVersion=AT&limit=9", then),
        ("resourceVersion=AT&resourceVersionMatch=Exact", then),
        ("resourceVersion=AT&resourceVersionMatch=Exact&limit=9", then),
        // Going on is exact, and names no version of its own.
        ("continue=TOKEN", "b"),
        ("continue=TOKEN&limit=9", "b"),
        ("continue=TOKEN&resourceVersion=0", "b"),
        // No limit at all.
        ("limit=0", now),
        ("limit=-1", now),
    ] {
        let query = query.replace("AT", &at).replace("TOKEN", &token);
        let list = door.get(&format!("{MAPS}?{query}")).await.is(200);
        assert_eq!(names(&list.body).join(" "), expected, "{query}");
    }
    for (query, code, field) in [
        ("resourceVersionMatch=Exact", 422, "resourceVersionMatch"),
        ("resourceVersionMatch=NotOlderThan", 422, "resourceVersionMatch"),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422, "resourceVersionMatch"),
        ("resourceVersionMatch=Newest&resourceVersion=AT", 422, "resourceVersionMatch"),
        (
            "resourceVersionMatch=Exact&resourceVersion=AT&continue=TOKEN",
            422,
            "resourceVersionMatch",
        ),
        ("sendInitialEvents=true", 422, "sendInitialEvents"),
        (
            "sendInitialEvents=false&resourceVersion=AT&resourceVersionMatch=Exact",
            422,
            "sendInitialEvents",
        ),
        ("resourceVersion=AT&continue=TOKEN", 400, ""),
        ("resourceVersion=1.5", 400, ""),
        ("resourceVersion=99999999999999999999", 400, ""),
    ] {
        let query = query.replace("AT", &at).replace("TOKEN", &token);
        let refused = door.get(&format!("{MAPS}?{query}")).await.is(code);
        if code == 422 {
            assert_eq!(refused.body["details"]["causes"][0]["field"], field, "{query}");
        }
    }
}

#[tokio::test]
async fn a_forged_token_leads_nowhere_else() {
    let door = Door::open().await;
    fill(&door, &["a", "b"]).await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "hidden"}});
    door.post("/api/v1/namespaces/kube-system/secrets", secret).await.is(201);
    let there = json!({"metadata": {"name": "elsewhere"}});
    door.post("/api/v1/namespaces/kube-system/configmaps", there).await.is(201);
    let forged = |token: Value| {
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, token.to_string())
    };
    let Revision(latest) = door.store.latest().await.unwrap();
    let token = |rv: Value, start: &str| json!({"v": "meta.k8s.io/v1", "rv": rv, "start": start});
    for (token, code) in [
        (json!({}), 400),
        (json!("text"), 400),
        (token(json!(0), "default/a\0"), 400),
        (token(json!(-7), "default/a\0"), 400),
        (token(json!("7"), "default/a\0"), 400),
        (token(json!(latest), ""), 400),
        (token(json!(latest), "\0"), 400),
        (token(json!(latest), "../secrets/kube-system/s\0"), 400),
        (json!({"v": "v2", "rv": latest, "start": "default/a\0"}), 400),
        (token(json!(latest + 1000), "default/a\0"), 504),
    ] {
        let refused = door.get(&format!("{MAPS}?continue={}", forged(token.clone()))).await;
        assert_eq!(refused.code, code, "{token}: {}", refused.text);
    }
    // A start in another namespace, or before all, stays within what was asked for.
    for (start, expected) in
        [("a\0", "a b"), ("default/\0", "a b"), ("kube-system/a\0", ""), ("zzz\0", "")]
    {
        let token = forged(token(json!(latest), start));
        let list = door.get(&format!("{MAPS}?continue={token}")).await.is(200);
        assert_eq!(names(&list.body).join(" "), expected, "{start:?}");
    }
}
