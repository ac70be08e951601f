//! What `weft policy` shows.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What frames may do in one network, and what they might not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// Its name.
    pub network: String,
    /// `off`, `mac` or `full`.
    pub guard: String,
    /// Whether its ports reach each other only by promiscuous ones.
    pub isolate: bool,
    /// What is allowed; if empty, everything.
    pub rules: Vec<RuleStatus>,
    /// Frames that were refused here since start, by why.
    pub refused: BTreeMap<String, u64>,
    /// What was refused lately, the latest first.
    pub latest: Vec<Refused>,
}

/// One `[[allow]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Who begins.
    pub from: String,
    /// How many known addresses that is.
    pub from_addresses: usize,
    /// Who is asked.
    pub to: String,
    /// How many known addresses that is.
    pub to_addresses: usize,
    /// What for.
    pub ports: Vec<String>,
    /// Frames that passed by it here since start, both ways.
    pub hits: u64,
}

/// Frames that were refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The network's name.
    pub network: String,
    /// Why: a drop reason.
    pub reason: String,
    /// From whom to whom, and what.
    pub what: String,
    /// How many like it.
    pub count: u64,
    /// How long ago the last was.
    pub age_s: u64,
}
