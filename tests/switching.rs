//! FDB and forwarding as users see them: real daemons in a lab, real frames, and an ear in every container.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/frames.rs"]
mod frames;
mod switches;
