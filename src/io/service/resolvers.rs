//! Whom the host itself asks for names: resolv.conf(5), read again when it changes.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The servers that are taken of the file: as many as the C library does (MAXNS).
const MOST: usize = 3;
const DNS: u16 = 53;
/// The longest file that is read: it has three servers and a few domains.
const LONGEST: u64 = 64 * 1024;

/// What tells that a file is another than it was.
type Stamp = (u64, u64, i64, i64, u64);

/// The servers of the host's file.
pub(super) struct HostResolvers {
    path: PathBuf,
    stamp: Option<Stamp>,
    servers: Vec<SocketAddr>,
}

impl HostResolvers {
    /// Those in this file, which is not read yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, stamp: None, servers: Vec::new() }
    }

    /// Looks at the file; whether there are others than before. One that cannot be read has none.
    pub(super) fn look(&mut self) -> bool {
        let stamp = fs::metadata(&self.path).ok().filter(|file| file.len() <= LONGEST);
        let stamp = stamp.map(|file| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size()));
        if stamp == self.stamp {
            return false;
        }
        self.stamp = stamp;
        let text = stamp.and_then(|_| fs::read_to_string(&self.path).ok()).unwrap_or_default();
        let servers = servers(&text);
        let changed = servers != self.servers;
        self.servers = servers;
        changed
    }

    /// The servers, in the order of the file.
    pub(super) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }
}

/// The servers that a resolv.conf names. One with a scope (`fe80::1%eth0`) is left out.
fn servers(text: &str) -> Vec<SocketAddr> {
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|&word| word == "nameserver").and_then(|_| words.next())?;
        Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, DNS))
    };
    text.lines().filter_map(of_line).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::scratch::Scratch;

    #[test]
    fn the_hosts_servers_are_those_of_its_file_as_it_is_now() {
        let directory = Scratch::new();
        let path = directory.path().join("resolv.conf");
        let mut host = HostResolvers::new(path.clone());
        assert!(!host.look() && host.servers().is_empty(), "there is no file");
        fs::write(
            &path,
            "# made by hand\nsearch example.org\nnameserver 192.0.2.1\n nameserver 2001:db8::1 # two\nnameserver fe80::1%eth0\n\
             nameserver\nnameserver x\nnameservers 192.0.2.9\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
        )
        .unwrap();
        assert!(host.look());
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"].map(|text| text.parse().unwrap());
        assert_eq!(host.servers(), expected);
        assert!(!host.look(), "nothing changed");
        // As it is usually done: another file in its place.
        let other = directory.path().join("other");
        fs::write(&other, "nameserver 127.0.0.53\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(host.look());
        assert_eq!(host.servers(), ["127.0.0.53:53".parse().unwrap()]);
        fs::remove_file(&path).unwrap();
        assert!(host.look() && host.servers().is_empty());
    }
}
