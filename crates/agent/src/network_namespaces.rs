//! Whose processes a network namespace holds: what the programs at sockets know of the node's pods, and of the node.
//!
//! A pod that they do not know reaches Services by its packets, so nothing of a pod fails here.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tombolo_abi::{Addr, Netns, NetnsKind};
use tombolo_datapath::{Datapath, netns_cookie};
use tombolo_ipam::{Attachment, Owner};
use tombolo_netlink::Namespace;

use crate::error::Error;

/// The network namespaces of the node and its pods.
pub struct NetworkNamespaces {
    datapath: Arc<Datapath>,
    /// The cookie of the node's own.
    own: u64,
    pods: Mutex<Pods>,
}

/// What is known of attachments.
#[derive(Default)]
struct Pods(BTreeMap<Owner, (u64, Netns)>);

impl Pods {
    /// The row of a namespace. Of several attachments of a pod the first counts, by their interfaces' names.
    fn row(&self, cookie: u64) -> Option<&Netns> {
        let mut here = self.0.values().filter(|(other, _)| *other == cookie);
        here.next().map(|(_, row)| row)
    }
}

impl NetworkNamespaces {
    /// That of the calling thread is the node's.
    ///
    /// # Errors
    /// The kernel does not tell the namespace's cookie (before Linux 5.14).
    pub fn new(datapath: Arc<Datapath>) -> Result<Self, Error> {
        let own = netns_cookie().map_err(Error::NamespaceCookie)?;
        Ok(Self {
            datapath,
            own,
            pods: Mutex::default(),
        })
    }

    /// Makes the table one of these attachments and the node alone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn adopt<'a>(&self, attachments: impl Iterator<Item = &'a Attachment>) -> Result<(), Error> {
        let mut pods = self.lock();
        pods.0.clear();
        for (attachment, cookie) in cookies(attachments.collect()) {
            match cookie {
                // A path that has become another's.
                Ok(cookie) if cookie == self.own => {}
                Ok(cookie) => {
                    let row = row_of(attachment);
                    pods.0.insert(attachment.owner.clone(), (cookie, row));
                }
                Err(error) => {
                    tracing::warn!(owner = %attachment.owner, %error, "this pod reaches Services by its packets alone");
                }
            }
        }
        let table = self.datapath.netns();
        let node = table.get(&self.own)?;
        let of_pods = pods.0.values().map(|(cookie, _)| *cookie);
        let mut rows: BTreeMap<u64, Netns> = of_pods
            .filter_map(|cookie| Some((cookie, *pods.row(cookie)?)))
            .collect();
        rows.extend(node.map(|row| (self.own, row)));
        table.reconcile(&rows)?;
        Ok(())
    }

    /// Says what addresses Services know the node by.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_node(&self, v4: Addr, v6: Addr) -> Result<(), Error> {
        let table = self.datapath.netns();
        let row = Netns {
            v4,
            v6,
            kind: NetnsKind::Node as u32,
            pad: 0,
        };
        if table.get(&self.own)? != Some(row) {
            table.insert(&self.own, &row)?;
        }
        Ok(())
    }

    /// Tells of a pod's attachment.
    pub fn add(&self, attachment: &Attachment, cookie: u64) {
        let mut pods = self.lock();
        pods.0
            .insert(attachment.owner.clone(), (cookie, row_of(attachment)));
        self.write(&pods, &attachment.owner, cookie);
    }

    /// Takes an attachment back; fine if it is not known.
    pub fn remove(&self, owner: &Owner) {
        let mut pods = self.lock();
        if let Some((cookie, _)) = pods.0.remove(owner) {
            self.write(&pods, owner, cookie);
        }
    }

    /// Writes what is known of a namespace. A row that is left is nobody's: no other namespace will have the cookie.
    fn write(&self, pods: &Pods, owner: &Owner, cookie: u64) {
        let table = self.datapath.netns();
        let written = match pods.row(cookie) {
            Some(row) => table.insert(&cookie, row),
            None => table.remove(&cookie).map(drop),
        };
        if let Err(error) = written {
            tracing::warn!(%owner, %error, "the programs at sockets are not told of this pod");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn row_of(attachment: &Attachment) -> Netns {
    let first = |v4: bool| attachment.addresses.iter().find(|a| a.is_ipv4() == v4);
    let address = |v4| first(v4).map_or(Addr::UNSPECIFIED, |&a| Addr::from(a));
    Netns {
        v4: address(true),
        v6: address(false),
        kind: NetnsKind::Pod as u32,
        pad: 0,
    }
}

/// Goes into the namespace of each.
fn cookies(attachments: Vec<&Attachment>) -> Vec<(&Attachment, io::Result<u64>)> {
    let look = |attachment: &Attachment| {
        let namespace = Namespace::open(&attachment.netns).map_err(io::Error::other)?;
        namespace.enter().map_err(io::Error::other)?;
        netns_cookie()
    };
    let all = move || attachments.into_iter().map(|a| (a, look(a))).collect();
    // One thread for all, which ends there.
    thread::scope(|scope| scope.spawn(all).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
