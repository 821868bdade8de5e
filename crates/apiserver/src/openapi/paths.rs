//! The paths of one group and version, with what each takes and answers.
//!
//! Upstream: `apiserver/pkg/endpoints/installer.go`; `api/openapi-spec/v3`.

use super::parameters as parameter;
use api::{
    AnyKind, KindRef, Subresource,
    schema::{self, Companion, Definitions},
};
use serde_json::{Map, Value, json};

pub(super) const OBJECT_TYPES: [&str; 2] = ["application/json", "application/yaml"];
const PATCH_TYPES: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Builds the document of one group and version. `group_versions`: all that are served.
pub(crate) fn document(
    kinds: &[KindRef],
    group: &str,
    version: &str,
    group_versions: &[(String, String)],
    title_version: &str,
) -> Value {
    let mut definitions = Definitions::default();
    let mut paths = Map::new();
    for kind in kinds.iter().filter(|it| it.group == group) {
        if kind.served.iter().any(|it| it == version) {
            let mut of = Of { kind, version, group_versions, definitions: &mut definitions };
            of.paths(&mut paths);
        }
    }
    super::reviews::paths(group, version, &mut definitions, group_versions, &mut paths);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": title_version},
        "paths": paths,
        "components": {"schemas": definitions.finish()},
    })
}

struct Of<'a> {
    kind: &'a AnyKind,
    version: &'a str,
    group_versions: &'a [(String, String)],
    definitions: &'a mut Definitions,
}

/// One operation before it is written down.
struct Operation<'a> {
    /// The HTTP method, as OpenAPI spells it.
    method: &'a str,
    /// What it does, as authorization names it; `connect` for streams.
    action: &'a str,
    /// The first words of its name: `read`, `list`, `deleteCollection`.
    name: &'a str,
    about: String,
    parameters: Vec<Value>,
    body: Option<Body>,
    answer: Answer,
}

struct Body {
    types: &'static [&'static str],
    schema: Value,
    required: bool,
}

enum Answer {
    /// An object of this definition, and the codes that come with it.
    Object(String, &'static [u16]),
    Text,
}

impl Of<'_> {
    fn paths(&mut self, paths: &mut Map<String, Value>) {
        let kind = self.kind;
        let root = match kind.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        let collection = match kind.is_namespaced() {
            true => format!("{root}/namespaces/{{namespace}}/{}", kind.plural),
            false => format!("{root}/{}", kind.plural),
        };
        let of_namespace = kind
            .is_namespaced()
            .then(|| parameter::path("namespace", "The namespace of the object."));
        let pretty = || parameter::query(&[parameter::PRETTY]);
        if kind.is_namespaced() {
            let operations = vec![self.list()];
            let item = self.item(operations, pretty(), "", "ForAllNamespaces");
            paths.insert(format!("{root}/{}", kind.plural), item);
        }
        let mut shared = pretty();
        shared.extend(of_namespace);
        let operations = vec![self.list(), self.create(), self.delete_all()];
        let item = self.item(operations, shared.clone(), "Namespaced", "");
        paths.insert(collection.clone(), item);

        shared.push(parameter::path("name", &format!("The name of the {}.", kind.kind)));
        let own = self.definitions.kind(kind, self.version);
        let mut operations = self.read_and_write(&own, &kind.kind);
        operations.push(self.delete());
        let item = self.item(operations, shared.clone(), "Namespaced", "");
        paths.insert(format!("{collection}/{{name}}"), item);

        for subresource in &kind.subresources {
            let operations = self.subresource(*subresource, &own);
            if operations.is_empty() {
                continue;
            }
            let suffix = pascal(subresource.name());
            let mut item = self.item(operations, shared.clone(), "Namespaced", &suffix);
            if let Some(tag) = other_kind(*subresource) {
                for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
                    if operation.get(schema::GROUP_VERSION_KIND).is_some() {
                        operation[schema::GROUP_VERSION_KIND] = tag.clone();
                    }
                }
            }
            paths.insert(format!("{collection}/{{name}}/{}", subresource.name()), item);
        }
    }

    fn list(&mut self) -> Operation<'static> {
        Operation {
            method: "get",
            action: "list",
            name: "list",
            about: format!("list or watch objects of kind {}", self.kind.kind),
            parameters: parameter::query(&[parameter::SELECT, parameter::WATCH]),
            body: None,
            answer: Answer::Object(self.definitions.list(self.kind, self.version), &[200]),
        }
    }

    fn create(&mut self) -> Operation<'static> {
        let own = self.definitions.kind(self.kind, self.version);
        Operation {
            method: "post",
            action: "post",
            name: "create",
            about: format!("create a {}", self.kind.kind),
            parameters: parameter::query(&[parameter::WRITE]),
            body: Some(object(&own)),
            answer: Answer::Object(own, &[200, 201, 202]),
        }
    }

    fn delete_all(&mut self) -> Operation<'static> {
        let (body, answer) = self.deletion(&[200]);
        Operation {
            method: "delete",
            action: "deletecollection",
            name: "deleteCollection",
            about: format!("delete collection of {}", self.kind.kind),
            parameters: parameter::query(&[parameter::DELETE, parameter::SELECT]),
            body,
            answer,
        }
    }

    fn delete(&mut self) -> Operation<'static> {
        let (body, answer) = self.deletion(&[200, 202]);
        Operation {
            method: "delete",
            action: "delete",
            name: "delete",
            about: format!("delete a {}", self.kind.kind),
            parameters: parameter::query(&[parameter::DELETE]),
            body,
            answer,
        }
    }

    fn deletion(&mut self, codes: &'static [u16]) -> (Option<Body>, Answer) {
        let options = self.definitions.companion(Companion::DeleteOptions, self.group_versions);
        let status = self.definitions.companion(Companion::Status, self.group_versions);
        let schema = schema::reference(&options);
        let body = Body { types: &["*/*"], schema, required: false };
        (Some(body), Answer::Object(status, codes))
    }

    /// Get, put and patch of one thing, which is of definition `of`.
    fn read_and_write(&mut self, of: &str, what: &str) -> Vec<Operation<'static>> {
        let patch = Body {
            types: &PATCH_TYPES,
            // An object, or a list of operations.
            schema: json!({"description": "What to change."}),
            required: true,
        };
        vec![
            Operation {
                method: "get",
                action: "get",
                name: "read",
                about: format!("read the specified {what}"),
                parameters: Vec::new(),
                body: None,
                answer: Answer::Object(of.to_owned(), &[200]),
            },
            Operation {
                method: "put",
                action: "put",
                name: "replace",
                about: format!("replace the specified {what}"),
                parameters: parameter::query(&[parameter::WRITE]),
                body: Some(object(of)),
                answer: Answer::Object(of.to_owned(), &[200, 201]),
            },
            Operation {
                method: "patch",
                action: "patch",
                name: "patch",
                about: format!("partially update the specified {what}"),
                parameters: parameter::query(&[parameter::WRITE]),
                body: Some(patch),
                answer: Answer::Object(of.to_owned(), &[200]),
            },
        ]
    }

    fn subresource(&mut self, subresource: Subresource, own: &str) -> Vec<Operation<'static>> {
        let kind = &self.kind.kind;
        let mut posted = |which: Companion, about: String| {
            let of = self.definitions.companion(which, self.group_versions);
            vec![Operation {
                method: "post",
                action: "post",
                name: "create",
                about,
                parameters: parameter::query(&[parameter::WRITE]),
                body: Some(object(&of)),
                answer: Answer::Object(of, &[200, 201, 202]),
            }]
        };
        match subresource {
            Subresource::Status => {
                let what = format!("status of the {kind}");
                self.read_and_write(own, &what)
            }
            Subresource::Approval | Subresource::EphemeralContainers | Subresource::Resize => {
                let what = format!("{} of the {kind}", subresource.name());
                self.read_and_write(own, &what)
            }
            Subresource::Finalize => {
                let what = format!("finalizers of the {kind}");
                let mut operations = self.read_and_write(own, &what);
                operations.retain(|it| it.method == "put");
                operations
            }
            Subresource::Scale => {
                let what = format!("scale of the {kind}");
                let of = self.definitions.companion(Companion::Scale, self.group_versions);
                self.read_and_write(&of, &what)
            }
            Subresource::Binding => posted(Companion::Binding, format!("bind a {kind} to a node")),
            Subresource::Eviction => {
                posted(Companion::Eviction, format!("delete a {kind}, when its budget allows it"))
            }
            Subresource::Token => {
                posted(Companion::TokenRequest, format!("create a token of a {kind}"))
            }
            Subresource::Log => vec![Operation {
                method: "get",
                action: "get",
                name: "read",
                about: format!("read the log of a container of the {kind}"),
                parameters: parameter::query(&[parameter::LOG]),
                body: None,
                answer: Answer::Text,
            }],
            Subresource::Exec => {
                let parameters = || parameter::query(&[parameter::COMMAND, parameter::ATTACH]);
                connect(parameters, format!("run a command in a container of the {kind}"))
            }
            Subresource::Attach => {
                let parameters = || parameter::query(&[parameter::ATTACH]);
                connect(parameters, format!("reach the first process of a container of the {kind}"))
            }
            Subresource::PortForward | Subresource::Proxy => Vec::new(),
        }
    }

    /// One path: its operations, and the parameters that they share.
    fn item(
        &self,
        operations: Vec<Operation<'_>>,
        shared: Vec<Value>,
        scope: &str,
        suffix: &str,
    ) -> Value {
        let scope = if self.kind.is_namespaced() { scope } else { "" };
        let mut item = Map::new();
        for it in operations {
            item.insert(it.method.to_owned(), self.written(it, scope, suffix));
        }
        item.insert("parameters".to_owned(), shared.into());
        item.into()
    }

    fn written(&self, operation: Operation<'_>, scope: &str, suffix: &str) -> Value {
        let kind = self.kind;
        let group = kind.group.split('.').next().filter(|it| !it.is_empty()).unwrap_or("core");
        // Streams are named by their method too: both open the same.
        let method = match operation.action {
            "connect" => pascal(operation.method),
            _ => String::new(),
        };
        // Upstream's order of words: `deleteCoreV1CollectionNamespacedPod`.
        let (name, collection) = match operation.name {
            "deleteCollection" => ("delete", "Collection"),
            name => (name, ""),
        };
        let id = format!(
            "{name}{}{}{method}{collection}{scope}{}{suffix}",
            pascal(group),
            pascal(self.version),
            kind.kind
        );
        let mut responses = Map::new();
        match operation.answer {
            Answer::Object(of, codes) => {
                let content = content(&OBJECT_TYPES, &schema::reference(&of));
                for code in codes {
                    let description = match code {
                        201 => "Created",
                        202 => "Accepted",
                        _ => "OK",
                    };
                    let response = json!({"description": description, "content": content});
                    responses.insert(code.to_string(), response);
                }
            }
            Answer::Text => {
                let content = content(&["text/plain"], &json!({"type": "string"}));
                responses.insert("200".into(), json!({"description": "OK", "content": content}));
            }
        }
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        let mut written = json!({
            "description": operation.about,
            "operationId": id,
            "responses": responses,
            "tags": [format!("{group}_{}", self.version)],
            "x-kubernetes-action": operation.action,
        });
        written[schema::GROUP_VERSION_KIND] = schema::tag(&kind.group, self.version, &kind.kind);
        if !operation.parameters.is_empty() {
            written["parameters"] = operation.parameters.into();
        }
        if let Some(body) = operation.body {
            let mut request = json!({"content": content(body.types, &body.schema)});
            if body.required {
                request["required"] = true.into();
            }
            written["requestBody"] = request;
        }
        written
    }
}

fn object(of: &str) -> Body {
    Body { types: &["*/*"], schema: schema::reference(of), required: true }
}

fn connect(parameters: impl Fn() -> Vec<Value>, about: String) -> Vec<Operation<'static>> {
    let operation = |method| Operation {
        method,
        action: "connect",
        name: "connect",
        about: about.clone(),
        parameters: parameters(),
        body: None,
        answer: Answer::Text,
    };
    vec![operation("get"), operation("post")]
}

/// What a subresource takes and answers, where that is not its parent's kind.
fn other_kind(subresource: Subresource) -> Option<Value> {
    match subresource {
        Subresource::Binding => Some(schema::tag("", "v1", "Binding")),
        Subresource::Eviction => Some(schema::tag("policy", "v1", "Eviction")),
        Subresource::Scale => Some(schema::tag("autoscaling", "v1", "Scale")),
        Subresource::Token => Some(schema::tag("authentication.k8s.io", "v1", "TokenRequest")),
        Subresource::Exec => Some(schema::tag("", "v1", "PodExecOptions")),
        Subresource::Attach => Some(schema::tag("", "v1", "PodAttachOptions")),
        Subresource::Status
        | Subresource::Approval
        | Subresource::Log
        | Subresource::PortForward
        | Subresource::Proxy
        | Subresource::EphemeralContainers
        | Subresource::Resize
        | Subresource::Finalize => None,
    }
}

pub(super) fn content(types: &[&str], schema: &Value) -> Value {
    types.iter().map(|it| ((*it).to_owned(), json!({"schema": schema}))).collect()
}

/// `v1beta1` → `V1beta1`.
pub(super) fn pascal(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|it| it.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
