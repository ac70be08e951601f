//! The keys of `[[allow]]`.

use super::{Absent, Kind, LIVE, TEXT_NAME, Table, key};

const TEXT_PARTY: Kind = Kind::Text("a name, label:KEY=VALUE, an address, a prefix, host or any");

/// `[[allow]]`.
pub const ALLOW: Table = Table {
    name: "allow",
    array: true,
    doc: "Who may begin what with whom in a network. A network with one of them refuses what none allows; at most 256 in one \
          network. [Policies](policy.md) tells more.",
    keys: &[
        key("network", TEXT_NAME, Absent::Refused, "\"blue\"", LIVE, "The name of the network."),
        key("from", TEXT_PARTY, Absent::Refused, "\"label:tier=web\"", LIVE, "Who begins."),
        key("to", TEXT_PARTY, Absent::Refused, "\"db\"", LIVE, "Who is asked; answers pass back."),
        key(
            "ports",
            Kind::List("any, icmp, tcp, udp, tcp/PORT, udp/PORT or udp/FROM-TO"),
            Absent::List(&["any"]),
            "[\"tcp/5432\"]",
            LIVE,
            "What for, at most 16.",
        ),
    ],
};
