//! OpenAPI v3 schemas: where they come from, and how references in them are followed.

mod conform;
mod validate;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use thiserror::Error;

/// Where references to named types lead.
const DEFINITIONS: &str = "#/components/schemas/";

/// The keywords that the server enforces, or that only inform.
const KNOWN: &[&str] = &[
    "$ref",
    "allOf",
    "type",
    "format",
    "description",
    "title",
    "properties",
    "required",
    "items",
    "additionalProperties",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "default",
    "nullable",
    "example",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy",
    "x-kubernetes-group-version-kind",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];

/// Why a schema cannot be used.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// A keyword that the server would not enforce.
    #[error("at {at}: keyword {keyword:?} is not enforced by this server; express the rule without it")]
    UnknownKeyword {
        /// Where in the schema.
        at: String,
        /// The keyword.
        keyword: String,
    },
    /// Not a schema at all.
    #[error("at {0}: a schema must be an object")]
    NotAnObject(String),
}

/// The OpenAPI v3 schema of a kind, with the named types that it refers to.
#[derive(Clone, Debug)]
pub struct Schema {
    root: Value,
    definitions: Map<String, Value>,
}

impl Schema {
    /// The schema of a kind that is built into Kubernetes.
    pub fn of_built_in_kind<K: JsonSchema>() -> Result<Self, SchemaError> {
        let mut generator = SchemaSettings::openapi3().into_generator();
        let root = reference(&K::schema_name());
        generator.subschema_for::<K>();
        Self::new(root, generator.take_definitions(true))
    }

    /// The schema of a kind from the `openAPIV3Schema` of its CustomResourceDefinition.
    pub fn of_custom_kind(mut root: Value) -> Result<Self, SchemaError> {
        let mut generator = SchemaSettings::openapi3().into_generator();
        generator.subschema_for::<ObjectMeta>();
        let Some(object) = root.as_object_mut() else {
            return Err(SchemaError::NotAnObject("the root".to_owned()));
        };
        object.insert("type".to_owned(), json!("object"));
        let properties = object.entry("properties").or_insert_with(|| json!({}));
        for field in ["apiVersion", "kind"] {
            properties[field] = json!({"type": "string"});
        }
        properties["metadata"] = reference(&ObjectMeta::schema_name());
        Self::new(root, generator.take_definitions(true))
    }

    fn new(mut root: Value, mut definitions: Map<String, Value>) -> Result<Self, SchemaError> {
        for (name, definition) in &mut definitions {
            normalize(definition, name)?;
        }
        normalize(&mut root, "the root")?;
        Ok(Self { root, definitions })
    }

    /// The schema of a whole object.
    pub fn root(&self) -> &Value {
        self.resolve(&self.root)
    }

    /// The name under which documents refer to the schema of a whole object, where it has one.
    pub fn root_name(&self) -> Option<&str> {
        referred(&self.root)
    }

    /// The named types.
    pub fn definitions(&self) -> &Map<String, Value> {
        &self.definitions
    }

    /// Adds a keyword to a field of a named type, where there is such a field.
    pub(crate) fn annotate(&mut self, definition: &str, field: &str, keyword: &str, value: &str) {
        if let Some(field) = self
            .definitions
            .get_mut(definition)
            .and_then(|d| d["properties"].get_mut(field))
        {
            field[keyword] = json!(value);
        }
    }

    /// The schema itself, behind any references.
    pub fn resolve<'a>(&'a self, mut schema: &'a Value) -> &'a Value {
        while let Some(target) = referred(schema).and_then(|name| self.definitions.get(name)) {
            schema = target;
        }
        schema
    }

    /// The schema of the field `name` of an object of `schema`: a property, or the values of a map.
    pub fn field<'a>(&'a self, schema: &'a Value, name: &str) -> Option<&'a Value> {
        let schema = self.resolve(schema);
        schema["properties"]
            .get(name)
            .or_else(|| schema.get("additionalProperties").filter(|s| s.is_object()))
    }

    /// The schema of the items of a list of `schema`.
    pub fn items<'a>(&'a self, schema: &'a Value) -> &'a Value {
        &self.resolve(schema)["items"]
    }
}

fn reference(name: &str) -> Value {
    json!({"allOf": [{"$ref": format!("{DEFINITIONS}{name}")}]})
}

fn referred(schema: &Value) -> Option<&str> {
    schema["allOf"][0]["$ref"].as_str()?.strip_prefix(DEFINITIONS)
}

/// Refuses what would not be enforced, and writes every reference as Kubernetes does: inside `allOf`,
/// where a description may stand beside it.
fn normalize(schema: &mut Value, at: &str) -> Result<(), SchemaError> {
    let Some(object) = schema.as_object_mut() else {
        return Err(SchemaError::NotAnObject(at.to_owned()));
    };
    if let Some(target) = object.remove("$ref") {
        object.insert("allOf".to_owned(), json!([{"$ref": target}]));
        return Ok(());
    }
    if let Some(keyword) = object.keys().find(|k| !KNOWN.contains(&k.as_str())) {
        return Err(SchemaError::UnknownKeyword {
            at: at.to_owned(),
            keyword: keyword.clone(),
        });
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for (name, property) in properties {
            normalize(property, &format!("{at}.{name}"))?;
        }
    }
    if let Some(items) = object.get_mut("items") {
        normalize(items, &format!("{at}[]"))?;
    }
    if let Some(values) = object.get_mut("additionalProperties").filter(|v| !v.is_boolean()) {
        normalize(values, &format!("{at}{{}}"))?;
    }
    Ok(())
}

/// A path to a field as Kubernetes writes it: `spec.pools[0].cidr`.
fn child(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}
