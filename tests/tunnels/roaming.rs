//! The endpoint is where the peer was last authentically heard from: nothing else moves it.

use super::talk::{MS, S, Talk, of_type};
use crate::world::{COOKIE, DATA, INITIATION, RESPONSE, endpoint};

#[test]
fn data_from_elsewhere_moves_the_endpoint_and_traffic_follows() {
    let mut talk = Talk::with_session();
    talk.talk(5 * S, [Some(S), Some(S)]);
    talk.world.move_to(0, endpoint(40));
    talk.say(1);
    assert!(!talk.is_heard_within(1, S), "host 1 cannot know yet");
    talk.forgive();
    talk.say(0);
    assert!(talk.is_heard_within(0, S));
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(40)));
    talk.talk(300 * S, [Some(S), Some(S)]);
    talk.run(S);
    assert_eq!([talk.lost(0), talk.lost(1)], [0, 0]);
}

#[test]
fn a_handshake_from_elsewhere_moves_the_endpoint() {
    let mut talk = Talk::with_session();
    talk.world.move_to(0, endpoint(40));
    talk.world.reboot(0);
    talk.world.connect(0, 1);
    talk.run(S);
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(40)));
    talk.say(1);
    assert!(talk.is_heard_within(1, S));
}

#[test]
fn a_response_from_elsewhere_moves_the_endpoint() {
    let mut talk = Talk::new();
    talk.world.connect(0, 1);
    let origin = talk.world.hosts[1].endpoint;
    // Host 1 receives at one address and sends from another, as a NAT would have it.
    talk.world.hosts[1].endpoint = endpoint(41);
    talk.run(S);
    assert_ne!(talk.tunnel(0).endpoint(), Some(origin));
    assert_eq!(talk.tunnel(0).endpoint(), Some(endpoint(41)));
}

#[test]
fn replays_rubbish_and_cookies_from_elsewhere_move_nothing() {
    let mut talk = Talk::new();
    talk.world.capture = Some(Vec::new());
    talk.world.connect(0, 1);
    talk.run(S);
    talk.talk(5 * S, [Some(S), Some(S)]);
    talk.run(S);
    let capture = talk.world.capture.take().unwrap();
    for kind in [INITIATION, RESPONSE, DATA] {
        for datagram in of_type(&capture, kind) {
            for flip in [None, Some(datagram.bytes.len() - 1), Some(20)] {
                let mut bytes = datagram.bytes.clone();
                if let Some(at) = flip {
                    bytes[at] ^= 1;
                }
                let to = usize::from(datagram.to == endpoint(1));
                talk.world.underlay_input(to, endpoint(66), &bytes, bytes.len());
            }
        }
    }
    talk.run(10 * MS);
    assert_eq!(talk.tunnel(0).endpoint(), Some(endpoint(1)));
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(0)));
    talk.say(0);
    talk.say(1);
    assert!(talk.is_heard_within(0, S) && talk.is_heard_within(1, S));
}

#[test]
fn a_genuine_cookie_reply_sent_back_from_elsewhere_moves_nothing() {
    let mut talk = Talk::with_session();
    talk.run(S);
    // Host 1 is made to ask for cookies: more than its limit of (unanswerable) initiations in a second.
    talk.world.capture = Some(Vec::new());
    talk.world.cut.insert((0, 1));
    talk.world.reboot(0);
    talk.world.connect(0, 1);
    talk.run(10 * MS);
    let initiation = talk.world.capture.take().unwrap().remove(0).bytes;
    talk.world.cut.clear();
    talk.world.capture = Some(Vec::new());
    talk.world.cut.insert((1, 0));
    for _ in 0..300 {
        talk.world.underlay_input(1, endpoint(0), &initiation, initiation.len());
    }
    let cookies = of_type(&talk.world.capture.take().unwrap(), COOKIE);
    assert!(!cookies.is_empty());
    let cookie = cookies[0].bytes.clone();
    talk.world.underlay_input(0, endpoint(66), &cookie, cookie.len());
    assert_eq!(talk.tunnel(0).endpoint(), None);
    assert!(!talk.tunnel(0).is_live());
    talk.world.cut.clear();
    talk.say(0);
    assert!(talk.is_heard_within(0, 12 * S));
    assert_eq!(talk.tunnel(0).endpoint(), Some(endpoint(1)));
}
