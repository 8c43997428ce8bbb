//! A node whose processes, and those of its first pod, reach Services by their sockets.

use std::{ops::Deref, path::PathBuf};

use tombolo_abi::{Hook, Netns, NetnsKind, Outcome};
use tombolo_datapath::{Attach, netns_cookie};

use super::{
    bed::{Other, run},
    cgroup::Cgroup,
    cluster::{V4, V6},
    frame::ip,
    node::Node,
    service::turn_on,
};

/// What is dropped first stands first: threads, then their control group.
pub struct Hooked {
    pub node: Node,
    /// The node's own processes.
    pub own: Other,
    pub cgroup: Cgroup,
}

impl Hooked {
    pub fn new() -> Self {
        let node = Node::new(Attach::Auto);
        turn_on(&node.cluster);
        // The node's own ways, past the overlay's.
        for way in [
            "default via 172.20.1.1",
            "default via fd00:20:1::1",
            "10.244.2.0/24 via 172.20.1.12 src 172.20.1.11",
            "fd00:10:244:2::/112 via fd00:20:1::12 src fd00:20:1::11",
        ] {
            run(&format!("ip route add {way}"));
        }
        let hooked = Self {
            own: Other::here(),
            cgroup: Cgroup::new(),
            node,
        };
        hooked
            .cluster
            .datapath
            .attach_sockets(hooked.cgroup.path())
            .unwrap();
        for (place, kind, v4, v6) in [
            (&hooked.pod_a, NetnsKind::Pod, V4.a, V6.a),
            (&hooked.own, NetnsKind::Node, V4.node, V6.node),
        ] {
            let path: PathBuf = hooked.cgroup.path().into();
            let cookie = place.run(move || {
                Cgroup::join(&path);
                netns_cookie().unwrap()
            });
            let row = Netns {
                v4: ip(v4).into(),
                v6: ip(v6).into(),
                kind: kind as u32,
                pad: 0,
            };
            hooked.cluster.datapath.netns().insert(&cookie, &row).unwrap();
        }
        hooked
    }

    /// What has been counted at a hook of sockets.
    pub fn count(&self, hook: Hook, outcome: Outcome) -> u64 {
        let counted = self.cluster.packets();
        counted.get(&(hook, outcome)).copied().unwrap_or_default()
    }

    /// Does something, and asserts that it has been counted once, as this.
    #[track_caller]
    pub fn counts<T>(&self, hook: Hook, outcome: Outcome, act: impl FnOnce() -> T) -> T {
        let before = self.count(hook, outcome);
        let done = act();
        assert_eq!(
            self.count(hook, outcome),
            before + 1,
            "{} {}\n{}",
            hook.word(),
            outcome.word(),
            self.cluster.state()
        );
        done
    }
}

impl Deref for Hooked {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}
