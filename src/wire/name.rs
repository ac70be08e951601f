//! The rule for names of members, peers and networks, for the file and for what members say of each other.

/// The longest name: what a host name may be on Linux (HOST_NAME_MAX).
pub const MAX_NAME: usize = 64;

/// Whether `text` can name a member, peer or network: 1 to 64 letters, digits, '.', '_' or '-'.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}
