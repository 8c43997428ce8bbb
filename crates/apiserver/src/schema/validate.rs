//! Checking an object against its schema.

use serde_json::Value;

use super::{Schema, child};
use crate::cause::{Cause, CauseReason};

impl Schema {
    /// Everything in `object` that breaks its schema.
    pub fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        self.validate_value(self.root(), object, "", &mut causes);
        causes
    }

    fn validate_value(&self, schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let schema = self.resolve(schema);
        if value.is_null() && schema["nullable"] == true {
            return;
        }
        if let Some(wanted) = wrong_type(schema, value) {
            let message = format!(
                "{}: must be of type {wanted}: {}",
                quoted(value),
                format_args!("{:?}", type_name(value))
            );
            causes.push(Cause::new(CauseReason::TypeInvalid, path, message));
            return;
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let allowed: Vec<String> = allowed.iter().filter(|v| !v.is_null()).map(quoted).collect();
            let message = format!("{}: supported values: {}", quoted(value), allowed.join(", "));
            causes.push(Cause::new(CauseReason::NotSupported, path, message));
        }
        let mut refuse = |rule: String| {
            causes.push(Cause::new(
                CauseReason::Invalid,
                path,
                format!("{}: {path} in body {rule}", quoted(value)),
            ));
        };
        match value {
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
                    refuse(format!("should be greater than or equal to {least}"));
                }
                if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
                    refuse(format!("should be less than or equal to {most}"));
                }
            }
            Value::String(text) => {
                check_size(
                    schema,
                    "minLength",
                    "maxLength",
                    text.chars().count(),
                    "chars long",
                    refuse,
                );
            }
            Value::Array(items) => {
                check_size(schema, "minItems", "maxItems", items.len(), "items", refuse);
                for (i, item) in items.iter().enumerate() {
                    self.validate_value(&schema["items"], item, &format!("{path}[{i}]"), causes);
                }
            }
            Value::Object(fields) => {
                for name in schema["required"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                {
                    if !fields.contains_key(name) {
                        causes.push(Cause::new(CauseReason::Required, child(path, name), ""));
                    }
                }
                for (name, value) in fields {
                    if let Some(field) = self.field(schema, name) {
                        self.validate_value(field, value, &child(path, name), causes);
                    }
                }
            }
            Value::Null | Value::Bool(_) => (),
        }
    }
}

fn check_size(
    schema: &Value,
    least: &str,
    most: &str,
    size: usize,
    unit: &str,
    mut refuse: impl FnMut(String),
) {
    if let Some(least) = schema[least].as_u64().filter(|least| (size as u64) < *least) {
        refuse(format!("should be at least {least} {unit}"));
    }
    if let Some(most) = schema[most].as_u64().filter(|most| size as u64 > *most) {
        refuse(format!("should be at most {most} {unit}"));
    }
}

/// The type that the schema wants, where the value has another.
fn wrong_type<'a>(schema: &'a Value, value: &Value) -> Option<&'a str> {
    if schema["x-kubernetes-int-or-string"] == true {
        // Quantities may be written as any number.
        return (!value.is_string() && !value.is_number()).then_some("integer or string");
    }
    let wanted = schema["type"].as_str()?;
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => match schema["format"].as_str() {
            Some("int32") => value.as_i64().is_some_and(|v| i32::try_from(v).is_ok()),
            _ => value.is_i64() || value.is_u64(),
        },
        _ => true,
    };
    (!fits).then_some(wanted)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as it stands in a message: large ones only by their shape.
fn quoted(value: &Value) -> String {
    match value {
        Value::Object(_) => "{...}".to_owned(),
        Value::Array(_) => "[...]".to_owned(),
        value => value.to_string(),
    }
}
