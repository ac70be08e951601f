//! What containers say of themselves: IGMP and MLD, and who listens to what by that.
//!
//! ```text
//!  records: how (1), pause in seconds (1), length (1), that many bytes
//!           how: bits 0-1 the port, bits 2-3 the bytes are 0 an IGMP message, 1 an MLD message, 2 a whole frame, 3 a port
//!                comes (bit 4: was there before) or goes; bit 4 the checksum is put right, bit 5 behind an extension
//! ```
//!
//! What must hold: only what looks like a report says who listens; what is known of a port is bounded, concerns groups that
//! are worth knowing, and ends by itself; whoever is asked is there, and our own questions mean nothing to us; a question
//! for an address and its answer are never both questions.

use super::draft::sum;
use super::input::{Input, put_word};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use weft::mesh::listeners::{Listeners, MAX_GROUPS, MEMBERSHIP, Output};
use weft::wire::ethernet::{Frame, Mac};
use weft::wire::multicast::{Class, Signal, classify, is_of_the_link, read};
use weft::wire::neighbour::question;

const VNI: u32 = 1;
const MAX_RECORDS: usize = 64;

/// The target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut listeners, mut ports, mut now) = (Listeners::default(), BTreeMap::new(), Duration::ZERO);
    for _ in 0..MAX_RECORDS {
        let (Some(how), Some(pause), Some(length)) = (input.byte(), input.byte(), input.byte()) else { break };
        let bytes = input.bytes(usize::from(length));
        now += Duration::from_secs(pause.into());
        listeners.tick(now);
        check(&mut listeners, &ports);
        let port = how & 3;
        match (how >> 2) & 3 {
            3 if ports.remove(&port).is_some() => listeners.port_down(port),
            3 => {
                ports.insert(port, ());
                listeners.port_up(now, VNI, port, how & 0x10 != 0);
            }
            kind => {
                let frame = match kind {
                    0 => igmp(bytes, how),
                    1 => mld(bytes, how),
                    _ => bytes.to_vec(),
                };
                look(&frame);
                listeners.heard(now, port, &frame);
            }
        }
        check(&mut listeners, &ports);
    }
    // Silence.
    let end = now + MEMBERSHIP;
    while let Some(at) = listeners.next_deadline().filter(|&at| at <= end) {
        assert!(at >= now, "a deadline that is over");
        now = at;
        listeners.tick(at);
        check(&mut listeners, &ports);
        assert!(listeners.next_deadline().is_none_or(|next| next > at), "time does not pass");
    }
    assert!(listeners.groups().is_empty(), "nobody said anything for so long");
}

fn check(listeners: &mut Listeners<u8>, ports: &BTreeMap<u8, ()>) {
    while let Some(output) = listeners.poll_output() {
        match output {
            Output::Changed(vni) => assert_eq!(vni, VNI),
            Output::Query { vni, port, frame } => {
                assert!(
                    vni == VNI && port.is_none_or(|port| ports.contains_key(&port)),
                    "nobody is there to be asked"
                );
                assert_eq!(read(&frame), Ok(Signal::Nothing));
                assert_eq!(classify(&Frame::parse(&frame).expect("a frame")), Class::Router);
            }
        }
    }
    let mut counts = BTreeMap::<u8, usize>::new();
    for (port, group) in listeners.of_network(VNI) {
        assert!(ports.contains_key(&port) && is_worth_knowing(group));
        *counts.entry(port).or_default() += 1;
    }
    assert!(counts.values().all(|&count| count <= MAX_GROUPS), "one port fills the memory");
    let all = listeners.groups();
    assert!(all.iter().all(|(vni, group)| *vni == VNI && is_worth_knowing(*group)));
}

fn is_worth_knowing(group: IpAddr) -> bool {
    group.is_unspecified() || group.is_multicast() && !is_of_the_link(group)
}

/// What holds of any frame.
fn look(frame: &[u8]) {
    if let Some(asked) = question(frame) {
        let answer = asked.answer(Mac([2, 0, 0, 0, 0, 9])).expect("a question has an answer");
        assert_eq!(question(answer.bytes()), None, "an answer is no question");
    }
    let Ok(view) = Frame::parse(frame) else { return };
    let group = matches!(view.destination().0, [0x01, 0x00, ..] | [0x33, 0x33, ..]);
    let says = matches!(read(frame), Ok(Signal::Records(records)) if !records.is_empty());
    if group && says {
        assert_eq!(classify(&view), Class::Report, "what says who listens is a report");
    }
    if let Class::Group(group) = classify(&view) {
        assert!(group.is_multicast() && !is_of_the_link(group));
    }
}

fn igmp(message: &[u8], how: u8) -> Vec<u8> {
    let options: &[u8] = if how & 0x20 != 0 { &[0x94, 4, 0, 0] } else { &[] };
    let header = 20 + options.len();
    let mut frame = vec![1, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 1, 8, 0, 0x40 | (header / 4) as u8, 0];
    frame.extend(((header + message.len()) as u16).to_be_bytes());
    frame.extend([0, 0, 0, 0, 1, 2, 0, 0, 10, 32, 0, 1, 239, 1, 2, 3]);
    frame.extend(options);
    frame.extend(message);
    if how & 0x10 != 0 {
        put_word(&mut frame, 14 + header + 2, 0);
        let right = !sum(0, &frame[14 + header..]);
        put_word(&mut frame, 14 + header + 2, right);
    }
    frame
}

fn mld(message: &[u8], how: u8) -> Vec<u8> {
    let extension: &[u8] = if how & 0x20 != 0 { &[58, 0, 5, 2, 0, 0, 1, 0] } else { &[] };
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0];
    frame.extend(((extension.len() + message.len()) as u16).to_be_bytes());
    frame.extend([if extension.is_empty() { 58 } else { 0 }, 1]);
    frame.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend([0xff, 0x05, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let start = frame.len() + extension.len();
    frame.extend(extension);
    frame.extend(message);
    if how & 0x10 != 0 {
        put_word(&mut frame, start + 2, 0);
        let pseudo = sum(58 + message.len() as u64, &frame[22..54]);
        let right = !sum(pseudo.into(), &frame[start..]);
        put_word(&mut frame, start + 2, right);
    }
    frame
}
