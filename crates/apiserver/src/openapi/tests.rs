//! Documents as clients read them.

use super::*;
use api::schema::GROUP_VERSION_KIND;
use prost::Message;

const VERSION: &str = "v1.36.0";

fn v3(group: &str, version: &str) -> Value {
    paths::document(api::kinds(), group, version, &group_versions(api::kinds()), VERSION)
}

fn all_v3() -> impl Iterator<Item = Value> {
    group_versions(api::kinds()).into_iter().map(|(group, version)| v3(&group, &version))
}

/// Every value of a key, anywhere.
fn values<'a>(of: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match of {
        Value::Object(object) => {
            found.extend(object.get(key));
            object.values().for_each(|it| values(it, key, found));
        }
        Value::Array(items) => items.iter().for_each(|it| values(it, key, found)),
        _ => {}
    }
}

fn references_resolve(document: &Value) {
    let mut found = Vec::new();
    values(document, "$ref", &mut found);
    assert!(!found.is_empty());
    for reference in found.into_iter().filter_map(Value::as_str) {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_reference_of_a_document_leads_within_it() {
    all_v3().for_each(|it| references_resolve(&it));
    references_resolve(&joined(api::kinds(), VERSION));
}

/// kubectl leaves validation to the server only where it finds this parameter on the patch of a kind.
#[test]
fn every_kind_can_be_patched_with_strict_validation() {
    for kind in api::kinds() {
        for version in &kind.served {
            let document = v3(&kind.group, version);
            let tag = api::schema::tag(&kind.group, version, &kind.kind);
            let patches = document["paths"].as_object().unwrap().values().map(|it| &it["patch"]);
            let own = patches.filter(|it| it[GROUP_VERSION_KIND] == tag).collect::<Vec<_>>();
            assert!(!own.is_empty(), "{tag}");
            for patch in own {
                let names: Vec<&Value> =
                    patch["parameters"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
                assert!(names.contains(&&json!("fieldValidation")), "{tag}");
                assert!(names.contains(&&json!("dryRun")), "{tag}");
            }
        }
    }
}

#[test]
fn operations_have_names_of_their_own() {
    for document in all_v3() {
        let mut names = Vec::new();
        values(&document, "operationId", &mut names);
        let mut names: Vec<&str> = names.into_iter().filter_map(Value::as_str).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
    let apps = v3("apps", "v1");
    let item = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}"];
    assert_eq!(item["patch"]["operationId"], "patchAppsV1NamespacedStatefulSet");
    let scale = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}/scale"];
    assert_eq!(scale["get"]["operationId"], "readAppsV1NamespacedStatefulSetScale");
    assert_eq!(scale["get"][GROUP_VERSION_KIND]["kind"], "Scale");
}

#[test]
fn a_document_holds_what_its_paths_reach_and_no_more() {
    let storage = v3("storage.k8s.io", "v1beta1");
    let schemas = storage["components"]["schemas"].as_object().unwrap();
    assert!(schemas.contains_key("io.k8s.api.storage.v1beta1.StorageClass"));
    assert!(!schemas.contains_key("io.k8s.api.storage.v1.StorageClass"));
    assert!(!schemas.contains_key("io.k8s.api.core.v1.Pod"));
}

#[test]
fn the_second_version_says_what_it_can() {
    let document = joined(api::kinds(), VERSION);
    for key in ["allOf", "oneOf", "requestBody", "content"] {
        let mut found = Vec::new();
        values(&document["paths"], key, &mut found);
        values(&document["definitions"]["io.k8s.api.core.v1.PodSpec"], key, &mut found);
        assert!(found.is_empty(), "{key}");
    }
    let quantity = &document["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(quantity["type"], "string");
    let spec = &document["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
    assert_eq!(spec["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
}

#[test]
fn protobuf_says_the_same_as_json() {
    let json = joined(api::kinds(), VERSION);
    let document = gnostic::Document::decode(&*gnostic::encode(&json)).unwrap();
    let definitions = document.definitions.unwrap().named;
    assert_eq!(definitions.len(), json["definitions"].as_object().unwrap().len());
    let find = |list: &[gnostic::NamedSchema], name: &str| {
        list.iter().find(|it| it.name == name).and_then(|it| it.value.clone()).unwrap()
    };
    let spec = find(&definitions, "io.k8s.api.core.v1.PodSpec");
    let containers = find(&spec.properties.unwrap().named, "containers");
    assert_eq!(
        containers.items.unwrap().schema[0].reference,
        "#/definitions/io.k8s.api.core.v1.Container"
    );
    let extension = |list: &[gnostic::NamedAny], name: &str| {
        let any = list.iter().find(|it| it.name == name).and_then(|it| it.value.clone());
        serde_json::from_str::<Value>(&any.unwrap().yaml).unwrap()
    };
    let extensions = &containers.vendor_extension;
    assert_eq!(extension(extensions, "x-kubernetes-patch-merge-key"), "name");

    let paths = document.paths.unwrap().path;
    assert_eq!(paths.len(), json["paths"].as_object().unwrap().len());
    let pod = paths.iter().find(|it| it.name == "/api/v1/namespaces/{namespace}/pods/{name}");
    let patch = pod.unwrap().value.as_ref().unwrap().patch.as_ref().unwrap();
    assert_eq!(extension(&patch.vendor_extension, GROUP_VERSION_KIND)["kind"], "Pod");
    let query = |it: &gnostic::ParametersItem| {
        Some(it.parameter.as_ref()?.other.as_ref()?.query.as_ref()?.name.clone())
    };
    let names: Vec<String> = patch.parameters.iter().filter_map(query).collect();
    assert!(names.contains(&"dryRun".to_owned()), "{names:?}");
}

#[test]
fn what_is_kept_is_what_was_built() {
    let document = Document::new(b"{}");
    assert_eq!(document.content(), b"{}");
    assert_eq!(document.hash.len(), 128);
    assert_ne!(document.hash, Document::new(b"[]").hash);
}

#[test]
fn takes_the_first_type_that_the_client_and_the_door_know() {
    let asked = |accept: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        form(&headers, &[answer::JSON, PROTOBUF_ASKED]).ok()
    };
    assert_eq!(asked("application/json, */*"), Some(0));
    assert_eq!(asked(PROTOBUF_ASKED), Some(1));
    assert_eq!(asked("text/html, */*;q=0.1"), Some(0));
    assert_eq!(asked("text/html"), None);
}

#[test]
fn reviews_are_described_as_what_is_only_created() {
    let document = v3("authorization.k8s.io", "v1");
    let paths = document["paths"].as_object().unwrap();
    let local = "/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews";
    let post = &paths[local]["post"];
    assert_eq!(post["operationId"], "createAuthorizationV1NamespacedLocalSubjectAccessReview");
    assert!(paths.values().all(|it| it.get("get").is_none()));
    let review =
        &document["components"]["schemas"]["io.k8s.api.authorization.v1.SubjectAccessReview"];
    let tag = api::schema::tag("authorization.k8s.io", "v1", "SubjectAccessReview");
    assert_eq!(review[GROUP_VERSION_KIND], json!([tag]));
    assert_eq!(review["required"], json!(["spec"]));
    let swagger = joined(api::kinds(), VERSION);
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    assert!(swagger["paths"][path]["post"].is_object());
    assert!(swagger["definitions"]["io.k8s.api.authentication.v1.TokenReview"].is_object());
}
