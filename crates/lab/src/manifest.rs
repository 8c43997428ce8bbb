//! Manifests: files of Kubernetes objects to apply.

use std::fs;
use std::path::{Path, PathBuf};

use kube::core::DynamicObject;

use crate::error::{Error, Result, system};

/// One object of a manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file that it is in.
    pub path: PathBuf,
    /// The object.
    pub object: DynamicObject,
}

impl Manifest {
    /// Reads files, and the manifests in folders by order of their names. A file may hold several documents.
    ///
    /// # Errors
    /// [`Error::Manifest`] for the first that is not valid; nothing is applied then.
    pub fn read_all(paths: &[PathBuf]) -> Result<Vec<Self>> {
        let mut manifests = Vec::new();
        for path in paths {
            if path.is_dir() {
                for file in files(path)? {
                    read(&file, &mut manifests)?;
                }
            } else {
                read(path, &mut manifests)?;
            }
        }
        Ok(manifests)
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(system("list", folder))?;
    let is_manifest = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(is_manifest)
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::Manifest {
            path: folder.to_owned(),
            reason: "the folder has no .yaml, .yml or .json file".to_owned(),
        });
    }
    Ok(files)
}

fn read(path: &Path, manifests: &mut Vec<Manifest>) -> Result<()> {
    let wrong = |reason: String| Error::Manifest {
        path: path.to_owned(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(system("read", path))?;
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| wrong(format!("not valid YAML: {error}")))?;
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        let object: DynamicObject = serde_json::from_value(document)
            .map_err(|error| wrong(format!("not a Kubernetes object: {error}")))?;
        if object.types.is_none() || object.metadata.name.is_none() {
            return Err(wrong(
                "an object lacks apiVersion, kind or metadata.name".to_owned(),
            ));
        }
        manifests.push(Manifest {
            path: path.to_owned(),
            object,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(name: &str, text: &str) -> Result<Vec<Manifest>> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), text).unwrap();
        Manifest::read_all(&[folder.path().to_owned()])
    }

    #[test]
    fn a_file_may_hold_several_documents() {
        let text = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n";
        let names: Vec<_> = read_text("pods.yaml", text)
            .unwrap()
            .into_iter()
            .map(|one| one.object.metadata.name)
            .collect();
        assert_eq!(names, [Some("a".to_owned()), Some("b".to_owned())]);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for text in [
            "a: [",
            "just words",
            "apiVersion: v1\nkind: Pod\nmetadata: {}",
            "kind: Pod",
        ] {
            assert!(
                matches!(read_text("bad.yaml", text), Err(Error::Manifest { .. })),
                "{text}"
            );
        }
        assert!(matches!(
            read_text("no-manifest.txt", "x"),
            Err(Error::Manifest { .. })
        ));
    }
}
