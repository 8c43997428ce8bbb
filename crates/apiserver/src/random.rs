//! Names and secrets that nobody can foresee.

/// Fresh random bytes from the kernel.
fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(
        clippy::expect_used,
        reason = "without random numbers there can be neither TLS nor tokens"
    )]
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A random UUID (RFC 9562, version 4).
pub fn uid() -> String {
    let mut id = bytes::<16>();
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    [&id[..4], &id[4..6], &id[6..8], &id[8..10], &id[10..]]
        .map(hex)
        .join("-")
}

/// Five characters for the end of a generated name, out of Kubernetes' alphabet, which spells no words.
pub fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    bytes::<5>()
        .iter()
        .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
        .collect()
}

/// A bearer token of 256 random bits.
pub fn token() -> String {
    hex(&bytes::<32>())
}

/// A number below `end`, which is above 0.
pub fn below(end: u32) -> u32 {
    // The bias is end / 2^64: nobody guards a secret by it.
    (u64::from_ne_bytes(bytes::<8>()) % u64::from(end)) as u32
}
