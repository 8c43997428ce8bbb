//! STATUS: whether an ADD could be served, and if not, whether pods that run may suffer too.

use std::collections::BTreeMap;

use nix::sys::statvfs::{FsFlags, statvfs};
use tombolo_cni::error::{Error as CniError, code};
use tombolo_ipam::Family;

use super::Endpoints;
use super::on_node::OnNode;
use crate::control::Outcome;
use crate::error::Error;

/// How many reasons of one kind are told.
const TOLD: usize = 5;

impl Endpoints {
    /// Whether an ADD could be served, `outcome` being that of the last round of the control loop; blocks.
    ///
    /// # Errors
    /// Code 51: what the node's pods need is not in place. Code 50: an ADD would fail. Each with all reasons.
    pub fn readiness(&self, outcome: &Outcome) -> Result<(), CniError> {
        let impaired = self.impaired(outcome);
        let unable = self.unable(outcome);
        if impaired.is_empty() && unable.is_empty() {
            return Ok(());
        }
        let (code, msg) = if impaired.is_empty() {
            (code::NOT_AVAILABLE, "no pod can be added on this node")
        } else {
            (
                code::LIMITED_CONNECTIVITY,
                "no pod can be added on this node, and the connectivity of its pods may be limited",
            )
        };
        let reasons: Vec<String> = impaired.into_iter().chain(unable).collect();
        Err(CniError::new(code, msg, reasons.join("; ")))
    }

    /// Why an ADD would fail.
    fn unable(&self, outcome: &Outcome) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.settings.borrow().is_none() {
            let problems = outcome.problems.join(", ");
            reasons.push(format!(
                "the agent has not read the Network and its NodeNetwork yet{}{problems}",
                if problems.is_empty() { "" } else { ": " }
            ));
        }
        match self.store.usage() {
            Err(error) => reasons.push(error.to_string()),
            Ok(usage) if usage.is_empty() => reasons.push(
                "this node has no block of pod addresses yet; see that `tombolo operator` runs, and that the Network's pools are not used up"
                    .into(),
            ),
            Ok(usage) => {
                let mut free: BTreeMap<String, (u64, Vec<String>)> = BTreeMap::new();
                for block in usage {
                    let family = free.entry(Family::from(block.block).to_string()).or_default();
                    family.0 = family.0.saturating_add(block.free);
                    family.1.push(format!(
                        "block {} has {} in use and {} resting",
                        block.block, block.used, block.resting
                    ));
                }
                // A pod needs one of each family.
                for (family, (_, blocks)) in free.into_iter().filter(|(_, (free, _))| *free == 0) {
                    reasons.push(format!("no {family} address is left: {}", blocks.join(", ")));
                }
            }
        }
        reasons.extend(self.state_folder());
        reasons
    }

    /// Why nothing could be written into the state folder.
    fn state_folder(&self) -> Option<String> {
        let folder = self.state_dir.display();
        match statvfs(&self.state_dir) {
            Err(errno) => Some(format!(
                "the state folder {folder} cannot be used: {}",
                errno.desc()
            )),
            Ok(disk) if disk.flags().contains(FsFlags::ST_RDONLY) => Some(format!(
                "the disk of the state folder {folder} is mounted read-only"
            )),
            Ok(disk) if disk.blocks() > 0 && disk.blocks_free() == 0 => {
                Some(format!("the disk of the state folder {folder} is full"))
            }
            Ok(_) => None,
        }
    }

    /// What the node's pods need and do not have.
    fn impaired(&self, outcome: &Outcome) -> Vec<String> {
        let mut reasons = if outcome.failed {
            outcome.problems.clone()
        } else {
            Vec::new()
        };
        match self.impaired_pods() {
            Ok(pods) => {
                let more = pods.len().saturating_sub(TOLD);
                reasons.extend(pods.into_iter().take(TOLD));
                if more > 0 {
                    reasons.push(format!("{more} more pods"));
                }
            }
            Err(error) => reasons.push(format!("the node's tables cannot be read: {error}")),
        }
        reasons
    }

    /// Pods that have their link, and not all that belongs to it. Those without a link have gone or are about
    /// to, which is no fault of the node's.
    fn impaired_pods(&self) -> Result<Vec<String>, Error> {
        let on_node = OnNode::read()?;
        let mut impaired = Vec::new();
        for attachment in self.store.attachments()? {
            if on_node.link(&attachment).is_none()
                || on_node.differences(&self.datapath, &attachment)?.is_empty()
            {
                continue;
            }
            // It may be that an ADD or DEL of it is under way: once more, when that is over.
            let owner = &attachment.owner;
            let _turn = self.turns.take(owner);
            let now = OnNode::read()?;
            if self.store.get(owner)?.is_some() && now.link(&attachment).is_some() {
                let differences = now.differences(&self.datapath, &attachment)?;
                if !differences.is_empty() {
                    impaired.push(format!("{owner}: {}", differences.join(", ")));
                }
            }
        }
        Ok(impaired)
    }
}
