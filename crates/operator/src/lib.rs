//! Cluster-wide work: node indexes and node blocks
