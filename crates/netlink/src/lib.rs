//! Links, addresses, routes, neighbours, sysctls and namespaces of the Linux kernel
