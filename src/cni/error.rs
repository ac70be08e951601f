//! What a plugin says when it cannot: a code that runtimes act on, and a sentence for people.
//!
//! Below 100 the codes are the specification's ("Error codes"); from there on they are a plugin's own, and two are enough: the daemon said
//! no, or something is not as it was. The object goes to standard output, where runtimes look for it.

use super::version::Version;
use serde_json::{Value, json};

/// Why, as runtimes are told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The configuration is of a version that is not spoken here, or that has no such command.
    Version,
    /// A key of the configuration is not understood; the message has it and its value.
    Unsupported,
    /// The container's namespace does not exist: nothing needs to be cleaned up.
    NoContainer,
    /// A `CNI_…` variable is missing or wrong; the message names it.
    Environment,
    /// Reading or writing failed.
    Io,
    /// The configuration is not the JSON it should be.
    Decode,
    /// The configuration can be read, and makes no sense.
    Config,
    /// The daemon does not answer: the same may succeed later.
    Later,
    /// No container can be added.
    Unavailable,
    /// No container can be added, and those there are have no network now.
    Limited,
    /// The daemon, or the kernel, refused.
    Refused,
    /// What was made is not there any more, or not as it was.
    Changed,
    /// What a delegated plugin said.
    Foreign(u32),
}

impl Code {
    /// The number in the error object.
    pub fn number(self) -> u32 {
        match self {
            Self::Version => 1,
            Self::Unsupported => 2,
            Self::NoContainer => 3,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::Config => 7,
            Self::Later => 11,
            Self::Unavailable => 50,
            Self::Limited => 51,
            Self::Refused => 100,
            Self::Changed => 101,
            Self::Foreign(number) => number,
        }
    }
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// For runtimes.
    pub code: Code,
    /// For people.
    pub message: String,
    /// What else went wrong on the way; may be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The same, with what went wrong while it was cleaned up after.
    #[must_use]
    pub fn and(mut self, more: Option<Self>) -> Self {
        if let Some(more) = more {
            let gap = if self.details.is_empty() { "" } else { "; " };
            self.details = format!("{}{gap}{}", self.details, more.message);
        }
        self
    }

    /// The error object, in the version of the configuration where that could be read.
    pub fn to_json(&self, version: Version) -> Value {
        let mut object = json!({ "cniVersion": version.name(), "code": self.code.number(), "msg": self.message });
        if !self.details.is_empty() {
            object["details"] = self.details.clone().into();
        }
        object
    }
}
