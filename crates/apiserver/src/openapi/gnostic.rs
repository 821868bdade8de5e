//! OpenAPI 2 as protobuf, which kubectl reads instead of JSON because it is faster.
//!
//! Only the messages and fields that our documents fill are here; the numbers are the published ones.
//!
//! Upstream: `github.com/google/gnostic-models/openapiv2/OpenAPIv2.proto`.

use prost::Message;
use serde_json::{Map, Value};

/// Encodes a document.
pub(crate) fn encode(document: &Value) -> Vec<u8> {
    Document::of(document).encode_to_vec()
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Document {
    #[prost(string, tag = "1")]
    pub(crate) swagger: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    pub(crate) paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    pub(crate) definitions: Option<Schemas>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Info {
    #[prost(string, tag = "1")]
    pub(crate) title: String,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Paths {
    #[prost(message, repeated, tag = "2")]
    pub(crate) path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NamedPathItem {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PathItem {
    #[prost(message, optional, tag = "2")]
    pub(crate) get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    pub(crate) put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    pub(crate) post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    pub(crate) delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    pub(crate) patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    pub(crate) parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Operation {
    #[prost(string, repeated, tag = "1")]
    pub(crate) tags: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) description: String,
    #[prost(string, tag = "5")]
    pub(crate) operation_id: String,
    #[prost(string, repeated, tag = "6")]
    pub(crate) produces: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub(crate) consumes: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    pub(crate) responses: Option<Responses>,
    #[prost(string, repeated, tag = "10")]
    pub(crate) schemes: Vec<String>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    pub(crate) parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Parameter {
    #[prost(message, optional, tag = "1")]
    pub(crate) body: Option<BodyParameter>,
    #[prost(message, optional, tag = "2")]
    pub(crate) other: Option<NonBodyParameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BodyParameter {
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) place: String,
    #[prost(bool, tag = "4")]
    pub(crate) required: bool,
    #[prost(message, optional, tag = "5")]
    pub(crate) schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    pub(crate) query: Option<QueryParameter>,
    #[prost(message, optional, tag = "4")]
    pub(crate) path: Option<PathParameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct QueryParameter {
    #[prost(string, tag = "2")]
    pub(crate) place: String,
    #[prost(string, tag = "3")]
    pub(crate) description: String,
    #[prost(string, tag = "4")]
    pub(crate) name: String,
    #[prost(string, tag = "6")]
    pub(crate) kind: String,
    #[prost(bool, tag = "20")]
    pub(crate) unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PathParameter {
    #[prost(bool, tag = "1")]
    pub(crate) required: bool,
    #[prost(string, tag = "2")]
    pub(crate) place: String,
    #[prost(string, tag = "3")]
    pub(crate) description: String,
    #[prost(string, tag = "4")]
    pub(crate) name: String,
    #[prost(string, tag = "5")]
    pub(crate) kind: String,
    #[prost(bool, tag = "19")]
    pub(crate) unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Responses {
    #[prost(message, repeated, tag = "1")]
    pub(crate) response_code: Vec<NamedResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NamedResponseValue {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<ResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    pub(crate) response: Option<Response>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Response {
    #[prost(string, tag = "1")]
    pub(crate) description: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) schema: Option<SchemaItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SchemaItem {
    #[prost(message, optional, tag = "1")]
    pub(crate) schema: Option<Schema>,
}

/// Definitions and properties have this form.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Schemas {
    #[prost(message, repeated, tag = "1")]
    pub(crate) named: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NamedSchema {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Schema {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(string, tag = "2")]
    pub(crate) format: String,
    #[prost(string, tag = "4")]
    pub(crate) description: String,
    #[prost(string, repeated, tag = "19")]
    pub(crate) required: Vec<String>,
    #[prost(message, optional, boxed, tag = "21")]
    pub(crate) additional_properties: Option<Box<AdditionalPropertiesItem>>,
    #[prost(message, optional, tag = "22")]
    pub(crate) kind: Option<TypeItem>,
    #[prost(message, optional, tag = "23")]
    pub(crate) items: Option<ItemsItem>,
    #[prost(message, optional, tag = "25")]
    pub(crate) properties: Option<Schemas>,
    #[prost(message, repeated, tag = "31")]
    pub(crate) vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AdditionalPropertiesItem {
    #[prost(message, optional, boxed, tag = "1")]
    pub(crate) schema: Option<Box<Schema>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypeItem {
    #[prost(string, repeated, tag = "1")]
    pub(crate) value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ItemsItem {
    #[prost(message, repeated, tag = "1")]
    pub(crate) schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NamedAny {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Any {
    /// JSON is YAML.
    #[prost(string, tag = "2")]
    pub(crate) yaml: String,
}

impl Document {
    fn of(document: &Value) -> Document {
        let paths = entries(&document["paths"]);
        let path = paths.map(|(name, item)| NamedPathItem {
            name: name.clone(),
            value: Some(PathItem::of(item)),
        });
        Document {
            swagger: text(document, "swagger"),
            info: Some(Info {
                title: text(&document["info"], "title"),
                version: text(&document["info"], "version"),
            }),
            paths: Some(Paths { path: path.collect() }),
            definitions: Some(Schemas::of(&document["definitions"])),
        }
    }
}

impl PathItem {
    fn of(item: &Value) -> PathItem {
        let operation = |method: &str| item.get(method).map(Operation::of);
        PathItem {
            get: operation("get"),
            put: operation("put"),
            post: operation("post"),
            delete: operation("delete"),
            patch: operation("patch"),
            parameters: parameters(item),
        }
    }
}

impl Operation {
    fn of(operation: &Value) -> Operation {
        let responses = entries(&operation["responses"]).map(|(code, response)| {
            let schema = response.get("schema").map(Schema::of);
            let response = Response {
                description: text(response, "description"),
                schema: schema.map(|it| SchemaItem { schema: Some(it) }),
            };
            let value = ResponseValue { response: Some(response) };
            NamedResponseValue { name: code.clone(), value: Some(value) }
        });
        Operation {
            tags: texts(operation, "tags"),
            description: text(operation, "description"),
            operation_id: text(operation, "operationId"),
            produces: texts(operation, "produces"),
            consumes: texts(operation, "consumes"),
            parameters: parameters(operation),
            responses: Some(Responses { response_code: responses.collect() }),
            schemes: texts(operation, "schemes"),
            vendor_extension: extensions(operation),
        }
    }
}

impl Parameter {
    fn of(parameter: &Value) -> Parameter {
        let (name, place) = (text(parameter, "name"), text(parameter, "in"));
        let (description, kind) = (text(parameter, "description"), text(parameter, "type"));
        let required = parameter["required"] == true;
        let unique_items = parameter["uniqueItems"] == true;
        let other = match place.as_str() {
            "body" => {
                let schema = Some(Schema::of(&parameter["schema"]));
                let body = BodyParameter { name, place, required, schema };
                return Parameter { body: Some(body), other: None };
            }
            "path" => {
                let path = PathParameter { required, place, description, name, kind, unique_items };
                NonBodyParameter { query: None, path: Some(path) }
            }
            _ => {
                let query = QueryParameter { place, description, name, kind, unique_items };
                NonBodyParameter { query: Some(query), path: None }
            }
        };
        Parameter { body: None, other: Some(other) }
    }
}

impl Schemas {
    fn of(schemas: &Value) -> Schemas {
        let named = entries(schemas).map(|(name, schema)| NamedSchema {
            name: name.clone(),
            value: Some(Schema::of(schema)),
        });
        Schemas { named: named.collect() }
    }
}

impl Schema {
    fn of(schema: &Value) -> Schema {
        let kind = schema.get("type").and_then(Value::as_str);
        let items = schema.get("items").map(Schema::of);
        Schema {
            reference: text(schema, "$ref"),
            format: text(schema, "format"),
            description: text(schema, "description"),
            required: texts(schema, "required"),
            additional_properties: schema.get("additionalProperties").map(|it| {
                Box::new(AdditionalPropertiesItem { schema: Some(Box::new(Schema::of(it))) })
            }),
            kind: kind.map(|it| TypeItem { value: vec![it.to_owned()] }),
            items: items.map(|it| ItemsItem { schema: vec![it] }),
            properties: schema.get("properties").map(Schemas::of),
            vendor_extension: extensions(schema),
        }
    }
}

fn parameters(of: &Value) -> Vec<ParametersItem> {
    let parameters = of["parameters"].as_array().into_iter().flatten();
    parameters.map(|it| ParametersItem { parameter: Some(Parameter::of(it)) }).collect()
}

fn extensions(of: &Value) -> Vec<NamedAny> {
    entries(of)
        .filter(|(name, _)| name.starts_with("x-"))
        .map(|(name, value)| NamedAny {
            name: name.clone(),
            value: Some(Any { yaml: value.to_string() }),
        })
        .collect()
}

fn entries(of: &Value) -> impl Iterator<Item = (&String, &Value)> {
    of.as_object().into_iter().flat_map(Map::iter)
}

fn text(of: &Value, key: &str) -> String {
    of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(of: &Value, key: &str) -> Vec<String> {
    let items = of.get(key).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}
