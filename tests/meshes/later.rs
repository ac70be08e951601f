//! A member of a later version: it says things that nobody here knows, which is carried on and harms nobody.

use super::Unbroken;
use crate::common::place::{spec, usable};
use crate::common::{SOON, eventually};
use crate::support::member::Member;
use crate::support::{peer, reaches, status};
use std::time::{Duration, Instant};
use weft::io::keyfile;
use weft::lab::{Host, Lab, Stop};
use weft::mesh::document::{Document, paginate};
use weft::mesh::facts::{Facts, Link, Relay, records};
use weft::mesh::gossip::{Heartbeat, Message, Part, Want};
use weft::trust::sign::Signer;
use weft::wire::MESH_PORT;
use weft::wire::key::PublicKey;

/// A record of a type that there is not, and its value.
const UNKNOWN_RECORD: &[u8] = b"\xc8\x00\x17said by a later version";
/// A hello with a capability and a field that nobody knows.
const HELLO: &[u8] = &[b'W', 1, 1, 0, 1, 0, 4, 0x80, 0, 0, 0, 200, 0, 3, 1, 2, 3, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9];
/// What a turn of a conversation may take.
const TURN: Duration = Duration::from_millis(100);

/// A member that keeps its link to one neighbour up by hand.
struct Speaker {
    member: Member,
    document: Document,
    sequence: u32,
    begun: Instant,
    echo: u64,
}

impl Speaker {
    fn join(host: &Host, victim: &Host) -> Self {
        let document = document(host, victim.public_key);
        Self { member: Member::join(host, victim), document, sequence: 0, begun: Instant::now(), echo: 0 }
    }

    fn say(&mut self, payload: &[u8]) {
        let packet = self.member.udp_packet(MESH_PORT, payload);
        self.member.send(&packet);
    }

    /// All it says of itself and a heartbeat; then what is heard for a while.
    fn turn(&mut self) -> Vec<Vec<u8>> {
        self.sequence += 1;
        let beat = Heartbeat {
            is_chosen: true,
            is_urgent: true,
            sequence: self.sequence,
            stamp: self.begun.elapsed().as_micros() as u64,
            echo: self.echo,
            ..Heartbeat::default()
        };
        let parts = std::iter::once(Part::Head(&self.document.head.bytes));
        let parts = parts.chain(self.document.pages.iter().map(|page| Part::Page(page))).collect();
        let told = Message::Documents { is_pushed: true, parts }.write();
        self.say(HELLO);
        self.say(&told);
        self.say(&Message::Heartbeat(beat).write());
        self.member.listen(TURN);
        let heard = std::mem::take(&mut self.member.messages);
        for payload in &heard {
            if let Ok(Message::Heartbeat(beat)) = Message::parse(payload) {
                self.echo = beat.stamp;
            }
        }
        heard
    }
}

/// All that `host` says of itself, with a record that nobody knows on each page.
fn document(host: &Host, neighbour: PublicKey) -> Document {
    let signer = Signer::new(&keyfile::load(&host.files.key()).unwrap());
    let facts = Facts {
        name: host.name.clone(),
        tunnel_address: host.public_key.tunnel_address(),
        program: "weft 99.0".to_owned(),
        capabilities: 1 << 31,
        relay: Relay::Yes,
        networks: vec![100],
        links: vec![Link { neighbour, round_trip: 3, loss: 0 }],
        ..Facts::default()
    };
    let (pages, _) = paginate(&records(&facts), 1);
    let pages = pages.iter().map(|page| [UNKNOWN_RECORD, page, UNKNOWN_RECORD].concat().into());
    Document::sign(&signer, 99, 1, pages.collect())
}

#[test]
fn what_a_later_version_says_is_carried_on_and_harms_nobody() {
    if !usable() {
        return;
    }
    let mut lab = Lab::lay(spec(4, 1)).unwrap();
    for h in [1, 2] {
        lab.start_daemon(h, &Stop::default()).unwrap();
        lab.attach(h, 1).unwrap();
    }
    reaches(lab.container(1, 1), lab.container(2, 1));
    let pings = Unbroken::start(&lab.container(1, 1).netns, lab.container(2, 1).v4.into());

    let mut later = Speaker::join(lab.host(3), lab.host(1));
    let mut reader = Speaker::join(lab.host(4), lab.host(2));
    let want = Message::Want(vec![Want { owner: lab.host(3).public_key, version: 0, mask: 0 }]).write();

    let deadline = Instant::now() + SOON;
    let mut came = false;
    while !came {
        assert!(Instant::now() < deadline, "it did not come over two members");
        for kind in [4, 9, 15, 24, 31, 38, 39, 41, 99, 255] {
            later.say(&[b'W', 1, kind, 0, 1, 0, 2, 3, 4]);
            later.say(&[b'W', 7, kind, 0, 1, 0, 2, 3, 4]);
        }
        later.turn();
        reader.say(&want);
        for payload in reader.turn() {
            let Ok(Message::Documents { parts, .. }) = Message::parse(&payload) else { continue };
            let head = parts.contains(&Part::Head(&later.document.head.bytes));
            came |= head && later.document.pages.iter().all(|page| parts.contains(&Part::Page(page)));
        }
    }
    // What it says that is known counts.
    eventually("h2 hears of it", || {
        later.turn();
        reader.turn();
        (peer(&lab, 2, "h3").alive == Some(true)).then_some(())
    });
    eventually("h1 takes it for weft", || {
        later.turn();
        peer(&lab, 1, "h3").weft.then_some(())
    });
    pings.finish(10);
    for h in [1, 2] {
        assert!(lab.host(h).daemon().unwrap().is_running());
        let warnings = status(&lab, h).warnings;
        assert!(!warnings.iter().any(|text| text.contains("h3")), "{warnings:?}");
    }
    // Its own daemon, of today, comes back and is heard.
    drop((later, reader));
    lab.start_daemon(3, &Stop::default()).unwrap();
    lab.attach(3, 1).unwrap();
    reaches(lab.container(2, 1), lab.container(3, 1));
}
