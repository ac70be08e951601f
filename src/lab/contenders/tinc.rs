//! tinc 1.0 and its rewrite in Rust, tincr. Both make a TAP and a switch of it with `Mode = switch`, and both read a
//! directory with `tinc.conf` and a file of public keys and options per host.

use super::pair::{HOSTS, Pair};
use super::program::Program;
use crate::lab::LabError;
use std::fs;

pub(super) const TINCD: Program = Program { name: "tincd", version: "--version", says: "tinc version 1.0" };
pub(super) const TINCRD: Program = Program { name: "tincd", version: "--version", says: "tincd " };
pub(super) const TINCR: Program = Program { name: "tinc", version: "--version", says: "tinc 0" };

/// IPv4, UDP, sequence number, padding to a whole block of AES, shortened MAC, inner Ethernet.
const OVERHEAD: u16 = 20 + 8 + 4 + 16 + 4 + 14;
/// IPv4, UDP, two identifiers, sequence number and type of SPTPS, tag, inner Ethernet.
const OVERHEAD_SPTPS: u16 = 20 + 8 + 12 + 5 + 16 + 14;
const IFNAME: &str = "tinc0";

pub(super) fn defaults(pair: &mut Pair) -> Result<(), LabError> {
    classic(pair, "", "")
}

pub(super) fn faster(pair: &mut Pair) -> Result<(), LabError> {
    let buffers = "ReplayWindow = 128\nUDPRcvBuf = 1048576\nUDPSndBuf = 1048576\n";
    classic(pair, buffers, "Cipher = aes-128-cbc\nDigest = sha1\n")
}

pub(super) fn rust_defaults(pair: &mut Pair) -> Result<(), LabError> {
    rust(pair, "")
}

pub(super) fn rust_aes(pair: &mut Pair) -> Result<(), LabError> {
    rust(pair, "SPTPSCipher = aes-256-gcm\n")
}

fn classic(pair: &mut Pair, node: &str, host: &str) -> Result<(), LabError> {
    for h in HOSTS {
        make_dir(pair, h)?;
        write_node(pair, h, node)?;
        pair.write(h, &format!("hosts/h{h}"), &format!("Address = {}\n{host}", pair.host(h).v4))?;
        // It appends the public key to the host's file. Without a terminal it asks nothing.
        let mut generate = pair.command(h, "tincd")?;
        generate.arg("-c").arg(pair.dir(h)).arg("-K2048");
        pair.run(generate)?;
    }
    start(pair, OVERHEAD)
}

fn rust(pair: &mut Pair, node: &str) -> Result<(), LabError> {
    for h in HOSTS {
        // It wants to make the directory's files itself.
        let mut init = pair.command(h, "tinc")?;
        init.arg("-c").arg(pair.dir(h)).arg("init").arg(format!("h{h}"));
        pair.run(init)?;
        // Its script says that it was not edited.
        let script = pair.dir(h).join("tinc-up");
        fs::remove_file(&script).map_err(LabError::io(format!("remove {}", script.display())))?;
        write_node(pair, h, &format!("DeviceType = tap\nDhtDiscovery = no\nUPnP = no\n{node}"))?;
        let name = format!("hosts/h{h}");
        let key = pair.read(h, &name)?;
        pair.write(h, &name, &format!("Address = {}\n{key}", pair.host(h).v4))?;
    }
    start(pair, OVERHEAD_SPTPS)
}

fn make_dir(pair: &Pair, h: usize) -> Result<(), LabError> {
    let path = pair.dir(h).join("hosts");
    fs::create_dir(&path).map_err(LabError::io(format!("make {}", path.display())))
}

fn write_node(pair: &Pair, h: usize, more: &str) -> Result<(), LabError> {
    let other = 3 - h;
    let text = format!(
        "Name = h{h}\nMode = switch\nInterface = {IFNAME}\nAddressFamily = ipv4\nConnectTo = h{other}\n{more}"
    );
    pair.write(h, "tinc.conf", &text).map(drop)
}

/// Gives each host the other's file and starts the daemons.
fn start(pair: &mut Pair, overhead: u16) -> Result<(), LabError> {
    for h in HOSTS {
        let name = format!("hosts/h{}", 3 - h);
        pair.write(h, &name, &pair.read(3 - h, &name)?)?;
    }
    for h in HOSTS {
        let mut command = pair.command(h, "tincd")?;
        command.arg("-c").arg(pair.dir(h)).arg("-D");
        command.arg(format!("--pidfile={}", pair.dir(h).join("pid").display()));
        pair.start(h, command)?;
        pair.bring_up(h, IFNAME, Some(pair.mtu(overhead)), Pair::overlay(h))?;
    }
    pair.hosts_reach_each_other()
}
