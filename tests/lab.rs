//! The lab's command line: the tour, labs that stay up, the bench; and that whatever happens nothing is left behind.

#![allow(clippy::unwrap_used)]

mod common;
mod labs;
mod support;
