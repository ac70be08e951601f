//! What a member gives addresses from: `slice`, `range` and `reserved` of `[[network]]`.

use super::super::Network;
use super::super::reader::{Report, Section};
use super::{MAX_ADDRESSES, subnet};
use crate::wire::cidr::Cidr;
use crate::wire::range::Range;

/// The most slices of one network: as many as a certificate has.
const MAX_SLICES: usize = 16;

/// `slice`: prefixes, or `None` for `auto`.
pub(in crate::config) fn slices(section: &Section<'_>, report: &mut Report<'_>) -> Option<Vec<Cidr>> {
    section.at_most(report, "slice", MAX_SLICES);
    let read = |text: &str| match text {
        "auto" => Ok(None),
        text => subnet(text).map(Some).map_err(|error| format!("neither auto nor a prefix: {error}")),
    };
    let found = section.read_list(report, "slice", read);
    let slices: Vec<Cidr> = found.iter().filter_map(|(_, slice)| *slice).take(MAX_SLICES).collect();
    match found.iter().find(|(_, slice)| slice.is_none()) {
        None => Some(slices),
        Some(_) if slices.is_empty() => None,
        Some((offset, _)) => {
            section.wrong_at(report, *offset, "slice", "auto stands beside prefixes", "keep auto or the prefixes");
            Some(slices)
        }
    }
}

/// `range` and `reserved`.
pub(in crate::config) fn ranges(section: &Section<'_>, report: &mut Report<'_>, key: &str) -> Vec<Range> {
    section.at_most(report, key, MAX_ADDRESSES);
    let found = section.read_list(report, key, |text| text.parse::<Range>());
    found.into_iter().take(MAX_ADDRESSES).map(|(_, range)| range).collect()
}

/// They lie in the network's prefixes: what does not would never matter, and was meant to.
pub(in crate::config) fn check(report: &mut Report<'_>, network: &Network, section: &Section<'_>) {
    if network.subnets.is_empty() {
        return;
    }
    let inside = |range: &Range| {
        network.subnets.iter().any(|subnet| subnet.contains(range.first) && subnet.contains(range.last))
    };
    let slices: Vec<_> = network.slices.iter().flatten().map(|&slice| ("slice", slice.into())).collect();
    let ranges = network.ranges.iter().map(|&range| ("range", range));
    let reserved = network.reserved.iter().map(|&range| ("reserved", range));
    for (key, range) in slices.into_iter().chain(ranges).chain(reserved) {
        if !inside(&range) {
            let offset = section.offset_of(key, &range, |text| text.parse().ok());
            let subnets: Vec<String> = network.subnets.iter().map(ToString::to_string).collect();
            let problem =
                format!("{range} is outside network '{}', which is {}", network.name, subnets.join(" and "));
            section.wrong_at(report, offset, key, problem, "choose a part of it");
        }
    }
}
