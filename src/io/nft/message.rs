//! Netlink messages of the kernel's packet filter, byte by byte: headers, attributes, and reading them back.
//!
//! ```text
//!  | length (4) type (2) flags (2) sequence (4) port (4) | family (1) version (1) resource (2) | attributes …
//!  an attribute is | length (2) type (2) value, padded to 4 |; a nest is one whose value is attributes
//! ```
//!
//! Lengths and types are in the machine's byte order, numbers inside attributes of nf_tables and conntrack in the network's.
//! There is no library for it that needs neither a C library nor a program; what is used of the protocol
//! (linux/netfilter/nfnetlink.h) fits in this file.

use std::ops::Range;

/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_DUMP`, `NLM_F_CREATE`, `NLM_F_APPEND` of linux/netlink.h.
pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

/// `NFPROTO_*`: what a message is about.
pub(super) const UNSPECIFIED: u8 = 0;
pub(super) const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;

/// Marks an attribute whose value is attributes.
const NESTED: u16 = 0x8000;
/// Lengths of the two headers, and of an attribute's.
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;

/// Messages one after the other, numbered from 1.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    count: u32,
}

impl Messages {
    /// Appends a message; `resource` is of use in the messages around a batch alone.
    pub(super) fn add(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Attributes),
    ) {
        self.count += 1;
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        let mut attributes = Attributes(std::mem::take(&mut self.bytes));
        fill(&mut attributes);
        self.bytes = attributes.0;
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        overwrite(&mut self.bytes, start, &length.to_ne_bytes());
    }

    /// All of them.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Attributes one after the other.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// A value as it is.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.pad();
    }

    /// A number.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A text, with the zero byte behind it that the kernel expects.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// Attributes inside an attribute.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        overwrite(&mut self.0, start, &length.to_ne_bytes());
    }

    /// Attributes made before.
    pub(super) fn append(&mut self, made: &Self) {
        self.raw(&made.0);
    }

    /// Attributes as the kernel wrote them.
    pub(super) fn raw(&mut self, attributes: &[u8]) {
        self.0.extend(attributes);
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + with.len()) {
        place.copy_from_slice(with);
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    /// Its type.
    pub(super) kind: u16,
    /// The request it answers.
    pub(super) sequence: u32,
    /// What is behind the header.
    pub(super) payload: &'a [u8],
}

impl<'a> Answer<'a> {
    /// What an answer says of something: its attributes, behind the header of the family.
    pub(super) fn attributes(&self) -> &'a [u8] {
        self.payload.get(FAMILY_HEADER..).unwrap_or_default()
    }

    /// The family it is of.
    pub(super) fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or_default()
    }

    /// The error number of an acknowledgement or of a dump's end: 0 is none.
    pub(super) fn errno(&self) -> i32 {
        let code = self.payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
        code.saturating_neg()
    }
}

/// The messages of a datagram; what is cut short ends them.
pub(super) fn answers(datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let number = |at: Range<usize>| rest.get(at);
        let length = u32::from_ne_bytes(number(0..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(number(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(number(8..12)?.try_into().ok()?);
        let payload = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer { kind, sequence, payload })
    })
}

/// Type and value of each attribute; what is cut short ends them.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number of the network's byte order.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

/// A text up to its zero byte.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut messages = Messages::default();
        messages.add(7, ACK, INET, 10, |to| {
            to.text(1, "weft");
            to.nest(2, |to| to.number(3, 0xdead_beef));
        });
        messages.add(8, 0, IPV4, 0, |_| {});
        let bytes = messages.into_bytes();
        let all: Vec<_> = answers(&bytes).collect();
        assert_eq!(all.iter().map(|a| (a.kind, a.sequence, a.family())).collect::<Vec<_>>(), [(7, 1, 1), (8, 2, 2)]);
        let first = all[0].attributes();
        assert_eq!(attribute(first, 1).map(text).as_deref(), Some("weft"));
        assert_eq!(attribute(attribute(first, 2).unwrap(), 3).and_then(number), Some(0xdead_beef));
        assert_eq!(attribute(first, 4), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for answer in answers(&bytes) {
                let _ = (answer.errno(), answer.family());
                for (_, value) in attributes(answer.attributes()) {
                    let _ = (number(value), text(value));
                }
            }
        }
    }
}
