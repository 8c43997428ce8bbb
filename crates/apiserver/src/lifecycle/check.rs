//! What an object must satisfy before it is stored.

use serde_json::Value;

use super::text;
use crate::cause::{Cause, CauseReason};
use crate::error::{ApiError, Subject};
use crate::names;
use crate::resource::Resource;

/// Refuses what breaks the rules of names, labels and the kind's schema.
pub(super) fn check(resource: &Resource, object: &Value) -> Result<(), ApiError> {
    let mut causes = Vec::new();
    let metadata = &object["metadata"];
    let name = text(&metadata["name"]);
    let invalid = |field: &str, detail: String| Cause::new(CauseReason::Invalid, field, detail);
    let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
    if name.is_empty() {
        let detail = "name or generateName is required";
        causes.push(Cause::new(CauseReason::Required, "metadata.name", detail));
    } else if is_namespace && !names::is_dns_label(name) {
        causes.push(invalid("metadata.name", format!("{name:?}: a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character, in at most 63 characters")));
    } else if !names::is_dns_subdomain(name) {
        causes.push(invalid("metadata.name", format!("{name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character, in at most 253 characters")));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if !names::is_label_key(key) {
            causes.push(invalid("metadata.labels", format!("{key:?}: a label's key is a name of at most 63 alphanumeric characters, '-', '_' or '.', which may follow a DNS subdomain and '/'")));
        } else if !names::is_label_value(text(value)) {
            causes.push(invalid("metadata.labels", format!("{:?}: a label's value is empty or at most 63 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character", text(value))));
        }
    }
    for key in metadata["annotations"]
        .as_object()
        .into_iter()
        .flat_map(|a| a.keys())
    {
        if !names::is_label_key(key) {
            causes.push(invalid("metadata.annotations", format!("{key:?}: an annotation's key is a name of at most 63 alphanumeric characters, '-', '_' or '.', which may follow a DNS subdomain and '/'")));
        }
    }
    causes.extend(resource.schema.validate(object));
    refuse(resource, name, causes)
}

/// Fails with the causes, where there are any.
pub(super) fn refuse(resource: &Resource, name: &str, causes: Vec<Cause>) -> Result<(), ApiError> {
    if causes.is_empty() {
        Ok(())
    } else {
        Err(ApiError::Invalid(Subject::new(resource, name), causes))
    }
}
