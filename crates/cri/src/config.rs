//! containerd's configuration file (containerd-config.toml(5)).

use std::fs;
use std::path::{Path, PathBuf};

use crate::image;

/// Where containerd finds the CNI plugins and their configuration.
#[derive(Clone, Debug)]
pub struct Cni {
    /// The plugins' folder.
    pub bin_dir: PathBuf,
    /// The configurations' folder.
    pub conf_dir: PathBuf,
}

/// The text of the file. Everything that containerd keeps is below `folder`; its shims are in the control group
/// `shims`, so that they can be found when it is gone.
pub fn text(folder: &Path, cni: &Cni, shims: &str) -> String {
    let at = |name: &str| folder.join(name);
    let snapshotter = if has_overlayfs() { "overlayfs" } else { "native" };
    // Not every root may spare its processes from the kernel's search for memory: restrict_oom_score_adj.
    // A path or name in quotes is the same in Rust and in TOML.
    format!(
        r#"
version = 2
root = {root:?}
state = {state:?}
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = {socket:?}
[ttrpc]
  address = {ttrpc:?}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {image:?}
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {bin_dir:?}
    conf_dir = {conf_dir:?}
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = {snapshotter:?}
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = {runc:?}
        ShimCgroup = {shims:?}
"#,
        root = at("root"),
        state = at("state"),
        socket = at("containerd.sock"),
        ttrpc = at("ttrpc.sock"),
        image = image::NAME,
        bin_dir = cni.bin_dir,
        conf_dir = cni.conf_dir,
        runc = at("runc"),
    )
}

fn has_overlayfs() -> bool {
    let kinds = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    kinds
        .lines()
        .any(|line| line.trim_start_matches("nodev").trim() == "overlay")
}
