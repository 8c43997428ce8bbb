//! The OpenAPI documents from which clients learn the fields and the verbs of kinds.

mod v2;
mod v3;

pub use v2::{MEDIA_TYPE as V2_MEDIA_TYPE, document as v2};
pub use v3::{document, index};

/// The parameters by which kubectl knows that the server validates fields and can try a write.
const WRITE_PARAMETERS: [&str; 2] = ["dryRun", "fieldValidation"];
