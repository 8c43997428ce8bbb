//! The three kinds of patches: JSON (RFC 6902), merge (RFC 7386) and Kubernetes' strategic merge.

mod strategic;

use bytes::Bytes;
use serde_json::Value;
use thiserror::Error;

use crate::cause::{Cause, CauseReason};
use crate::error::{ApiError, Subject};
use crate::resource::Resource;
use crate::respond::MAX_BODY;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// As many operations as Kubernetes takes in one JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// The media types of the patches that a resource takes, between commas.
pub fn media_types(resource: &Resource) -> &'static str {
    if resource.strategic_merge {
        "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json"
    } else {
        "application/json-patch+json, application/merge-patch+json"
    }
}

/// A patch, ready to be applied.
#[derive(Clone, Debug)]
pub enum Patch {
    /// A list of operations.
    Json(json_patch::Patch),
    /// What is to be set, and null for what is to be removed.
    Merge(Value),
    /// The same, with lists merged as the kind's schema says.
    Strategic(Value),
}

/// Why a patch cannot be applied to an object.
#[derive(Debug, Error)]
pub enum PatchError {
    /// An operation of a JSON patch failed.
    #[error(transparent)]
    Operation(#[from] json_patch::PatchError),
    /// A strategic merge patch contradicts itself or the object.
    #[error(transparent)]
    Strategic(#[from] strategic::StrategicError),
    /// The object would become larger than any request may be.
    #[error("the patched object would exceed {MAX_BODY} bytes")]
    TooLarge,
    /// The patch does away with the object itself.
    #[error("the patched document is no longer a JSON object")]
    NotAnObject,
}

impl PatchError {
    /// The failure of a request to patch `subject`.
    pub fn refusal(self, subject: Subject) -> ApiError {
        let cause = Cause::new(CauseReason::Invalid, "patch", self.to_string());
        ApiError::Invalid(subject, vec![cause])
    }
}

impl Patch {
    /// Reads the body of a request to patch.
    pub fn parse(resource: &Resource, media_type: &str, body: &Bytes) -> Result<Self, ApiError> {
        let malformed = |e: serde_json::Error| ApiError::BadRequest(format!("the patch is not valid: {e}"));
        let object = || match serde_json::from_slice(body).map_err(malformed)? {
            object @ Value::Object(_) => Ok(object),
            _ => Err(ApiError::BadRequest("the patch must be a JSON object".to_owned())),
        };
        match media_type {
            JSON => {
                let patch: json_patch::Patch = serde_json::from_slice(body).map_err(malformed)?;
                if patch.len() > MAX_OPERATIONS {
                    let text = format!(
                        "the patch has {} operations; at most {MAX_OPERATIONS} are allowed",
                        patch.len()
                    );
                    return Err(ApiError::BadRequest(text));
                }
                Ok(Self::Json(patch))
            }
            MERGE => Ok(Self::Merge(object()?)),
            STRATEGIC if resource.strategic_merge => Ok(Self::Strategic(object()?)),
            _ => Err(ApiError::UnsupportedMediaType(media_types(resource))),
        }
    }

    /// The object that results from this patch.
    pub fn apply(&self, resource: &Resource, mut object: Value) -> Result<Value, PatchError> {
        match self {
            Self::Json(patch) => {
                for operation in patch.iter() {
                    json_patch::patch(&mut object, std::slice::from_ref(operation))?;
                    // Copies of copies double in size with every operation.
                    let copies = matches!(operation, json_patch::PatchOperation::Copy(_));
                    if copies && object.to_string().len() > MAX_BODY {
                        return Err(PatchError::TooLarge);
                    }
                }
            }
            Self::Merge(patch) => json_patch::merge(&mut object, patch),
            Self::Strategic(patch) => object = strategic::apply(&resource.schema, object, patch)?,
        }
        if object.is_object() {
            Ok(object)
        } else {
            Err(PatchError::NotAnObject)
        }
    }
}
