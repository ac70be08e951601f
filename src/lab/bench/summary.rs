//! What was measured, made comparable: medians, shares of what the kernel does, and weft's ratio to each of the others.

use super::measure::Sample;
use crate::lab::contenders::{BARE, BRIDGE, Contender, Layer, WEFT};
use crate::lab::report::Machine;
use serde::Serialize;
use std::collections::BTreeMap;

/// What is measured of a contender. As a key in JSON: `tcp_gbps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Metric {
    /// TCP between the hosts, one stream, as the receiver saw it. Gbit/s.
    #[serde(rename = "tcp_gbps")]
    Tcp,
    /// Several streams at once. Gbit/s.
    #[serde(rename = "tcp_several_gbps")]
    TcpSeveral,
    /// One stream the other way. Gbit/s.
    #[serde(rename = "tcp_reverse_gbps")]
    TcpReverse,
    /// One stream between two containers on one host. Gbit/s.
    #[serde(rename = "tcp_one_host_gbps")]
    TcpLocal,
    /// User and system time of the daemons of both hosts per 10⁹ bytes of the one stream. Seconds.
    #[serde(rename = "cpu_s_per_gb")]
    Cpu,
    /// Segments the sender of the one stream sent again, per 10⁹ bytes.
    #[serde(rename = "retransmits_per_gb")]
    Retransmits,
    /// Datagrams of 64 bytes that arrive while as many are sent as the kernel takes. 1000 a second.
    #[serde(rename = "udp64_kpps")]
    Small,
    /// The median of round trips on the idle path. Microseconds.
    #[serde(rename = "trip_p50_us")]
    TripHalf,
    /// The 99th percentile of round trips on the idle path. Microseconds.
    #[serde(rename = "trip_p99_us")]
    TripMost,
    /// The 99th percentile of round trips beside one TCP stream. Microseconds.
    #[serde(rename = "trip_loaded_p99_us")]
    TripLoaded,
    /// Resident memory of the larger daemon, after the measurements. MiB.
    #[serde(rename = "memory_mib")]
    Memory,
}

/// One metric of one contender.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The median of all rounds.
    pub median: f64,
    /// The least of them.
    pub least: f64,
    /// The most of them.
    pub most: f64,
    /// In per cent of what the kernel does without any overlay: of the bare path between hosts, of a bridge on one
    /// host.
    pub percent_of_kernel: Option<f64>,
    /// weft's figure divided by this one.
    pub weft_ratio: Option<f64>,
}

/// What a contender came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it carries.
    pub layer: Layer,
    /// Whether it encrypts.
    pub encrypted: bool,
    /// What its program says of its version.
    pub version: Option<String>,
    /// How it was set up.
    pub setup: String,
    /// What was measured.
    pub figures: BTreeMap<Metric, Figure>,
    /// Packets of the underlay that had to be fragmented: more than 0 says that the overlay's MTU was too large.
    pub fragmented: u64,
    /// Why there is not more, with its last words.
    pub failed: Option<String>,
}

/// A contender this machine does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// Its name.
    pub name: String,
    /// What is missing and where it comes from.
    pub reason: String,
}

/// How much was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    /// How often.
    pub rounds: usize,
    /// How long each time.
    pub seconds: f64,
    /// How many streams "several" are.
    pub streams: usize,
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.rounds {
            1 => write!(f, "One round of {} s", self.seconds),
            rounds => write!(f, "Medians of {rounds} rounds of {} s", self.seconds),
        }
    }
}

/// Everything that came of a bench.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// MTUs, and what was switched off.
    pub settings: String,
    /// How much was measured.
    #[serde(flatten)]
    pub times: Times,
    /// Who was measured.
    pub contenders: Vec<Row>,
    /// Who was not.
    pub absent: Vec<Absent>,
}

/// A contender and its rounds.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) contender: &'static Contender,
    pub(super) version: Option<String>,
    pub(super) setup: &'static str,
    pub(super) samples: Vec<Sample>,
    pub(super) fragmented: u64,
    pub(super) failed: Option<String>,
}

impl Report {
    pub(super) fn new(
        machine: Machine,
        settings: String,
        times: Times,
        measured: Vec<Measured>,
        absent: Vec<Absent>,
    ) -> Self {
        let mut contenders: Vec<Row> = measured.into_iter().map(row).collect();
        compare(&mut contenders);
        Self { machine, settings, times, contenders, absent }
    }

    /// The row of a contender that was measured.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.contenders.iter().find(|row| row.name == name)
    }
}

impl Row {
    /// The median of a metric.
    pub fn median(&self, metric: Metric) -> Option<f64> {
        self.figures.get(&metric).map(|figure| figure.median)
    }
}

fn row(measured: Measured) -> Row {
    let Measured { contender, version, setup, samples, fragmented, failed } = measured;
    let mut values: BTreeMap<Metric, Vec<f64>> = BTreeMap::new();
    for (metric, value) in samples.into_iter().flatten().filter(|(_, value)| value.is_finite()) {
        values.entry(metric).or_default().push(value);
    }
    let figures = values.into_iter().filter_map(|(metric, values)| Some((metric, figure(values)?))).collect();
    Row {
        name: contender.name.to_owned(),
        layer: contender.layer,
        encrypted: contender.encrypted,
        version,
        setup: setup.to_owned(),
        figures,
        fragmented,
        failed,
    }
}

/// `None` when there are no values.
fn figure(mut values: Vec<f64>) -> Option<Figure> {
    values.sort_by(f64::total_cmp);
    let (least, most) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    };
    let [median, least, most] = [median, least, most].map(rounded);
    Some(Figure { median, least, most, percent_of_kernel: None, weft_ratio: None })
}

/// Fills in shares and ratios, now that all medians are there.
fn compare(rows: &mut [Row]) {
    let medians = |name: &str| -> BTreeMap<Metric, f64> {
        let figures = rows.iter().find(|row| row.name == name).map(|row| &row.figures).into_iter().flatten();
        figures.map(|(metric, figure)| (*metric, figure.median)).collect()
    };
    let (bare, bridge, weft) = (medians(BARE), medians(BRIDGE), medians(WEFT));
    for row in rows.iter_mut() {
        for (metric, figure) in &mut row.figures {
            let kernel = if *metric == Metric::TcpLocal { &bridge } else { &bare };
            figure.percent_of_kernel = kernel.get(metric).and_then(|&kernel| ratio(figure.median * 100.0, kernel));
            figure.weft_ratio = weft.get(metric).and_then(|&weft| ratio(weft, figure.median));
        }
    }
}

fn ratio(of: f64, to: f64) -> Option<f64> {
    (to > 0.0).then(|| rounded(of / to))
}

/// Four digits behind the point say more than any measurement knows.
fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lab::contenders;

    /// A report of three rounds, in which one contender failed and one is not there.
    pub(crate) fn example() -> Report {
        let machine = Machine { cpu: "a <CPU>".into(), cores: 2, kernel: "6.1".into(), date: "2026-03-01".into() };
        let measured = |name: &str, rounds: &[&[(Metric, f64)]], failed: Option<&str>| {
            let contender = contenders::called(&[name.to_owned()]).unwrap().into_iter().find(|one| one.name == name);
            Measured {
                contender: contender.unwrap(),
                version: None,
                setup: "as it is",
                samples: rounds.iter().map(|round| round.iter().copied().collect()).collect(),
                fragmented: u64::from(name == "tinc") * 7,
                failed: failed.map(str::to_owned),
            }
        };
        let rows = vec![
            measured(BARE, &[&[(Metric::Tcp, 20.0)], &[(Metric::Tcp, 18.0)], &[(Metric::Tcp, 30.0)]], None),
            measured(BRIDGE, &[&[(Metric::TcpLocal, 16.0)]], None),
            measured(
                WEFT,
                &[
                    &[(Metric::Tcp, 5.0), (Metric::Cpu, 2.0), (Metric::TcpLocal, 12.0)],
                    &[(Metric::Tcp, 7.0), (Metric::Cpu, 3.0), (Metric::TripLoaded, f64::NAN)],
                ],
                None,
            ),
            measured("tinc", &[&[(Metric::Tcp, 0.5), (Metric::Cpu, 10.0), (Metric::Retransmits, 0.0)]], None),
            measured("fastd", &[], Some("it said \"no & never\"")),
        ];
        let absent = vec![Absent { name: "nebula".into(), reason: "nebula is not on this machine".into() }];
        let times = Times { rounds: 3, seconds: 1.0, streams: 4 };
        Report::new(machine, "underlay IPv4".into(), times, rows, absent)
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        for (values, median) in [(vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 100.0], 3.0)] {
            let figure = figure(values).unwrap();
            assert!((figure.median - median).abs() < 1e-9 && figure.least <= median && figure.most >= median);
        }
        assert_eq!(figure(vec![]), None);
    }

    #[test]
    fn shares_are_of_the_bare_path_or_the_bridge_and_ratios_are_wefts() {
        let report = example();
        let get = |name: &str, metric: Metric| report.row(name).unwrap().figures[&metric].clone();
        let of_weft = get(WEFT, Metric::Tcp);
        assert_eq!((of_weft.median, of_weft.percent_of_kernel, of_weft.weft_ratio), (6.0, Some(30.0), Some(1.0)));
        assert_eq!(get("tinc", Metric::Tcp).weft_ratio, Some(12.0));
        assert_eq!(get("tinc", Metric::Cpu).weft_ratio, Some(0.25));
        assert_eq!(get(WEFT, Metric::Cpu).percent_of_kernel, None);
        assert_eq!(get(WEFT, Metric::TcpLocal).percent_of_kernel, Some(75.0));
        // Nothing is divided by, and what is no number is no figure.
        let none = get("tinc", Metric::Retransmits);
        assert_eq!((none.median, none.percent_of_kernel, none.weft_ratio), (0.0, None, None));
        assert!(!report.row(WEFT).unwrap().figures.contains_key(&Metric::TripLoaded));
        assert!(report.row("fastd").unwrap().figures.is_empty());
    }

    #[test]
    fn the_json_has_names_that_say_their_unit() {
        let json = serde_json::to_value(example()).unwrap();
        assert_eq!((&json["rounds"], &json["streams"]), (&3.into(), &4.into()));
        let tinc = &json["contenders"][3];
        assert_eq!(
            (&tinc["name"], &tinc["layer"], &tinc["encrypted"]),
            (&"tinc".into(), &"ethernet".into(), &true.into())
        );
        assert_eq!(tinc["figures"]["tcp_gbps"]["median"], 0.5);
        assert_eq!(tinc["fragmented"], 7);
        assert_eq!(tinc["figures"]["cpu_s_per_gb"]["weft_ratio"], 0.25);
        assert_eq!(json["contenders"][4]["failed"], "it said \"no & never\"");
        assert_eq!(json["absent"][0]["name"], "nebula");
        assert_eq!(json["machine"]["cores"], 2);
    }
}
