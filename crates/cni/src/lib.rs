//! CNI protocol types, and the plugin binary tombolo-cni
