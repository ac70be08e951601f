//! Every key of the configuration file, once: its type, its bounds, its default, whether a reload applies it, and
//! what it means.
//!
//! The reader takes types, bounds and defaults from here and nowhere else; unknown keys are compared with it for a
//! suggestion; `docs/configuration.md` is written from it by [`super::reference`]; and a test changes every key in turn to
//! see that [`super::diff`] treats it as `live` says.

mod docker;
mod member;
mod networks;
mod policy;

pub use docker::DOCKER;
pub use member::{FDB, NODE, OFFLOAD, TRUST};
pub use networks::{NETWORK, PEER, PORT, STATIC};
pub use policy::ALLOW;

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number within bounds, both included.
    Integer {
        /// The smallest value.
        least: u64,
        /// The largest value.
        most: u64,
    },
    /// A list of whole numbers within bounds, both included.
    Integers {
        /// The smallest value.
        least: u64,
        /// The largest value.
        most: u64,
    },
    /// A string; what it holds.
    Text(&'static str),
    /// A string that errors do not repeat; what it holds.
    Secret(&'static str),
    /// A list of strings; what each holds.
    List(&'static str),
    /// A list of tables, whose keys stand in a [`Table`] of their own.
    Tables,
}

/// What holds when a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// The file is refused.
    Refused,
    /// This truth value.
    Boolean(bool),
    /// This number.
    Integer(u64),
    /// This string.
    Text(&'static str),
    /// These strings.
    List(&'static [&'static str]),
    /// Something that no literal says, in words.
    Means(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name within its table.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What holds when it is absent.
    pub absent: Absent,
    /// A valid value other than the default, as TOML. Shown in remedies and in the reference.
    pub example: &'static str,
    /// Whether `weft reload` applies a change of it; otherwise the reload is refused and a restart is needed.
    pub live: bool,
    /// What it means, in one sentence.
    pub doc: &'static str,
}

/// One table of keys.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its path: `node`, `network.static`.
    pub name: &'static str,
    /// Whether it is an array of tables: `[[network]]` rather than `[node]`.
    pub array: bool,
    /// What it is about, in a sentence or two.
    pub doc: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [Key],
}

impl Table {
    /// The header as it stands in a file.
    pub fn header(&self) -> String {
        if self.array { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }

    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const TEXT_NAME: Kind = Kind::Text("a name: 1 to 64 letters, digits, '.', '_' or '-'");
const TEXT_PATH: Kind = Kind::Text("a path, relative to the directory of this file");
const TEXT_MAC: Kind = Kind::Text("a MAC address, or U:TEXT for one made from the text");
const LIVE: bool = true;
const RESTART: bool = false;

const fn key(
    name: &'static str,
    kind: Kind,
    absent: Absent,
    example: &'static str,
    live: bool,
    doc: &'static str,
) -> Key {
    Key { name, kind, absent, example, live, doc }
}

const fn switch(name: &'static str, doc: &'static str) -> Key {
    key(name, Kind::Boolean, Absent::Boolean(true), "false", RESTART, doc)
}

/// All tables, in the order of the reference.
pub const TABLES: &[Table] = &[NODE, TRUST, OFFLOAD, FDB, DOCKER, NETWORK, STATIC, PEER, PORT, ALLOW];

/// The table of this path.
pub fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_twice_and_every_text_is_a_sentence() {
        for (index, table) in TABLES.iter().enumerate() {
            assert!(TABLES[..index].iter().all(|other| other.name != table.name));
            for (index, key) in table.keys.iter().enumerate() {
                assert!(table.keys[..index].iter().all(|other| other.name != key.name));
                assert!(key.doc.ends_with('.') && !key.doc.contains('|'), "{}", key.name);
            }
        }
    }
}
