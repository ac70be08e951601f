//! When a tunnel has to say something by itself (WireGuard paper §6).
//!
//! * An initiation that is not answered is repeated after [`REKEY_TIMEOUT`] and some jitter, for [`ATTEMPT_TIME`];
//!   after that only if there is something to send.
//! * Whoever began a session renews it: at [`REKEY_AFTER`] if it sends, or shortly before the session ends if it
//!   receives.
//! * Data that stays without an answer for [`DEAF_AFTER`] asks for another session: the peer may have lost this one.
//! * A peer whose data we answered with nothing gets a keepalive after [`KEEPALIVE_AFTER`], so that it can tell.
//! * A persistent keepalive goes out whenever nothing else did for its interval.
//!
//! Two sides that initiate at once both have begun a session, and would renew at once for ever: the one with the larger
//! public key gives the other [`TIE_BREAK`].
//!
//! Nothing here is an event queue: [`Timers::due`] compares times when it is asked, a few times a second.

use super::keyring::{REJECT_AFTER, Session};
use std::time::{Duration, Instant};

/// REKEY_TIMEOUT of the paper §6.1.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// REKEY_ATTEMPT_TIME.
const ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// KEEPALIVE_TIMEOUT.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// REKEY_AFTER_TIME.
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// KEEPALIVE_TIMEOUT + REKEY_TIMEOUT.
const DEAF_AFTER: Duration = Duration::from_secs(15);
/// Age at which a session that is still heard on is renewed: the last moment for a retry.
const LAST_CALL: Duration = Duration::from_secs(REJECT_AFTER.as_secs() - DEAF_AFTER.as_secs());
/// How long the member with the larger key waits for the other's renewal before it renews itself.
const TIE_BREAK: Duration = Duration::from_secs(2);
/// Retries are spread over this, so that two sides that called at once do not again. Linux has a third of a second, too.
const JITTER: u16 = 333;

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Initiation,
    Keepalive,
}

/// A handshake that we began and that is not answered yet.
struct Attempt {
    began: Instant,
    retry_at: Instant,
}

impl Attempt {
    fn is_over(&self, now: Instant) -> bool {
        since(now, self.began) >= ATTEMPT_TIME
    }
}

pub(super) struct Timers {
    /// The interval of persistent keepalives.
    pub(super) keepalive: Option<Duration>,
    /// Whether it is ours to wait for [`TIE_BREAK`].
    defers: bool,
    attempt: Option<Attempt>,
    /// Initiations since the peer last took part in a handshake.
    pub(super) unanswered_initiations: u32,
    /// When we first sent data after the peer was last heard.
    unanswered_since: Option<Instant>,
    /// When we first heard data after we last sent anything.
    owing_since: Option<Instant>,
    sent: Instant,
    sent_data: Option<Instant>,
    heard: Instant,
}

impl Timers {
    pub(super) fn new(keepalive: Option<Duration>, defers: bool, now: Instant) -> Self {
        Self {
            keepalive,
            defers,
            attempt: None,
            unanswered_initiations: 0,
            unanswered_since: None,
            owing_since: None,
            sent: now,
            sent_data: None,
            heard: now,
        }
    }

    /// A data message was sent, which is a keepalive unless it has `data`.
    pub(super) fn sent(&mut self, now: Instant, data: bool) {
        self.sent = now;
        self.owing_since = None;
        if data {
            self.sent_data = Some(now);
            self.unanswered_since.get_or_insert(now);
        }
    }

    /// An authentic data message arrived.
    pub(super) fn heard(&mut self, now: Instant, data: bool) {
        self.heard = now;
        self.unanswered_since = None;
        if data {
            self.owing_since.get_or_insert(now);
        }
    }

    /// The peer took part in a handshake.
    pub(super) fn shook(&mut self) {
        self.unanswered_since = None;
        self.unanswered_initiations = 0;
    }

    /// A session was confirmed: nothing is left to ask for.
    pub(super) fn established(&mut self) {
        self.attempt = None;
    }

    /// An initiation is sent; `random` spreads the next one.
    pub(super) fn initiated(&mut self, now: Instant, random: u16) {
        let jitter = Duration::from_millis(u64::from(random % (JITTER + 1)));
        let began =
            self.attempt.as_ref().filter(|attempt| !attempt.is_over(now)).map_or(now, |attempt| attempt.began);
        self.attempt = Some(Attempt { began, retry_at: now + REKEY_TIMEOUT + jitter });
        self.unanswered_initiations = self.unanswered_initiations.saturating_add(1);
    }

    /// Whether a handshake that we began is on its way.
    pub(super) fn is_trying(&self) -> bool {
        self.attempt.is_some()
    }

    /// Whether an initiation may be sent: the last one has had its time.
    pub(super) fn may_initiate(&self, now: Instant) -> bool {
        self.attempt.as_ref().is_none_or(|attempt| now >= attempt.retry_at)
    }

    /// What is due, when `current` is the session that seals and `waiting` says whether packets wait for one.
    pub(super) fn due(&mut self, now: Instant, current: Option<&Session>, waiting: bool) -> Due {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.is_over(now) && now >= attempt.retry_at) {
            self.attempt = None;
            // Begun anew at once only for somebody.
            let speaking = self.sent_data.is_some_and(|at| since(now, at) < REKEY_TIMEOUT);
            self.unanswered_since = self.unanswered_since.filter(|_| speaking);
        }
        let initiates = match (&self.attempt, current) {
            (Some(attempt), _) => now >= attempt.retry_at,
            (None, None) => waiting || self.keepalive.is_some(),
            (None, Some(session)) => self.renews(now, session),
        };
        if initiates {
            Due::Initiation
        } else if current.is_some() && self.owes(now) {
            Due::Keepalive
        } else {
            Due::Nothing
        }
    }

    fn renews(&self, now: Instant, session: &Session) -> bool {
        let age = since(now, session.made);
        let patience = if self.defers { TIE_BREAK } else { Duration::ZERO };
        let sends = age >= REKEY_AFTER + patience && self.sent >= session.made + REKEY_AFTER;
        let hears = self.heard >= session.made + LAST_CALL;
        let deaf = self.unanswered_since.is_some_and(|at| since(now, at) >= DEAF_AFTER);
        session.initiator && (sends || hears) || deaf || session.sealer.is_worn()
    }

    fn owes(&self, now: Instant) -> bool {
        let passive = self.owing_since.is_some_and(|at| since(now, at) >= KEEPALIVE_AFTER);
        passive || self.keepalive.is_some_and(|interval| since(now, self.sent) >= interval)
    }
}

/// Clocks do not go back; if one does, no time has passed.
fn since(now: Instant, at: Instant) -> Duration {
    now.saturating_duration_since(at)
}
