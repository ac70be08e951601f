//! One peer: what it said of itself, when it is told about us, and its ways.

use super::paths::Paths;
use super::{GREETING_LASTS, Greeting, HELLO_EVERY, Link, MAX_MESSAGES_PER_SECOND};
use crate::wire::message::Message;
use std::time::Duration;

/// When a hello that wants an answer is first repeated; the pause doubles …
const FIRST_HELLO_PAUSE: Duration = Duration::from_secs(1);
/// … up to this, for a peer that never said hello.
const LAST_HELLO_PAUSE: Duration = Duration::from_secs(60);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) link: Link,
    pub(super) up: bool,
    pub(super) greeting: Option<Greeting>,
    /// When it last said hello, or had the first chance to.
    pub(super) greeted: Duration,
    pub(super) paths: Paths,
    /// To be kept at hand though it is idle.
    pub(super) kept: bool,
    /// Since when it is idle.
    pub(super) idle: Option<Duration>,
    pub(super) hello: Hello,
    /// The second in which messages are being counted, and their number.
    pub(super) heeded: (u64, u32),
}

/// When the next hello is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hello {
    due: Duration,
    /// `Some` while the last one wants an answer: how long to wait for it.
    pub(super) unanswered: Option<Duration>,
}

impl Peer {
    pub(super) fn new(link: Link) -> Self {
        let mut paths = Paths::new(link.theirs, link.path_mtu);
        paths.rerouted(Duration::ZERO, link.endpoint);
        let hello = Hello::wanting_an_answer(Duration::ZERO);
        let (greeting, greeted, heeded) = (None, Duration::ZERO, (0, 0));
        Self { link, up: false, greeting, greeted, paths, kept: false, idle: None, hello, heeded }
    }

    pub(super) fn session_up(&mut self, now: Duration) {
        if !self.up {
            self.up = true;
            self.greeted = now;
            self.idle = None;
            self.paths.session_up(now);
            self.hello = Hello::wanting_an_answer(now);
        }
    }

    /// Whether one more message may be heeded in this second.
    pub(super) fn heeds(&mut self, now: Duration) -> bool {
        if self.heeded.0 != now.as_secs() {
            self.heeded = (now.as_secs(), 0);
        }
        self.heeded.1 += 1;
        self.heeded.1 <= MAX_MESSAGES_PER_SECOND
    }

    /// It said hello: we choose its way from here on.
    pub(super) fn greeted(&mut self, now: Duration) {
        if !self.paths.is_held() {
            self.paths.hold(now);
        }
    }

    /// Notes whether the tunnel is idle. Idle time is none in which the peer could have said hello; it is asked to as soon
    /// as that is over.
    pub(super) fn wake_or_rest(&mut self, now: Duration) {
        let idle = !self.kept && !self.paths.is_in_use(now);
        match self.idle {
            Some(since) if !idle => {
                self.greeted = (self.greeted + now.saturating_sub(since)).min(now);
                self.hello = Hello::wanting_an_answer(now);
                self.idle = None;
            }
            None if idle => self.idle = Some(now),
            _ => {}
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        [self.hello_due(), self.greeting_ends(), self.paths.next_deadline()].into_iter().flatten().min()
    }

    /// No reminders to a peer that knows us while the tunnel is idle.
    pub(super) fn hello_due(&self) -> Option<Duration> {
        (self.up && (self.idle.is_none() || self.hello.unanswered.is_some())).then_some(self.hello.due)
    }

    pub(super) fn greeting_ends(&self) -> Option<Duration> {
        (self.up && self.idle.is_none() && self.greeting.is_some()).then_some(self.greeted + GREETING_LASTS)
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.next_deadline().is_some_and(|due| due <= now)
    }
}

impl Hello {
    pub(super) fn wanting_an_answer(now: Duration) -> Self {
        Self { due: now, unanswered: Some(FIRST_HELLO_PAUSE) }
    }

    pub(super) fn sent(&mut self, now: Duration, is_weft: bool) {
        self.due = now + self.unanswered.unwrap_or(HELLO_EVERY);
        let longest = if is_weft { HELLO_EVERY } else { LAST_HELLO_PAUSE };
        self.unanswered = self.unanswered.map(|pause| (pause * 2).min(longest));
    }

    pub(super) fn answered(&mut self, now: Duration) {
        if self.unanswered.take().is_some() {
            self.due = now + HELLO_EVERY;
        }
    }
}

impl Greeting {
    pub(super) fn hello(&self, reply_wanted: bool) -> Message {
        Message::Hello {
            capabilities: self.capabilities,
            vnis: self.networks.clone(),
            incarnation: self.incarnation,
            reply_wanted,
        }
    }
}
