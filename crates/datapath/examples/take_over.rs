//! Loads the datapath as an agent's start does, and prints what the tables hold then: a process that the tests of
//! upgrades can kill, and build for another ABI version.
//!
//! `take_over DIRECTORY auto|tcx|clsact`; flows are tracked.

use std::{env, net::IpAddr};

use tombolo_datapath::{Attach, Datapath, Options};

/// Loads, and prints.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let directory = arguments.next().ok_or("no directory")?.into();
    let attach = match arguments.next().as_deref() {
        Some("tcx") => Attach::Tcx,
        Some("clsact") => Attach::Clsact,
        _ => Attach::Auto,
    };
    let datapath = Datapath::load(&Options {
        directory,
        attach,
        track_flows: true,
        ..Options::default()
    })?;
    print(&datapath)
}

#[expect(clippy::print_stdout, reason = "a command line tool")]
fn print(datapath: &Datapath) -> Result<(), Box<dyn std::error::Error>> {
    println!("abi {}", tombolo_abi::ABI_VERSION);
    for (address, row) in datapath.endpoints().entries()? {
        println!(
            "endpoint {} {} {:?} {}",
            IpAddr::from(address),
            row.ifindex,
            row.mac,
            row.mtu
        );
    }
    for (key, row) in datapath.routes().entries()? {
        println!(
            "route {}/{} {} {} {} {} {} {}",
            IpAddr::from(key.addr),
            key.prefix_len,
            row.node,
            row.kind,
            row.way,
            row.mtu,
            row.ifindex,
            IpAddr::from(row.next_hop)
        );
    }
    for (key, _) in datapath.uplink_macs().entries()? {
        println!("mac {} {:?}", key.node, key.mac);
    }
    println!("config {:?}", datapath.config()?);
    for (hook, outcome, counter) in datapath.counters()? {
        println!("counter {} {} {}", hook.word(), outcome.word(), counter.packets);
    }
    for (key, state) in datapath.flows().entries()? {
        #[cfg(feature = "abi-next")]
        let began = state.began;
        #[cfg(not(feature = "abi-next"))]
        let began = 0;
        println!(
            "flow {}:{} {}:{} {} {} {} {began}",
            IpAddr::from(key.source),
            u16::from_be(key.source_port),
            IpAddr::from(key.destination),
            u16::from_be(key.destination_port),
            key.protocol,
            state.direction.original,
            state.direction.last_seen
        );
    }
    Ok(())
}
