//! The disk under the agent's state fills up, or becomes read-only.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tombolo_testkit::ask_tcp;

use crate::Running;
use crate::common::{Added, Node, Pod};

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00:10:244::1:0/112"];

/// The codes of a disk that does not do what it should: files, and the address store.
const CODES: [u64; 2] = [5, 104];

/// A disk of its own under a node's state folder.
struct Disk {
    folder: PathBuf,
    /// What an ext4 is in.
    image: Option<tempfile::NamedTempFile>,
}

impl Disk {
    /// A small one.
    fn small(node: &Node) -> Self {
        let folder = node.state_dir();
        fs::create_dir_all(&folder).unwrap();
        let options = Some("size=8m,mode=700");
        mount(Some("state"), &folder, Some("tmpfs"), MsFlags::empty(), options).unwrap();
        Self { folder, image: None }
    }

    /// One whose file system becomes read-only by itself on an error, as most do.
    fn fragile(node: &Node) -> Self {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(64 << 20).unwrap();
        run("mkfs.ext4", &["-q", image.path().to_str().unwrap()]);
        let disk = Self {
            folder: node.state_dir(),
            image: Some(image),
        };
        fs::create_dir_all(&disk.folder).unwrap();
        disk.mount();
        disk
    }

    fn mount(&self) {
        let image = self.image.as_ref().unwrap().path().to_str().unwrap();
        let folder = self.folder.to_str().unwrap();
        run("mount", &["-o", "loop,errors=remount-ro", image, folder]);
    }

    fn unmount(&self) {
        umount2(&self.folder, MntFlags::MNT_DETACH).unwrap();
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let mut file = fs::File::create(self.folder.join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.folder.join("filler")).unwrap();
    }

    /// The file system finds an error in itself.
    fn fail(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let folder = self.folder.to_str().unwrap();
        let device = mounts
            .lines()
            .find(|line| line.split(' ').nth(1) == Some(folder))
            .and_then(|line| line.split(' ').next()?.strip_prefix("/dev/"))
            .unwrap();
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "by a test").unwrap();
        fs::write(self.folder.join("probe"), "").unwrap_err();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

/// Three pods of a node whose state is on such a disk.
struct Bed {
    a: Running,
    b: Running,
    going: Running,
    // Before the disk, which it holds.
    node: Node,
    disk: Disk,
}

impl Bed {
    fn new(disk: fn(&Node) -> Disk) -> Self {
        let mut node = Node::new(&DUAL);
        let disk = disk(&node);
        node.start_agent();
        node.wait_ready();
        let [a, b, going] = [(); 3].map(|()| Running::on(&node));
        Self {
            a,
            b,
            going,
            node,
            disk,
        }
    }

    /// Pods that run go on.
    fn go_on(&self, when: &str) {
        for v4 in [true, false] {
            let seen = ask_tcp(&self.a.pod.namespace, self.b.server(v4), &[7; 100_000]);
            let seen = seen.unwrap_or_else(|error| panic!("{when}: {error}"));
            assert_eq!(seen.ip(), self.a.address(v4), "{when}");
        }
    }

    /// ADDs until three in a row are refused: whatever is left of a page may take some. Those that succeed.
    fn add_until_refused(&self, cause: &str) -> Vec<(Pod, Added)> {
        let mut taken = Vec::new();
        let mut refused = 0;
        while refused < 3 {
            let pod = Pod::new();
            match self.node.add(&pod) {
                Ok(added) => {
                    refused = 0;
                    taken.push((pod, added));
                }
                Err(error) => {
                    refused += 1;
                    assert_is_clear(&error, cause);
                    let inside = pod.namespace.netlink().link("eth0").unwrap();
                    let host = tombolo_cni::host_link_name(&pod.id, "eth0");
                    let on_node = self.node.namespace.netlink().link(&host).unwrap();
                    assert_eq!((inside, on_node), (None, None), "{error}, and half a pod");
                }
            }
            assert!(taken.len() < 200, "the disk takes everything");
        }
        taken
    }

    /// DEL twice: it succeeds, or says clearly why not. Whether it did.
    fn try_del(&self, cause: &str) -> bool {
        let results = [(); 2].map(|()| {
            let pod = &self.going.pod;
            let output = self.node.plugin("DEL", &pod.id, &pod.namespace.path());
            if !output.status.success() {
                assert_is_clear(&serde_json::from_slice(&output.stdout).unwrap(), cause);
            }
            output.status.success()
        });
        results.contains(&true)
    }
}

fn assert_is_clear(error: &Value, cause: &str) {
    assert!(CODES.contains(&error["code"].as_u64().unwrap()), "{error}");
    let text = error.to_string();
    assert!(text.contains(cause), "{text} does not say what happened");
    assert!(
        text.contains("see that"),
        "{text} does not say what to do about it"
    );
}

#[test]
fn a_full_disk_is_outlived() {
    const CAUSE: &str = "No space left on device";
    let mut bed = Bed::new(Disk::small);
    bed.go_on("before");
    bed.disk.fill();
    let taken = bed.add_until_refused(CAUSE);
    bed.go_on("while the disk is full");
    let deleted = bed.try_del(CAUSE);
    bed.go_on("after a DEL while the disk is full");

    // With room again all works, without a restart and after one.
    bed.disk.free();
    if !deleted {
        bed.node.del(&bed.going.pod);
    }
    let fresh = Running::on(&bed.node);
    for restarted in [false, true] {
        if restarted {
            bed.node.end_agent(Signal::SIGKILL);
            bed.node.start_agent();
            bed.node.wait_ready();
        }
        let held = taken.iter().map(|(pod, added)| (pod, added));
        let running = [&bed.a, &bed.b, &fresh].map(|r| (&r.pod, &r.added));
        bed.node.expect_only(&held.chain(running).collect::<Vec<_>>());
        assert_eq!(bed.node.get("/v1/status")["ready"], json!(true));
        bed.go_on("with room again");
    }
    bed.node.end_agent(Signal::SIGTERM);
}

#[test]
fn a_disk_that_becomes_read_only_is_outlived() {
    const CAUSE: &str = "Read-only file system";
    let mut bed = Bed::new(Disk::fragile);
    bed.disk.fail();
    assert!(bed.add_until_refused(CAUSE).is_empty());
    bed.go_on("while the disk is read-only");
    let deleted = bed.try_del(CAUSE);
    assert!(!deleted, "a DEL that is not durable");
    // Without an agent, too.
    bed.node.end_agent(Signal::SIGKILL);
    bed.try_del(CAUSE);
    bed.go_on("without an agent");

    // Such a file system is mounted anew, as the machine does when it is rebooted; here the pods live on.
    bed.disk.unmount();
    bed.disk.mount();
    bed.node.start_agent();
    bed.node.wait_ready();
    bed.node.del(&bed.going.pod);
    bed.node
        .expect_only(&[&bed.a, &bed.b].map(|r| (&r.pod, &r.added)));
    bed.go_on("with a new mount");
    bed.node.end_agent(Signal::SIGTERM);
}
