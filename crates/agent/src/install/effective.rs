//! What a container runtime makes of the folder that our configuration is in.
//!
//! Runtimes look at files that end in `.conf`, `.conflist` or `.json`, in the order of their names (libcni,
//! `ConfFiles`), and connect pods by the first. containerd gives the whole folder up over a first file that
//! makes no sense; CRI-O goes on to the next.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tombolo_cni::PLUGIN_NAME;

use super::error::Error;

/// What new pods are connected by.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// What keeps the runtime from calling our plugin: one sentence a file, with what to do.
    pub rivals: Vec<String>,
    /// Whether the reference plugin `bandwidth` shapes the pods that are annotated for it.
    pub shapes: bool,
}

/// Reads the folder of `own`, our configuration's file.
///
/// # Errors
/// The folder cannot be read.
pub fn of(own: &Path) -> Result<Effective, Error> {
    let mut effective = Effective::default();
    let Some(own_name) = own.file_name() else {
        return Ok(effective);
    };
    for path in earlier(own, own_name)? {
        match read(&path) {
            Ok(plugins) if has_type(&plugins, PLUGIN_NAME) => {
                // A chain of the operator's, with ours in it.
                effective.shapes = shapes(&plugins);
                return Ok(effective);
            }
            read => effective.rivals.push(warning(&path, own_name, read.err())),
        }
    }
    effective.shapes = read(own).is_ok_and(|plugins| shapes(&plugins));
    Ok(effective)
}

/// The configurations that come before `own` in its folder, in their order.
fn earlier(own: &Path, own_name: &OsStr) -> Result<Vec<PathBuf>, Error> {
    let folder = own.parent().unwrap_or(Path::new("/"));
    let entries = fs::read_dir(folder).map_err(Error::read(folder))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut earlier: Vec<_> = names
        .filter(|name| name.as_os_str() < own_name && is_configuration(name.as_ref()))
        .map(|name| folder.join(name))
        .filter(|path| !path.is_dir())
        .collect();
    earlier.sort();
    Ok(earlier)
}

fn has_type(plugins: &[Value], name: &str) -> bool {
    plugins.iter().any(|plugin| plugin["type"] == name)
}

/// The runtime passes the annotations to plugins that declare the capability.
fn shapes(plugins: &[Value]) -> bool {
    let shapes =
        |plugin: &Value| plugin["type"] == "bandwidth" && plugin["capabilities"]["bandwidth"] == true;
    plugins.iter().any(shapes)
}

fn is_configuration(name: &Path) -> bool {
    name.extension().is_some_and(|extension| {
        ["conf", "conflist", "json"]
            .iter()
            .any(|taken| extension == *taken)
    })
}

fn warning(path: &Path, own: &OsStr, problem: Option<String>) -> String {
    let (file, own) = (path.display(), own.display());
    match problem {
        None => format!(
            "{file} sorts before {own}: the container runtime connects new pods by it, not by Tombolo; \
             remove it, or rename it so that it sorts after"
        ),
        Some(problem) => format!(
            "{file} sorts before {own} and is no CNI configuration ({problem}): containerd then takes none of \
             the folder and starts no pod; remove it"
        ),
    }
}

/// The plugins that a configuration lists, or what a runtime does not like about it.
fn read(path: &Path) -> Result<Vec<Value>, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let configuration: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if path.extension().is_none_or(|extension| extension != "conflist") {
        return match is_text(&configuration["type"]) {
            true => Ok(vec![configuration]),
            false => Err("it has no type".into()),
        };
    }
    if !is_text(&configuration["name"]) {
        return Err("it has no name".into());
    }
    match configuration["plugins"].as_array() {
        None => Err("it lists no plugins".into()),
        Some(plugins) if plugins.is_empty() => Err("it lists no plugins".into()),
        Some(plugins) if !plugins.iter().all(|plugin| is_text(&plugin["type"])) => {
            Err("a plugin has no type".into())
        }
        Some(plugins) => Ok(plugins.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_are_named_that_a_runtime_takes_first() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("10-tombolo.conflist");
        let valid = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"}]}"#;
        for (name, text) in [
            ("00-first.conflist", valid),
            ("05-broken.json", "{"),
            ("06-empty.conflist", r#"{"name":"n","plugins":[]}"#),
            ("07-single.conf", r#"{"name":"n","type":"ptp"}"#),
            ("08-list.conf", valid),
            ("00-backup.conflist.old", valid),
            ("09-notes.txt", ""),
            ("10-tombolo.conflist", valid),
            ("10-z.conf", valid),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        fs::create_dir(folder.path().join("01-folder.conf")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("02-dangling.conf")).unwrap();
        let warnings = of(&own).unwrap().rivals;
        let named = |name: &str, what: &str| {
            let about: Vec<_> = warnings.iter().filter(|w| w.contains(name)).collect();
            assert_eq!(about.len(), 1, "{name}: {warnings:?}");
            assert!(about[0].contains(what), "{name}: {warnings:?}");
        };
        named("00-first.conflist", "not by Tombolo");
        named("02-dangling.conf", "No such file");
        named("05-broken.json", "no CNI configuration");
        named("06-empty.conflist", "lists no plugins");
        named("07-single.conf", "not by Tombolo");
        named("08-list.conf", "has no type");
        assert_eq!(warnings.len(), 6, "{warnings:?}");
        assert_eq!(
            of(&folder.path().join("00-a.conflist")).unwrap(),
            Effective::default()
        );
        of(&folder.path().join("missing/x.conflist")).unwrap_err();
    }

    #[test]
    fn an_operators_chain_with_ours_is_no_rival_and_may_shape() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("10-tombolo.conflist");
        fs::write(&own, r#"{"name":"tombolo","plugins":[{"type":"tombolo-cni"}]}"#).unwrap();
        assert_eq!(of(&own).unwrap(), Effective::default());
        let chain = |bandwidth: &str| {
            let text = format!(r#"{{"name":"n","plugins":[{{"type":"tombolo-cni"}},{bandwidth}]}}"#);
            fs::write(folder.path().join("05-chain.conflist"), text).unwrap();
            fs::write(folder.path().join("06-later.conflist"), "{").unwrap();
            of(&own).unwrap()
        };
        let shaping = chain(r#"{"type":"bandwidth","capabilities":{"bandwidth":true}}"#);
        assert_eq!((shaping.rivals.len(), shaping.shapes), (0, true));
        let deaf = chain(r#"{"type":"bandwidth"}"#);
        assert_eq!((deaf.rivals.len(), deaf.shapes), (0, false));
    }
}
