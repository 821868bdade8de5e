//! From OpenAPI 3 to OpenAPI 2, for clients that know no other: all groups become one document.
//!
//! What version 2 cannot say is left out: that a quantity may be a number, that an answer may be text.

use api::schema::REFERENCE;
use serde_json::{Map, Value, json};

const REFERENCE_2: &str = "#/definitions/";

/// Joins the documents of all groups.
pub(crate) fn document(title_version: &str, documents: impl Iterator<Item = Value>) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for mut document in documents {
        if let Value::Object(schemas) = document["components"]["schemas"].take() {
            for (name, mut schema) in schemas {
                if !definitions.contains_key(&name) {
                    convert(&mut schema);
                    definitions.insert(name, schema);
                }
            }
        }
        if let Value::Object(items) = document["paths"].take() {
            for (path, mut item) in items {
                for (method, value) in item.as_object_mut().into_iter().flatten() {
                    match method.as_str() {
                        "parameters" => parameters(value),
                        _ => operation(value),
                    }
                }
                paths.insert(path, item);
            }
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": title_version},
        "paths": paths,
        "definitions": definitions,
    })
}

/// A schema, and the schemas in it.
fn convert(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(all) = object.remove("allOf")
        && let Some(reference) = all[0]["$ref"].as_str()
    {
        object.insert("$ref".into(), reference.into());
    }
    if object.remove("oneOf").is_some() {
        object.insert("type".into(), "string".into());
    }
    if let Some(Value::String(reference)) = object.get_mut("$ref")
        && let Some(name) = reference.strip_prefix(REFERENCE)
    {
        *reference = format!("{REFERENCE_2}{name}");
    }
    for key in ["items", "additionalProperties"] {
        object.get_mut(key).into_iter().for_each(convert);
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(convert);
    }
}

fn parameters(list: &mut Value) {
    for parameter in list.as_array_mut().into_iter().flatten() {
        let schema = parameter.as_object_mut().and_then(|it| it.remove("schema"));
        if let Some(Value::Object(schema)) = schema {
            for (key, value) in schema {
                parameter[key.as_str()] = value;
            }
        }
    }
}

/// The schema of the first type of a body, and the names of all.
fn types(content: &mut Value) -> (Value, Vec<String>) {
    let Some(content) = content.as_object_mut() else { return (Value::Null, Vec::new()) };
    let names: Vec<String> = content.keys().cloned().collect();
    let mut schema = content.values_mut().next().map_or(Value::Null, |it| it["schema"].take());
    convert(&mut schema);
    (schema, names)
}

fn operation(operation: &mut Value) {
    let mut produces: Vec<String> = Vec::new();
    if let Some(responses) = operation["responses"].as_object_mut() {
        for response in responses.values_mut() {
            let content = response.as_object_mut().and_then(|it| it.remove("content"));
            if let Some(mut content) = content {
                let (schema, names) = types(&mut content);
                response["schema"] = schema;
                produces = names;
            }
        }
    }
    let mut consumes = vec!["*/*".to_owned()];
    let mut listed = operation.get_mut("parameters").map_or_else(|| json!([]), Value::take);
    parameters(&mut listed);
    let body = operation.as_object_mut().and_then(|it| it.remove("requestBody"));
    if let (Some(mut body), Some(listed)) = (body, listed.as_array_mut()) {
        let (schema, names) = types(&mut body["content"]);
        consumes = names;
        let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
        if body["required"] == true {
            parameter["required"] = true.into();
        }
        listed.insert(0, parameter);
    }
    operation["consumes"] = consumes.into();
    operation["produces"] = produces.into();
    operation["schemes"] = json!(["https"]);
    match listed.as_array().is_some_and(Vec::is_empty) {
        true => {
            let _empty = operation.as_object_mut().and_then(|it| it.remove("parameters"));
        }
        false => operation["parameters"] = listed,
    }
}
