//! The list of plugins that connects a node's pods, as libcni finds and runs it (CNI SPEC.md 1.1.0, sections 1
//! and 3).

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::plugin::{self, Operation};
use crate::place::Place;
use crate::pod::PodRecord;
use crate::port_mapping::PortMapping;

/// A network's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflist {
    cni_version: String,
    name: String,
    plugins: Vec<Plugin>,
}

#[derive(Clone, Debug, Deserialize)]
struct Plugin {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct AddResult {
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Ip {
    address: IpNet,
}

impl Conflist {
    /// The first of a folder, in the order of names.
    ///
    /// # Errors
    /// In words: there is none, as before the node's agent is ready, or the first makes no sense.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path());
        let first = files
            .filter(|path| path.extension().is_some_and(|e| e == "conflist"))
            .min();
        let first =
            first.ok_or("the node has no network configuration yet; its agent makes one when it is ready")?;
        let wrong = |error: &dyn std::fmt::Display| format!("the node's {}: {error}", first.display());
        let text = fs::read(&first).map_err(|error| wrong(&error))?;
        let list: Self = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
        if list.plugins.is_empty() {
            return Err(wrong(&"it lists no plugins"));
        }
        Ok(list)
    }

    /// Connects the pod; returns its addresses, and the result as DEL wants it back.
    ///
    /// # Errors
    /// In words, what a plugin answered. DEL must follow all the same.
    pub async fn add(&self, node: &Place, pod: &PodRecord) -> Result<(Vec<IpAddr>, Value), String> {
        let mut result = None;
        for one in &self.plugins {
            let output = plugin::call(
                node,
                Operation::Add,
                &one.kind,
                &self.config(one, &pod.port_mappings, result.as_ref()),
                pod,
            )
            .await?;
            let parsed = serde_json::from_slice(&output)
                .map_err(|error| format!("the result of {} is not valid: {error}", one.kind))?;
            result = Some(parsed);
        }
        let result = result.unwrap_or_default();
        let parsed = AddResult::deserialize(&result)
            .map_err(|error| format!("the result of the network {:?} is not valid: {error}", self.name))?;
        if parsed.ips.is_empty() {
            return Err(format!("the network {:?} gave the pod no address", self.name));
        }
        Ok((parsed.ips.iter().map(|ip| ip.address.addr()).collect(), result))
    }

    /// Disconnects the pod; succeeds if it is not connected.
    ///
    /// # Errors
    /// In words, what a plugin answered.
    pub async fn delete(&self, node: &Place, pod: &PodRecord, result: Option<&Value>) -> Result<(), String> {
        for one in self.plugins.iter().rev() {
            plugin::call(
                node,
                Operation::Del,
                &one.kind,
                &self.config(one, &pod.port_mappings, result),
                pod,
            )
            .await?;
        }
        Ok(())
    }

    /// What a plugin reads: its own part, what all share, and what the plugins before it made.
    fn config(&self, plugin: &Plugin, ports: &[PortMapping], previous: Option<&Value>) -> Value {
        let mut config = plugin.rest.clone();
        // What the plugin can be asked for is between the file and the runtime.
        let capabilities = config.remove("capabilities").unwrap_or_default();
        if capabilities["portMappings"] == true && !ports.is_empty() {
            config.insert("runtimeConfig".into(), json!({ "portMappings": ports }));
        }
        config.insert("cniVersion".into(), self.cni_version.as_str().into());
        config.insert("name".into(), self.name.as_str().into());
        config.insert("type".into(), plugin.kind.as_str().into());
        if let Some(previous) = previous {
            config.insert("prevResult".into(), previous.clone());
        }
        config.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_is_taken_and_a_temporary_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| {
            format!(
                r#"{{"cniVersion":"1.0.0","name":"{name}","plugins":[{{"type":"x","capabilities":{{"ips":true}},"key":1}}]}}"#
            )
        };
        Conflist::read(&folder.path().join("missing")).unwrap_err();
        for name in ["10-b.conflist", "05-a.conflist.new", "20-c.conflist"] {
            fs::write(folder.path().join(name), of(name)).unwrap();
        }
        let list = Conflist::read(folder.path()).unwrap();
        let previous = Value::from("before");
        let ports = [PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: "tcp".to_owned(),
            host_ip: String::new(),
        }];
        let config = list.config(&list.plugins[0], &ports, Some(&previous));
        let expected = serde_json::json!({
            "cniVersion": "1.0.0", "name": "10-b.conflist", "type": "x", "key": 1, "prevResult": "before",
        });
        assert_eq!(config, expected, "this plugin cannot be asked for port mappings");
        let capable = Plugin {
            rest: serde_json::from_value(json!({"capabilities": {"portMappings": true}})).unwrap(),
            ..list.plugins[0].clone()
        };
        assert_eq!(
            list.config(&capable, &ports, None)["runtimeConfig"],
            json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]})
        );
        assert_eq!(list.config(&capable, &[], None)["runtimeConfig"], Value::Null);
        fs::write(folder.path().join("00-broken.conflist"), "{").unwrap();
        assert!(
            Conflist::read(folder.path())
                .unwrap_err()
                .contains("00-broken.conflist")
        );
    }
}
