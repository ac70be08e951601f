//! The daemon's answers as text for people and as JSON for programs: the same structures, so the same data.

use super::table::{NONE, Table, bytes, duration, list, maybe, printable};
use crate::control::request::{FdbEntry, NetworkStatus, PathStatus, PeerStatus, PortStatus, Response, Status};
use crate::switch::counters::Drop;
use std::fmt::Write;

/// An answer as JSON.
pub(super) fn json(response: &Response) -> Result<String, String> {
    let text = match response {
        Response::Status(status) => serde_json::to_string_pretty(status),
        Response::Peers(peers) => serde_json::to_string_pretty(peers),
        Response::Ports(ports) => serde_json::to_string_pretty(ports),
        Response::Networks(networks) => serde_json::to_string_pretty(networks),
        Response::Fdb(entries) => serde_json::to_string_pretty(entries),
        Response::Paths(paths) => serde_json::to_string_pretty(paths),
        Response::Policy(networks) => serde_json::to_string_pretty(networks),
        Response::Names(names) => serde_json::to_string_pretty(names),
        Response::Leases(leases) | Response::Leased(leases) => serde_json::to_string_pretty(leases),
        Response::Attached(port) => serde_json::to_string_pretty(port),
        Response::Published(outside) => serde_json::to_string_pretty(outside),
        Response::Done(sentences) => serde_json::to_string_pretty(sentences),
        Response::Invited(line) => serde_json::to_string_pretty(line),
        Response::Absent(sentence) | Response::Refused(sentence) => serde_json::to_string_pretty(sentence),
    };
    text.map(|text| text + "\n").map_err(|error| format!("cannot write the answer as JSON: {error}"))
}

/// An answer as text.
pub(super) fn text(response: &Response) -> String {
    match response {
        Response::Status(status) => self::status(status),
        Response::Peers(all) => peers(all),
        Response::Ports(all) => ports(all),
        Response::Networks(all) => networks(all),
        Response::Fdb(entries) => fdb(entries),
        Response::Paths(all) => paths(all),
        Response::Policy(networks) => super::policy::text(networks),
        Response::Names(names) => super::names::table(names),
        Response::Leases(leases) | Response::Leased(leases) => super::leases::table(leases),
        Response::Attached(port) => attached(port),
        Response::Published(outside) => super::host::text(outside),
        Response::Done(sentences) => sentences.iter().map(|sentence| format!("{sentence}\n")).collect(),
        Response::Invited(line) => format!("{line}\n"),
        Response::Absent(sentence) | Response::Refused(sentence) => format!("{sentence}\n"),
    }
}

fn status(s: &Status) -> String {
    let mut text = format!("{}: weft {}, pid {}, up {}\n\n", s.name, s.version, s.pid, duration(s.uptime_s));
    let mut line = |what: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {what:<16}{}", printable(&value));
    };
    line("public key", s.public_key.to_string());
    line("tunnel address", s.tunnel_address.to_string());
    line("UDP port", s.listen_port.to_string());
    line("configuration", s.config_file.clone());
    line("workers", s.workers.to_string());
    line("networks", s.networks.to_string());
    line("ports", s.ports.to_string());
    line("peers", format!("{}, {} of them up", s.peers, s.peers_up));
    let fdb = s.fdb;
    let events = format!(
        "{} learned, {} moved, {} expired, {} evicted since start",
        fdb.learned, fdb.moved, fdb.expired, fdb.evicted
    );
    line("FDB entries", format!("{} ({events})", s.fdb_entries));
    for (index, (name, state)) in s.offloads.iter().enumerate() {
        line(if index == 0 { "offloads" } else { "" }, format!("{name:<14}{state}"));
    }
    for (what, counts) in [("trust", &s.trust), ("other names", &s.other_names)] {
        let counts = counts.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{count} {name}"));
        let counts: Vec<String> = counts.collect();
        if !counts.is_empty() {
            line(what, counts.join(", "));
        }
    }
    if let (Some(members), Some(alive)) = (s.mesh.get("members"), s.mesh.get("alive")) {
        line("mesh", format!("{members} other members, {alive} of them there"));
    }
    let t = s.traffic;
    line("frames", format!("{} from ports, {} to ports", t.port_rx_frames, t.port_tx_frames));
    line("", format!("{} into tunnels, {} out of tunnels", t.tunnel_tx_frames, t.tunnel_rx_frames));
    line("", format!("{} flooded, {} answered instead", t.flooded_frames, t.suppressed_frames));
    if t.relayed_packets > 0 {
        line("", format!("{} packets relayed between others", t.relayed_packets));
    }
    line("datagrams", format!("{} sent, {} received", t.datagrams_tx, t.datagrams_rx));

    let dropped: Vec<_> = s.drops.iter().filter(|(_, count)| **count > 0).collect();
    if dropped.is_empty() {
        line("drops", "none".to_owned());
    } else {
        let mut table = Table::new(&["DROPS", ">COUNT", "WHY"]);
        for (reason, count) in dropped {
            let known = Drop::ALL.iter().find(|drop| drop.name() == reason);
            let why = known.map_or(NONE, |drop| drop.explanation());
            table.row([reason.clone(), count.to_string(), why.to_owned()]);
        }
        let _ = write!(text, "\n{}", table.render());
    }
    if !s.refused.is_empty() {
        let _ = write!(text, "\n{}", super::policy::refused(&s.refused));
    }
    if !s.warnings.is_empty() {
        text.push_str("\nWARNINGS\n");
        for warning in &s.warnings {
            let _ = writeln!(text, "  {}", printable(warning));
        }
    }
    text
}

fn peers(peers: &[PeerStatus]) -> String {
    if peers.is_empty() {
        return "no peers: add a [[peer]] to the configuration file, or `weft join` a network\n".to_owned();
    }
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "ENDPOINT",
        "TUNNEL ADDRESS",
        "PATH",
        "HANDSHAKE",
        ">RTT",
        ">PATH MTU",
        "KIND",
        "NETWORKS",
        ">SENT",
        ">RECEIVED",
    ]);
    for peer in peers {
        table.row([
            peer.name.clone(),
            peer.state.clone(),
            maybe(peer.via.clone().or_else(|| peer.endpoint.map(|endpoint| endpoint.to_string()))),
            peer.tunnel_address.to_string(),
            if peer.path.is_empty() { NONE.to_owned() } else { peer.path.clone() },
            maybe(peer.handshake_age_s.map(|age| format!("{} ago", duration(age)))),
            maybe(peer.rtt_ms.map(|ms| format!("{ms:.2} ms"))),
            format!("{} {}", peer.path_mtu, peer.path_mtu_source),
            if peer.weft { "weft" } else { NONE }.to_owned(),
            peer.networks.as_ref().map_or_else(|| "unknown".to_owned(), |networks| list(networks, ",")),
            bytes(peer.tx_bytes),
            bytes(peer.rx_bytes),
        ]);
    }
    table.render()
}

fn paths(paths: &[PathStatus]) -> String {
    if paths.is_empty() {
        return "no peers, so no paths\n".to_owned();
    }
    let mut table =
        Table::new(&["PEER", "PATH", "VIA", "SINCE", ">RTT", ">LOSS", ">REORDERED", ">PATH MTU", "WHY NOT BETTER"]);
    for path in paths {
        table.row([
            path.peer.clone(),
            path.path.clone(),
            maybe(path.via.clone()),
            maybe(path.since_s.map(|since| format!("{} ago", duration(since)))),
            maybe(path.rtt_ms.map(|ms| format!("{ms:.2} ms"))),
            maybe(path.loss_percent.map(|share| format!("{share:.1} %"))),
            maybe(path.reordering_percent.map(|share| format!("{share:.1} %"))),
            format!("{} {}", path.path_mtu, path.path_mtu_source),
            if path.why.is_empty() { NONE.to_owned() } else { path.why.clone() },
        ]);
    }
    table.render()
}

/// The path of one peer, with every way that is known.
pub(super) fn path(response: &Response) -> String {
    let Response::Paths(all) = response else { return text(response) };
    let mut text = paths(all);
    for path in all {
        let mut table = Table::new(&["WAY", "KNOWN FROM", "STATE", ">RTT", ">LOSS"]);
        for candidate in &path.candidates {
            table.row([
                candidate.way.clone(),
                candidate.source.clone(),
                candidate.state.clone(),
                maybe(candidate.rtt_ms.map(|ms| format!("{ms:.2} ms"))),
                maybe(candidate.loss_percent.map(|share| format!("{share:.1} %"))),
            ]);
        }
        let _ = write!(text, "\n{}", table.render());
    }
    text
}

fn ports(ports: &[PortStatus]) -> String {
    if ports.is_empty() {
        return "no ports: make one with `weft attach TARGET --network NAME`\n".to_owned();
    }
    let mut table = Table::new(&[
        "NAME",
        "NETWORK",
        "STATE",
        "TARGET",
        "INTERFACE",
        "MAC",
        "ADDRESSES",
        "NAMES",
        ">MTU",
        "FROM",
        ">SENT",
        ">RECEIVED",
        ">DROPS",
    ]);
    for port in ports {
        table.row([
            port.name.clone(),
            port.network.clone(),
            port.state.clone(),
            port.target.clone(),
            port.ifname.clone(),
            maybe(port.mac),
            list(&port.addresses, ","),
            first(&port.names),
            port.mtu.to_string(),
            port.origin.clone(),
            bytes(port.rx_bytes),
            bytes(port.tx_bytes),
            port.drops.to_string(),
        ]);
    }
    table.render()
}

/// As many names as fit a line; with `--json` all.
fn first(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let more = names.len().saturating_sub(SHOWN);
    let shown = list(&names[..names.len() - more], ",");
    if more == 0 { shown } else { format!("{shown}+{more}") }
}

fn networks(networks: &[NetworkStatus]) -> String {
    if networks.is_empty() {
        return "no networks: add a [[network]] to the configuration file\n".to_owned();
    }
    let mut table = Table::new(&["NAME", ">VNI", "SUBNETS", "SLICES", ">MTU", "AGEING", ">FDB", "PORTS", "PEERS"]);
    for network in networks {
        table.row([
            network.name.clone(),
            network.vni.to_string(),
            list(&network.subnets, ","),
            list(&network.slices, ","),
            network.mtu.to_string(),
            duration(network.ageing_s),
            network.fdb_entries.to_string(),
            list(&network.ports, ","),
            list(&network.peers, ","),
        ]);
    }
    table.render()
}

fn fdb(entries: &[FdbEntry]) -> String {
    if entries.is_empty() {
        return "no entries: no station has been heard of\n".to_owned();
    }
    let mut table = Table::new(&["NETWORK", "MAC", "AT", "KIND", "LAST HEARD"]);
    for entry in entries {
        table.row([
            entry.network.clone(),
            entry.mac.to_string(),
            entry.at.clone(),
            entry.kind.clone(),
            maybe(entry.age_s.map(|age| format!("{} ago", duration(age)))),
        ]);
    }
    table.render()
}

fn attached(port: &PortStatus) -> String {
    let PortStatus { name, ifname, target, network, mtu, .. } = port;
    let (mac, addresses) = (maybe(port.mac), list(&port.addresses, ", "));
    let state = if port.state == "up" { String::new() } else { format!(" ({})", port.state) };
    let line = format!(
        "{name}: {ifname} in {target} is in network {network}: MAC {mac}, addresses {addresses}, MTU {mtu}{state}"
    );
    printable(&line) + "\n"
}
