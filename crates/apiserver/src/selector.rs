//! Label and field selectors.

use serde_json::Value;

use crate::error::ApiError;
use crate::resource::Resource;

/// Which objects a list or watch is about.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Vec<(String, Requirement)>,
    fields: Vec<(String, Requirement)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

impl Selector {
    /// Reads the parameters `labelSelector` and `fieldSelector` of a request; empty ones select all.
    pub fn parse(labels: &str, fields: &str, resource: &Resource) -> Result<Self, ApiError> {
        let labels = split(labels)
            .into_iter()
            .map(label_requirement)
            .collect::<Result<_, _>>()?;
        let fields = split(fields)
            .into_iter()
            .map(|term| field_requirement(term, resource));
        Ok(Self {
            labels,
            fields: fields.collect::<Result<_, _>>()?,
        })
    }

    /// The same, and only the object of this name.
    pub fn and_name(mut self, name: &str) -> Self {
        self.fields
            .push(("metadata.name".to_owned(), Requirement::In(vec![name.to_owned()])));
        self
    }

    /// Whether it selects `object`.
    pub fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"][key].as_str().map(str::to_owned);
        self.labels
            .iter()
            .all(|(key, requirement)| requirement.holds(label(key)))
            && self
                .fields
                .iter()
                .all(|(path, requirement)| requirement.holds(Some(field(object, path))))
    }
}

impl Requirement {
    fn holds(&self, value: Option<String>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|v| values.contains(&v)),
            // A missing label is not in any set (labels.Requirement of Kubernetes).
            Self::NotIn(values) => value.is_none_or(|v| !values.contains(&v)),
            Self::Exists => value.is_some(),
            Self::Missing => value.is_none(),
        }
    }
}

/// A field as text; one that is not set is empty.
fn field(object: &Value, path: &str) -> String {
    match path.split('.').fold(object, |value, name| &value[name]) {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The terms between the commas that are not inside parentheses.
fn split(selector: &str) -> Vec<&str> {
    let mut depth = 0;
    selector
        .split(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => (),
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|term| !term.is_empty())
        .collect()
}

fn label_requirement(term: &str) -> Result<(String, Requirement), ApiError> {
    let malformed =
        || ApiError::BadRequest(format!("unable to parse requirement: {term:?} in labelSelector"));
    let one = |value: &str| vec![value.trim().to_owned()];
    let (key, requirement) = if let Some((key, value)) = term.split_once("!=") {
        (key, Requirement::NotIn(one(value)))
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (key, Requirement::In(one(value)))
    } else if let Some((head, values)) = term.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(malformed)?;
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        match head.trim_end().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => (key, Requirement::In(values)),
            Some((key, "notin")) => (key, Requirement::NotIn(values)),
            _ => return Err(malformed()),
        }
    } else if let Some(key) = term.strip_prefix('!') {
        (key, Requirement::Missing)
    } else {
        (term, Requirement::Exists)
    };
    let key = key.trim();
    if !crate::names::is_label_key(key) {
        return Err(malformed());
    }
    Ok((key.to_owned(), requirement))
}

fn field_requirement(term: &str, resource: &Resource) -> Result<(String, Requirement), ApiError> {
    let one = |value: &str| vec![value.trim().to_owned()];
    let (path, requirement) = if let Some((path, value)) = term.split_once("!=") {
        (path, Requirement::NotIn(one(value)))
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, Requirement::In(one(value)))
    } else {
        return Err(ApiError::BadRequest(format!(
            "invalid selector: {term:?}; can't understand {term:?}"
        )));
    };
    let path = path.trim();
    let known = path == "metadata.name"
        || (path == "metadata.namespace" && resource.namespaced)
        || resource.selectable_fields.iter().any(|f| f == path);
    if !known {
        return Err(ApiError::BadRequest(format!("field label not supported: {path}")));
    }
    Ok((path.to_owned(), requirement))
}
