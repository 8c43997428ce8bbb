//! What the runtime passes on stdin: the plugin's configuration (CNI SPEC, sections 1 and 3).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::agent::{AttachmentName, DEFAULT_SOCKET, DEFAULT_STATE_DIR, HostPort};
use crate::environment::is_plain_name;
use crate::error::{Error, Result, code};
use crate::port_mappings;
use crate::result::{AddResult, Dns};
use crate::version::Version;

/// The largest configuration read, in bytes; a runtime's is a few thousand, prevResult included.
pub const CONFIG_MAX: usize = 1 << 20;

/// How long the agent may take where the configuration does not say. Below the two minutes after
/// which the kubelet gives up, so that the runtime hears why.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The plugin's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The version that the result must be in.
    pub version: Version,
    /// The network's name.
    pub name: String,
    /// Where the agent listens.
    pub socket: PathBuf,
    /// The node's durable state.
    pub state_dir: PathBuf,
    /// How long the agent may take to answer.
    pub timeout: Duration,
    raw: Raw,
}

/// The keys that mean something to us. All others are the runtime's, or other plugins'.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    cni_version: Option<String>,
    /// The versions that the runtime chose `cniVersion` from; checked for their form alone.
    #[serde(rename = "cniVersions")]
    _cni_versions: Option<Vec<String>>,
    name: Option<String>,
    socket: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    timeout_seconds: Option<u64>,
    ipam: Option<Value>,
    ip_masq: Option<Value>,
    dns: Option<Value>,
    runtime_config: Option<Value>,
    args: Option<Value>,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments", deserialize_with = "present")]
    valid_attachments: Option<Value>,
    /// What libcni wrote before the specification's own key, and still does beside it.
    #[serde(rename = "cni.dev/attachments", deserialize_with = "present")]
    attachments: Option<Value>,
}

impl Config {
    /// Parses and checks what every operation needs. What ADD alone needs is looked at when it is
    /// asked for, so that a DEL does not fail over it.
    ///
    /// # Errors
    /// Code 6 when it is no JSON object of the right types, 7 when the name or one of our own
    /// settings is invalid, 1 when its version is not spoken.
    pub fn parse(json: &[u8]) -> Result<Self> {
        // By way of a map, because a derived type would also take an array for an object.
        let raw = serde_json::from_slice(json).and_then(|object| Raw::deserialize(Value::Object(object)));
        let raw = raw.map_err(|error| {
            Error::new(
                code::DECODING,
                "cannot decode the network configuration",
                format!("{error}; correct the JSON of the configuration that names tombolo-cni"),
            )
        })?;
        let name = raw.name.clone().unwrap_or_default();
        if !is_plain_name(&name) {
            return Err(Error::new(
                code::INVALID_CONFIG,
                if name.is_empty() {
                    "missing network name"
                } else {
                    "invalid network name"
                },
                format!(
                    "\"name\" is {name:?} and must be an ASCII letter or digit, then letters, digits, '_', '.' and '-'"
                ),
            ));
        }
        // The specification's first version had no such key.
        let written = raw
            .cni_version
            .as_deref()
            .filter(|text| !text.is_empty())
            .unwrap_or("0.1.0");
        let version = Version::parse(written).ok_or_else(|| {
            let spoken = Version::ALL.map(Version::as_str).join(", ");
            Error::new(
                code::INCOMPATIBLE_VERSION,
                "incompatible CNI version",
                format!("the configuration's \"cniVersion\" is {written:?}; tombolo-cni speaks {spoken}"),
            )
        })?;
        Ok(Self {
            version,
            name,
            socket: absolute("socket", raw.socket.as_deref(), DEFAULT_SOCKET)?,
            state_dir: absolute("stateDir", raw.state_dir.as_deref(), DEFAULT_STATE_DIR)?,
            timeout: match raw.timeout_seconds {
                None => DEFAULT_TIMEOUT,
                Some(seconds @ 1..=600) => Duration::from_secs(seconds),
                Some(other) => {
                    return Err(invalid(format!(
                        "\"timeoutSeconds\" is {other} and must be 1 to 600"
                    )));
                }
            },
            raw,
        })
    }

    /// The version that an error about `json` is printed in: the one it names if that is spoken.
    pub fn version_for_errors(json: &[u8]) -> Version {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct OnlyVersion {
            cni_version: String,
        }
        serde_json::from_slice::<OnlyVersion>(json)
            .ok()
            .and_then(|only| Version::parse(&only.cni_version))
            .unwrap_or(Version::CURRENT)
    }

    /// Refuses settings that ask for what Tombolo does otherwise, rather than pass over them.
    ///
    /// # Errors
    /// Code 2, naming key and value.
    pub fn check_supported(&self) -> Result<()> {
        let has_ipam = |ipam: &Value| ipam.get("type").is_some_and(|kind| kind != "");
        let ipam = self.raw.ipam.as_ref().filter(|ipam| has_ipam(ipam));
        let ip_masq = self
            .raw
            .ip_masq
            .as_ref()
            .filter(|masq| **masq == Value::Bool(true));
        for (key, value, instead) in [
            (
                "ipam",
                ipam,
                "addresses come from the pools of the Network \"cluster\"",
            ),
            (
                "ipMasq",
                ip_masq,
                "masquerade follows from the layout of the Network \"cluster\"",
            ),
        ] {
            if let Some(value) = value {
                return Err(Error::new(
                    code::UNSUPPORTED_FIELD,
                    format!("unsupported field {key:?} in the network configuration: {value}"),
                    format!("remove it; {instead}"),
                ));
            }
        }
        Ok(())
    }

    /// The result of the plugins before this one in the chain, whatever version it is in.
    ///
    /// # Errors
    /// Code 6 when it is not a result.
    pub fn prev_result(&self) -> Result<Option<AddResult>> {
        let Some(value) = &self.raw.prev_result else {
            return Ok(None);
        };
        object(value)
            .and_then(AddResult::deserialize)
            .map(Some)
            .map_err(|error| {
                Error::new(
                    code::DECODING,
                    "cannot decode \"prevResult\" of the network configuration",
                    format!("{error}; look at the plugin before tombolo-cni in the chain"),
                )
            })
    }

    /// The attachments to this network that a GC is to keep: those of `cni.dev/valid-attachments` and of
    /// the older `cni.dev/attachments`. A `null` is an empty list, as libcni writes one.
    ///
    /// # Errors
    /// Code 7 when neither key is there, since what is not said must not free everything; 6 when one of
    /// them is no list of attachments.
    pub fn valid_attachments(&self) -> Result<Vec<AttachmentName>> {
        let keys = [
            ("cni.dev/valid-attachments", &self.raw.valid_attachments),
            ("cni.dev/attachments", &self.raw.attachments),
        ];
        if keys.iter().all(|(_, value)| value.is_none()) {
            return Err(invalid(
                "a GC needs \"cni.dev/valid-attachments\", the list of attachments that are to stay; nothing was removed"
                    .to_owned(),
            ));
        }
        let mut valid = Vec::new();
        for (key, value) in keys {
            let Some(value) = value.as_ref().filter(|value| !value.is_null()) else {
                continue;
            };
            valid.extend(Vec::<AttachmentName>::deserialize(value).map_err(|error| {
                Error::new(
                    code::DECODING,
                    format!("cannot decode {key:?} of the network configuration"),
                    format!("{error}; the runtime must list objects of \"containerID\" and \"ifname\"; nothing was removed"),
                )
            })?);
        }
        Ok(valid)
    }

    /// What the configuration says about DNS, for the result.
    ///
    /// # Errors
    /// Code 6 when it is of another form.
    pub fn dns(&self) -> Result<Dns> {
        let Some(value) = &self.raw.dns else {
            return Ok(Dns::default());
        };
        object(value).and_then(Dns::deserialize).map_err(|error| {
            Error::new(
                code::DECODING,
                "cannot decode \"dns\" of the network configuration",
                error.to_string(),
            )
        })
    }

    /// Whether the runtime asks for a limit on what the pod sends: the capability `bandwidth` (CNI
    /// CONVENTIONS), which a configuration declares for us only where a plugin after ours shapes.
    ///
    /// # Errors
    /// Code 7 when the rate is none.
    pub fn egress_limit(&self) -> Result<bool> {
        let bandwidth = self.raw.runtime_config.as_ref().and_then(|c| c.get("bandwidth"));
        let Some(rate) = bandwidth.and_then(|b| port_mappings::field(b, "egressRate")) else {
            return Ok(false);
        };
        let bits = rate.as_u64().ok_or_else(|| {
            invalid(format!(
                "the bandwidth's \"egressRate\" is {rate} and must be a number of bits per second"
            ))
        })?;
        Ok(bits > 0)
    }

    /// Ports of the node that the runtime wants to lead to the pod: the capability `portMappings`.
    ///
    /// # Errors
    /// Code 7 when a mapping is none.
    pub fn host_ports(&self) -> Result<Vec<HostPort>> {
        let mappings = self
            .raw
            .runtime_config
            .as_ref()
            .and_then(|c| c.get("portMappings"));
        let mappings = mappings.filter(|value| !value.is_null());
        mappings.map_or(Ok(Vec::new()), |list| port_mappings::parse(list).map_err(invalid))
    }

    /// Addresses that the runtime wants for the pod: the capability `ips`, the older `args.cni.ips`, or
    /// `argument`, the value of `IP` in `CNI_ARGS`, which is older still; the first of them that is there
    /// (CNI CONVENTIONS). A prefix length behind an address means nothing here.
    ///
    /// # Errors
    /// Code 7 when something there is not an address.
    pub fn requested_ips(&self, argument: Option<&str>) -> Result<Vec<IpAddr>> {
        let capability = self
            .raw
            .runtime_config
            .as_ref()
            .and_then(|config| config.get("ips"));
        let older = || {
            self.raw
                .args
                .as_ref()
                .and_then(|args| args.get("cni")?.get("ips"))
        };
        let argument = argument.map(|ip| Value::from(vec![ip]));
        let here = |value: &&Value| !value.is_null();
        let listed = capability.filter(here).or_else(|| older().filter(here));
        let Some(value) = listed.or(argument.as_ref()) else {
            return Ok(Vec::new());
        };
        let wrong = || {
            invalid(format!(
                "the requested \"ips\" are {value} and must be a list of addresses"
            ))
        };
        let one = |text: &Value| {
            let text = text.as_str()?;
            text.parse()
                .ok()
                .or_else(|| Some(text.parse::<IpNet>().ok()?.addr()))
        };
        value
            .as_array()
            .ok_or_else(wrong)?
            .iter()
            .map(|text| one(text).ok_or_else(wrong))
            .collect()
    }
}

/// Tells a key that is there with a null from one that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn object(value: &Value) -> serde_json::Result<&Value> {
    use serde::de::Error as _;
    if value.is_object() {
        Ok(value)
    } else {
        Err(serde_json::Error::custom("it is not a JSON object"))
    }
}

fn absolute(key: &str, path: Option<&Path>, default: &str) -> Result<PathBuf> {
    let path = path.unwrap_or(Path::new(default));
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(invalid(format!(
            "{key:?} is {path:?} and must be an absolute path"
        )))
    }
}

fn invalid(details: String) -> Error {
    Error::new(code::INVALID_CONFIG, "invalid network configuration", details)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
