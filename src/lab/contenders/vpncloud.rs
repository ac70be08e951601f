//! vpncloud with a TAP, as a learning switch. It finds the best MTU for its interface itself.

use super::pair::{HOSTS, Pair};
use super::program::Program;
use crate::lab::LabError;

pub(super) const VPNCLOUD: Program = Program { name: "vpncloud", version: "--version", says: "vpncloud" };

/// IPv4, UDP, header and tag with room to spare, inner Ethernet.
const OVERHEAD: u16 = 20 + 8 + 24 + 14;
const PORT: u16 = 3210;
const IFNAME: &str = "vpncloud0";

pub(super) fn aes(pair: &mut Pair) -> Result<(), LabError> {
    start(pair, "aes256")
}

pub(super) fn chacha(pair: &mut Pair) -> Result<(), LabError> {
    start(pair, "chacha20")
}

fn start(pair: &mut Pair, algorithm: &str) -> Result<(), LabError> {
    for h in HOSTS {
        let mut command = pair.command(h, "vpncloud")?;
        command.args(["--type", "tap", "--mode", "switch", "--device", IFNAME, "--no-port-forwarding"]);
        command.args(["--algorithm", algorithm, "--password", "lab", "--listen", &PORT.to_string()]);
        command.arg("--peer").arg(format!("{}:{PORT}", pair.host(3 - h).v4));
        pair.start(h, command)?;
        pair.bring_up(h, IFNAME, Some(pair.mtu(OVERHEAD)), Pair::overlay(h))?;
    }
    pair.hosts_reach_each_other()
}
