//! The one image, of sandboxes and containers alike: a single static program, which does nothing unless told to.
//! It is an archive in the OCI layout (opencontainers/image-spec, image-layout.md).

use std::fs::File;
use std::io;
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{Builder, Header};

/// What it is called.
pub const NAME: &str = "tombolo.test/workload:1";

/// See `image/workload.rs`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/workload"));

/// Writes the archive.
pub fn write(path: &Path) -> io::Result<()> {
    let mut layer = Builder::new(Vec::new());
    add(&mut layer, "workload", 0o755, PROGRAM)?;
    let layer = layer.into_inner()?;
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Entrypoint": ["/workload"], "Cmd": ["pause"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut index = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    index["annotations"] = json!({"io.containerd.image.name": NAME});
    let index = json!({"schemaVersion": 2, "manifests": [index]});

    let mut archive = Builder::new(File::create(path)?);
    add(
        &mut archive,
        "oci-layout",
        0o644,
        br#"{"imageLayoutVersion": "1.0.0"}"#,
    )?;
    add(&mut archive, "index.json", 0o644, index.to_string().as_bytes())?;
    for blob in [layer, config, manifest] {
        add(
            &mut archive,
            &format!("blobs/{}", sha256(&blob).replace(':', "/")),
            0o644,
            &blob,
        )?;
    }
    archive.into_inner().map(drop)
}

fn add<W: io::Write>(archive: &mut Builder<W>, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content)
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(blob), "size": blob.len()})
}

fn sha256(blob: &[u8]) -> String {
    let bytes = digest(&SHA256, blob);
    let digits: String = bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// As Go calls it, and so the image's specification.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
