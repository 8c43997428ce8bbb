//! Versions of the protocol.

use std::fmt;

use serde::{Serialize, Serializer};

/// A version of the CNI specification that the plugin speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0: lists of interfaces and addresses, chaining.
    V0_3_0,
    /// 0.3.1: the same, with a misprint mended.
    V0_3_1,
    /// 0.4.0: CHECK, and prevResult on DEL.
    V0_4_0,
    /// 1.0.0: addresses without their version.
    V1_0_0,
    /// 1.1.0: GC and STATUS, `cniVersions`, more fields of interfaces and routes.
    V1_1_0,
}

impl Version {
    /// All, the oldest first.
    pub const ALL: [Self; 5] = [
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest, spoken where the runtime names none that we know.
    pub const CURRENT: Self = Self::V1_1_0;

    /// The version as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that is written so; `None` for one that we do not speak.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The answer to VERSION: the version asked for, and all that the plugin speaks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionInfo {
    /// The version of this answer.
    pub cni_version: Version,
    /// The versions that a configuration may be of.
    pub supported_versions: [Version; 5],
}

impl VersionInfo {
    /// The answer in `version`.
    pub const fn new(version: Version) -> Self {
        Self {
            cni_version: version,
            supported_versions: Version::ALL,
        }
    }
}
