//! The name of the host's side of a pod's link.

/// The start of the name of every link to a pod.
pub const HOST_LINK_PREFIX: &str = "tmb";

/// The name of the host's side of the link of one attachment: [`HOST_LINK_PREFIX`] and twelve
/// hexadecimal digits, 15 characters in all, which is what the kernel allows (`IFNAMSIZ` less
/// the terminating zero).
///
/// A function of the attachment alone, so that a DEL can remove the link when neither the agent
/// nor the pod's namespace is there to ask. Agents of all releases must agree on it: it never
/// changes.
pub fn host_link_name(container_id: &str, if_name: &str) -> String {
    let mut hash = FNV_OFFSET;
    // Neither part can hold a zero byte, so no two attachments are the same text.
    for byte in container_id.bytes().chain([0]).chain(if_name.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
    }
    let folded = (hash ^ (hash >> 48)) & 0xffff_ffff_ffff;
    format!("{HOST_LINK_PREFIX}{folded:012x}")
}

/// The 64-bit FNV-1a hash (draft-eastlake-fnv), folded to 48 bits as it says for other sizes.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::host_link_name;

    #[test]
    fn names_are_stable_short_and_distinct() {
        let name = host_link_name("3f1c", "eth0");
        assert_eq!(name.len(), 15);
        assert_ne!(name, host_link_name("3f1c", "eth1"));
        assert_ne!(host_link_name("ab", "c"), host_link_name("a", "bc"));
        // The FNV-1a hash of one zero byte is af63bd4c8601b7df.
        assert_eq!(host_link_name("", ""), "tmbbd4c860118bc");
    }
}
