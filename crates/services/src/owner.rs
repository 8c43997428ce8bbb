//! Who has frontends.

use std::fmt;

use crate::ServiceName;

/// Who may have frontends. Of several that claim one, a pod gets it before a Service, and of Services the older; where
/// that does not decide, the lesser in this order.
///
/// A pod's host ports go before Services. They are of this node alone, while a node port is reached at every other node,
/// too; and the pod was told that they are its own, which no Service that comes later takes back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A pod of this node, by its host ports.
    Pod(Attachment),
    /// A Service.
    Service(ServiceName),
}

impl Owner {
    /// The Service; none for a pod.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service(name) => Some(name),
            Self::Pod(_) => None,
        }
    }

    /// The pod; none for a Service.
    pub fn pod(&self) -> Option<&Attachment> {
        match self {
            Self::Pod(attachment) => Some(attachment),
            Self::Service(_) => None,
        }
    }
}

impl From<ServiceName> for Owner {
    fn from(name: ServiceName) -> Self {
        Self::Service(name)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(attachment) => attachment.fmt(f),
            Self::Service(name) => write!(f, "Service {name}"),
        }
    }
}

/// An attachment of a pod to the network of this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// The runtime's id of the pod's sandbox.
    pub container_id: String,
    /// The interface inside it.
    pub interface: String,
    /// The pod as `namespace/name`, where known.
    pub pod: Option<String>,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pod {
            Some(pod) => write!(f, "pod {pod}"),
            None => write!(f, "container {} interface {}", self.container_id, self.interface),
        }
    }
}
