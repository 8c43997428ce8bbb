//! The kernel side: what runs on every packet of pods, overlay and uplinks.
//!
//! Each file in `hooks` is one program; it reads as the list of stages that a packet passes there.
//! The stages are the modules beside it, and their order is the same in every program: parse,
//! anti-spoofing, tracking, egress policy, resolve, deliver or forward, ingress policy. Both
//! address families run the same code: [`tombolo_abi::Addr`] is 16 bytes for either.
//!
//! On the host target this is an empty program, so that the whole workspace type-checks and lints
//! without the BPF toolchain.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// On the host nothing calls the programs.
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code))]

mod answer;
mod counters;
mod deliver;
mod expiry;
mod fib;
mod flows;
mod forward;
mod fragments;
mod frontends;
mod hooks;
mod icmp;
mod maps;
mod mtu;
mod overlay;
mod parse;
mod policy;
mod quote;
mod refuse;
mod resolve;
mod services;
mod skb;
mod source_ports;
mod spoof;
mod tracking;
mod translate;
mod transport;
mod ttl;
mod tunnel;
mod verdict;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing panics: the verifier would refuse this loop.
    loop {}
}

/// Several helpers are exported to GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
