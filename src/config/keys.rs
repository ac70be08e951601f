//! Every key of the configuration file, once: its type, its bounds, its default, whether a reload applies it, and
//! what it means.
//!
//! The reader takes types, bounds and defaults from here and nowhere else; unknown keys are compared with it for a
//! suggestion; `docs/configuration.md` is written from it by [`super::reference`]; and a test changes every key in turn to
//! see that [`super::diff`] treats it as `live` says.

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number within bounds, both included.
    Integer {
        /// The smallest value.
        least: u64,
        /// The largest value.
        most: u64,
    },
    /// A list of whole numbers within bounds, both included.
    Integers {
        /// The smallest value.
        least: u64,
        /// The largest value.
        most: u64,
    },
    /// A string; what it holds.
    Text(&'static str),
    /// A string that errors do not repeat; what it holds.
    Secret(&'static str),
    /// A list of strings; what each holds.
    List(&'static str),
    /// A list of tables, whose keys stand in a [`Table`] of their own.
    Tables,
}

/// What holds when a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// The file is refused.
    Refused,
    /// This truth value.
    Boolean(bool),
    /// This number.
    Integer(u64),
    /// This string.
    Text(&'static str),
    /// These strings.
    List(&'static [&'static str]),
    /// Something that no literal says, in words.
    Means(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name within its table.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What holds when it is absent.
    pub absent: Absent,
    /// A valid value other than the default, as TOML. Shown in remedies and in the reference.
    pub example: &'static str,
    /// Whether `weft reload` applies a change of it; otherwise the reload is refused and a restart is needed.
    pub live: bool,
    /// What it means, in one sentence.
    pub doc: &'static str,
}

/// One table of keys.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its path: `node`, `network.static`.
    pub name: &'static str,
    /// Whether it is an array of tables: `[[network]]` rather than `[node]`.
    pub array: bool,
    /// What it is about, in a sentence or two.
    pub doc: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [Key],
}

impl Table {
    /// The header as it stands in a file.
    pub fn header(&self) -> String {
        if self.array { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }

    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const TEXT_NAME: Kind = Kind::Text("a name: 1 to 64 letters, digits, '.', '_' or '-'");
const TEXT_PATH: Kind = Kind::Text("a path, relative to the directory of this file");
const TEXT_MAC: Kind = Kind::Text("a MAC address, or U:TEXT for one made from the text");
const LIVE: bool = true;
const RESTART: bool = false;

const fn key(
    name: &'static str,
    kind: Kind,
    absent: Absent,
    example: &'static str,
    live: bool,
    doc: &'static str,
) -> Key {
    Key { name, kind, absent, example, live, doc }
}

const fn switch(name: &'static str, doc: &'static str) -> Key {
    key(name, Kind::Boolean, Absent::Boolean(true), "false", RESTART, doc)
}

/// `[node]`.
pub const NODE: Table = Table {
    name: "node",
    array: false,
    doc: "This member itself. The whole table may be left out.",
    keys: &[
        key(
            "name",
            TEXT_NAME,
            Absent::Means("the host's name"),
            "\"alpha\"",
            RESTART,
            "This member's name, for people.",
        ),
        key(
            "key_file",
            TEXT_PATH,
            Absent::Means("`key` in `state_dir`"),
            "\"/etc/weft/key\"",
            RESTART,
            "The file with this member's private key; created with mode 0600 on first start.",
        ),
        key(
            "listen_port",
            Kind::Integer { least: 1, most: 65_535 },
            Absent::Integer(51_820),
            "51821",
            RESTART,
            "The UDP port for WireGuard, on every local address, IPv4 and IPv6.",
        ),
        key(
            "state_dir",
            TEXT_PATH,
            Absent::Text("/var/lib/weft"),
            "\"/srv/weft\"",
            RESTART,
            "The directory for what must survive a restart; one daemon per directory.",
        ),
        key(
            "control_socket",
            TEXT_PATH,
            Absent::Text("/run/weft/control.sock"),
            "\"/run/weft/second.sock\"",
            RESTART,
            "The Unix socket on which the other `weft` commands reach this daemon; at most 107 bytes.",
        ),
        key(
            "tunnel_address",
            Kind::Text("an IPv4 address"),
            Absent::Means("derived from the public key, in 100.64.0.0/10"),
            "\"100.64.0.1\"",
            RESTART,
            "This member's address inside the tunnels; every other member must know it by the same one.",
        ),
        key(
            "workers",
            Kind::Integer { least: 1, most: 256 },
            Absent::Means("one per two processor cores, at least one"),
            "2",
            RESTART,
            "How many threads forward frames.",
        ),
        key(
            "log",
            Kind::Text("one of \"error\", \"warn\", \"info\", \"debug\""),
            Absent::Text("info"),
            "\"debug\"",
            LIVE,
            "The most detailed level that is logged.",
        ),
        key(
            "container_sockets",
            Kind::List("a path"),
            Absent::List(&["/run/docker.sock", "/run/podman/podman.sock"]),
            "[\"/run/docker.sock\"]",
            RESTART,
            "The Docker-compatible API sockets that are asked for containers by name, in this order.",
        ),
        key(
            "advertise",
            Kind::List("an underlay address IP:PORT"),
            Absent::List(&[]),
            "[\"192.0.2.1:51820\"]",
            RESTART,
            "Where other members may reach this one besides its own addresses and what others see: a forwarded port of a \
             router, an address of the cloud; at most 16.",
        ),
        key(
            "relay",
            Kind::Text("one of \"yes\", \"no\", \"prefer\""),
            Absent::Text("yes"),
            "\"no\"",
            RESTART,
            "Whether this member carries, still encrypted, what passes between others that have no better path; \"prefer\" \
             makes it the first choice, as for a host with a good line.",
        ),
        switch(
            "tcp",
            "Where UDP does not get through, datagrams travel over TCP: this member listens on the TCP port `listen_port` too, \
             and connects to peers that way.",
        ),
        key(
            "tcp_ports",
            Kind::Integers { least: 1, most: 65_535 },
            Absent::List(&[]),
            "[443]",
            RESTART,
            "More TCP ports to listen on, at most 8, for members behind firewalls that let only such through; needs `tcp`.",
        ),
        switch("discovery", "Peers are looked for by more than this file says; `lan_discovery` needs it."),
        switch(
            "lan_discovery",
            "Members on one LAN find each other by small multicast datagrams that tell only who knows their public keys.",
        ),
    ],
};

/// `[offload]`.
pub const OFFLOAD: Table = Table {
    name: "offload",
    array: false,
    doc: "Offloads. Each is used where the daemon finds at start that the kernel or the processor has it, unless it is \
          switched off here; `weft status` shows which are in use.",
    keys: &[
        switch("tap_checksum", "Containers may leave L4 checksums to the switch, and the switch to their kernel."),
        switch("tap_tso", "Containers may hand over TCP super-frames of up to 64 KiB; needs `tap_checksum`."),
        switch("tap_uso", "Containers may hand over UDP super-frames of up to 64 KiB; needs `tap_checksum`."),
        switch(
            "merge",
            "Frames of one flow that arrive together reach the container as one; needs `tap_checksum`, for UDP `tap_uso` too.",
        ),
        switch("udp_segment", "Many datagrams to one endpoint leave in one system call (UDP_SEGMENT)."),
        switch("udp_gro", "Many datagrams of one endpoint arrive in one system call (UDP_GRO)."),
        switch("avx512", "Packets are encrypted with AVX-512 instructions, where the processor has them."),
    ],
};

/// `[fdb]`.
pub const FDB: Table = Table {
    name: "fdb",
    array: false,
    doc: "Bounds on the forwarding database: how many learned MAC addresses strangers can make the switch remember. \
          At a bound the oldest entry of whoever holds most gives way.",
    keys: &[
        key(
            "max_entries",
            Kind::Integer { least: 16, most: 4_194_304 },
            Absent::Integer(65_536),
            "131072",
            LIVE,
            "Learned entries in all.",
        ),
        key(
            "max_per_port",
            Kind::Integer { least: 1, most: 4_194_304 },
            Absent::Integer(1024),
            "64",
            LIVE,
            "Learned entries behind one local port.",
        ),
        key(
            "max_per_peer",
            Kind::Integer { least: 1, most: 4_194_304 },
            Absent::Integer(16_384),
            "4096",
            LIVE,
            "Learned entries behind one peer.",
        ),
    ],
};

/// `[trust]`.
pub const TRUST: Table = Table {
    name: "trust",
    array: false,
    doc: "Who may be a member besides the peers of this file: whoever shows a certificate of an authority. `weft init` \
          makes an authority, `weft invite` and `weft join` a member; `docs/security.md` says what each can do.",
    keys: &[
        key(
            "authority",
            Kind::List("an authority's public key, 32 bytes in base64"),
            Absent::Means("none, or the one of `authority_key_file`"),
            "[\"1H1Gg7cbHnGLfGJEJ1wWxmMLh6JhnSVWZ+FzUJwQJ3o=\"]",
            LIVE,
            "The authorities whose certificates count, at most 8; whom they hand over to counts too.",
        ),
        key(
            "authority_key_file",
            TEXT_PATH,
            Absent::Means("this member issues no certificates"),
            "\"/etc/weft/authority.key\"",
            RESTART,
            "The file with an authority's secret key, as `weft init` makes it; a member that has it can invite and revoke.",
        ),
        key(
            "certificate_file",
            TEXT_PATH,
            Absent::Means("the certificate came by `weft join` and is in `state_dir`"),
            "\"/etc/weft/certificate\"",
            RESTART,
            "A file with this member's certificate; a later one in `state_dir`, from a renewal, is preferred to it.",
        ),
        key(
            "allow",
            Kind::List("a member's name"),
            Absent::Means("any name"),
            "[\"alpha\", \"beta\"]",
            LIVE,
            "The only names of certified members that this member lets in.",
        ),
        key(
            "deny",
            Kind::List("a member's name"),
            Absent::List(&[]),
            "[\"mallory\"]",
            LIVE,
            "Names of certified members that this member does not let in, whatever the authority says.",
        ),
    ],
};

/// `[[network]]`.
pub const NETWORK: Table = Table {
    name: "network",
    array: true,
    doc: "A network this member takes part in: one broadcast domain. At most 1024.",
    keys: &[
        key("name", TEXT_NAME, Absent::Refused, "\"blue\"", LIVE, "The network's name on this member."),
        key(
            "vni",
            Kind::Integer { least: 1, most: 16_777_215 },
            Absent::Refused,
            "100",
            LIVE,
            "Its VXLAN network identifier: members with the same VNI share the network, whatever they call it.",
        ),
        key(
            "subnets",
            Kind::List("a prefix"),
            Absent::List(&[]),
            "[\"10.32.0.0/16\", \"fd00:32::/64\"]",
            LIVE,
            "The prefixes its ports' addresses must lie in, at most 64; none means any.",
        ),
        key(
            "mtu",
            Kind::Integer { least: 576, most: crate::wire::MAX_PORT_MTU as u64 },
            Absent::Integer(1500),
            "9000",
            LIVE,
            "MTU of its ports, whatever the paths between hosts carry; at least 1280 where there is IPv6.",
        ),
        key(
            "ageing",
            Kind::Integer { least: 10, most: 1_000_000 },
            Absent::Integer(300),
            "600",
            LIVE,
            "Seconds after which a silent MAC address is forgotten.",
        ),
        key(
            "suppress",
            Kind::Boolean,
            Absent::Boolean(true),
            "false",
            LIVE,
            "ARP requests and neighbour solicitations for containers of the mesh are answered here and not flooded.",
        ),
        key(
            "snooping",
            Kind::Boolean,
            Absent::Boolean(true),
            "false",
            LIVE,
            "Multicast goes only where IGMP or MLD says that somebody listens; otherwise everywhere in the network.",
        ),
        key(
            "static",
            Kind::Tables,
            Absent::List(&[]),
            "[{ mac = \"02:00:00:00:00:05\", peer = \"beta\" }]",
            LIVE,
            "MAC addresses pinned to a peer or a port: tables with the keys of `[[network.static]]`.",
        ),
    ],
};

/// `static` in `[[network]]`.
pub const STATIC: Table = Table {
    name: "network.static",
    array: true,
    doc: "A MAC address pinned to its place: it is not learned elsewhere and does not age. Exactly one of `peer` and \
          `port` is given.",
    keys: &[
        key("mac", TEXT_MAC, Absent::Refused, "\"02:00:00:00:00:05\"", LIVE, "The station's address."),
        key("peer", TEXT_NAME, Absent::Means("it is a port"), "\"beta\"", LIVE, "The name of the peer it is behind."),
        key(
            "port",
            Kind::Text("a port's name"),
            Absent::Means("it is a peer"),
            "\"web\"",
            LIVE,
            "The name of the local port it is behind, one of `[[port]]` in this network.",
        ),
    ],
};

/// `[[peer]]`.
pub const PEER: Table = Table {
    name: "peer",
    array: true,
    doc: "Another member, pinned by its public key. At most 4096.",
    keys: &[
        key("name", TEXT_NAME, Absent::Refused, "\"beta\"", LIVE, "The peer's name, for people."),
        key(
            "public_key",
            Kind::Text("32 bytes in base64"),
            Absent::Refused,
            "\"S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU=\"",
            LIVE,
            "Its public key, as `weft key show` prints it there; a peer with another key is another peer.",
        ),
        key(
            "endpoints",
            Kind::List("IP:PORT, [IPV6]:PORT or NAME:PORT, for TCP with tcp: in front"),
            Absent::List(&[]),
            "[\"192.0.2.7:51820\", \"beta.example.net:51820\"]",
            LIVE,
            "Where it can be reached, at most 8, names being resolved again and again; none means it comes to us. Those with \
             `tcp:` in front are for when UDP does not get through.",
        ),
        key(
            "preshared_key",
            Kind::Secret("32 bytes in base64"),
            Absent::Means("none"),
            "\"FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=\"",
            LIVE,
            "A secret shared with this peer besides the keys, as `weft key psk` prints one.",
        ),
        key(
            "preshared_key_file",
            TEXT_PATH,
            Absent::Means("none"),
            "\"/etc/weft/beta.psk\"",
            LIVE,
            "A file with the pre-shared key, instead of `preshared_key`.",
        ),
        key(
            "keepalive",
            Kind::Integer { least: 1, most: 65_535 },
            Absent::Means("none are sent"),
            "25",
            LIVE,
            "Seconds between keepalives, which hold a NAT or firewall open on the way.",
        ),
        key(
            "tunnel_address",
            Kind::Text("an IPv4 address"),
            Absent::Means("derived from the public key, in 100.64.0.0/10"),
            "\"100.64.0.2\"",
            LIVE,
            "Its address inside the tunnels; needed for a peer that sets its own, and for stock WireGuard hosts.",
        ),
        key(
            "networks",
            Kind::List("a network's name"),
            Absent::Means("the peer tells, and counts as having all until it has"),
            "[\"blue\"]",
            LIVE,
            "The networks it has; to be set for stock WireGuard hosts, which cannot tell.",
        ),
        key(
            "path_mtu",
            Kind::Integer { least: crate::wire::MIN_PATH_MTU as u64, most: 65_535 },
            Absent::Means("found by probing"),
            "1420",
            LIVE,
            "MTU of the underlay path to it.",
        ),
    ],
};

/// `[[port]]`.
pub const PORT: Table = Table {
    name: "port",
    array: true,
    doc: "A port that exists as long as the daemon runs and its target exists. At most 4096. `weft attach` makes ports \
          at run time.",
    keys: &[
        key(
            "name",
            Kind::Text("1 to 255 printable characters without blanks"),
            Absent::Means("`TARGET:IFNAME`"),
            "\"web\"",
            LIVE,
            "The port's name on this member.",
        ),
        key("network", TEXT_NAME, Absent::Refused, "\"blue\"", LIVE, "The name of its network."),
        key(
            "target",
            Kind::Text("host, pid:N, netns:PATH or a container's name"),
            Absent::Refused,
            "\"netns:/run/netns/web\"",
            LIVE,
            "Whose network namespace the interface goes to.",
        ),
        key(
            "ifname",
            Kind::Text("an interface name: 1 to 15 bytes"),
            Absent::Text("eth1"),
            "\"eth0\"",
            LIVE,
            "The interface's name there.",
        ),
        key(
            "mac",
            TEXT_MAC,
            Absent::Means("made up once and kept across restarts"),
            "\"U:web\"",
            LIVE,
            "The interface's MAC address; `U:TEXT` gives the one pipework gives for that text.",
        ),
        key(
            "ip",
            Kind::List("CIDR or CIDR@GATEWAY"),
            Absent::List(&[]),
            "[\"10.32.0.5/16@10.32.0.1\", \"fd00:32::5/64\"]",
            LIVE,
            "The interface's addresses, at most 64, each with an optional default route.",
        ),
    ],
};

/// All tables, in the order of the reference.
pub const TABLES: &[Table] = &[NODE, TRUST, OFFLOAD, FDB, NETWORK, STATIC, PEER, PORT];

/// The table of this path.
pub fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_twice_and_every_text_is_a_sentence() {
        for (index, table) in TABLES.iter().enumerate() {
            assert!(TABLES[..index].iter().all(|other| other.name != table.name));
            for (index, key) in table.keys.iter().enumerate() {
                assert!(table.keys[..index].iter().all(|other| other.name != key.name));
                assert!(key.doc.ends_with('.') && !key.doc.contains('|'), "{}", key.name);
            }
        }
    }
}
