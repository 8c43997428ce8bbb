//! What the runtime passes in environment variables (CNI SPEC, section 2, "Parameters").

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Result, code};

/// The longest container id taken, in bytes: it becomes part of a file's name. Runtimes use 64.
pub const CONTAINER_ID_MAX: usize = 200;

/// The longest interface name, in bytes: `IFNAMSIZ` less the terminating zero.
pub const INTERFACE_NAME_MAX: usize = 15;

/// An operation of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make an attachment.
    Add,
    /// Remove one, or what is left of it.
    Del,
    /// Compare one with what was made.
    Check,
    /// Say whether an ADD could be served.
    Status,
    /// Remove attachments that the runtime does not know any more.
    Gc,
    /// Say which versions of the protocol are spoken.
    Version,
}

impl Command {
    /// The operation as `CNI_COMMAND` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }
}

/// A container id that keeps the specification's rule, and so is safe within a path: an
/// alphanumeric, then alphanumerics, underscores, dots and hyphens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks an id.
    ///
    /// # Errors
    /// The rule that it breaks, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > CONTAINER_ID_MAX {
            Err("is longer than 200 bytes")
        } else if is_plain_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be an ASCII letter or digit, then letters, digits, '_', '.' and '-'")
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An interface name that the kernel takes as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks a name.
    ///
    /// # Errors
    /// The rule that it breaks, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            Err("must not be empty")
        } else if text.len() > INTERFACE_NAME_MAX {
            Err("is longer than 15 bytes")
        } else if text == "." || text == ".." {
            Err("must not be \".\" or \"..\"")
        } else if text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
            Err("must not contain '/', ':', whitespace or control characters")
        } else if text.contains('%') {
            // The kernel would take it as a pattern and choose a name of its own.
            Err("must not contain '%'")
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` keeps the rule that container ids and network names share.
pub(crate) fn is_plain_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The environment. Each variable is checked when it is asked for, because the operations need
/// different ones, and a DEL must not fail over one that it does not need.
pub struct Environment<F>(F);

impl<F: Fn(&str) -> Option<OsString>> Environment<F> {
    /// The environment that `lookup` gives, such as [`std::env::var_os`].
    pub const fn new(lookup: F) -> Self {
        Self(lookup)
    }

    /// `CNI_COMMAND`.
    ///
    /// # Errors
    /// Code 4 when it is missing or not an operation.
    pub fn command(&self) -> Result<Command> {
        use Command::{Add, Check, Del, Gc, Status, Version};
        let text = self.required("CNI_COMMAND")?;
        [Add, Del, Check, Status, Gc, Version]
            .into_iter()
            .find(|c| c.as_str() == text)
            .ok_or_else(|| {
                invalid(
                    "CNI_COMMAND",
                    &text,
                    "must be one of ADD, DEL, CHECK, STATUS, GC and VERSION",
                )
            })
    }

    /// `CNI_CONTAINERID`.
    ///
    /// # Errors
    /// Code 4 when it is missing or breaks the rule.
    pub fn container_id(&self) -> Result<ContainerId> {
        let text = self.required("CNI_CONTAINERID")?;
        ContainerId::parse(&text).map_err(|rule| invalid("CNI_CONTAINERID", &text, rule))
    }

    /// `CNI_IFNAME`.
    ///
    /// # Errors
    /// Code 4 when it is missing or breaks the rule.
    pub fn interface_name(&self) -> Result<InterfaceName> {
        let text = self.required("CNI_IFNAME")?;
        InterfaceName::parse(&text).map_err(|rule| invalid("CNI_IFNAME", &text, rule))
    }

    /// `CNI_NETNS`. Whether a namespace is there, and whose, is for the caller to find out.
    ///
    /// # Errors
    /// Code 4 when it is missing or not an absolute path: the agent's working folder is another.
    pub fn netns(&self) -> Result<PathBuf> {
        let text = self.required("CNI_NETNS")?;
        if !text.starts_with('/') {
            return Err(invalid("CNI_NETNS", &text, "must be an absolute path"));
        }
        Ok(PathBuf::from(text))
    }

    /// `CNI_ARGS`; empty when it is not set.
    ///
    /// # Errors
    /// Code 4 when it is malformed, or has keys that are not known without `IgnoreUnknown`.
    pub fn args(&self) -> Result<Args> {
        Args::parse(&self.optional("CNI_ARGS")?)
    }

    fn required(&self, name: &str) -> Result<String> {
        let text = self.optional(name)?;
        if text.is_empty() {
            return Err(Error::new(
                code::INVALID_ENVIRONMENT,
                format!("required environment variable {name} is missing"),
                "the container runtime must set it; this program is not meant to be run by hand",
            ));
        }
        Ok(text)
    }

    fn optional(&self, name: &str) -> Result<String> {
        let value = (self.0)(name).unwrap_or_default();
        value
            .into_string()
            .map_err(|raw| invalid(name, &raw.to_string_lossy(), "is not valid UTF-8"))
    }
}

/// An error about one variable.
pub fn invalid(name: &str, value: &str, rule: &str) -> Error {
    Error::new(
        code::INVALID_ENVIRONMENT,
        format!("invalid environment variable {name}"),
        format!("{name}={value:?} {rule}"),
    )
}

/// What `CNI_ARGS` says, in the keys that Kubernetes runtimes use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// `K8S_POD_NAMESPACE`.
    pub pod_namespace: Option<String>,
    /// `K8S_POD_NAME`.
    pub pod_name: Option<String>,
    /// `K8S_POD_UID`.
    pub pod_uid: Option<String>,
    /// `IP`: an address that the pod is to have (CNI CONVENTIONS), as it was written.
    pub ip: Option<String>,
}

impl Args {
    /// Parses pairs `KEY=VALUE` joined by semicolons.
    ///
    /// # Errors
    /// Code 4 for what is no pair, and for unknown keys unless `IgnoreUnknown` is true.
    pub fn parse(text: &str) -> Result<Self> {
        let mut args = Self::default();
        let mut ignore_unknown = false;
        let mut unknown = Vec::new();
        for pair in text.split(';').filter(|_| !text.is_empty()) {
            let Some((key, value)) = pair.split_once('=').filter(|(_, value)| !value.contains('=')) else {
                return Err(invalid("CNI_ARGS", text, "must be pairs KEY=VALUE joined by ';'"));
            };
            let known = || Some(value.to_owned()).filter(|value| !value.is_empty());
            match key {
                "K8S_POD_NAMESPACE" => args.pod_namespace = known(),
                "K8S_POD_NAME" => args.pod_name = known(),
                "K8S_POD_UID" => args.pod_uid = known(),
                "IP" => args.ip = known(),
                // The same as CNI_CONTAINERID.
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                "IgnoreUnknown" => match value.to_ascii_lowercase().as_str() {
                    "1" | "true" => ignore_unknown = true,
                    "0" | "false" => ignore_unknown = false,
                    _ => {
                        return Err(invalid(
                            "CNI_ARGS",
                            text,
                            "has an IgnoreUnknown other than 0, 1, false, true",
                        ));
                    }
                },
                _ => unknown.push(key),
            }
        }
        if !unknown.is_empty() && !ignore_unknown {
            let rule = format!("has the unknown keys {unknown:?} and no IgnoreUnknown=1");
            return Err(invalid("CNI_ARGS", text, &rule));
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids() {
        for good in ["a", "0", "3f1c-x_y.z", &"a".repeat(CONTAINER_ID_MAX)] {
            assert!(ContainerId::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            ".a",
            "../x",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"a".repeat(201),
        ] {
            assert!(ContainerId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interface_names() {
        for good in ["e", "eth0", "net-1.100", "fifteen-letters", "ü"] {
            assert!(InterfaceName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "a\u{a0}",
            "eth%d",
            "sixteen-letters0",
            "a\u{7}",
        ] {
            assert!(InterfaceName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn args_of_a_runtime() {
        let args = Args::parse(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=3f;\
             K8S_POD_UID=9d;IP=10.0.0.7/24;OTHER=x",
        )
        .unwrap();
        assert_eq!(args.pod_namespace.as_deref(), Some("default"));
        assert_eq!(args.pod_name.as_deref(), Some("web-0"));
        assert_eq!(args.pod_uid.as_deref(), Some("9d"));
        assert_eq!(args.ip.as_deref(), Some("10.0.0.7/24"));
        assert_eq!(Args::parse("").unwrap(), Args::default());
        for bad in [
            "K8S_POD_NAME",
            "A=b=c",
            ";",
            "A=b;",
            "OTHER=x",
            "OTHER=x;IgnoreUnknown=0",
            "IgnoreUnknown=y",
        ] {
            assert_eq!(
                Args::parse(bad).unwrap_err().code,
                code::INVALID_ENVIRONMENT,
                "{bad}"
            );
        }
    }
}
