//! The keys of this member itself: `[node]`, `[offload]`, `[fdb]` and `[trust]`.

use super::{Absent, Kind, LIVE, RESTART, TEXT_NAME, TEXT_PATH, Table, key, switch};

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
        key(
            "resolvers",
            Kind::List("an IP address, or IP:PORT"),
            Absent::Means("those of the host's /etc/resolv.conf"),
            "[\"192.0.2.53\"]",
            LIVE,
            "Whom this member asks for names that no network has, at most 3, in this order.",
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
            "gives_slices",
            Kind::Boolean,
            Absent::Boolean(false),
            "true",
            LIVE,
            "This member, which has the authority's key, gives every member it certifies a slice of each network that it has \
             itself. At most one member of a mesh may: `weft init` sets it.",
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
