//! Test support: namespaces, packet crafting, servers that report what they saw
