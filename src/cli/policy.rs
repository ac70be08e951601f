//! `weft policy` as text: for each network what it asks of frames, its rules, and what was refused.

use super::table::{Table, duration, list};
use crate::control::request::{NetworkPolicy, Refused};

/// What frames may do in each network.
pub(super) fn text(networks: &[NetworkPolicy]) -> String {
    if networks.is_empty() {
        return "no networks: add a [[network]] to the configuration file\n".to_owned();
    }
    let mut text = String::new();
    for network in networks {
        let isolated = if network.isolate { ", isolated" } else { "" };
        let rules = match network.rules.len() {
            0 => "everything is allowed".to_owned(),
            _ => "what no rule allows is refused".to_owned(),
        };
        text.push_str(&format!("{}: guard {}{isolated}, {rules}\n", network.network, network.guard));
        if !network.rules.is_empty() {
            let mut table = Table::new(&["FROM", ">ADDRESSES", "TO", ">ADDRESSES", "PORTS", ">FRAMES"]);
            for rule in &network.rules {
                table.row([
                    rule.from.clone(),
                    rule.from_addresses.to_string(),
                    rule.to.clone(),
                    rule.to_addresses.to_string(),
                    list(&rule.ports, ","),
                    rule.hits.to_string(),
                ]);
            }
            text.push('\n');
            text.push_str(&table.render());
        }
        if !network.refused.is_empty() {
            let counts: Vec<String> = network.refused.iter().map(|(why, count)| format!("{count} {why}")).collect();
            text.push_str(&format!("\nrefused since start: {}\n", counts.join(", ")));
            text.push_str(&refused(&network.latest));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// What was refused lately.
pub(super) fn refused(latest: &[Refused]) -> String {
    let mut table = Table::new(&["NETWORK", "WHY", "LAST REFUSED", ">COUNT", ">AGO"]);
    for refused in latest {
        table.row([
            refused.network.clone(),
            refused.reason.clone(),
            refused.what.clone(),
            refused.count.to_string(),
            duration(refused.age_s),
        ]);
    }
    table.render()
}
