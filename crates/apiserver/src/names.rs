//! What names, label keys and label values may look like.

/// Whether `name` is a DNS label (RFC 1123, section 2.1): at most 63 of a-z, 0-9 and inner dashes.
pub fn is_dns_label(name: &str) -> bool {
    name.len() <= 63 && is_dns_part(name)
}

/// Whether `name` is a DNS label that begins with a letter (RFC 1035, section 2.3.1).
pub fn is_dns_1035_label(name: &str) -> bool {
    is_dns_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Whether `name` is a DNS subdomain as Kubernetes means it: labels between dots, at most 253 bytes.
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_part)
}

fn is_dns_part(part: &str) -> bool {
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    !part.is_empty() && part.bytes().all(|b| inner(&b)) && !part.starts_with('-') && !part.ends_with('-')
}

/// Whether `key` can be the key of a label or annotation: `name` or `dns.prefix/name`.
pub fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_qualified(name),
        None => is_qualified(key),
    }
}

/// Whether `value` can be the value of a label.
pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_qualified(value)
}

fn is_qualified(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let ends = [name.bytes().next(), name.bytes().next_back()];
    name.len() <= 63
        && name.bytes().all(inner)
        && ends.iter().all(|b| b.is_some_and(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        for good in ["a", "0a", "a-b", &"a".repeat(63)] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"a".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
        assert!(is_dns_1035_label("a0") && !is_dns_1035_label("0a") && !is_dns_1035_label(""));
        assert!(is_dns_subdomain("a.b-c.d"));
        for bad in ["a..b", ".a", "a.", "../etc", "a/b", &"a".repeat(254)] {
            assert!(!is_dns_subdomain(bad), "{bad}");
        }
    }

    #[test]
    fn label_keys_may_have_a_domain() {
        for good in ["app", "kubernetes.io/metadata.name", "A_b.c"] {
            assert!(is_label_key(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "a b"] {
            assert!(!is_label_key(bad), "{bad}");
        }
        assert!(is_label_value("") && is_label_value("a.b_c") && !is_label_value("a b"));
    }
}
