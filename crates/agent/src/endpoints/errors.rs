//! What the runtime hears of a failure.

use tombolo_cni::error::{Error as CniError, code};
use tombolo_ipam::{Error as StoreError, Owner};

use crate::error::Error;

/// ADD fails where the interface exists.
pub fn exists_already(owner: &Owner, host_name: &str) -> CniError {
    let ifname = &owner.ifname;
    CniError::new(
        code::EXISTS,
        format!("interface {ifname} exists in the pod, or its other side {host_name} on the node"),
        format!(
            "{owner}: a DEL must come between two ADDs, and nobody else may use these names; nothing was changed"
        ),
    )
}

/// The address store says no.
pub fn store(error: StoreError) -> CniError {
    let details = error.to_string();
    match error {
        StoreError::Exhausted { .. } | StoreError::AddressInUse { .. } => {
            CniError::new(code::NO_ADDRESS, "no address for the pod", details)
        }
        StoreError::NoBlock { .. } | StoreError::AddressResting { .. } => {
            CniError::new(code::TRY_AGAIN, "no address for the pod yet", details)
        }
        StoreError::NotInBlocks { .. } | StoreError::NothingRequested { .. } => CniError::new(
            code::INVALID_CONFIG,
            "the requested address cannot be had",
            details,
        ),
        StoreError::HostPortInUse { .. } => {
            CniError::new(code::HOST_PORT, "a host port is another pod's", details)
        }
        StoreError::HostPortFamily { .. } => {
            CniError::new(code::INVALID_CONFIG, "a host port cannot be had", details)
        }
        StoreError::AlreadyAllocated { .. } => {
            CniError::new(code::EXISTS, "the attachment exists already", details)
        }
        _ => CniError::new(code::STORE, "the address store failed", details),
    }
}

/// The kernel says no.
pub fn kernel(error: impl ToString) -> CniError {
    CniError::new(
        code::KERNEL,
        "the pod's link could not be set up or removed",
        error.to_string(),
    )
}

/// An error of the agent's own, by what it is about.
pub fn any(error: Error) -> CniError {
    match error {
        Error::Store(error) => store(error),
        Error::File { .. } => CniError::new(
            code::IO,
            "a file of the agent's state cannot be used",
            error.to_string(),
        ),
        error => kernel(&error),
    }
}
