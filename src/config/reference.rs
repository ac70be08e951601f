//! The table of [`super::keys`] in Markdown, for `docs/configuration.md`.

use super::keys::{Absent, Kind, TABLES};
use std::fmt::Write;

/// The reference of all keys, which `docs/configuration.md` holds between two marks.
pub fn markdown() -> String {
    let mut text = String::new();
    for table in TABLES {
        // Writing to a string cannot fail.
        let _ = write!(text, "### `{}`\n\n{}\n\n", table.header(), table.doc);
        text.push_str("| key | value | when absent | example | applied by |\n|---|---|---|---|---|\n");
        for key in table.keys {
            let applied = if key.live { "reload" } else { "restart" };
            let (name, kind, absent) = (key.name, key.kind.describe(), key.absent.describe());
            let _ = writeln!(text, "| `{name}` | {kind} | {absent} | `{}` | {applied} |", key.example);
        }
        text.push('\n');
        for key in table.keys {
            let _ = writeln!(text, "- **`{}`**: {}", key.name, key.doc);
        }
        text.push('\n');
    }
    text
}

impl Kind {
    /// The kind in the words of the reference.
    pub fn describe(self) -> String {
        match self {
            Self::Boolean => "`true` or `false`".to_owned(),
            Self::Integer { least, most } => format!("integer, {least} to {most}"),
            Self::Integers { least, most } => format!("list of integers, each {least} to {most}"),
            Self::Text(form) | Self::Secret(form) => format!("string: {form}"),
            Self::List(form) => format!("list of strings: each {form}"),
            Self::Tables => "list of tables".to_owned(),
        }
    }
}

impl Absent {
    /// The consequence in the words of the reference.
    pub fn describe(self) -> String {
        match self {
            Self::Refused => "**required**".to_owned(),
            Self::Boolean(value) => format!("`{value}`"),
            Self::Integer(value) => format!("`{value}`"),
            Self::Text(value) => format!("`\"{value}\"`"),
            Self::List(values) => format!("`{values:?}`"),
            Self::Means(words) => words.to_owned(),
        }
    }
}
