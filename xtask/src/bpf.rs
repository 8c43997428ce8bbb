//! Builds the kernel side, the same to the byte wherever the source and cargo's home are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The toolchain that makes the committed object. Another makes another object.
const TOOLCHAIN: [Tool; 3] = [
    Tool {
        variable: "BPF_RUSTC",
        default: "/usr/bin/rustc",
        version: "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)",
        install: "apt-get install --no-install-recommends rustc-web=1.96.* libstd-rust-web-dev-bpf=1.96.*",
    },
    Tool {
        variable: "BPF_LINKER",
        default: "bpf-linker",
        version: "bpf-linker 0.13.0",
        install: "apt-get install --no-install-recommends llvm-22, then LLVM_PREFIX=<a folder whose \
                  lib/libLLVM.so links to libLLVM.so.22.1> cargo install bpf-linker --version 0.13.0 \
                  --locked --no-default-features --features llvm-22",
    },
    Tool {
        variable: "LLVM_OBJCOPY",
        default: "llvm-objcopy-22",
        version: "LLVM version 22.1.8",
        install: "apt-get install --no-install-recommends llvm-22",
    },
];

/// A committed object.
struct Object {
    /// Its name in `crates/datapath/object`.
    name: &'static str,
    /// The kernel crate's features that it is built with.
    features: &'static str,
}

const OBJECTS: [Object; 2] = [
    Object {
        name: "datapath.o",
        features: "",
    },
    // Tests only: shows that the tables of one ABI version are carried over to the next, and back.
    Object {
        name: "datapath-next.o",
        features: "abi-next",
    },
];

/// A program that the build runs.
struct Tool {
    /// The environment variable that names another.
    variable: &'static str,
    /// What is run without it.
    default: &'static str,
    /// Part of what `--version` prints.
    version: &'static str,
    /// How to get it.
    install: &'static str,
}

impl Tool {
    fn program(&self) -> String {
        env::var(self.variable).unwrap_or_else(|_| self.default.to_owned())
    }

    /// What is wrong with it, if anything.
    fn complaint(&self) -> Option<String> {
        let program = self.program();
        let found = match Command::new(&program).arg("--version").output() {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => return Some(format!("{program} does not run ({error}); {}", self.install)),
        };
        (!found.contains(self.version)).then(|| {
            let found = found
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or_default();
            format!(
                "{program} is \"{}\", not \"{}\"; {}",
                found.trim(),
                self.version,
                self.install
            )
        })
    }
}

/// Rebuilds the committed objects.
pub fn rebuild() -> Result<String, String> {
    let mut report = Vec::new();
    for object in &OBJECTS {
        let built = build(object)?;
        let path = committed(object);
        let folder = path.parent().ok_or("the object has no folder")?;
        fs::create_dir_all(folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        fs::write(&path, &built).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        report.push(format!("{}: {} bytes", path.display(), built.len()));
    }
    if let Some(difference) = toolchain_difference() {
        report.push(format!(
            "but do not commit them, since another toolchain makes other objects:\n{difference}"
        ));
    }
    Ok(report.join("\n"))
}

/// Compares the committed objects with what the source builds to.
pub fn check() -> Result<String, String> {
    if let Some(difference) = toolchain_difference() {
        return Err(format!(
            "the toolchain is not the one that made the committed objects, so nothing can be said of the \
             source:\n{difference}"
        ));
    }
    for object in &OBJECTS {
        let built = build(object)?;
        let path = committed(object);
        let committed = fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        if built != committed {
            return Err(format!(
                "{} ({} bytes) is not what the source builds to ({} bytes): run `make bpf` and commit it",
                path.display(),
                committed.len(),
                built.len()
            ));
        }
    }
    Ok("the committed objects are what the source builds to".to_owned())
}

fn toolchain_difference() -> Option<String> {
    let complaints: Vec<String> = TOOLCHAIN.iter().filter_map(Tool::complaint).collect();
    (!complaints.is_empty()).then(|| complaints.join("\n"))
}

fn build(object: &Object) -> Result<Vec<u8>, String> {
    let root = root();
    let target = root.join("target/bpf");
    let [rustc, linker, objcopy] = TOOLCHAIN.each_ref().map(Tool::program);
    let mut flags = vec![
        format!("-Clinker={linker}"),
        "-Clink-arg=--btf".to_owned(),
        // Small copies are loads and stores, not calls of a loop over bytes.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        // The generic one makes programs that the verifier refuses.
        "-Ctarget-cpu=v3".to_owned(),
        format!("--remap-path-prefix={}=/tombolo", root.display()),
    ];
    for sources in registry_sources()? {
        flags.push(format!("--remap-path-prefix={}=/registry", sources.display()));
    }
    run(
        Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
            .current_dir(&root)
            .args([
                "build",
                "--quiet",
                "--locked",
                "--package",
                "tombolo-bpf",
                "--profile",
                "bpf",
                "--features",
                object.features,
            ])
            .args(["--target", "bpfel-unknown-none", "--target-dir"])
            .arg(&target)
            .env("RUSTC", rustc)
            // aya-ebpf needs inline assembly for BPF, which is not stable; nothing else gets more.
            .env("RUSTC_BOOTSTRAP", "aya_ebpf")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("RUSTUP_TOOLCHAIN"),
    )?;
    let built = target.join("bpfel-unknown-none/bpf/datapath");
    let stripped = target.join(object.name);
    run(Command::new(objcopy)
        .arg("--strip-debug")
        .arg(&built)
        .arg(&stripped))?;
    fs::read(&stripped).map_err(|e| format!("cannot read {}: {e}", stripped.display()))
}

/// Where cargo keeps the sources of registries.
fn registry_sources() -> Result<Vec<PathBuf>, String> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir()
            .ok_or("neither CARGO_HOME nor HOME is set")?
            .join(".cargo"),
    };
    let sources = home.join("registry/src");
    Ok(match fs::read_dir(&sources) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
        // Nothing has been downloaded yet, so cargo is about to: it has to come first.
        Err(_) => {
            run(Command::new("cargo")
                .current_dir(root())
                .args(["fetch", "--locked"]))?;
            fs::read_dir(&sources)
                .map_err(|e| format!("cannot read {}: {e}", sources.display()))?
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .collect()
        }
    })
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} failed ({status})")),
        Err(error) => Err(format!("{program} does not run: {error}")),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap_or_default()
}

fn committed(object: &Object) -> PathBuf {
    root().join("crates/datapath/object").join(object.name)
}
