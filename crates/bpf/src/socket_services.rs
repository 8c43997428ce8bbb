//! Services, at sockets: what a process sends to one of them goes to a backend from the start, and no packet has to be
//! translated. The tables and the choice are those of packets.
//!
//! What the packets' path would drop is left to it. What it would refuse is refused here.

use tombolo_abi::{Addr, Backend, FlowKey, Frontend, FrontendKey, Netns, NetnsKind, Outcome};

use crate::{
    flows, frontends,
    maps::BACKENDS,
    parse::protocol,
    resolve::{Place, resolve},
    services,
    socket::Socket,
};

/// Who calls at a hook.
#[derive(Clone, Copy)]
pub struct Caller {
    netns: &'static Netns,
    /// TCP or UDP.
    pub protocol: u8,
}

impl Caller {
    /// Whose socket it is; `None`: nobody's whose Services these are, or there are none.
    #[inline(always)]
    pub fn of<const V4: bool>(socket: Socket<V4>) -> Option<Self> {
        if !services::are_on() {
            return None;
        }
        let protocol = match socket.protocol() {
            number if number == u32::from(protocol::TCP) => protocol::TCP,
            number if number == u32::from(protocol::UDP) => protocol::UDP,
            _ => return None,
        };
        let netns = socket.netns()?;
        Some(Self { netns, protocol })
    }

    /// Whether it is the node itself, whose packets begin their way at no hook.
    #[inline(always)]
    pub const fn is_node(self) -> bool {
        self.netns.kind == NetnsKind::Node as u32
    }

    /// Has what a backend answers to this port of the caller's be its answer to what is sent past the packets' path:
    /// another socket may have had the port, and packets of its own, for another Service.
    #[inline(always)]
    pub fn takes_answers(self, port: u16, backend: &Backend) {
        // No packet of the node's own is translated.
        if !self.is_node() {
            flows::supersede(&FlowKey {
                source: backend.address,
                destination: self.address(backend.address.is_v4()),
                source_port: backend.port,
                destination_port: port,
                protocol: self.protocol,
                pad: [0; 3],
            });
        }
    }

    /// The address that Services know it by.
    #[inline(always)]
    fn address(self, is_v4: bool) -> Addr {
        if is_v4 { self.netns.v4 } else { self.netns.v6 }
    }

    /// Whether a backend that this caller got at an address and port is still the Service's.
    #[inline(always)]
    pub fn keeps(self, address: &Addr, port: u16, id: u32) -> bool {
        let key = self.key(address, port);
        socket_keeps(&raw const key, u32::from(self.is_node()), id) != 0
    }

    /// What it asks for at an address and port; from which of its own is not known yet.
    #[inline(always)]
    fn key(self, address: &Addr, port: u16) -> FlowKey {
        FlowKey {
            source: self.address(address.is_v4()),
            destination: *address,
            source_port: 0,
            destination_port: port,
            protocol: self.protocol,
            pad: [0; 3],
        }
    }

    /// The backend that this caller gets at an address and port, and its id; `None`: that is for no Service, or is left to
    /// the packets' path.
    ///
    /// # Errors
    /// `NoService`, `NoBackend`: it is refused.
    #[inline(always)]
    pub fn choose(self, address: &Addr, port: u16) -> Result<Option<(u32, &'static Backend)>, Outcome> {
        let is_v4 = address.is_v4();
        let key = self.key(address, port);
        let chosen = socket_choose(&raw const key, u32::from(self.is_node()));
        if chosen < 0 {
            return Err(Outcome::from_number(chosen.unsigned_abs() as u8).unwrap_or(Outcome::NoBackend));
        }
        let id = chosen as u32;
        match BACKENDS.get(id) {
            Some(backend) if id != 0 && backend.address.is_v4() == is_v4 => Ok(Some((id, backend))),
            _ => Ok(None),
        }
    }
}

/// Public by name, so that the verifier looks at it once. Returns a backend's id; 0: what has this key is for no Service,
/// or left to the packets' path; less: the number of the reason why it is refused.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn socket_choose(key: *const FlowKey, is_node: u32) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested; and, before Linux 6.2,
    // a copy for look-ups.
    let Some(key) = (unsafe { key.as_ref() }).copied() else {
        return 0;
    };
    match choose(&key, is_node != 0) {
        Ok(id) => id as i32,
        Err(reason) => -(reason as i32),
    }
}

/// Public by name, so that the verifier looks at it once. Returns whether what has this key may go on to a backend.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn socket_keeps(key: *const FlowKey, is_node: u32, id: u32) -> i32 {
    // SAFETY: as in `socket_choose`.
    let Some(key) = (unsafe { key.as_ref() }).copied() else {
        return 0;
    };
    match frontend(&key, is_node != 0) {
        Ok(Some(frontend)) => i32::from(frontends::has(frontend, id)),
        _ => 0,
    }
}

#[inline(always)]
fn choose(key: &FlowKey, is_node: bool) -> Result<u32, Outcome> {
    let Some(frontend) = frontend(key, is_node)? else {
        return Ok(0);
    };
    match frontends::choose(frontend, key, false) {
        Err(Outcome::BackendElsewhere) => Ok(0),
        chosen => chosen,
    }
}

/// The frontend of what has this key; `None`: it has none, or is left to the packets' path.
///
/// # Errors
/// `NoService`: it is refused.
#[inline(always)]
fn frontend(key: &FlowKey, is_node: bool) -> Result<Option<&'static Frontend>, Outcome> {
    let Addr(words) = key.destination;
    // What processes take for their own host, and the tables for all addresses that take node ports.
    let is_any = words[0] | words[1] | words[3] == 0 && (words[2] == 0 || words[2] == Addr::MAPPED_WORD);
    if is_any {
        return Ok(None);
    }
    let mut wanted = FrontendKey::default();
    if key.destination.is_loopback() {
        // That of a pod is the pod's.
        return Ok(frontends::find_at_loopback(key, &mut wanted).filter(|_| is_node));
    }
    let frontend = match frontends::find(key, &mut wanted) {
        None if frontends::is_address(key, &mut wanted) => None,
        // A pod's packet to an address of the Services' ranges is refused when it comes; datagrams to elsewhere need not
        // pay for that.
        None if !is_node => return Ok(None),
        None if matches!(resolve(&key.destination), Place::Services) => None,
        None => return Ok(None),
        found => found,
    };
    if !resolve(&key.destination).may_be_a_service() {
        return Ok(None);
    }
    let frontend = frontend.ok_or(Outcome::NoService)?;
    Ok(Some(frontend).filter(|frontend| frontends::lets_in(frontend, &key.source)))
}
