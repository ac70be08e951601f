//! Path MTU discovery against a pipe in virtual time.

#![allow(clippy::unwrap_used)]

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A path and who answers at its end.
struct Pipe {
    mtu: u16,
    delay: Duration,
    answers: bool,
    now: Duration,
    path: PathMtu,
    /// Answers on their way: when they arrive, and to what.
    coming: VecDeque<(Duration, u64)>,
    sent: Vec<(Duration, u16)>,
}

impl Pipe {
    fn new(mtu: u16, path: PathMtu) -> Self {
        let now = SECOND * 100;
        let mut pipe =
            Self { mtu, delay: MS * 5, answers: true, now, path, coming: VecDeque::new(), sent: Vec::new() };
        pipe.path.start(now);
        pipe
    }

    /// Sends what is due and takes in what arrives, until `end`.
    fn run_until(&mut self, end: Duration) {
        loop {
            while let Some(probe) = self.path.poll(self.now) {
                self.sent.push((self.now, probe.size));
                if self.answers && probe.size <= self.mtu {
                    self.coming.push_back((self.now + self.delay * 2, probe.token));
                }
            }
            let arrival = self.coming.front().map(|(at, _)| *at);
            let next = [arrival, self.path.next_deadline()].into_iter().flatten().min().unwrap_or(Duration::MAX);
            assert!(next >= self.now, "a deadline in the past that poll did not serve");
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if arrival == Some(next) {
                let (_, token) = self.coming.pop_front().unwrap();
                self.path.acked(next, token);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }
}

#[test]
fn the_likeliest_size_is_expected_until_the_path_says_otherwise() {
    assert_eq!(PathMtu::new(None).expected(), LIKELIEST);
    assert_eq!(PathMtu::new(Some(1400)).expected(), 1400);
    for (mtu, answers, expected) in
        [(1500, true, 1500), (9000, true, 9000), (1420, true, 1420), (BASE, true, BASE), (1500, false, BASE)]
    {
        let mut pipe = Pipe::new(mtu, PathMtu::new(None));
        pipe.answers = answers;
        assert_eq!(pipe.path.expected(), LIKELIEST, "at the beginning");
        pipe.run(SECOND * 5);
        assert_eq!(pipe.path.expected(), expected, "path {mtu}, answers {answers}");
    }
}

fn best(mtu: u16) -> u16 {
    CANDIDATES.into_iter().filter(|&size| size <= mtu).max().unwrap()
}

#[test]
fn an_ordinary_path_is_known_within_one_round_trip() {
    let mut pipe = Pipe::new(1500, PathMtu::new(None));
    assert_eq!((pipe.path.mtu(), pipe.path.basis()), (BASE, Basis::Assumed));
    pipe.run(MS * 10);
    assert_eq!((pipe.path.mtu(), pipe.path.basis()), (1500, Basis::Probed));
    assert_eq!(pipe.path.round_trip(), Some(MS * 10));
}

#[test]
fn a_jumbo_path_is_known_within_two() {
    let mut pipe = Pipe::new(9000, PathMtu::new(None));
    pipe.run(MS * 20);
    assert_eq!(pipe.path.mtu(), 9000);
}

#[test]
fn every_path_is_found_as_exactly_as_the_candidates_allow() {
    for mtu in (BASE..=CEILING + 10).step_by(7) {
        let mut pipe = Pipe::new(mtu, PathMtu::new(None));
        pipe.run(SECOND * 12);
        assert_eq!(pipe.path.mtu(), best(mtu), "path of {mtu}");
    }
}

#[test]
fn candidates_are_in_order_from_the_base_to_the_ceiling() {
    assert!(CANDIDATES.is_sorted());
    assert_eq!((CANDIDATES[0], CANDIDATES[CANDIDATES.len() - 1]), (BASE, CEILING));
}

#[test]
fn a_path_in_use_that_shrinks_carries_frames_again_within_the_bound() {
    for shrunk in [BASE, 1400, 1492] {
        let mut pipe = Pipe::new(1500, PathMtu::new(None));
        pipe.run(SECOND * 30);
        pipe.mtu = shrunk;
        let end = pipe.now + DETECTION;
        while pipe.now < end {
            pipe.path.used(pipe.now);
            pipe.run(MS * 100);
        }
        assert!(pipe.path.mtu() <= shrunk, "{} on {shrunk}", pipe.path.mtu());
        pipe.run(SECOND * 12);
        assert_eq!(pipe.path.mtu(), best(shrunk));
    }
}

#[test]
fn a_path_that_grows_is_found_when_it_is_tried_again() {
    let mut pipe = Pipe::new(BASE, PathMtu::new(None));
    pipe.run(SECOND * 7200);
    pipe.mtu = 9000;
    pipe.run(LAST_RAISE + SECOND);
    assert_eq!(pipe.path.mtu(), 9000);
}

#[test]
fn a_mute_peer_keeps_the_base_and_is_rarely_asked() {
    let mut pipe = Pipe::new(1500, PathMtu::new(None));
    pipe.answers = false;
    pipe.run(SECOND * 3600);
    assert_eq!((pipe.path.mtu(), pipe.path.basis(), pipe.path.round_trip()), (BASE, Basis::Assumed, None));
    assert!(pipe.sent.len() < 80, "{} probes in an hour", pipe.sent.len());
    // Once it speaks it gets what it should have.
    pipe.answers = true;
    pipe.run(LAST_PING + SECOND);
    assert_eq!(pipe.path.mtu(), 1500);
}

#[test]
fn silence_falls_back_and_what_comes_after_it_is_looked_at_afresh() {
    let mut pipe = Pipe::new(9000, PathMtu::new(None));
    pipe.run(SECOND * 60);
    pipe.answers = false;
    pipe.run(CONFIRM_IDLE + SECOND * 5);
    assert_eq!(pipe.path.mtu(), BASE);
    pipe.mtu = 1450;
    pipe.answers = true;
    pipe.run(LAST_PING + SECOND * 10);
    assert_eq!(pipe.path.mtu(), 1450);
}

#[test]
fn a_configured_path_is_only_pinged() {
    for configured in [1200, 1420, 9000] {
        let mut pipe = Pipe::new(9000, PathMtu::new(Some(configured)));
        pipe.run(SECOND * 150);
        pipe.path.too_big(pipe.now, configured);
        assert_eq!((pipe.path.mtu(), pipe.path.basis()), (configured, Basis::Configured));
        assert_eq!(pipe.path.round_trip(), Some(MS * 10));
        assert!((10..=11).contains(&pipe.sent.len()), "{}", pipe.sent.len());
        assert!(pipe.sent.iter().all(|(_, size)| *size == BASE.min(configured)));
    }
}

#[test]
fn what_the_kernel_refuses_is_neither_used_nor_waited_for() {
    let mut pipe = Pipe::new(1500, PathMtu::new(None));
    pipe.run(MS * 10);
    // The search has gone on to 9000; the interface refuses that and all that is tried instead.
    pipe.path.too_big(pipe.now, 9000);
    while let Some(probe) = pipe.path.poll(pipe.now) {
        pipe.path.too_big(pipe.now, probe.size);
    }
    assert!(matches!(pipe.path.state, State::Settled), "{:?}", pipe.path.state);
    pipe.path.too_big(pipe.now, 1500);
    assert_eq!(pipe.path.mtu(), BASE);
    pipe.mtu = 1492;
    pipe.run(SECOND * 8);
    assert_eq!(pipe.path.mtu(), 1492);
    pipe.path.too_big(pipe.now, BASE);
    assert_eq!(pipe.path.mtu(), 1492, "there is nothing below the base");
}

#[test]
fn a_slow_path_is_found_too() {
    let mut pipe = Pipe::new(1500, PathMtu::new(None));
    pipe.path.start(pipe.now);
    pipe.delay = MS * 900;
    pipe.run(SECOND * 4);
    assert_eq!(pipe.path.mtu(), 1500);
}

#[test]
fn only_the_answer_to_a_probe_that_is_out_counts_and_only_once() {
    let mut path = PathMtu::new(None);
    assert_eq!(path.acked(SECOND, 1), None);
    path.start(SECOND);
    let probe = path.poll(SECOND).unwrap();
    assert_eq!(path.acked(SECOND, probe.token + 100), None);
    assert_eq!(path.acked(SECOND * 2, probe.token), Some(SECOND));
    assert_eq!(path.acked(SECOND * 2, probe.token), None);
    let later = path.poll(SECOND * 2).unwrap();
    path.stop();
    assert_eq!(path.acked(SECOND * 2, later.token), None);
    assert_eq!((path.poll(SECOND * 9), path.next_deadline()), (None, None));
}
