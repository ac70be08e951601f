//! The tests, by what they are about.

mod bytes;
mod flood;
mod recovery;
mod roaming;
mod sessions;
mod silence;
mod talk;
