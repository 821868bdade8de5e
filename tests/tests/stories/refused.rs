//! Who has no business with a secret does not get it: without a token, with a wrong one, with another
//! tenant's, as another node. Each attempt is on record, and the secret is in no answer and no log.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::{fs, path::Path};
use tests::{Cluster, Options, Said, until};

const PASSWORD: &str = "correct-horse-battery-staple";

const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
rules: [{level: Metadata}]
";

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: holder, namespace: theirs}
spec:
  nodeName: n9
  containers: [{name: c, image: none, envFrom: [{secretRef: {name: safe}}]}]
";

/// The certificate of a node that asked for it, and its key.
fn node_certificate(cluster: &Cluster, node: &str) -> [String; 2] {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut request = rcgen::CertificateParams::default();
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::OrganizationName, "system:nodes");
    name.push(rcgen::DnType::CommonName, format!("system:node:{node}"));
    request.distinguished_name = name;
    let request = request.serialize_request(&key).unwrap().pem().unwrap();
    cluster.apply(&format!(
        "apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: {node}}}
spec:
  signerName: kubernetes.io/kube-apiserver-client-kubelet
  usages: [digital signature, client auth]
  request: {}
",
        STANDARD.encode(request)
    ));
    cluster.kubectl(&["certificate", "approve", node]);
    let signed = cluster.wait_for("the certificate is signed", &["csr", node], |it| {
        Some(it["status"]["certificate"].as_str()?.to_owned())
    });
    let file = |name: &str, text: &[u8]| {
        let path = cluster.directory().join(format!("{node}.{name}"));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    [file("crt", &STANDARD.decode(signed).unwrap()), file("key", key.serialize_pem().as_bytes())]
}

/// kubectl with nothing but what `who` says.
fn as_who(cluster: &Cluster, who: &[&str], words: &[&str]) -> Said {
    let config = cluster.json(&["config", "view"]);
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    let alone = ["--kubeconfig", "/dev/null", "--insecure-skip-tls-verify", "--server", &server];
    cluster.try_kubectl(&[&alone[..], who, words].concat())
}

/// Who asked for the secret, and what was answered.
fn on_record(log: &Path) -> Vec<(String, u64)> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let asked = events.filter(|it| {
        it["objectRef"]["resource"] == "secrets"
            && it["objectRef"]["name"] == "safe"
            && it["verb"] == "get"
    });
    let asked = asked.filter_map(|it| {
        let who = it["user"]["username"].as_str().unwrap_or_default().to_owned();
        Some((who, it["responseStatus"]["code"].as_u64()?))
    });
    asked.collect()
}

#[test]
fn a_secret_is_kept_from_those_who_may_not_see_it() {
    let folder = std::env::temp_dir().join(format!("stanchion-refused-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (policy, log) = (folder.join("policy.yaml"), folder.join("audit.log"));
    fs::write(&policy, POLICY).unwrap();
    let flags = vec![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log.display()),
    ];
    let Some(cluster) = Cluster::start_with("refused", Options { flags, ..Options::default() })
    else {
        return;
    };
    for tenant in ["ours", "theirs"] {
        cluster.kubectl(&["create", "namespace", tenant]);
        cluster.kubectl(&["create", "serviceaccount", "app", "-n", tenant]);
        let grant = ["create", "rolebinding", "app", "--clusterrole=admin", "-n", tenant];
        cluster.kubectl(&[&grant[..], &[&format!("--serviceaccount={tenant}:app")]].concat());
    }
    let literal = format!("--from-literal=password={PASSWORD}");
    cluster.kubectl(&["create", "secret", "generic", "safe", "-n", "theirs", &literal]);
    cluster.apply(POD);

    let token = |tenant: &str| {
        let path = format!("/api/v1/namespaces/{tenant}/serviceaccounts/app/token");
        let file = cluster.directory().join("token.json");
        let ask = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}"#;
        fs::write(&file, ask).unwrap();
        let said = cluster.kubectl(&["create", "--raw", &path, "-f", file.to_str().unwrap()]);
        let said: Value = serde_json::from_str(&said).unwrap();
        said["status"]["token"].as_str().unwrap().to_owned()
    };
    let (ours, theirs) = (token("ours"), token("theirs"));
    // Its middle is another's: no key has signed that.
    let middle = |it: &str| it.split('.').nth(1).unwrap().to_owned();
    let forged = ours.replacen(&middle(&ours), &middle(&theirs), 1);
    let [other, other_key] = node_certificate(&cluster, "n8");
    let [own, own_key] = node_certificate(&cluster, "n9");
    let by = |certificate: &str, key: &str| {
        vec![format!("--client-certificate={certificate}"), format!("--client-key={key}")]
    };

    let get = ["get", "secret", "safe", "-n", "theirs", "-o", "json"];
    let told = |who: &[String]| {
        let who: Vec<&str> = who.iter().map(String::as_str).collect();
        as_who(&cluster, &who, &get)
    };
    let bearing = |token: &str| vec![format!("--token={token}")];
    let refused = [
        // kubectl asks at the terminal for a name and a password that nobody has.
        (vec!["--username=nobody".to_owned(), "--password=x".to_owned()], "nauthorized"),
        (bearing("made-up"), "nauthorized"),
        (bearing(&forged), "nauthorized"),
        (
            bearing(&ours),
            "secrets \"safe\" is forbidden: User \"system:serviceaccount:ours:app\" cannot get resource \"secrets\" in API group \"\" in the namespace \"theirs\"",
        ),
        (
            by(&other, &other_key),
            "secrets \"safe\" is forbidden: User \"system:node:n8\" cannot get resource \"secrets\" in API group \"\" in the namespace \"theirs\": no relationship found between node 'n8' and this object",
        ),
    ];
    for (who, why) in &refused {
        let said = told(who);
        assert!(!said.ok && said.errors.contains(why), "{who:?}: {said:?}");
        for secret in [PASSWORD, &STANDARD.encode(PASSWORD), &ours, &theirs, &forged] {
            assert!(!format!("{said:?}").contains(secret), "{said:?}");
        }
    }
    for who in [bearing(&theirs), by(&own, &own_key)] {
        assert!(told(&who).out.contains(&STANDARD.encode(PASSWORD)), "{who:?} may");
    }

    let expected = [
        ("system:serviceaccount:ours:app", 403),
        ("system:node:n8", 403),
        ("system:serviceaccount:theirs:app", 200),
        ("system:node:n9", 200),
    ];
    until("every attempt is on record", || {
        let record = on_record(&log);
        let missing =
            expected.iter().find(|(who, code)| !record.contains(&((*who).to_owned(), *code)));
        // Nobody knows who these were.
        let unknown = record.iter().filter(|it| it.1 == 401).count();
        match missing {
            None if unknown >= 3 => Ok(()),
            _ => Err(format!("{missing:?} is not in {record:?}")),
        }
    });
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let events = cluster.kubectl(&["get", "events", "-A", "-o", "json"]);
    for (what, text) in
        [("audit log", text(&log)), ("log", text(&cluster.log())), ("events", events)]
    {
        for secret in [PASSWORD, &STANDARD.encode(PASSWORD), &ours, &theirs, &forged] {
            assert!(!text.contains(secret), "the {what} holds {secret}");
        }
    }
    fs::remove_dir_all(&folder).unwrap();
}
