//! Builds the one program of the image, statically, as there is nothing else in the image.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

const SOURCE: &str = "image/workload.rs";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={SOURCE}");
    let setting = |name: &str| std::env::var_os(name).unwrap_or_default();
    let built = Command::new(setting("RUSTC"))
        .args(["--edition", "2024", "--crate-name", "workload", SOURCE])
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "strip=symbols"])
        .args(["-C", "target-feature=+crt-static", "--target"])
        .arg(setting("TARGET"))
        .arg("-o")
        .arg(PathBuf::from(setting("OUT_DIR")).join("workload"))
        .status();
    match built {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("cargo::error=cannot run the compiler: {error}");
            ExitCode::FAILURE
        }
    }
}
