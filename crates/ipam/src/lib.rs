//! Pools, node blocks and pod addresses; durable
