//! The tests, by what they are about.

mod bytes;
mod flood;
mod held;
mod recovery;
mod relay;
mod roaming;
mod sessions;
mod silence;
mod strangers;
mod talk;
