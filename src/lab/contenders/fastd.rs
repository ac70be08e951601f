//! fastd in mode `tap`, with a method for processors without AES instructions and one for those that have them.

use super::pair::{HOSTS, Pair};
use super::program::Program;
use crate::lab::LabError;

pub(super) const FASTD: Program = Program { name: "fastd", version: "--version", says: "fastd" };

/// IPv4, UDP, fastd's header and tag, inner Ethernet.
const OVERHEAD: u16 = 20 + 8 + 24 + 14;
const PORT: u16 = 10000;
const IFNAME: &str = "fastd0";

pub(super) fn salsa(pair: &mut Pair) -> Result<(), LabError> {
    start(pair, "salsa2012+umac")
}

pub(super) fn aes(pair: &mut Pair) -> Result<(), LabError> {
    start(pair, "aes128-ctr+umac")
}

fn start(pair: &mut Pair, method: &str) -> Result<(), LabError> {
    let mut keys = Vec::new();
    for h in HOSTS {
        let mut generate = pair.command(h, "fastd")?;
        generate.arg("--generate-key");
        let text = pair.run(generate)?;
        let after = |label: &str| text.lines().find_map(|line| Some(line.strip_prefix(label)?.trim().to_owned()));
        let both = after("Secret:").zip(after("Public:"));
        keys.push(both.ok_or_else(|| LabError::Refused(format!("fastd made no keys, but said '{}'", text.trim())))?);
    }
    for h in HOSTS {
        let other = 3 - h;
        let text = format!(
            "log level warn;\ninterface \"{IFNAME}\";\nmode tap;\nmtu {};\nmethod \"{method}\";\n\
             bind {}:{PORT};\nsecret \"{}\";\npeer \"h{other}\" {{\n  key \"{}\";\n  remote ipv4 \"{}\" port {PORT};\n}}\n",
            pair.mtu(OVERHEAD),
            pair.host(h).v4,
            keys[h - 1].0,
            keys[other - 1].1,
            pair.host(other).v4,
        );
        let file = pair.write(h, "fastd.conf", &text)?;
        let mut command = pair.command(h, "fastd")?;
        command.arg("--config").arg(file);
        pair.start(h, command)?;
        pair.bring_up(h, IFNAME, None, Pair::overlay(h))?;
    }
    pair.hosts_reach_each_other()
}
