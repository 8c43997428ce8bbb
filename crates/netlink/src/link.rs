//! Links (network devices): finding and changing them. Making and deleting them have files of their own.

mod create;
mod delete;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags,
    LinkInfo, LinkMessage,
};
use nix::errno::Errno;

pub use self::create::{Bridge, Veth, Vxlan};
use crate::{Error, Mac, Netlink, Result};

/// The longest device name in bytes: `IFNAMSIZ` without the terminating zero.
const NAME_MAX: usize = 15;

/// A link, as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number, unique in its namespace while it exists.
    pub index: u32,
    /// Its name, unique in its namespace.
    pub name: String,
    /// Its Ethernet address; none for devices without one.
    pub mac: Option<Mac>,
    /// The largest packet that it takes, in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether the other end is there and switched on, too.
    pub carrier: bool,
    /// Whether packets can leave by it: there is a carrier, and the kernel has drawn its conclusions (it does that a
    /// moment later, and drops what is sent meanwhile). Since Linux 6.9, looking up the link hurries it.
    pub running: bool,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// The kind of a virtual device, such as `veth` or `vxlan`; none for hardware and `lo`.
    pub kind: Option<String>,
    /// The index of a veth's other end, in the namespace that this one lives in.
    pub peer: Option<u32>,
    /// The number under which this namespace knows the one that `peer` lives in; none: it is this one.
    pub peer_namespace: Option<i32>,
    /// The UDP port of a VXLAN device in external mode; none for all others.
    pub external_vxlan_port: Option<u16>,
}

/// What to change of a link; what is none stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Switch it on or off.
    pub up: Option<bool>,
    /// The largest packet, in bytes.
    pub mtu: Option<u32>,
    /// Make it a port of this bridge, by index; 0: of none.
    pub master: Option<u32>,
    /// A new name.
    pub name: Option<String>,
    /// A new Ethernet address.
    pub mac: Option<Mac>,
    /// Whether the kernel gives it an IPv6 link-local address of its own making when it comes up (RFC 4862, 5.3).
    pub ipv6_link_local: Option<bool>,
}

impl Netlink {
    /// All links of this namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(without_statistics());
        self.socket().dump(&"list links", request, |answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Link::from_message(&message),
            _ => None,
        })
    }

    /// The link of that name; none if there is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        check_name(name)?;
        let mut message = without_statistics();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        self.find_link(&format_args!("look up link {name}"), message)
    }

    /// The link of that name, which must be there.
    pub fn require_link(&mut self, name: &str) -> Result<Link> {
        self.link(name)?.ok_or_else(|| Error::NoSuchLink(name.into()))
    }

    /// The link with that index; none if there is none.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        let mut message = without_statistics();
        message.header.index = index;
        self.find_link(&format_args!("look up link {index}"), message)
    }

    /// Changes a link.
    pub fn set_link(&mut self, index: u32, change: &LinkChange) -> Result<()> {
        if let Some(wanted) = change.ipv6_link_local {
            // The kernel switches a link on before it looks at this option: two requests.
            let mode = if wanted {
                In6AddrGenMode::Eui64
            } else {
                In6AddrGenMode::None
            };
            let mut message = LinkMessage::default();
            message.header.index = index;
            let option = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)]);
            message.attributes.push(LinkAttribute::AfSpecUnspec(vec![option]));
            let operation = format_args!("set IPv6 address generation of link {index}");
            self.socket()
                .request(&operation, RouteNetlinkMessage::SetLink(message), 0)?;
        }
        let mut message = LinkMessage::default();
        message.header.index = index;
        if let Some(up) = change.up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags.set(LinkFlags::Up, up);
        }
        message.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        message
            .attributes
            .extend(change.master.map(LinkAttribute::Controller));
        message
            .attributes
            .extend(change.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        if let Some(name) = &change.name {
            check_name(name)?;
            message.attributes.push(LinkAttribute::IfName(name.clone()));
        }
        if message.attributes.is_empty() && change.up.is_none() {
            return Ok(());
        }
        let operation = format_args!("change link {index}");
        self.socket()
            .request(&operation, RouteNetlinkMessage::SetLink(message), 0)
            .map(drop)
    }

    fn find_link(&mut self, operation: &dyn std::fmt::Display, message: LinkMessage) -> Result<Option<Link>> {
        match self
            .socket()
            .request(operation, RouteNetlinkMessage::GetLink(message), 0)
        {
            Ok(answers) => Ok(answers.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Link::from_message(message),
                _ => None,
            })),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Link {
    pub(crate) fn from_message(message: &LinkMessage) -> Option<Self> {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            running: flags.contains(LinkFlags::Running),
            master: None,
            kind: None,
            peer: None,
            peer_namespace: None,
            external_vxlan_port: None,
        };
        let mut below = None;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.master = Some(*index),
                LinkAttribute::Link(index) => below = Some(*index),
                LinkAttribute::LinkNetNsId(id) => link.peer_namespace = Some(*id),
                LinkAttribute::LinkInfo(info) => link.read_info(info),
                _ => {}
            }
        }
        link.peer = below.filter(|_| link.kind.as_deref() == Some("veth"));
        (!link.name.is_empty()).then_some(link)
    }

    fn read_info(&mut self, info: &[LinkInfo]) {
        for item in info {
            match item {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Vxlan(options)) => {
                    let external = options.contains(&InfoVxlan::CollectMetadata(true));
                    self.external_vxlan_port = options.iter().find_map(|option| match option {
                        InfoVxlan::Port(port) if external => Some(*port),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
    }
}

/// Statistics are most of what the kernel tells of a link, and nobody here reads them.
fn without_statistics() -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

/// The kernel's own rule (net/core/dev.c, `dev_valid_name`).
fn check_name(name: &str) -> Result<()> {
    let valid = (1..=NAME_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .bytes()
            .any(|byte| matches!(byte, b'/' | b':' | 0x0b) || byte == 0 || byte.is_ascii_whitespace());
    if valid {
        Ok(())
    } else {
        Err(Error::InvalidName(name.into()))
    }
}
