//! Nebula, with a certificate for each host, no lighthouse, and a firewall that lets everything through. More than
//! one routine is its way to use more than one core.

use super::pair::{HOSTS, Pair};
use super::program::Program;
use crate::io::netlink::Address;
use crate::lab::LabError;

pub(super) const NEBULA: Program = Program { name: "nebula", version: "-version", says: "Version: " };
pub(super) const NEBULA_CERT: Program = Program { name: "nebula-cert", version: "-version", says: "Version: " };

/// IPv4, UDP, Nebula's header, tag. Its default MTU of 1300 leaves room for underlays that are not Ethernet.
const OVERHEAD: u16 = 20 + 8 + 16 + 16;
const PORT: u16 = 4242;
const IFNAME: &str = "nebula0";

pub(super) fn one(pair: &mut Pair) -> Result<(), LabError> {
    start(pair, 1)
}

pub(super) fn two(pair: &mut Pair) -> Result<(), LabError> {
    start(pair, 2)
}

fn start(pair: &mut Pair, routines: usize) -> Result<(), LabError> {
    let mut authority = pair.command(1, "nebula-cert")?;
    authority.args(["ca", "-name", "lab"]);
    pair.run(authority)?;
    for h in HOSTS {
        let mut sign = pair.command(1, "nebula-cert")?;
        sign.args(["sign", "-name", &format!("h{h}"), "-ip", &format!("{}/16", Pair::overlay(h))]);
        pair.run(sign)?;
    }
    for h in HOSTS {
        let (other, keys) = (3 - h, pair.dir(1).display());
        let text = format!(
            "pki:\n  ca: {keys}/ca.crt\n  cert: {keys}/h{h}.crt\n  key: {keys}/h{h}.key\n\
             static_host_map:\n  \"{}\": [\"{}:{PORT}\"]\n\
             lighthouse:\n  am_lighthouse: false\n  interval: 60\n  hosts: []\n\
             listen:\n  host: {}\n  port: {PORT}\n\
             cipher: aes\nroutines: {routines}\n\
             tun:\n  dev: {IFNAME}\n  mtu: {}\n  tx_queue: 500\n\
             logging:\n  level: error\n  format: text\n\
             firewall:\n  outbound:\n    - {{port: any, proto: any, host: any}}\n\
             \x20 inbound:\n    - {{port: any, proto: any, host: any}}\n",
            Pair::overlay(other),
            pair.host(other).v4,
            pair.host(h).v4,
            pair.mtu(OVERHEAD),
        );
        let file = pair.write(h, "nebula.yml", &text)?;
        let mut command = pair.command(h, "nebula")?;
        command.arg("-config").arg(file);
        pair.start(h, command)?;
        // It addresses its interface itself.
        pair.until(&format!("interface {IFNAME}"), |pair| {
            pair.netlink(h, |netlink| {
                let Some(link) = netlink.link(IFNAME)?.filter(|link| link.up) else { return Ok(None) };
                let mine = |address: &Address| address.cidr.address == Pair::overlay(h);
                Ok(netlink.addresses(link.index)?.iter().any(mine).then_some(()))
            })
        })?;
    }
    pair.hosts_reach_each_other()
}
