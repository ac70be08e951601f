//! A member, or a stranger with many keys, that floods the mesh's own messages: everybody else is served, memory and log
//! stay bounded, and what it says of others is not believed.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;
mod support;

use common::place::{lab, spec, usable};
use std::time::{Duration, Instant};
use support::member::Member;
use support::{logged, memory, peers_up, reaches, status};
use weft::control::request::{Request, Response};
use weft::lab::link::Random;
use weft::trust::Authority;
use weft::wire::MESH_PORT;
use weft::wire::key::Secret;

/// Memory that documents, queues and allocators may take meanwhile.
const FLAT: u64 = 24 << 20;
/// What a daemon may have to say about it.
const QUIET: u64 = 16 << 10;

fn bytes(random: &mut Random, count: usize) -> Vec<u8> {
    std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten().take(count).collect()
}

/// A message that is right in its head and hardly anywhere else.
fn junk(random: &mut Random, n: u64) -> Vec<u8> {
    let kind = [1, 2, 3].into_iter().chain(16..48).nth(usize::try_from(n % 35).unwrap()).unwrap();
    let length = usize::try_from(random.next_u64() % if n.is_multiple_of(50) { 8000 } else { 1200 }).unwrap();
    let body = match n % 3 {
        0 => bytes(random, length),
        1 => vec![0; length],
        _ => {
            // Parts with lengths that fit, of documents, of offers, of fields.
            let mut body = vec![1];
            while body.len() < length {
                let kind = (random.next_u64() % 10) as u8;
                let part = bytes(random, 264);
                body.extend([kind, 1, 8]);
                body.extend(part);
            }
            body
        }
    };
    [&[b'W', 1, kind, 0][..], &body].concat()
}

#[test]
fn a_member_that_floods_the_mesh_with_junk_harms_nobody() {
    if !usable() {
        return;
    }
    let mut lab = lab(spec(3, 1));
    peers_up(&lab, 1, 2);
    lab.kill_daemon(3, libc::SIGKILL).unwrap();
    let mut member = Member::join(lab.host(3), lab.host(1));
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));
    reaches(b, a);
    let (before, log) = (memory(&lab, 1), logged(&lab, 1));
    let mut random = Random(7);
    let (start, mut sent) = (Instant::now(), 0u64);
    while start.elapsed() < Duration::from_secs(8) {
        for _ in 0..200 {
            let payload = junk(&mut random, sent);
            let packet = member.udp_packet(MESH_PORT, &payload);
            if packet.len() < 1400 {
                member.send(&packet);
            }
            sent += 1;
        }
        member.listen(Duration::from_millis(2));
    }
    let asked = Instant::now();
    let after = status(&lab, 1);
    println!("{sent} messages; status took {:?}; {:?}", asked.elapsed(), after.warnings);
    assert!(asked.elapsed() < Duration::from_secs(1));
    reaches(b, a);
    let grown = memory(&lab, 1).saturating_sub(before);
    println!("{} KiB more, {} bytes logged", grown >> 10, logged(&lab, 1) - log);
    assert!(grown < FLAT, "{grown} bytes more");
    assert!(logged(&lab, 1) - log < QUIET);
}

#[test]
fn strangers_with_ever_other_keys_are_kept_out_and_harm_nobody() {
    if !usable() {
        return;
    }
    let mut lab = lab(spec(3, 1));
    peers_up(&lab, 1, 2);
    // Where an authority decides, strangers are listened to.
    let file = lab.host(1).files.config();
    let text = std::fs::read_to_string(&file).unwrap();
    let authority = Authority::new(&Secret::shared([7; 32])).key();
    std::fs::write(&file, format!("{text}\n[trust]\nauthority = [\"{authority}\"]\n")).unwrap();
    let reloaded = lab.host(1).control(&Request::Reload).unwrap();
    assert!(matches!(reloaded, Response::Done(_)), "{reloaded:?}");
    reaches(lab.container(2, 1), lab.container(1, 1));
    lab.kill_daemon(3, libc::SIGKILL).unwrap();
    let (before, log) = (memory(&lab, 1), logged(&lab, 1));
    let mut random = Random(11);
    for n in 0..20u64 {
        let secret = Secret::private(bytes(&mut random, 32).try_into().unwrap());
        let mut stranger = Member::with_key(lab.host(3), lab.host(1), &secret);
        for m in 0..50 {
            let packet = stranger.udp_packet(MESH_PORT, &junk(&mut random, n * 50 + m));
            if packet.len() < 1400 {
                stranger.send(&packet);
            }
        }
        // What is said of it could be different each time: a certificate by nobody we know.
        let show = [&[b'W', 1, 39, 0, 4, 0, 106, 1][..], &bytes(&mut random, 105)].concat();
        let packet = stranger.udp_packet(MESH_PORT, &show);
        stranger.send(&packet);
        stranger.send_frame(100, &[0xff; 60]);
    }
    reaches(lab.container(2, 1), lab.container(1, 1));
    let after = status(&lab, 1);
    let grown = memory(&lab, 1).saturating_sub(before);
    let lines = logged(&lab, 1) - log;
    println!("{} KiB more, {lines} bytes logged, {} peers, {:?}", grown >> 10, after.peers, after.warnings);
    assert!(after.drops["not_admitted"] > 0);
    assert!(grown < FLAT, "{grown} bytes more");
    assert!(lines < QUIET, "{lines} bytes logged");
    assert!(after.warnings.len() < 12, "{:?}", after.warnings);
}
