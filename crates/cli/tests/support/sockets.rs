//! Sockets such as processes of a lab's pods and nodes make. Programs at sockets go by the control group and the network
//! namespace that a socket was made in, whoever uses it then: a test may, which is itself in neither.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, UnixAddr, recvmsg, sendmsg};
use socket2::{Domain, Socket, Type};
use tombolo_netlink::Namespace;

/// How many sockets are handed over at once: going to another control group takes tens of milliseconds, whoever goes.
pub const AT_ONCE: usize = 128;

/// The way into a control group.
pub struct ControlGroup(File);

impl ControlGroup {
    /// That of a process.
    pub fn of(process: &Path) -> Self {
        let groups = fs::read_to_string(process.join("cgroup")).unwrap();
        let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let procs = cgroup2().join(path).join("cgroup.procs");
        Self(OpenOptions::new().write(true).open(procs).unwrap())
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Makes sockets in it, and in a network namespace: has a child go there, which hands them over, and comes to
    /// nothing.
    pub fn sockets(
        &self,
        namespace: &Namespace,
        domain: Domain,
        kind: Type,
        count: usize,
    ) -> io::Result<Vec<Socket>> {
        assert!(count <= AT_ONCE, "{count} sockets do not fit into a message");
        let (ours, theirs) = UnixDatagram::pair()?;
        let (procs, namespace) = (
            self.0.try_clone()?,
            namespace.try_clone().map_err(io::Error::other)?,
        );
        let hand_over = move || {
            nix::unistd::write(&procs, b"0")?;
            namespace.enter().map_err(io::Error::other)?;
            let made = (0..count).map(|_| Socket::new(domain, kind, None));
            let made = made.collect::<io::Result<Vec<Socket>>>()?;
            let fds: Vec<RawFd> = made.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&fds)];
            let flags = MsgFlags::empty();
            sendmsg::<UnixAddr>(
                theirs.as_raw_fd(),
                &[io::IoSlice::new(b"s")],
                &rights,
                flags,
                None,
            )?;
            Err(io::ErrorKind::Interrupted.into())
        };
        let mut child = Command::new("/nonexistent");
        // SAFETY: no lock is taken but the allocator's, which is usable after a fork.
        unsafe { child.pre_exec(hand_over) };
        let outcome = child.spawn().map(drop);
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let mut room = nix::cmsg_space!([RawFd; AT_ONCE]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received: nix::Result<RecvMsg<'_, '_, UnixAddr>> =
            recvmsg(ours.as_raw_fd(), &mut parts, Some(&mut room), flags);
        let Ok(received) = received else {
            return Err(outcome
                .err()
                .unwrap_or_else(|| io::Error::other("no socket came")));
        };
        let mut came = Vec::with_capacity(count);
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = message {
                // SAFETY: they have just come, and are nobody else's.
                came.extend(
                    fds.into_iter()
                        .map(|fd| Socket::from(unsafe { OwnedFd::from_raw_fd(fd) })),
                );
            }
        }
        if came.len() == count {
            Ok(came)
        } else {
            Err(io::Error::other("not all sockets came"))
        }
    }
}

/// Where control groups of version 2 are.
pub fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"))
        .unwrap();
    mount.split(' ').nth(1).unwrap().into()
}
