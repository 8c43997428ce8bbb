//! The socket in a hook's hands, and the address that its process gave or is about to get: a thin layer over
//! `bpf_sock_addr` and the helpers that take it.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use tombolo_abi::{Addr, Hook, Netns, Outcome};

use crate::{counters::count, maps::NETNS};

/// What a process is told that is refused: `ECONNREFUSED`, `EADDRINUSE`.
const CONNECTION_REFUSED: i32 = -111;
const ADDRESS_IN_USE: i32 = -98;

/// The kernel goes on with the call, with the address as it is now; or does not.
const GO_ON: i32 = 1;
const REFUSE: i32 = 0;

/// A socket whose process uses addresses of one family: of IPv4, or of IPv6, which has those of IPv4 mapped. Copies
/// name the same socket.
#[derive(Clone, Copy)]
pub struct Socket<const V4: bool>(*mut bpf_sock_addr);

/// Reads one field of the context: whole and by itself, as the verifier wants it.
macro_rules! field {
    ($self:ident.$name:ident $([$index:literal])?) => {{
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { core::ptr::read_volatile(&raw const (*$self.0).$name $([$index])?) }
    }};
}

/// Writes one, as `field` reads.
macro_rules! set {
    ($self:ident.$name:ident $([$index:literal])?, $value:expr) => {{
        // SAFETY: as in `field`.
        unsafe { core::ptr::write_volatile(&raw mut (*$self.0).$name $([$index])?, $value) }
    }};
}

impl<const V4: bool> Socket<V4> {
    /// The socket that a program was called with.
    #[inline(always)]
    pub const fn new(context: &SockAddrContext) -> Self {
        Self(context.sock_addr)
    }

    /// For maps.
    #[inline(always)]
    pub const fn context(self) -> SockAddrContext {
        SockAddrContext::new(self.0)
    }

    /// The address.
    #[inline(always)]
    pub fn address(self) -> Addr {
        if V4 {
            return Addr::from_v4_word(field!(self.user_ip4));
        }
        Addr([
            field!(self.user_ip6[0]),
            field!(self.user_ip6[1]),
            field!(self.user_ip6[2]),
            field!(self.user_ip6[3]),
        ])
    }

    /// The port (network byte order).
    #[inline(always)]
    pub fn port(self) -> u16 {
        field!(self.user_port) as u16
    }

    /// Puts others in the place of address and port; the address is of the same family.
    #[inline(always)]
    pub fn set(self, address: &Addr, port: u16) {
        let Addr(words) = address;
        if V4 {
            set!(self.user_ip4, words[3]);
        } else {
            set!(self.user_ip6[0], words[0]);
            set!(self.user_ip6[1], words[1]);
            set!(self.user_ip6[2], words[2]);
            set!(self.user_ip6[3], words[3]);
        }
        set!(self.user_port, u32::from(port));
    }

    /// IP protocol number; there are some that do not fit a byte.
    #[inline(always)]
    pub fn protocol(self) -> u32 {
        field!(self.protocol)
    }

    /// Whether the socket takes datagrams from one address only.
    #[inline(always)]
    pub fn is_connected(self) -> bool {
        /// `TCP_ESTABLISHED`, which connected UDP sockets are said to be in.
        const CONNECTED: u32 = 1;
        // SAFETY: the socket is there while its hook runs.
        unsafe { core::ptr::read_volatile(&raw const (*(*self.0).__bindgen_anon_1.sk).state) == CONNECTED }
    }

    /// The port that its datagrams come from (network byte order).
    #[inline(always)]
    pub fn source_port(self) -> u16 {
        // SAFETY: as in `is_connected`.
        let port = unsafe { core::ptr::read_volatile(&raw const (*(*self.0).__bindgen_anon_1.sk).src_port) };
        // The kernel has this one alone in host byte order.
        (port as u16).to_be()
    }

    /// The socket's own number.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: a helper call.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    /// What is known of the socket's network namespace.
    #[inline(always)]
    pub fn netns(self) -> Option<&'static Netns> {
        // SAFETY: a helper call. The memory of the row stays mapped for the whole run of a program; should it be another
        // namespace's meanwhile, this one is gone, and its last call goes astray.
        unsafe { NETNS.get(bpf_get_netns_cookie(self.0.cast())) }
    }
}

/// Counts what became of a call, and gives the kernel its answer.
#[inline(always)]
pub fn answered(hook: Hook, outcome: Result<Outcome, Outcome>) -> i32 {
    match outcome {
        Ok(outcome) => {
            count(hook, outcome, 0);
            GO_ON
        }
        Err(reason) => {
            count(hook, reason, 0);
            let error = if matches!(reason, Outcome::PortInUse) {
                ADDRESS_IN_USE
            } else {
                CONNECTION_REFUSED
            };
            // SAFETY: a helper call.
            unsafe { bpf_set_retval(error) };
            REFUSE
        }
    }
}
