//! What the runtime passes on stdin: the plugin's configuration (CNI SPEC, sections 1 and 3).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::agent::{DEFAULT_SOCKET, DEFAULT_STATE_DIR};
use crate::environment::is_plain_name;
use crate::error::{Error, Result, code};
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
        let Some(rate) = bandwidth
            .and_then(|b| b.get("egressRate"))
            .filter(|r| !r.is_null())
        else {
            return Ok(false);
        };
        let bits = rate.as_u64().ok_or_else(|| {
            invalid(format!(
                "the bandwidth's \"egressRate\" is {rate} and must be a number of bits per second"
            ))
        })?;
        Ok(bits > 0)
    }

    /// Addresses that the runtime wants for the pod: the capability `ips`, or the older
    /// `args.cni.ips` (CNI CONVENTIONS). A prefix length behind an address means nothing here.
    ///
    /// # Errors
    /// Code 7 when something there is not an address.
    pub fn requested_ips(&self) -> Result<Vec<IpAddr>> {
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
        let Some(value) = capability.or_else(older).filter(|value| !value.is_null()) else {
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
mod tests {
    use super::*;

    fn code_of(json: &str) -> u32 {
        Config::parse(json.as_bytes()).unwrap_err().code
    }

    #[test]
    fn errors_have_their_codes() {
        for (json, expected) in [
            ("", code::DECODING),
            ("[]", code::DECODING),
            (r#"{"cniVersion":"1.0.0","name":"n""#, code::DECODING),
            (r#"{"cniVersion":1,"name":"n"}"#, code::DECODING),
            (
                r#"{"cniVersion":"1.0.0","cniVersions":"1.1.0","name":"n"}"#,
                code::DECODING,
            ),
            (r#"{"cniVersion":"1.0.0"}"#, code::INVALID_CONFIG),
            (r#"{"cniVersion":"1.0.0","name":"../n"}"#, code::INVALID_CONFIG),
            (
                r#"{"cniVersion":"1.0.0","name":"n","socket":"run"}"#,
                code::INVALID_CONFIG,
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","timeoutSeconds":0}"#,
                code::INVALID_CONFIG,
            ),
            (r#"{"name":"n"}"#, code::INCOMPATIBLE_VERSION),
            (r#"{"cniVersion":"0.2.0","name":"n"}"#, code::INCOMPATIBLE_VERSION),
            (r#"{"cniVersion":"2.0.0","name":"n"}"#, code::INCOMPATIBLE_VERSION),
        ] {
            assert_eq!(code_of(json), expected, "{json}");
        }
    }

    #[test]
    fn several_versions_may_be_listed() {
        let json = r#"{"cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0","9.9.9"],"name":"n"}"#;
        let config = Config::parse(json.as_bytes()).unwrap();
        assert_eq!(config.version, Version::V1_0_0);
        assert_eq!(config.socket, Path::new(DEFAULT_SOCKET));
        assert_eq!(
            Config::version_for_errors(br#"{"cniVersion":"0.4.0"}"#),
            Version::V0_4_0
        );
        assert_eq!(Config::version_for_errors(b"nonsense"), Version::V1_1_0);
    }

    #[test]
    fn a_limit_on_what_the_pod_sends_is_a_rate() {
        let of = |runtime_config: &str| {
            let json = format!(r#"{{"cniVersion":"1.0.0","name":"n","runtimeConfig":{runtime_config}}}"#);
            Config::parse(json.as_bytes()).unwrap().egress_limit()
        };
        for (runtime_config, expected) in [
            ("null", false),
            ("{}", false),
            (r#"{"bandwidth":{"ingressRate":1000}}"#, false),
            (r#"{"bandwidth":{"ingressRate":1000,"egressRate":0}}"#, false),
            (r#"{"bandwidth":{"egressRate":1000,"egressBurst":1000}}"#, true),
        ] {
            assert_eq!(of(runtime_config).unwrap(), expected, "{runtime_config}");
        }
        assert_eq!(
            of(r#"{"bandwidth":{"egressRate":"1M"}}"#).unwrap_err().code,
            code::INVALID_CONFIG
        );
    }

    #[test]
    fn addresses_may_be_requested_in_both_ways() {
        let of = |rest: &str| {
            let json = format!(r#"{{"cniVersion":"1.0.0","name":"n",{rest}}}"#);
            Config::parse(json.as_bytes()).unwrap().requested_ips()
        };
        let wanted: Vec<IpAddr> = vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(
            of(r#""runtimeConfig":{"ips":["10.0.0.7/24","fd00::7"]}"#).unwrap(),
            wanted
        );
        assert_eq!(
            of(r#""args":{"cni":{"ips":["10.0.0.7","fd00::7/64"]}}"#).unwrap(),
            wanted
        );
        assert_eq!(of(r#""runtimeConfig":{}"#).unwrap(), Vec::<IpAddr>::new());
        assert_eq!(
            of(r#""runtimeConfig":{"ips":["10.0.0"]}"#).unwrap_err().code,
            code::INVALID_CONFIG
        );
        assert_eq!(
            of(r#""runtimeConfig":{"ips":"10.0.0.1"}"#).unwrap_err().code,
            code::INVALID_CONFIG
        );
    }

    #[test]
    fn what_is_done_otherwise_is_refused_with_key_and_value() {
        let json = r#"{"cniVersion":"1.0.0","name":"n","ipam":{"type":"host-local"}}"#;
        let error = Config::parse(json.as_bytes())
            .unwrap()
            .check_supported()
            .unwrap_err();
        assert_eq!(error.code, code::UNSUPPORTED_FIELD);
        assert!(
            error.msg.contains("ipam") && error.msg.contains("host-local"),
            "{error}"
        );
        let json = r#"{"cniVersion":"1.0.0","name":"n","ipam":{},"ipMasq":false}"#;
        Config::parse(json.as_bytes()).unwrap().check_supported().unwrap();
    }
}
