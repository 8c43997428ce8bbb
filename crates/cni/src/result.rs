//! What ADD prints (CNI SPEC, section 5, "ADD Success"), in every version.
//!
//! The types hold what the newest version can say. Older results are read into them, and they
//! are written in the version asked for, without what that has no room for.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::agent::{AddResponse, CheckRequest, PodRoute};
use crate::version::Version;

/// The result of an ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddResult {
    /// The interfaces made, those on the host included.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub interfaces: Vec<Interface>,
    /// The addresses given.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub ips: Vec<Ip>,
    /// The routes made.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub routes: Vec<Route>,
    /// What the pod's resolver may be told.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub dns: Dns,
}

/// An interface that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its MTU, in bytes of the IP packet. Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The path of the namespace it is in; none on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// A socket that stands for it. Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_path: Option<String>,
    /// Its PCI device. Since 1.1.0.
    #[serde(default, rename = "pciID", skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
}

/// An address that was given. Before 1.0.0 it is written with its `version`, "4" or "6".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ip {
    /// The address, with the length of its prefix.
    pub address: IpNet,
    /// The default gateway of its subnet.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// The interface that has it, as a position in [`AddResult::interfaces`].
    #[serde(default)]
    pub interface: Option<usize>,
}

/// A route that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// The next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The MTU of the path, in bytes. Since 1.1.0, as all that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The TCP segment size to announce, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The route's metric: the lowest wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// How far the destinations are: 0 global, 253 link, 254 host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u32>,
}

/// What a resolver may be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Name servers, the preferred one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The domain of short names.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains to search for short names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// The resolver's options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Route {
    fn in_pod(&self) -> PodRoute {
        PodRoute {
            dst: self.dst,
            gw: self.gw,
        }
    }
}

impl Dns {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AddResult {
    /// Appends what the agent made for the pod whose namespace is at `sandbox`: our interfaces,
    /// and addresses that point at the one in the pod, behind those of earlier plugins.
    pub fn append(&mut self, made: AddResponse, sandbox: &str) {
        let interface = |interface: crate::agent::Interface, sandbox: Option<&str>| Interface {
            name: interface.name,
            mac: Some(interface.mac),
            mtu: interface.mtu,
            sandbox: sandbox.map(str::to_owned),
            ..Interface::default()
        };
        self.interfaces.push(interface(made.host_interface, None));
        let in_pod = self.interfaces.len();
        self.interfaces.push(interface(made.pod_interface, Some(sandbox)));
        self.ips.extend(made.addresses.into_iter().map(|address| Ip {
            address: address.address,
            gateway: address.gateway,
            interface: Some(in_pod),
        }));
        self.routes.extend(made.routes.into_iter().map(|route| Route {
            dst: route.dst,
            gw: route.gw,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }));
    }

    /// What this result lists of the interface `if_name` of the pod whose namespace is at `sandbox`; `None`
    /// when it does not list that. More than ours is in it when other plugins were in the chain.
    pub fn expected(&self, if_name: &str, sandbox: &str) -> Option<CheckRequest> {
        let ours = |interface: &Interface| {
            interface.name == if_name && interface.sandbox.as_deref() == Some(sandbox)
        };
        let index = self.interfaces.iter().position(ours)?;
        let addresses = self.ips.iter().filter(|ip| ip.interface == Some(index));
        Some(CheckRequest {
            netns: sandbox.to_owned(),
            mac: self.interfaces[index].mac.clone().filter(|mac| !mac.is_empty()),
            addresses: addresses.map(|ip| ip.address).collect(),
            routes: self.routes.iter().map(Route::in_pod).collect(),
        })
    }

    /// The JSON document of this result in `version`.
    ///
    /// Empty parts are left out. Before 1.1.0, so are the fields that came with it; before 1.0.0,
    /// each address says its version.
    pub fn to_json(&self, version: Version) -> String {
        let fields_of_1_1 = version >= Version::V1_1_0;
        let interfaces = self.interfaces.iter().map(|interface| {
            let mut interface = interface.clone();
            if !fields_of_1_1 {
                (interface.mtu, interface.socket_path, interface.pci_id) = (None, None, None);
            }
            interface
        });
        let ips = self.ips.iter().map(|ip| IpDocument {
            version: (version < Version::V1_0_0).then(|| if ip.address.addr().is_ipv4() { "4" } else { "6" }),
            interface: ip.interface,
            address: ip.address,
            gateway: ip.gateway,
        });
        let routes = self.routes.iter().map(|route| {
            let mut route = route.clone();
            if !fields_of_1_1 {
                (route.mtu, route.advmss, route.priority, route.table, route.scope) = Default::default();
            }
            route
        });
        let document = Document {
            cni_version: version,
            interfaces: interfaces.collect(),
            ips: ips.collect(),
            routes: routes.collect(),
            dns: &self.dns,
        };
        // Nothing in it can fail to serialise.
        serde_json::to_string(&document).unwrap_or_default()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    cni_version: Version,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Interface>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<IpDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(skip_serializing_if = "Dns::is_empty")]
    dns: &'a Dns,
}

#[derive(Serialize)]
struct IpDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    address: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

/// Some plugins write `null` for what they have none of.
fn null_as_empty<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
