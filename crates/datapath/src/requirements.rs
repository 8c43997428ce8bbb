//! What the kernel must have. Asked of the kernel by trying it, not of its version.

use std::fs;

use aya_obj::generated::bpf_insn;

use crate::bpf::{
    self,
    map::Shape,
    program::{self, Code, Kind, SocketCall},
};

/// Something that this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What.
    pub what: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Helpers by their numbers, each with what goes without it.
const HELPERS: [(i32, &str); 5] = [
    (21, "the eBPF helper skb_set_tunnel_key"),
    (38, "the eBPF helper skb_change_tail"),
    (50, "the eBPF helper skb_adjust_room"),
    (152, "the eBPF helper redirect_neigh (Linux 5.10)"),
    (155, "the eBPF helper redirect_peer (Linux 5.10)"),
];

/// What this machine lacks of what the datapath needs; empty: nothing.
pub fn requirements() -> Vec<Missing> {
    let mut missing = Vec::new();
    // `BPF_MAP_TYPE_HASH`.
    let shape = Shape {
        kind: 1,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        flags: 0,
    };
    match bpf::map::create("probe", shape, None) {
        Ok(map) => {
            if bpf::batch::write(&map, &[0_u32], &[0_u32]).is_err() {
                missing.push(Missing {
                    what: "batch operations on eBPF maps (Linux 5.6)",
                    remedy: "run Linux 6.1 or newer",
                });
            }
        }
        Err(_) => {
            missing.push(Missing {
                what: "the right to use eBPF, or eBPF itself (CONFIG_BPF_SYSCALL)",
                remedy: "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
            });
            // Nothing else can be asked.
            return missing;
        }
    }
    for (helper, what) in HELPERS {
        if !has_helper(helper) {
            missing.push(Missing {
                what,
                remedy: "run Linux 6.1 or newer",
            });
        }
    }
    if !has_socket_programs() {
        missing.push(Missing {
            what: "eBPF at the sockets of control groups (CONFIG_CGROUP_BPF)",
            remedy: "run a kernel that is built with it, as those of all distributions are",
        });
    }
    if fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").is_ok_and(|on| on.trim() == "0") {
        missing.push(Missing {
            what: "compiled eBPF: the programs run, but slowly",
            remedy: "sysctl -w net.core.bpf_jit_enable=1",
        });
    }
    missing
}

/// Whether programs can be attached to control groups and see what their processes connect to.
fn has_socket_programs() -> bool {
    let code = Code {
        kind: Kind::Sockets(SocketCall::Connect4),
        name: "probe",
        // r0 = 1; exit
        instructions: &[instruction(0xb7, 1), instruction(0x95, 0)],
        license: c"GPL",
        types: None,
    };
    program::load(&code).is_ok()
}

/// Whether programs may call a helper. One that calls it without arguments is refused either way,
/// but for another reason.
fn has_helper(number: i32) -> bool {
    let code = Code {
        kind: Kind::Packets,
        name: "probe",
        // call; exit
        instructions: &[instruction(0x85, number), instruction(0x95, 0)],
        license: c"GPL",
        types: None,
    };
    match program::load(&code) {
        Ok(_) => true,
        Err((_, log)) => !["invalid func", "unknown func", "cannot use helper"]
            .iter()
            .any(|no| log.contains(no)),
    }
}

/// An instruction that names no register but the first.
fn instruction(code: u8, imm: i32) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm,
    }
}
