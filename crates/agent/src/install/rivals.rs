//! Other configurations that keep a container runtime from taking ours.
//!
//! Runtimes look at files that end in `.conf`, `.conflist` or `.json`, in the order of their names (libcni,
//! `ConfFiles`), and connect pods by the first. containerd gives the whole folder up over a first file that
//! makes no sense; CRI-O goes on to the next.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::error::Error;

/// What comes before `own` in its folder, one sentence a file, with what to do.
///
/// # Errors
/// The folder cannot be read.
pub fn of(own: &Path) -> Result<Vec<String>, Error> {
    let (Some(folder), Some(own_name)) = (own.parent(), own.file_name()) else {
        return Ok(Vec::new());
    };
    let entries = fs::read_dir(folder).map_err(Error::read(folder))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut earlier: Vec<_> = names
        .filter(|name| name.as_os_str() < own_name && is_configuration(name.as_ref()))
        .filter(|name| !folder.join(name).is_dir())
        .collect();
    earlier.sort();
    Ok(earlier
        .iter()
        .map(|name| warning(&folder.join(name), own_name))
        .collect())
}

fn is_configuration(name: &Path) -> bool {
    name.extension().is_some_and(|extension| {
        ["conf", "conflist", "json"]
            .iter()
            .any(|taken| extension == *taken)
    })
}

fn warning(path: &Path, own: &OsStr) -> String {
    let (file, own) = (path.display(), own.display());
    match problem(path) {
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

/// What a runtime does not like about a file.
fn problem(path: &Path) -> Option<String> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => return Some(error.to_string()),
    };
    let configuration: Value = match serde_json::from_slice(&text) {
        Ok(configuration) => configuration,
        Err(error) => return Some(error.to_string()),
    };
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let has_type = |plugin: &Value| is_text(&plugin["type"]);
    if path.extension().is_some_and(|extension| extension == "conflist") {
        let plugins = configuration["plugins"].as_array().filter(|all| !all.is_empty());
        match plugins {
            _ if !is_text(&configuration["name"]) => Some("it has no name".into()),
            None => Some("it lists no plugins".into()),
            Some(plugins) if !plugins.iter().all(has_type) => Some("a plugin has no type".into()),
            Some(_) => None,
        }
    } else {
        (!has_type(&configuration)).then(|| "it has no type".into())
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
        let warnings = of(&own).unwrap();
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
            Vec::<String>::new()
        );
        of(&folder.path().join("missing/x.conflist")).unwrap_err();
    }
}
