//! What policies know attachments by, as a member says it of its own.
//!
//! ```text
//!  11 labels      VNI (4), MAC (6), marks (1), then keys and values, each behind its length (2)
//!                 marks: bit 0 it talks to isolated ports, bit 1 it is the host's own
//! ```

use super::{is_vni, read_vni};
use crate::wire::Malformed;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::ethernet::Mac;

/// The type of its record.
pub(super) const LABELS: u8 = 11;
/// Labels of one attachment, as many as its port may have.
const MAX_LABELS: usize = 16;
/// Bytes of the labels of one attachment: a record fits into a page beside others.
const MAX_BYTES: usize = 1024;
/// Bytes of all labels of a member: two of twelve bytes for each of a thousand attachments.
const MAX_BYTES_IN_ALL: usize = 32 * 1024;
const PROMISCUOUS: u8 = 1;
const HOST: u8 = 2;

/// What policies know one attachment by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels {
    /// The network.
    pub vni: u32,
    /// Its MAC address.
    pub mac: Mac,
    /// It talks to isolated ports.
    pub promiscuous: bool,
    /// It is an interface of the host itself.
    pub host: bool,
    /// Keys and values, ascending.
    pub labels: Vec<(String, String)>,
}

impl Labels {
    fn size(&self) -> usize {
        self.labels.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    pub(super) fn write(&self) -> (Vec<u8>, Writer) {
        let mut value = Writer::default();
        value.u32(self.vni).bytes(&self.mac.0);
        let name = value.0.clone();
        value.u8((u8::from(self.promiscuous) * PROMISCUOUS) | (u8::from(self.host) * HOST));
        for (key, text) in &self.labels {
            value.prefixed(key.as_bytes()).prefixed(text.as_bytes());
        }
        (name, value)
    }

    pub(super) fn read(value: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (vni, mac, marks) = (read_vni(value)?, Mac(value.array()?), value.u8()?);
        let mut labels = Vec::new();
        while !value.is_empty() && labels.len() < MAX_LABELS {
            let mut text = || std::str::from_utf8(value.prefixed()?).map(str::to_owned).map_err(|_| Malformed);
            labels.push((text()?, text()?));
        }
        Ok(Self { vni, mac, promiscuous: marks & PROMISCUOUS != 0, host: marks & HOST != 0, labels })
    }
}

/// Puts labels in order and within their limits; returns how many attachments lost some of theirs.
pub(super) fn tidy(all: &mut Vec<Labels>) -> usize {
    all.retain(|labels| is_vni(labels.vni));
    super::ascending(all);
    all.dedup_by_key(|labels| (labels.vni, labels.mac));
    let (mut left, mut cut) = (MAX_BYTES_IN_ALL, 0);
    for labels in all.iter_mut() {
        super::ascending(&mut labels.labels);
        labels.labels.dedup_by(|a, b| a.0 == b.0);
        let before = labels.labels.len();
        labels.labels.truncate(MAX_LABELS);
        while labels.size() > MAX_BYTES.min(left) {
            labels.labels.pop();
        }
        left -= labels.size();
        cut += usize::from(labels.labels.len() < before);
    }
    cut
}
