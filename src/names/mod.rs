//! Names: what containers and services of a network are called, answered as DNS (RFC 1034, 1035).
//!
//! ```text
//!   question ──► answer(.., Directory, ..) ─┬─► bytes of the answer
//!                                           └─► Forward ──► Forwarder ──► datagrams and streams to resolvers
//!                                                                    └──► bytes of the answer
//! ```
//!
//! [`Directory`] is the shared book of who is called what; control keeps it. [`answer()`] is a function of a question and the book. What it
//! has no answer for goes to a [`forward::Forwarder`], a value that is told the time and what arrived and says what to send.
//! Neither does any I/O.

mod answer;
pub mod directory;
pub mod forward;
mod query;
mod text;
pub mod zone;

pub use answer::{Effort, Transport, Verdict, answer};
pub use directory::Directory;
pub use zone::{Settings, Zone};

/// How long, in seconds, an answer may be remembered: a name that is gone is nowhere for longer than this.
pub const TTL: u32 = 1;
/// The longest answer in a datagram: what fits everywhere without fragments (RFC 9715 §3).
pub const MAX_DATAGRAM: usize = 1232;

#[cfg(test)]
mod tests;
