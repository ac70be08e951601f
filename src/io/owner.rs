//! Which program has a port of this host, for people: `sshd (pid 812)`, from proc(5).

use crate::control::nat::Proto;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a TCP socket that listens, as /proc/net/tcp has it.
const LISTENING: &str = "0A";

/// The program whose socket is in the way of one bound to `address`.
pub(super) fn of_port(address: SocketAddr, proto: Proto) -> Option<String> {
    let tables = match proto {
        Proto::Tcp => ["tcp", "tcp6"],
        Proto::Udp => ["udp", "udp6"],
    };
    let inodes = tables.iter().filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok());
    let inode = inodes.flat_map(|text| inodes_of(&text, address, proto)).next()?;
    let link = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok()).find_map(|pid| {
        let mut files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.filter_map(Result::ok);
        files.find(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Some(format!("{} (pid {pid})", name.trim()))
    })
}

/// The sockets of a table of /proc/net that are bound to what overlaps with `address`.
fn inodes_of(table: &str, address: SocketAddr, proto: Proto) -> Vec<String> {
    let matching = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (ip, port) = local.split_once(':')?;
        let ip = parse(ip)?;
        let overlaps = ip == address.ip()
            || address.ip().is_unspecified()
            || ip.is_unspecified() && (ip.is_ipv6() || address.is_ipv4());
        let is_bound = u16::from_str_radix(port, 16).ok()? == address.port() && overlaps;
        (is_bound && (proto == Proto::Udp || *state == LISTENING)).then(|| (*inode).to_owned())
    });
    matching.collect()
}

/// An address as the kernel prints it: words in the machine's byte order, in hexadecimal digits.
fn parse(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let octets: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    match octets.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_listening_socket_and_a_bound_one_lead_to_their_program() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
        let us = format!("(pid {})", std::process::id());
        for (address, proto) in [(tcp.local_addr().unwrap(), Proto::Tcp), (udp.local_addr().unwrap(), Proto::Udp)] {
            let owner = of_port(address, proto).unwrap();
            assert!(owner.ends_with(&us), "{owner}");
            let any = SocketAddr::new(
                if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
                address.port(),
            );
            assert!(of_port(any, proto).is_some());
        }
        let port = tcp.local_addr().unwrap().port();
        assert_eq!(of_port(SocketAddr::new("127.0.0.2".parse().unwrap(), port), Proto::Tcp), None);
    }

    #[test]
    fn tables_that_are_cut_short_are_no_trouble() {
        for table in ["", "head\n", "head\n 0: 0100007F:1F90", "head\n 0: 01:1F90 0 0A 0 0 0 0 0 7"] {
            assert!(inodes_of(table, "127.0.0.1:8080".parse().unwrap(), Proto::Tcp).is_empty(), "{table}");
        }
    }
}
