//! What is wrong with an object, field by field, in the words of Kubernetes' API server.

use serde::Serialize;
use serde_json::Value;

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What kind of wrong it is.
    pub reason: CauseReason,
    /// The field, as `spec.pools[0].cidr`.
    pub field: String,
    /// What is wrong with it, for a person.
    pub message: String,
}

/// The kinds of wrong fields that Kubernetes tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseReason {
    /// The value is not allowed here.
    Invalid,
    /// A field that must be set is not.
    Required,
    /// The value is none of those allowed.
    NotSupported,
    /// The value has the wrong JSON type.
    TypeInvalid,
    /// The field cannot be changed or used in this way.
    Forbidden,
    /// The value is there twice.
    Duplicate,
}

impl CauseReason {
    /// The word of a Status object's cause.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::NotSupported => "FieldValueNotSupported",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::Required => "Required value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate => "Duplicate value",
        }
    }
}

impl Cause {
    /// A cause; the detail tells the value where that helps, and may be empty.
    pub fn new(reason: CauseReason, field: impl Into<String>, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let message = if detail.is_empty() {
            reason.text().to_owned()
        } else {
            format!("{}: {detail}", reason.text())
        };
        Self {
            reason,
            field: field.into(),
            message,
        }
    }

    /// A value that is not allowed here.
    pub fn invalid(field: impl Into<String>, value: impl Serialize, detail: &str) -> Self {
        Self::new(CauseReason::Invalid, field, format!("{}: {detail}", shown(value)))
    }

    /// A field that must be set is not.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(CauseReason::Required, field, detail)
    }

    /// A field that cannot be changed or used in this way.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(CauseReason::Forbidden, field, detail)
    }

    /// A value that is there twice.
    pub fn duplicate(field: impl Into<String>, value: impl Serialize) -> Self {
        Self::new(CauseReason::Duplicate, field, shown(value))
    }

    /// A value that is none of those `supported`.
    pub fn not_supported(field: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(shown).collect();
        let detail = format!("{}: supported values: {}", shown(value), supported.join(", "));
        Self::new(CauseReason::NotSupported, field, detail)
    }
}

/// A value as it stands in a message.
fn shown(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        // Kubernetes prints lists as Go does.
        Ok(Value::Array(items)) if items.iter().all(Value::is_string) => {
            let items: Vec<String> = items.iter().map(Value::to_string).collect();
            format!("[]string{{{}}}", items.join(", "))
        }
        Ok(value) => value.to_string(),
        Err(_) => "?".to_owned(),
    }
}
