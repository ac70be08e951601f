//! The keys of networks and of what is in them: `[[network]]`, `[[peer]]` and `[[port]]`.

use super::{Absent, Kind, LIVE, TEXT_MAC, TEXT_NAME, TEXT_PATH, Table, key};

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
