//! vpncloud with a TAP, as a learning switch. It derives its interface's MTU from that of the underlay itself.

use super::pair::{HOSTS, Pair};
use super::program::Program;
use crate::lab::LabError;
use crate::lab::spec::HOST_IFNAME;
use crate::lab::underlay::index;
use std::net::IpAddr;

pub(super) const VPNCLOUD: Program = Program { name: "vpncloud", version: "--version", says: "VpnCloud" };

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
        // It asks the kernel by which address the Internet would be reached, and ends when there is no way.
        let other = IpAddr::V4(pair.host(3 - h).v4);
        pair.netlink(h, |netlink| {
            let eth0 = index(netlink, HOST_IFNAME)?;
            netlink.add_route(None, other, eth0)
        })?;
        let mut command = pair.command(h, "vpncloud")?;
        command.args(["--type", "tap", "--mode", "switch", "--device", IFNAME, "--no-port-forwarding"]);
        command.args(["--algorithm", algorithm, "--password", "lab", "--listen", &PORT.to_string()]);
        command.arg("--peer").arg(format!("{}:{PORT}", pair.host(3 - h).v4));
        pair.start(h, command)?;
        pair.bring_up(h, IFNAME, None, Pair::overlay(h))?;
    }
    pair.hosts_reach_each_other()
}
