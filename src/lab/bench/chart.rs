//! The comparison as a picture: an SVG with one panel per metric and one bar per contender.
//!
//! One file without scripts, fonts or pictures of others; text is text. Its colours follow the reader's light or dark
//! scheme, and no meaning hangs on colour alone: each bar has its name and figure.

use super::summary::{Metric, Report, Row};
use crate::lab::contenders::WEFT;
use std::fmt::Write as _;

/// Panels, in reading order.
const PANELS: [(Metric, &str); 4] = [
    (Metric::Tcp, "TCP, one stream: Gbit/s, more is better"),
    (Metric::Cpu, "CPU of both daemons: seconds per GB, less is better"),
    (Metric::Small, "64-byte UDP delivered: 1000 a second, more is better"),
    (Metric::TripLoaded, "Round trip beside a TCP stream, p99: µs, less is better"),
];
/// Panels next to each other.
const COLUMNS: usize = 2;
/// Sizes in pixels: a panel, its head, a row, the part of a row that is the name, and the part that is the figure.
const PANEL: usize = 440;
const HEAD: usize = 34;
const ROW: usize = 20;
const NAME: usize = 140;
const FIGURE: usize = 60;
const MARGIN: usize = 16;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 13px; font-weight: 600 }
.small { font-size: 11px; fill: #59636e }
.weft { fill: #0969da; font-weight: 600 }
.encrypted { fill: #8c959f }
.clear { fill: #d1d9e0 }
.page { fill: #ffffff }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.small { fill: #9198a1 }
.weft { fill: #4493f8 }
.encrypted { fill: #7d8590 }
.clear { fill: #3d444d }
.page { fill: #0d1117 }
}";

/// Draws a report.
pub fn svg(report: &Report) -> String {
    let panels = PANELS.map(|(metric, title)| {
        let bars = report.contenders.iter().filter_map(|row| Some((row, row.median(metric)?)));
        (title, bars.collect::<Vec<_>>())
    });
    let tallest = panels.iter().map(|(_, bars)| bars.len()).max().unwrap_or(0);
    let panel_height = HEAD + tallest * ROW + MARGIN;
    let (width, body) = (COLUMNS * PANEL + MARGIN, panels.len().div_ceil(COLUMNS) * panel_height);
    let height = body + 2 * ROW + MARGIN;
    // Writing to a String cannot fail.
    let mut text = String::new();
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\">\n<title>weft beside other overlays on one machine</title>\n<style>\n{STYLE}\n</style>\n\
         <rect class=\"page\" width=\"{width}\" height=\"{height}\"/>"
    );
    for (number, (title, bars)) in panels.iter().enumerate() {
        let (x, y) = (MARGIN + number % COLUMNS * PANEL, number / COLUMNS * panel_height);
        let _ = writeln!(text, "<g transform=\"translate({x} {y})\">");
        let _ = writeln!(text, "<text class=\"title\" y=\"{}\">{}</text>", HEAD - 12, escaped(title));
        let longest = bars.iter().map(|&(_, value)| value).fold(0.0, f64::max);
        for (n, &(row, value)) in bars.iter().enumerate() {
            bar(&mut text, row, value, longest, HEAD + n * ROW);
        }
        text.push_str("</g>\n");
    }
    let legend =
        "blue: weft; dark grey: encrypted; light grey: not encrypted. Both hosts and all traffic share the machine.";
    let source = format!("{}. {}", report.times, report.machine);
    for (n, line) in [legend, &source].into_iter().enumerate() {
        let y = body + (n + 1) * ROW;
        let _ = writeln!(text, "<text class=\"small\" x=\"{MARGIN}\" y=\"{y}\">{}</text>", escaped(line));
    }
    text.push_str("</svg>\n");
    text
}

fn bar(text: &mut String, row: &Row, value: f64, longest: f64, y: usize) {
    let room = (PANEL - NAME - FIGURE - MARGIN) as f64;
    // A bar of nothing would look like one that is missing.
    let length = if longest > 0.0 { (value / longest * room).max(1.0) } else { 1.0 };
    let class = match row {
        row if row.name == WEFT => "weft",
        row if row.encrypted => "encrypted",
        _ => "clear",
    };
    let bold = if class == "weft" { " class=\"weft\"" } else { "" };
    let (baseline, top) = (y + ROW - 6, y + 3);
    let _ = writeln!(
        text,
        "<text{bold} x=\"{}\" y=\"{baseline}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{NAME}\" y=\"{top}\" width=\"{length:.1}\" height=\"{}\" rx=\"2\"/>\
         <text{bold} x=\"{:.1}\" y=\"{baseline}\">{}</text>",
        NAME - 8,
        escaped(&row.name),
        ROW - 6,
        NAME as f64 + length + 6.0,
        short(value),
    );
}

/// Three digits, as far as they are there.
fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::summary::tests::example;
    use super::*;

    /// Every element is closed by its own name, and nothing is outside the one at the top.
    fn assert_well_formed(text: &str) {
        let (mut open, mut rest, mut tops) = (Vec::new(), text, 0);
        while let Some(start) = rest.find('<') {
            let between = &rest[..start];
            assert!(!between.contains('>'), "a stray > in {between:?}");
            assert!(!open.is_empty() || between.trim().is_empty(), "text outside: {between:?}");
            for (at, _) in between.match_indices('&') {
                let entities = ["&amp;", "&lt;", "&gt;", "&quot;"];
                assert!(entities.iter().any(|entity| between[at..].starts_with(entity)), "{between:?}");
            }
            let end = start + rest[start..].find('>').unwrap();
            let tag = &rest[start + 1..end];
            assert!(tag.matches('"').count().is_multiple_of(2), "quotes of <{tag}>");
            let name = |tag: &str| tag.split([' ', '/', '\n']).find(|word| !word.is_empty()).unwrap().to_owned();
            if let Some(closed) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(closed));
            } else if !tag.ends_with('/') {
                tops += usize::from(open.is_empty());
                open.push(name(tag));
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty() && tops == 1 && rest.trim().is_empty(), "{open:?} {tops} {rest:?}");
    }

    #[test]
    fn the_chart_is_well_formed_and_names_everyone_who_has_a_figure() {
        let text = svg(&example());
        assert_well_formed(&text);
        for expected in
            [">weft<", ">tinc<", ">bare<", ">6.00<", ">0.50<", ">10.0<", "a &lt;CPU&gt;", "Medians of 3 rounds"]
        {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
        assert!(!text.contains(">fastd<"));
    }

    #[test]
    fn the_longest_bar_fills_its_panel_and_the_others_are_in_proportion() {
        let text = svg(&example());
        let widths: Vec<f64> = text
            .match_indices("height=\"14\"")
            .map(|(at, _)| {
                let before = &text[..at];
                let width = &before[before.rfind("width=\"").unwrap() + 7..];
                width[..width.find('"').unwrap()].parse().unwrap()
            })
            .collect();
        // bare, weft, tinc; then weft and tinc.
        let room = (PANEL - NAME - FIGURE - MARGIN) as f64;
        let expected = [room, room * 0.3, room * 0.025, room * 0.25, room];
        assert_eq!(widths.len(), expected.len());
        assert!(widths.iter().zip(expected).all(|(is, should)| (is - should).abs() < 0.06), "{widths:?}");
    }

    #[test]
    fn a_report_of_nothing_is_a_picture_too() {
        let mut report = example();
        report.contenders.clear();
        assert_well_formed(&svg(&report));
    }
}
