//! The agent's fault points: see [`tombolo_cni::fault`].

use tombolo_cni::fault::Fault;
pub(crate) use tombolo_cni::fault::at;

use crate::error::Error;

/// The steps of ADD and DEL at which a test can have the agent fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// ADD has its turn, and nothing is done yet.
    AddTurn,
    /// The journal has it.
    AddNoted,
    /// Addresses are taken in memory, and on their way to the disk.
    AddAddressesTaken,
    /// Both sides of the link are there, and down.
    AddLinkMade,
    /// The rows of ENDPOINTS are written.
    AddRowsWritten,
    /// One of the two programs is attached.
    AddOneAttached,
    /// Both are.
    AddBothAttached,
    /// The host's side is up.
    AddHostUp,
    /// The pod's side is up.
    AddPodUp,
    /// The pod's side has its addresses, neighbours and routes.
    AddPodConfigured,
    /// The node has neighbours and routes to the pod.
    AddNodeRouted,
    /// Packets can leave by the host's side.
    AddRunning,
    /// The node's ports lead to the pod that are to.
    AddHostPortsWritten,
    /// The addresses are on the disk.
    AddStored,
    /// The journal no longer has it; the answer is not sent yet.
    AddConcluded,
    /// DEL has its turn, and nothing is done yet.
    DelTurn,
    /// The node's ports lead to the pod no longer.
    DelHostPortsRemoved,
    /// The rows of ENDPOINTS are gone.
    DelRowsRemoved,
    /// The link is gone.
    DelLinkDeleted,
    /// What attached the programs is gone.
    DelDetached,
    /// The addresses are free, on the disk.
    DelAddressesFreed,
    /// No file names it; the answer is not sent yet.
    DelConcluded,
}

impl Step {
    /// All steps, in their order.
    #[cfg(feature = "fault-points")]
    pub const ALL: [Self; 22] = [
        Self::AddTurn,
        Self::AddNoted,
        Self::AddAddressesTaken,
        Self::AddLinkMade,
        Self::AddRowsWritten,
        Self::AddOneAttached,
        Self::AddBothAttached,
        Self::AddHostUp,
        Self::AddPodUp,
        Self::AddPodConfigured,
        Self::AddNodeRouted,
        Self::AddRunning,
        Self::AddHostPortsWritten,
        Self::AddStored,
        Self::AddConcluded,
        Self::DelTurn,
        Self::DelHostPortsRemoved,
        Self::DelRowsRemoved,
        Self::DelLinkDeleted,
        Self::DelDetached,
        Self::DelAddressesFreed,
        Self::DelConcluded,
    ];
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Netlink(fault.into())
    }
}
