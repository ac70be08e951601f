//! Reading one table of a TOML file by the table of [`keys`], and collecting what is wrong with it.
//!
//! A [`Section`] is a TOML table together with its description: each of its methods finds a key, checks its type and
//! bounds by the description, and answers the value or what holds when it is absent. Nothing here stops at an error:
//! it goes into the [`Report`], and a stand-in value goes on. A report with an error in it never becomes a
//! configuration, so stand-ins are seen by the checks that follow and by nobody else.

use super::error::{ConfigError, Errors};
use super::keys::{self, Absent, Key, Kind, Table};
use super::suggest::nearest;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

/// The longest piece of a file that an error repeats.
const MAX_QUOTED: usize = 60;

/// What is wrong with a file so far.
pub(super) struct Report<'t> {
    file: &'t str,
    /// Offsets at which lines begin.
    lines: Vec<usize>,
    /// Lines on which the TOML itself is broken: what was read from them is a guess.
    broken: BTreeSet<usize>,
    errors: Vec<ConfigError>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        Self { file, lines: std::iter::once(0).chain(starts).collect(), broken: BTreeSet::new(), errors: Vec::new() }
    }

    /// The line of an offset, counted from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset)
    }

    /// The text is not TOML.
    pub(super) fn syntax(&mut self, error: &toml::de::Error) {
        let line = self.line(error.span().map_or(0, |span| span.start));
        // One slip makes the parser stumble on for the rest of the line.
        if !self.broken.insert(line) {
            return;
        }
        let problem = format!("not TOML: {}", one_line(error.message()));
        let remedy = if error.message().starts_with("duplicate key") {
            "remove one of the two; tables that may be repeated are written [[network]], [[peer]], [[port]]"
        } else {
            "mend this line: it must be a [table] or key = value, with strings in \"quotes\""
        };
        self.push(line, String::new(), problem, remedy.to_owned());
    }

    /// Whether the TOML itself is broken somewhere, so that something absent may only be unreadable.
    pub(super) fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// Something is wrong at `offset`.
    pub(super) fn at(&mut self, offset: usize, key: String, problem: impl Into<String>, remedy: impl Into<String>) {
        let line = self.line(offset);
        if !self.broken.contains(&line) {
            self.push(line, key, problem.into(), remedy.into());
        }
    }

    fn push(&mut self, line: usize, key: String, problem: String, remedy: String) {
        self.errors.push(ConfigError { file: self.file.to_owned(), line, key, problem, remedy });
    }

    /// The errors in the order of their lines, if there are any.
    pub(super) fn finish(mut self) -> Result<(), Errors> {
        self.errors.sort_by_key(|error| error.line);
        if self.errors.is_empty() { Ok(()) } else { Err(Errors(self.errors)) }
    }
}

/// One table of the file and its description.
pub(super) struct Section<'t> {
    about: &'static Table,
    /// How errors name it: `node`, `peer[2] "beta"`.
    label: String,
    values: &'t DeTable<'t>,
    offset: usize,
}

impl<'t> Section<'t> {
    /// A table met in the file; reports the keys in it that do not belong there.
    pub(super) fn new(
        about: &'static Table,
        label: String,
        values: &'t DeTable<'t>,
        offset: usize,
        report: &mut Report<'_>,
    ) -> Self {
        let mut section = Self { about, label, values, offset };
        if about.array
            && let Some(DeValue::String(name)) = values.get("name").map(Spanned::get_ref)
        {
            section.label = format!("{} {:?}", section.label, shortened(name));
        }
        for key in values.keys().filter(|key| about.key(key.get_ref()).is_none()) {
            let name = key.get_ref();
            let problem = format!("there is no key '{}' in {}", shortened(name), about.header());
            report.at(key.span().start, section.path(&shortened(name)), problem, section.suggestion(name));
        }
        section
    }

    /// How errors name this table.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The line its header stands on.
    pub(super) fn line(&self, report: &Report<'_>) -> usize {
        report.line(self.offset)
    }

    /// What to do about a key that is not in the table.
    fn suggestion(&self, name: &str) -> String {
        let elsewhere: Vec<String> =
            keys::TABLES.iter().filter(|table| table.key(name).is_some()).map(Table::header).collect();
        if let Some(meant) = nearest(name, self.about.keys.iter().map(|key| key.name)) {
            format!("did you mean '{meant}'?")
        } else if elsewhere.is_empty() {
            let known: Vec<&str> = self.about.keys.iter().map(|key| key.name).collect();
            format!("its keys are {}", known.join(", "))
        } else {
            format!("it is a key of {}", elsewhere.join(" and "))
        }
    }

    /// The path of a key in this table.
    fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.label)
    }

    /// The offset of a key's value, or of the table's header when it is absent.
    pub(super) fn offset(&self, name: &str) -> usize {
        self.values.get(name).map_or(self.offset, |value| value.span().start)
    }

    /// The offset of the item of a list that reads as `item`, or of the list.
    pub(super) fn offset_of<T: PartialEq>(&self, name: &str, item: &T, read: impl Fn(&str) -> Option<T>) -> usize {
        let is_it = |value: &&Spanned<DeValue<'_>>| value.get_ref().as_str().and_then(&read).as_ref() == Some(item);
        let found = self.items(name).iter().find(is_it);
        found.map_or_else(|| self.offset(name), |value| value.span().start)
    }

    /// The offset of an item of a list by its number, or of the list.
    pub(super) fn offset_in(&self, name: &str, index: usize) -> usize {
        self.items(name).get(index).map_or_else(|| self.offset(name), |value| value.span().start)
    }

    /// Reports a list with more than `most` items.
    pub(super) fn at_most(&self, report: &mut Report<'_>, name: &str, most: usize) {
        let items = self.items(name);
        if let Some(first_too_many) = items.get(most) {
            let problem = format!("there are {}, and at most {most} are allowed", items.len());
            report.at(first_too_many.span().start, self.path(name), problem, "keep those that are needed");
        }
    }

    /// Reports a list that is there and says nothing.
    pub(super) fn not_empty(&self, report: &mut Report<'_>, name: &str, remedy: &str) {
        if matches!(self.values.get(name).map(Spanned::get_ref), Some(DeValue::Array(items)) if items.is_empty()) {
            self.wrong(report, name, "is empty, so that this means nothing", remedy);
        }
    }

    fn items(&self, name: &str) -> &'t [Spanned<DeValue<'t>>] {
        match self.values.get(name).map(Spanned::get_ref) {
            Some(DeValue::Array(items)) => items,
            _ => &[],
        }
    }

    /// Something is wrong with a key.
    pub(super) fn wrong(
        &self,
        report: &mut Report<'_>,
        name: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        report.at(self.offset(name), self.path(name), problem, remedy);
    }

    /// Something is wrong with a part of a key's value, which stands at `offset`.
    pub(super) fn wrong_at(
        &self,
        report: &mut Report<'_>,
        offset: usize,
        name: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        report.at(offset, self.path(name), problem, remedy);
    }

    /// Whether the key is there at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The description of a key, and its value. A required key that is absent is reported.
    fn find(&self, report: &mut Report<'_>, name: &str) -> (&'static Key, Option<&'t Spanned<DeValue<'t>>>) {
        // The name comes from our own source, and a test reads every table.
        let key = self.about.key(name).expect("every key that is read is described");
        let value = self.values.get(name);
        if value.is_none() && key.absent == Absent::Refused && !report.is_broken() {
            let remedy = format!("add a line like {name} = {}", key.example);
            report.at(self.offset, self.path(name), "is missing", remedy);
        }
        (key, value)
    }

    /// A value is not of its key's kind.
    fn mistyped(&self, report: &mut Report<'_>, key: &Key, value: &Spanned<DeValue<'_>>) {
        let found = match key.kind {
            Kind::Secret(_) => "something else".to_owned(),
            _ => described(value.get_ref()),
        };
        let problem = format!("must be {}, not {found}", plain(key.kind));
        report.at(value.span().start, self.path(key.name), problem, like(key));
    }

    /// A truth value.
    pub(super) fn boolean(&self, report: &mut Report<'_>, name: &str) -> bool {
        let (key, value) = self.find(report, name);
        match (value.map(Spanned::get_ref), value, key.absent) {
            (Some(DeValue::Boolean(value)), ..) => return *value,
            (_, Some(value), _) => self.mistyped(report, key, value),
            (_, None, Absent::Boolean(default)) => return default,
            _ => {}
        }
        false
    }

    /// A number within the bounds of its key; `None` when it is absent and has no default, or when it is wrong.
    pub(super) fn integer(&self, report: &mut Report<'_>, name: &str) -> Option<u64> {
        let (key, value) = self.find(report, name);
        let Some(value) = value else {
            return if let Absent::Integer(default) = key.absent { Some(default) } else { None };
        };
        self.bounded(report, key, value)
    }

    /// The numbers of a list that lie within the bounds of their key.
    pub(super) fn integers(&self, report: &mut Report<'_>, name: &str) -> Vec<u64> {
        let (key, value) = self.find(report, name);
        match value.map(|value| (value, value.get_ref())) {
            None => Vec::new(),
            Some((_, DeValue::Array(items))) => {
                items.iter().filter_map(|item| self.bounded(report, key, item)).collect()
            }
            Some((value, _)) => {
                self.mistyped(report, key, value);
                Vec::new()
            }
        }
    }

    /// A number within the bounds of its key.
    fn bounded(&self, report: &mut Report<'_>, key: &Key, value: &Spanned<DeValue<'_>>) -> Option<u64> {
        let (DeValue::Integer(text), Kind::Integer { least, most } | Kind::Integers { least, most }) =
            (value.get_ref(), key.kind)
        else {
            self.mistyped(report, key, value);
            return None;
        };
        match number(text).filter(|number| (least..=most).contains(number)) {
            Some(number) => Some(number),
            None => {
                let problem = format!("must lie between {least} and {most}, and is {}", shortened(&text.to_string()));
                report.at(value.span().start, self.path(key.name), problem, like(key));
                None
            }
        }
    }

    /// [`Self::integer`] as the type its bounds fit into; 0 stands in for a wrong one.
    pub(super) fn number<T: TryFrom<u64> + Default>(&self, report: &mut Report<'_>, name: &str) -> T {
        self.integer(report, name).and_then(|value| value.try_into().ok()).unwrap_or_default()
    }

    /// A string; `None` when it is absent and has no default, or when it is none.
    pub(super) fn text(&self, report: &mut Report<'_>, name: &str) -> Option<&'t str> {
        let (key, value) = self.find(report, name);
        match (value.map(Spanned::get_ref), value, key.absent) {
            (Some(DeValue::String(text)), ..) => Some(text),
            (_, Some(value), _) => {
                self.mistyped(report, key, value);
                None
            }
            (_, None, Absent::Text(default)) => Some(default),
            _ => None,
        }
    }

    /// A string that `read` understands. Its error is the problem; the remedy is the key's example.
    pub(super) fn read<T, E: Display>(
        &self,
        report: &mut Report<'_>,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(report, name)?;
        read(text).map_err(|error| self.unreadable(report, self.offset(name), name, text, &error)).ok()
    }

    /// Strings that `read` understands, each with its offset.
    pub(super) fn read_list<T, E: Display>(
        &self,
        report: &mut Report<'_>,
        name: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<(usize, T)> {
        let (key, value) = self.find(report, name);
        let Some(value) = value else {
            let Absent::List(defaults) = key.absent else { return Vec::new() };
            return defaults.iter().filter_map(|text| Some((self.offset, read(text).ok()?))).collect();
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.mistyped(report, key, value);
            return Vec::new();
        };
        let mut found = Vec::new();
        for item in items {
            let offset = item.span().start;
            match item.get_ref() {
                DeValue::String(text) => match read(text) {
                    Ok(value) => found.push((offset, value)),
                    Err(error) => self.unreadable(report, offset, name, text, &error),
                },
                _ => self.mistyped(report, key, item),
            }
        }
        found
    }

    fn unreadable(&self, report: &mut Report<'_>, offset: usize, name: &str, text: &str, error: &dyn Display) {
        let key = self.about.key(name);
        let secret = key.is_some_and(|key| matches!(key.kind, Kind::Secret(_)));
        let problem = if secret { error.to_string() } else { format!("'{}': {error}", shortened(text)) };
        report.at(offset, self.path(name), problem, key.map_or_else(String::new, like));
    }

    /// The tables of an array of tables within this one.
    pub(super) fn tables(&self, report: &mut Report<'_>, name: &str) -> Vec<Self> {
        let (key, value) = self.find(report, name);
        let path = format!("{}.{name}", self.about.name);
        let (Some(value), Some(about)) = (value, keys::table(&path)) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.mistyped(report, key, value);
            return Vec::new();
        };
        sections(about, &self.path(name), items, report)
    }
}

/// The sections of an array of tables that is called `label`.
pub(super) fn sections<'t>(
    about: &'static Table,
    label: &str,
    items: &'t [Spanned<DeValue<'t>>],
    report: &mut Report<'_>,
) -> Vec<Section<'t>> {
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let (label, Range { start, .. }) = (format!("{label}[{}]", index + 1), item.span());
        match item.get_ref() {
            DeValue::Table(values) => found.push(Section::new(about, label, values, start, report)),
            other => {
                let problem = format!("must be a table, not {}", described(other));
                report.at(start, label, problem, format!("write a {} for each", about.header()));
            }
        }
    }
    found
}

/// A remedy that shows what a right value looks like.
fn like(key: &Key) -> String {
    format!("write it like {} = {}", key.name, key.example)
}

/// A kind as a phrase.
fn plain(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "true or false",
        Kind::Integer { .. } => "a whole number",
        Kind::Integers { .. } => "a list of whole numbers",
        Kind::Text(_) | Kind::Secret(_) => "a string",
        Kind::List(_) => "a list of strings",
        Kind::Tables => "a list of tables",
    }
}

/// A value as a phrase.
pub(super) fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {:?}", shortened(text)),
        DeValue::Integer(number) => format!("the number {}", shortened(&number.to_string())),
        DeValue::Float(number) => format!("the number {}", shortened(&number.to_string())),
        DeValue::Boolean(value) => format!("{value}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The first part of a text that may be as long as the file.
pub(super) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_QUOTED).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    one_line(&short)
}

fn one_line(text: &str) -> String {
    text.split(char::is_control).collect::<Vec<_>>().join(" ")
}

fn number(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
