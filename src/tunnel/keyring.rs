//! The sessions of a tunnel, newest first: which one seals, and which ones still open.
//!
//! The paper's "next, current, previous" (§6.2), and one more: when both sides initiate at once, two sessions are made,
//! and what was sealed with the one before both is still on its way.
//!
//! A session is *confirmed* when the peer proved that it has it: by its response, or by using it. The newest confirmed one
//! seals. Of those that are not, only the newest is kept.

use super::session::{Keys, Opener, Sealer};
use super::window::Reception;
use crate::aead::Engine;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// REJECT_AFTER_TIME of the paper §6.1: a session of this age neither seals nor opens.
pub(super) const REJECT_AFTER: Duration = Duration::from_secs(180);
/// See the head of this file.
const KEPT: usize = 4;

pub(super) struct Session {
    pub(super) sealer: Arc<Sealer>,
    pub(super) opener: Arc<Opener>,
    pub(super) made: Instant,
    /// Whether we began it: then it is ours to renew.
    pub(super) initiator: bool,
    confirmed: bool,
}

impl Session {
    /// A session that a response confirmed, or one that we respond to and its initiator has still to confirm.
    pub(super) fn new(keys: &Keys, ours: u32, theirs: u32, initiator: bool, engine: Engine, made: Instant) -> Self {
        let sealer = Arc::new(Sealer::new(keys, theirs, engine));
        let opener = Arc::new(Opener::new(keys, ours, engine));
        Self { sealer, opener, made, initiator, confirmed: initiator }
    }

    fn is_usable(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.made) < REJECT_AFTER
    }
}

#[derive(Default)]
pub(super) struct Keyring {
    sessions: Vec<Session>,
    /// What became of the messages of those that are gone.
    past: Reception,
}

impl Keyring {
    pub(super) fn add(&mut self, session: Session) {
        if !session.confirmed {
            self.retain(|other| other.confirmed);
        }
        self.sessions.insert(0, session);
        let mut count = 0;
        self.retain(|_| {
            count += 1;
            count <= KEPT
        });
    }

    fn retain(&mut self, mut keeps: impl FnMut(&Session) -> bool) {
        for gone in self.sessions.extract_if(.., |session| !keeps(session)) {
            self.past = self.past.and(gone.opener.reception());
        }
    }

    /// What became of the peer's messages in all sessions.
    pub(super) fn reception(&self) -> Reception {
        self.sessions.iter().fold(self.past, |sum, session| sum.and(session.opener.reception()))
    }

    /// The session that seals, if one may.
    pub(super) fn current(&self, now: Instant) -> Option<&Session> {
        let current = self.sessions.iter().find(|session| session.confirmed)?;
        (current.is_usable(now) && !current.sealer.is_exhausted()).then_some(current)
    }

    /// When the session that seals was made, unless it has been found too old.
    pub(super) fn established(&self) -> Option<Instant> {
        self.sessions.iter().find(|session| session.confirmed).map(|session| session.made)
    }

    /// What opens datagrams to this index.
    pub(super) fn opener(&self, now: Instant, index: u32) -> Option<&Arc<Opener>> {
        let session = self.sessions.iter().find(|session| session.opener.index() == index)?;
        session.is_usable(now).then_some(&session.opener)
    }

    /// The peer used the session with this index; returns whether that confirmed it.
    pub(super) fn confirm(&mut self, index: u32) -> bool {
        let session = self.sessions.iter_mut().find(|session| session.opener.index() == index);
        session.is_some_and(|session| !std::mem::replace(&mut session.confirmed, true))
    }

    /// Whether a session has this index.
    pub(super) fn has(&self, index: u32) -> bool {
        self.sessions.iter().any(|session| session.opener.index() == index)
    }

    /// Forgets the keys of sessions that are over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.retain(|session| session.is_usable(now) && !session.sealer.is_exhausted());
    }
}
