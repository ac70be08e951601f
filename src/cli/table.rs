//! Tables and units for people.

use std::fmt::Display;

/// Shown where there is nothing.
pub(super) const NONE: &str = "-";
/// Blanks between columns.
const GAP: usize = 2;

/// Rows of text in columns that are as wide as their widest cell; numbers stand to the right.
pub(super) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these heads. One that begins with `>` makes its column stand to the right.
    pub(super) fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, with a cell for each head. What could move the cursor is left out of a cell.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let clean = |cell: String| if cell.is_empty() { NONE.to_owned() } else { printable(&cell) };
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// The table as lines.
    pub(super) fn render(&self) -> String {
        let titles: Vec<&str> = self.heads.iter().map(|head| head.trim_start_matches('>')).collect();
        let mut widths: Vec<usize> = titles.iter().map(|title| title.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        let titles = titles.iter().map(|&title| title.to_owned()).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, &width), head) in row.iter().zip(&widths).zip(&self.heads) {
                let cell = if head.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                line.push_str(&cell);
                line.push_str(&" ".repeat(GAP));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A text without what could move the cursor or change colours.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Items with a separator, or `-`.
pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { NONE.to_owned() } else { items.join(separator) }
}

/// Something that may be absent, or `-`.
pub(super) fn maybe<T: Display>(item: Option<T>) -> String {
    item.map_or_else(|| NONE.to_owned(), |item| item.to_string())
}

/// Bytes in powers of 1024: `17 B`, `1.5 MiB`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(super) fn bytes(count: u64) -> String {
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        // What would be rounded to 1024.0 is 1.0 of the next.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A time in its two largest units: `7s`, `3m 12s`, `2d 5h`.
pub(super) fn duration(seconds: u64) -> String {
    let (s, m, h, d) = (seconds % 60, seconds / 60 % 60, seconds / 3600 % 24, seconds / 86_400);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m {s}s"),
        (0, ..) => format!("{h}h {m}m"),
        _ => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", ">COUNT", "NOTE"]);
        table.row(["a".into(), "7".into(), String::new()]);
        table.row(["a longer one".into(), "123456".into(), "x\u{1b}[2Jy\n".into()]);
        assert_eq!(
            table.render(),
            "NAME           COUNT  NOTE\n\
             a                  7  -\n\
             a longer one  123456  x [2Jy\n"
        );
    }

    #[test]
    fn units_are_for_people() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (seconds, text) in [(0, "0s"), (59, "59s"), (192, "3m 12s"), (3600, "1h 0m"), (190_800, "2d 5h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
