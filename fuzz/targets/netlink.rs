//! What comes on a netlink socket: answers, lists and notifications, by every path that reads them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| tombolo_netlink::decode(datagram));
