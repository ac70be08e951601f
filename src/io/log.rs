//! The log: our own events on standard error, as detailed as the configuration asks, changeable while running.
//!
//! Events of libraries are not shown: what a handshake library calls an error is everyday life on an underlay.

use crate::config::LogLevel;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use tracing::Level;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Info as u8);

/// Starts logging. A second call changes only the level.
pub fn start(level: LogLevel) {
    set_level(level);
    let wanted = dynamic_filter_fn(|event, _| {
        let detail = match *event.level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            _ => LogLevel::Debug,
        };
        event.target().starts_with("weft") && detail as u8 <= LEVEL.load(Relaxed)
    });
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false).with_filter(wanted);
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

/// Changes how much is logged.
pub fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Relaxed);
}
