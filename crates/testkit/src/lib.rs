//! Support for tests against the real kernel. What a test makes here is gone when the test ends, however it ends:
//! namespaces and file systems are held by file descriptors alone, processes die with the thread that started them.

mod bpffs;
mod disk;
mod mount;
mod namespace;
mod packet;
mod process;
mod server;
mod tap;
mod wait;

pub use bpffs::Bpffs;
pub use disk::Disk;
pub use etherparse;
pub use namespace::{End, TestNamespace, connect};
pub use packet::{Packet, VXLAN_PORT, vxlan};
pub use process::Process;
pub use server::{Server, ask_tcp, ask_udp};
pub use tap::Tap;
pub use wait::{wait_for, wait_for_some};
