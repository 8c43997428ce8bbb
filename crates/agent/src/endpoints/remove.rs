//! DEL: fine for whatever is gone.

use tombolo_cni::error::Error as CniError;
use tombolo_cni::host_link_name;
use tombolo_cni::released::{self, Released};
use tombolo_ipam::Owner;
use tombolo_netlink::Netlink;

use super::errors::any;
use super::{Endpoints, owner};
use crate::caller::Caller;
use crate::error::Error;
use crate::fault::{self, Step};
use crate::wiring::PodLink;

impl Endpoints {
    /// Disconnects a pod and frees its addresses; blocks. Fine for whatever is gone. Does nothing when the
    /// caller has gone: the runtime has sent another DEL since, and perhaps a new ADD.
    ///
    /// # Errors
    /// As the runtime is to hear it; what could not be removed is still there, and can be tried again.
    pub fn delete(&self, container_id: &str, if_name: &str, caller: &Caller) -> Result<(), CniError> {
        let owner = owner(container_id, if_name)?;
        let _turn = self.turns.take(&owner);
        if caller.is_gone() {
            return Ok(());
        }
        fault::at(Step::DelTurn)?;
        self.remove(&owner).map_err(any)
    }

    /// The same, for an attachment whose turn the caller has.
    ///
    /// # Errors
    /// The kernel, the store or the disk refuses.
    pub fn remove(&self, owner: &Owner) -> Result<(), Error> {
        let host_name = host_link_name(&owner.container_id, &owner.ifname);
        let held = self.store.get(owner)?;
        self.namespaces.remove(owner);
        // First, so that nothing more comes this way. Should it fail, the rest stays for the DEL that the runtime repeats:
        // it finds these host ports by the addresses, which nobody else may get while they lead there.
        if let Some(attachment) = &held {
            self.services.remove_host_ports(attachment)?;
        }
        fault::at(Step::DelHostPortsRemoved)?;
        let link = PodLink {
            host_name: &host_name,
            pod_name: &owner.ifname,
            mac: [0; 6],
            mtu: 0,
            addresses: held.as_ref().map_or(&[], |a| &a.addresses),
            node_addresses: &[],
        };
        link.remove(&mut Netlink::open()?, &self.datapath)?;
        self.store.release(owner)?;
        fault::at(Step::DelAddressesFreed)?;
        self.conclude(owner)?;
        Ok(fault::at(Step::DelConcluded)?)
    }

    /// No file says any more that something of the attachment is to be done.
    pub(super) fn conclude(&self, owner: &Owner) -> Result<(), Error> {
        released::remove(&self.state_dir, &record(owner)).map_err(Error::file(
            "remove a record in",
            released::folder(&self.state_dir),
        ))?;
        self.journal.end(owner).map_err(Error::file(
            "note the end of an operation in",
            self.journal.folder(),
        ))
    }

    /// Whether a DEL that found no agent has left its record.
    pub(super) fn is_released(&self, owner: &Owner) -> bool {
        released::is_there(&self.state_dir, &record(owner))
    }
}

fn record(owner: &Owner) -> Released {
    Released {
        container_id: owner.container_id.clone(),
        if_name: owner.ifname.clone(),
    }
}
