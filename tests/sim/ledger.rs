//! The ledger: what was sent, by whom, and who got which part of it. It objects to what must never happen, and at
//! the end of a calm says whether everybody got exactly what was meant for him.

use super::frames::{Flow, Unit, flow_of};
use super::world::Delivery;
use std::collections::BTreeMap;
use weft::switch::ids::PortId;

struct Entry {
    flow: Flow,
    vni: u32,
    /// The port it was sent from, from this place on: stations move.
    from: BTreeMap<u64, PortId>,
    /// How much of the stream was sent, or how many datagrams.
    sent: u64,
    /// Of datagrams, by number.
    lengths: BTreeMap<u32, usize>,
    /// The stretches that each port got, or its datagrams as stretches of one: start to end, merged with no neighbour.
    got: BTreeMap<PortId, BTreeMap<u64, u64>>,
}

/// A unit that is to arrive at exactly these ports.
struct Expected {
    unit: Unit,
    flow: u32,
    ports: Vec<PortId>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<u32, Entry>,
    /// The network of each port that ever was.
    vnis: BTreeMap<PortId, u32>,
    expected: Vec<Expected>,
    /// Units handed to ports.
    pub(crate) delivered: usize,
}

impl Ledger {
    pub(crate) fn port(&mut self, port: PortId, vni: u32) {
        self.vnis.insert(port, vni);
    }

    pub(crate) fn open(&mut self, flow: &Flow, vni: u32) {
        let from = BTreeMap::new();
        let entry = Entry { flow: flow.clone(), vni, from, sent: 0, lengths: BTreeMap::new(), got: BTreeMap::new() };
        self.entries.insert(flow.id, entry);
    }

    /// Where the next unit of this flow begins: in the stream, or its number.
    pub(crate) fn next(&self, flow: u32) -> u64 {
        self.entries[&flow].sent
    }

    /// These units leave from a port; in a calm they must arrive at exactly these ports.
    pub(crate) fn sent(&mut self, flow: u32, from: PortId, units: &[Unit], ports: Option<&[PortId]>) {
        let entry = self.entries.get_mut(&flow).unwrap();
        entry.from.insert(entry.sent, from);
        for &unit in units {
            entry.sent = entry.sent.max(span(unit).1);
            if let Unit::Datagram { number, len } = unit {
                entry.lengths.insert(number, len);
            }
            if let Some(ports) = ports {
                self.expected.push(Expected { unit, flow, ports: ports.to_vec() });
            }
        }
    }

    /// A port got a frame.
    pub(crate) fn received(&mut self, delivery: &Delivery) -> Result<(), String> {
        let Delivery { port, header, ref frame, .. } = *delivery;
        let id = flow_of(frame).ok_or("a frame of no flow")?;
        let entry = self.entries.get_mut(&id).ok_or_else(|| format!("a frame of flow {id} that does not exist"))?;
        let units = entry.flow.take_apart(header, frame)?;
        if self.vnis.get(&port) != Some(&entry.vni) {
            return Err(format!("{units:?} of flow {id} crossed from network {} to {port:?}", entry.vni));
        }
        let got = entry.got.entry(port).or_default();
        for unit in units {
            let (start, end) = span(unit);
            let whole = match unit {
                Unit::Datagram { number, len } => entry.lengths.get(&number) == Some(&len),
                Unit::Stretch { .. } => end <= entry.sent,
            };
            if !whole {
                return Err(format!("{unit:?} of flow {id} was never sent"));
            }
            let origin = entry.from.range(..=start).next_back().into_iter().chain(entry.from.range(start..end));
            if origin.map(|(_, from)| from).any(|&from| from == port) {
                return Err(format!("{unit:?} of flow {id} came back to {port:?}"));
            }
            let before = got.range(..end).next_back();
            if before.is_some_and(|(_, &before)| before > start) {
                return Err(format!("{unit:?} of flow {id} came twice to {port:?}"));
            }
            got.insert(start, end);
            self.delivered += 1;
        }
        Ok(())
    }

    /// Whether all that was expected since the last time came to whom it should, and to nobody else.
    pub(crate) fn settle(&mut self) -> Result<usize, String> {
        let expected = std::mem::take(&mut self.expected);
        for Expected { unit, flow, ports } in &expected {
            let entry = &self.entries[flow];
            let (start, end) = span(*unit);
            for (&port, &vni) in &self.vnis {
                let got: u64 = entry.got.get(&port).map_or(0, |got| {
                    let overlap = |(&from, &to): (&u64, &u64)| to.min(end).saturating_sub(from.max(start));
                    got.range(..end).map(overlap).sum()
                });
                let want = if ports.contains(&port) { end - start } else { 0 };
                if got != want {
                    let Entry { flow, from, vni: home, .. } = entry;
                    return Err(format!(
                        "{port:?} of network {vni} got {got} of {want} of {unit:?} of {flow:?} from {from:?} in network {home}"
                    ));
                }
            }
        }
        Ok(expected.len())
    }
}

/// Bytes of the stream, or datagrams.
fn span(unit: Unit) -> (u64, u64) {
    match unit {
        Unit::Stretch { from, to } => (from, to),
        Unit::Datagram { number, .. } => (u64::from(number), u64::from(number) + 1),
    }
}
