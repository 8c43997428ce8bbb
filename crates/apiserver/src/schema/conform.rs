//! Bringing an object into the shape of its schema: unknown fields go, defaults come.

use serde_json::{Map, Value};

use super::{Schema, child};

impl Schema {
    /// Removes from `object` what its schema does not know, and nulls where null means "not set"; sets
    /// the defaults of missing fields. Returns the paths of the unknown fields.
    pub fn conform(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        self.conform_value(self.root(), object, "", &mut unknown);
        unknown
    }

    fn conform_value(&self, schema: &Value, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
        let schema = self.resolve(schema);
        match value {
            Value::Object(fields) => self.conform_fields(schema, fields, path, unknown),
            Value::Array(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    self.conform_value(&schema["items"], item, &format!("{path}[{i}]"), unknown);
                }
            }
            _ => (),
        }
    }

    fn conform_fields(
        &self,
        schema: &Value,
        fields: &mut Map<String, Value>,
        path: &str,
        unknown: &mut Vec<String>,
    ) {
        if is_free_form(schema) {
            return;
        }
        fields.retain(|name, value| {
            let path = child(path, name);
            match self.field(schema, name) {
                Some(field) => !value.is_null() || self.resolve(field)["nullable"] == true,
                None if schema["additionalProperties"] == true => true,
                None => {
                    unknown.push(path);
                    false
                }
            }
        });
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(default) = field
                .get("default")
                .or_else(|| self.resolve(field).get("default"))
                && !fields.contains_key(name)
            {
                fields.insert(name.clone(), default.clone());
            }
        }
        for (name, value) in fields.iter_mut() {
            if let Some(field) = self.field(schema, name) {
                self.conform_value(field, value, &child(path, name), unknown);
            }
        }
    }
}

/// Whether an object of this schema may hold any field.
fn is_free_form(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
        || (schema.get("properties").is_none() && schema.get("additionalProperties").is_none())
}
