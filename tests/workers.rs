//! Several workers at once over one switch and one peer's tunnel: nothing is lost, nothing is a replay, and each port's frames
//! arrive in the order in which they were sent.

#![allow(clippy::unwrap_used)]

#[path = "bench/hosts.rs"]
mod hosts;

use hosts::{Size, World, mac, plain};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Mutex;
use weft::switch::counters::Drop;
use weft::switch::ids::PortId;
use weft::switch::staging::{Merge, Staging};
use weft::switch::topology::Port;
use weft::switch::{Egress, Event};
use weft::tunnel::REPLAY_WINDOW;
use weft::wire::vnet::VnetHeader;

const WORKERS: usize = 4;
/// All workers' frames together are fewer than the replay window: however one is kept from running, it does not fall behind.
const FRAMES: u64 = REPLAY_WINDOW / WORKERS as u64 - 8;
/// Datagrams a worker collects before it sends: batches of all workers lie mixed on the wire.
const BATCH: usize = 500;

/// A worker's batch, and the wire on which the order of sending shows.
struct Batch<'a> {
    collected: Vec<Vec<u8>>,
    wire: &'a Mutex<Vec<Vec<u8>>>,
}

impl Egress for Batch<'_> {
    fn deliver(&mut self, _: PortId, _: &[IoSlice<'_>]) {}

    fn transmit(&mut self, _: SocketAddr, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let mut datagram = vec![0; room];
        let length = fill(&mut datagram).unwrap();
        datagram.truncate(length);
        self.collected.push(datagram);
        if self.collected.len() >= BATCH {
            self.send();
        }
    }

    fn serve(&mut self, _: &Port, _: VnetHeader, _: &[u8]) -> bool {
        true
    }

    fn notify(&mut self, _: Event<'_>) {}
}

impl Batch<'_> {
    fn send(&mut self) {
        self.wire.lock().unwrap().append(&mut self.collected);
    }
}

/// The frames that ports were given: who sent which number.
#[derive(Default)]
struct Received(BTreeMap<u8, Vec<u64>>);

impl Egress for Received {
    fn deliver(&mut self, _: PortId, pieces: &[IoSlice<'_>]) {
        let frame: Vec<u8> = pieces[1..].iter().flat_map(|piece| piece.to_vec()).collect();
        let number = u64::from_be_bytes(frame[14..22].try_into().unwrap());
        self.0.entry(frame[11]).or_default().push(number);
    }

    fn transmit(&mut self, _: SocketAddr, _: usize, _: impl FnOnce(&mut [u8]) -> Option<usize>) {}

    fn serve(&mut self, _: &Port, _: VnetHeader, _: &[u8]) -> bool {
        true
    }

    fn notify(&mut self, _: Event<'_>) {}
}

#[test]
fn workers_that_share_a_peer_lose_nothing_and_reorder_no_flow() {
    let world = World::new(Size { ports: WORKERS, ..Size::SMALLEST });
    let (near, far) = (&world.near, &world.far[0]);
    let wire = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for port in 0..WORKERS {
            let (wire, now) = (&wire, world.now);
            scope.spawn(move || {
                let mut batch = Batch { collected: Vec::new(), wire };
                let mut frame = plain(mac(0, port), mac(1, 0), 46);
                for number in 0..FRAMES {
                    frame.set_number(number);
                    near.send(now, port, &mut frame, &mut batch);
                }
                batch.send();
            });
        }
    });
    let (mut received, mut staging) = (Received::default(), Staging::new(1 << 20, Merge::TcpAndUdp));
    for datagram in wire.into_inner().unwrap() {
        far.switch.underlay_input(world.now, near.endpoint, &datagram, datagram.len(), &mut staging, &mut received);
    }
    staging.flush(&mut received);
    assert_eq!(far.switch.counters.dropped(Drop::Replay), 0);
    assert_eq!(received.0.len(), WORKERS);
    for (port, numbers) in received.0 {
        assert!(numbers.iter().copied().eq(0..FRAMES), "port {port}: {} frames, or out of order", numbers.len());
    }
}
