//! Pods of a test's own on a node of a lab, connected by a chain of plugins as libcni runs it.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tombolo_testkit::TestNamespace;

use super::{Lab, TOMBOLO};

/// Where Debian's package `containernetworking-plugins` has the reference plugins.
const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// A pod's sandbox, connected.
pub struct Sandbox<'a> {
    lab: &'a Lab,
    node: String,
    id: String,
    chain: Vec<Value>,
    pub namespace: TestNamespace,
    /// The result of the last ADD, as the runtime keeps it.
    pub result: Value,
}

impl<'a> Sandbox<'a> {
    /// A sandbox on a node, connected by these plugins (CNI SPEC, section 3: ADD in order, each with the result of
    /// the one before).
    #[track_caller]
    pub fn connect(lab: &'a Lab, node: &str, chain: &[Value]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut sandbox = Self {
            lab,
            node: node.into(),
            id: format!(
                "sandbox-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ),
            chain: chain.to_vec(),
            namespace: TestNamespace::new("sandbox"),
            result: Value::Null,
        };
        for plugin in chain {
            let output = sandbox.call("ADD", plugin);
            sandbox.result = serde_json::from_str(&output)
                .unwrap_or_else(|error| panic!("ADD of {}: {error}: {output}", plugin["type"]));
        }
        sandbox
    }

    /// DEL in reverse order, each with the last result of ADD.
    #[track_caller]
    pub fn disconnect(&self) {
        for plugin in self.chain.iter().rev() {
            self.call("DEL", plugin);
        }
    }

    /// Its address of a family.
    #[track_caller]
    pub fn address(&self, v4: bool) -> IpAddr {
        let ips = self.result["ips"].as_array().unwrap().iter();
        ips.filter(|ip| {
            self.result["interfaces"][ip["interface"].as_u64().unwrap() as usize]["name"] == "eth0"
        })
        .map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap())
        .map(|address| address.parse::<IpAddr>().unwrap())
        .find(|address| address.is_ipv4() == v4)
        .unwrap()
    }

    /// The name of the host side of its link.
    pub fn host_link(&self) -> String {
        tombolo_cni::host_link_name(&self.id, "eth0")
    }

    /// Packets that left by the host side of its link.
    #[track_caller]
    pub fn transmitted(&self) -> u64 {
        let words = ["ip", "-s", "-j", "link", "show", "dev", &self.host_link()];
        let links = super::succeed(&mut self.lab.exec(&self.node, &words));
        let links: Value = serde_json::from_str(&links).unwrap();
        links[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
    }

    /// One call of a plugin, which must succeed.
    #[track_caller]
    fn call(&self, operation: &str, plugin: &Value) -> String {
        let mut config = plugin.clone();
        config["cniVersion"] = json!("1.0.0");
        config["name"] = json!("test");
        if !self.result.is_null() {
            config["prevResult"] = self.result.clone();
        }
        let variables = [
            format!("CNI_COMMAND={operation}"),
            format!("CNI_CONTAINERID={}", self.id),
            "CNI_IFNAME=eth0".into(),
            format!("CNI_NETNS={}", self.namespace.path().display()),
            format!("CNI_PATH={REFERENCE_PLUGINS}"),
        ];
        let program = program(plugin["type"].as_str().unwrap());
        let mut words: Vec<&str> = vec!["env"];
        words.extend(variables.iter().map(String::as_str));
        words.push(program.to_str().unwrap());
        let mut child = self
            .lab
            .exec(&self.node, &words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(config.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let [out, err] = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
        assert!(
            output.status.success(),
            "{operation} of {}: {out}{err}",
            plugin["type"]
        );
        out
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The lab goes, and its node with all that is in it.
            return;
        }
        self.disconnect();
    }
}

fn program(kind: &str) -> PathBuf {
    if kind == "tombolo-cni" {
        return Path::new(TOMBOLO).with_file_name(kind);
    }
    let program = Path::new(REFERENCE_PLUGINS).join(kind);
    assert!(
        program.exists(),
        "{} is missing: install the package containernetworking-plugins",
        program.display()
    );
    program
}
