//! The rules for names of members, peers and networks, and for those that DNS answers, for the file and for what members say of each other.

/// The longest name: what a host name may be on Linux (HOST_NAME_MAX).
pub const MAX_NAME: usize = 64;

/// Whether `text` can name a member, peer or network: 1 to 64 letters, digits, '.', '_' or '-'.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The longest name of a container below its network's domain, so that both together are a name of DNS.
pub const MAX_HOST_NAME: usize = 128;
/// The longest label of a DNS name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// Whether `text` can be a name below a network's domain: labels of RFC 1123 §2.1, with underscores as containers have them, in
/// lower case.
pub fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= MAX_HOST_NAME && text.split('.').all(is_label)
}

/// The nearest such name: what cannot be in one is `-`, and what is too long is cut off. `None` where nothing is left.
pub fn to_host_name(text: &str) -> Option<String> {
    let mut name = String::new();
    for label in text.split('.') {
        let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let label: String = label.chars().map(|c| if is_inner(c) { c.to_ascii_lowercase() } else { '-' }).collect();
        let label = label.trim_matches('-');
        let label = label[..label.len().min(MAX_LABEL)].trim_end_matches('-');
        if label.is_empty() || name.len() + 1 + label.len() > MAX_HOST_NAME {
            continue;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(label);
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_becomes_a_name_or_none() {
        let long = "x".repeat(70);
        for (text, name) in
            [("Web_1", "web_1"), ("a b", "a-b"), ("-a-.b", "a.b"), ("\u{fc}ber", "ber"), (&long, &long[..63])]
        {
            assert_eq!(to_host_name(text).as_deref(), Some(name));
            assert!(is_host_name(name));
        }
        assert_eq!([to_host_name(""), to_host_name("--..")], [None, None]);
        for wrong in ["", "A", "a.", ".a", "-a", "a-", "a..b", "a b", &long] {
            assert!(!is_host_name(wrong), "{wrong}");
        }
    }
}
