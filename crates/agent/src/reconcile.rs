//! Makes the kernel what the layout asks for, changing only what differs. Packets flow meanwhile, so
//! the order matters: what is named comes before what names it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tombolo_abi::Hook;
use tombolo_datapath::Datapath;
use tombolo_layout::{Desired, Local, Masquerade};
use tombolo_netlink::Netlink;

use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::network_namespaces::NetworkNamespaces;
use crate::services::Services;
use crate::{kernel_routes, masquerade, overlay, reserved_ports, sysctls};

/// Makes the kernel what the layout asks for.
pub struct Reconciler {
    datapath: Arc<Datapath>,
    namespaces: Arc<NetworkNamespaces>,
    services: Arc<Services>,
    /// Whose processes reach Services by their sockets.
    cgroup: Option<PathBuf>,
    /// Where it is kept what the kernel's settings were before.
    state_dir: PathBuf,
    /// The rule in force and the overlay's port, as far as is known: asking costs as much as setting.
    masquerade: Option<(Masquerade, Option<u16>)>,
    /// Whether all programs are this agent's; until its tables are filled, those of before may go on
    /// with theirs.
    programs_are_ours: bool,
}

impl Reconciler {
    /// Nothing is known of the kernel yet.
    pub fn new(endpoints: &Endpoints, cgroup: Option<PathBuf>) -> Self {
        Self {
            datapath: endpoints.datapath.clone(),
            namespaces: endpoints.namespaces.clone(),
            services: endpoints.services.clone(),
            cgroup,
            state_dir: endpoints.state_dir.clone(),
            masquerade: None,
            programs_are_ours: false,
        }
    }

    /// Sets anew what cannot be looked at cheaply.
    pub fn distrust(&mut self) {
        self.masquerade = None;
    }

    /// Does all that can be done, and returns what could not.
    pub fn apply(&mut self, desired: &Desired, local: &Local) -> Vec<Error> {
        let mut errors = Vec::new();
        let mut keep = |step: Result<(), Error>| errors.extend(step.err());
        keep(sysctls::ensure(&local.uplinks));
        keep(reserved_ports::reserve(&self.state_dir));
        let tables = self.tables(desired);
        let filled = tables.is_ok();
        keep(tables);
        keep(self.hooks(desired, local));
        keep(self.sockets());
        if filled && !self.programs_are_ours {
            let replaced = self.datapath.replace_programs();
            self.programs_are_ours = replaced.is_ok();
            keep(replaced.map_err(Error::from));
        }
        keep(self.masquerade(desired));
        match Netlink::open() {
            Ok(mut netlink) => {
                if desired.overlay.is_none() {
                    keep(overlay::remove(&mut netlink));
                }
                kernel_routes::reconcile(
                    &mut netlink,
                    &desired.kernel_routes,
                    local.overlay_ifindex,
                    &mut errors,
                );
            }
            Err(error) => errors.push(error.into()),
        }
        errors
    }

    /// MACs before the routes by which packets from them are taken; the configuration, by whose prefix
    /// lengths routes are found, last.
    fn tables(&self, desired: &Desired) -> Result<(), Error> {
        let macs = self.datapath.uplink_macs().reconcile(&desired.uplink_macs)?;
        let routes = self.datapath.routes().reconcile(&desired.routes)?;
        self.services.set_config(&desired.config)?;
        self.namespaces
            .set_node(desired.config.node_v4, desired.config.node_v6)?;
        tracing::debug!(?macs, ?routes, "the tables are as they should be");
        Ok(())
    }

    /// Attaches to the overlay device and all uplinks, and detaches from what is neither any more.
    fn hooks(&self, desired: &Desired, local: &Local) -> Result<(), Error> {
        let mut wanted = BTreeSet::new();
        let mut attach = |hook: Hook, name: &str, ifindex: u32| -> Result<(), Error> {
            wanted.insert((name.to_owned(), hook));
            Ok(self.datapath.attach(hook, name, ifindex)?)
        };
        if let (Some(_), Some(ifindex)) = (&desired.overlay, local.overlay_ifindex) {
            attach(Hook::FromOverlay, overlay::NAME, ifindex)?;
            attach(Hook::ToOverlay, overlay::NAME, ifindex)?;
        }
        for uplink in &local.uplinks {
            attach(Hook::FromUplink, &uplink.name, uplink.ifindex)?;
            attach(Hook::ToUplink, &uplink.name, uplink.ifindex)?;
        }
        for (name, hook) in self.datapath.attachments()? {
            let of_pod = matches!(hook, Hook::FromPod | Hook::ToPod);
            if !of_pod && !wanted.contains(&(name.clone(), hook)) {
                self.datapath.detach(&name)?;
                tracing::info!(device = name, "this device is no uplink any more");
            }
        }
        Ok(())
    }

    fn sockets(&self) -> Result<(), Error> {
        match &self.cgroup {
            Some(cgroup) => self.datapath.attach_sockets(cgroup)?,
            None => self.datapath.detach_sockets()?,
        }
        Ok(())
    }

    fn masquerade(&mut self, desired: &Desired) -> Result<(), Error> {
        let wanted = (
            desired.masquerade.clone(),
            desired.overlay.map(|overlay| overlay.port),
        );
        if self.masquerade.as_ref() != Some(&wanted) {
            let (masquerade, overlay_port) = &wanted;
            masquerade::apply(masquerade, *overlay_port)?;
            self.masquerade = Some(wanted);
        }
        Ok(())
    }
}
