//! Versions of the specification, oldest first. A configuration names the one it is written in; results and errors are given in that.

use super::error::{CniError, Code};
use std::fmt;

/// A version of the CNI specification that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Results are lists of interfaces and addresses.
    V0_3_0,
    /// The same in other words.
    V0_3_1,
    /// CHECK.
    V0_4_0,
    /// Addresses no longer say of which family they are.
    V1_0_0,
    /// GC and STATUS; interfaces and routes say more.
    V1_1_0,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// What is said where no configuration could be read.
    pub const LATEST: Self = Self::V1_1_0;

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads it. A configuration that names none is of 0.1.0, says the specification.
    ///
    /// # Errors
    /// [`Code::Version`].
    pub fn read(name: Option<&str>) -> Result<Self, CniError> {
        let name = name.filter(|name| !name.is_empty()).unwrap_or("0.1.0");
        Self::ALL.into_iter().find(|version| version.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            let message = format!("cniVersion {name:?} is not spoken here: set it to one of {known}");
            CniError::new(Code::Version, message)
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
