//! Errors as the runtime reads them (CNI SPEC, section 5, "Error").

use std::fmt;

use serde::Serialize;

use crate::version::Version;

/// The error codes of the specification, and our own from 100.
pub mod code {
    /// The configuration's version of the protocol is not one that the plugin speaks.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration is not supported; the message holds its key and value.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is not known; the runtime need not clean up after it.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A necessary environment variable is missing or invalid; the message holds its name.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// The configuration is not what it should be in form: not JSON, or of other types.
    pub const DECODING: u32 = 6;
    /// The configuration is well formed but not valid.
    pub const INVALID_CONFIG: u32 = 7;
    /// Something is not ready that will be; the runtime may ask again.
    pub const TRY_AGAIN: u32 = 11;
    /// The plugin cannot serve an ADD.
    pub const NOT_AVAILABLE: u32 = 50;
    /// The same, and pods that run may be impaired too.
    pub const LIMITED_CONNECTIVITY: u32 = 51;

    /// The agent gave an answer that makes no sense to the plugin.
    pub const AGENT_ANSWER: u32 = 100;
    /// No address is left for the pod.
    pub const NO_ADDRESS: u32 = 101;
    /// The interface exists in the pod already, or the attachment does.
    pub const EXISTS: u32 = 102;
    /// The kernel refused a link, an address, a route or a table row.
    pub const KERNEL: u32 = 103;
    /// The durable store failed.
    pub const STORE: u32 = 104;
    /// The attachment is not what its ADD has made; the details list what differs.
    pub const DIFFERS: u32 = 105;
    /// A host port is another pod's.
    pub const HOST_PORT: u32 = 106;
}

/// What the plugin prints when it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// One of [`code`].
    pub code: u32,
    /// What failed, in one short line.
    pub msg: String,
    /// On which object, the likely cause, and what to do.
    pub details: String,
}

impl Error {
    /// An error of this code, message and details.
    pub fn new(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: details.into(),
        }
    }

    /// The JSON document that goes to stdout.
    pub fn to_json(&self, version: Version) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Document<'a> {
            cni_version: Version,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let document = Document {
            cni_version: version,
            code: self.code,
            msg: &self.msg,
            details: &self.details,
        };
        // Nothing in it can fail to serialise.
        serde_json::to_string(&document).unwrap_or_default()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (CNI code {})", self.msg, self.code)?;
        if self.details.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.details)
        }
    }
}

impl std::error::Error for Error {}

impl From<crate::agent::ErrorBody> for Error {
    fn from(body: crate::agent::ErrorBody) -> Self {
        Self {
            code: body.code,
            msg: body.msg,
            details: body.details,
        }
    }
}

/// The result of everything the runtime hears of.
pub type Result<T, E = Error> = std::result::Result<T, E>;
