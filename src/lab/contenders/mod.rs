//! Who is compared: weft, what the kernel has, and what overlays in user space the machine has installed.
//!
//! A [`Contender`] says what it is, which programs it needs and how it is set up. Each gets two hosts of its own
//! ([`Pair`]) on an underlay of its own, like the one weft's lab has. One with several [`Setup`]s is tried in each,
//! and the fastest is the one that is measured.
//!
//! What weft puts into a container, the others have on the host: their traffic runs between the addresses of their
//! own interfaces, without the veth and the bridge that containers would need. That is in their favour. So is the
//! MTU: each has the largest with which no packet of the underlay is fragmented.

mod fastd;
mod kernel;
mod nebula;
mod openvswitch;
pub mod pair;
pub mod program;
mod tinc;
mod vpncloud;
mod weft;
mod wireguard;

use super::LabError;
use pair::Pair;
use program::Program;
use serde::Serialize;
use std::time::Duration;

/// What a contender carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Frames: broadcast, any protocol.
    Ethernet,
    /// IP packets only.
    Ip,
}

/// One who is compared.
#[derive(Debug)]
pub struct Contender {
    /// How it is called in `--only` and in the table.
    pub name: &'static str,
    /// What it carries.
    pub layer: Layer,
    /// Whether nobody on the underlay can read it.
    pub encrypted: bool,
    /// Where its programs come from: `Debian package tinc`.
    pub source: &'static str,
    /// Programs it needs, the daemon first.
    pub programs: &'static [Program],
    /// How long it takes under load until it works as it will from then on.
    pub settles: Duration,
    /// Ways to set it up; at least one.
    pub setups: &'static [Setup],
}

/// A way to set a contender up.
#[derive(Debug)]
pub struct Setup {
    /// What was chosen, for the reader of the figures.
    pub what: &'static str,
    /// Sets it up on two hosts that have nothing but their underlay, and says which paths there are.
    pub start: fn(&mut Pair) -> Result<(), LabError>,
}

/// The name of what shares are shares of.
pub const BARE: &str = "bare";
/// The name of what others are compared with.
pub const WEFT: &str = "weft";
/// The name of what carries frames between the containers of one host where there is no overlay.
pub const BRIDGE: &str = "bridge";

/// Settles as soon as it answers.
const AT_ONCE: Duration = Duration::from_millis(300);

/// All contenders, in the order of the table.
pub const ALL: &[Contender] = &[
    Contender {
        name: BARE,
        layer: Layer::Ethernet,
        encrypted: false,
        source: "the kernel",
        programs: &[],
        settles: AT_ONCE,
        setups: &[Setup { what: "the underlay itself, veth-bridge-veth", start: kernel::bare }],
    },
    Contender {
        name: BRIDGE,
        layer: Layer::Ethernet,
        encrypted: false,
        source: "the kernel",
        programs: &[],
        settles: AT_ONCE,
        setups: &[Setup { what: "two containers on a kernel bridge, by veth", start: kernel::bridge }],
    },
    Contender {
        name: "vxlan",
        layer: Layer::Ethernet,
        encrypted: false,
        source: "the kernel",
        programs: &[],
        settles: AT_ONCE,
        setups: &[Setup { what: "a kernel vxlan device on each host", start: kernel::vxlan }],
    },
    Contender {
        name: WEFT,
        layer: Layer::Ethernet,
        encrypted: true,
        source: "this program",
        programs: &[],
        settles: AT_ONCE,
        setups: &[Setup { what: "TAPs in containers", start: weft::start }],
    },
    Contender {
        name: "tinc",
        layer: Layer::Ethernet,
        encrypted: true,
        source: "Debian package tinc",
        programs: &[tinc::TINCD],
        // Until its path MTU discovery has an answer, packets go through its TCP connection.
        settles: Duration::from_secs(5),
        setups: &[
            Setup { what: "Mode=switch, AES-256-CBC and SHA-256 (its defaults)", start: tinc::defaults },
            Setup { what: "Mode=switch, AES-128-CBC and SHA-1, larger buffers", start: tinc::faster },
        ],
    },
    Contender {
        name: "tincr",
        layer: Layer::Ethernet,
        encrypted: true,
        source: "github.com/Mic92/tincr",
        programs: &[tinc::TINCRD, tinc::TINCR],
        settles: Duration::from_secs(5),
        setups: &[
            Setup { what: "Mode=switch, ChaCha20-Poly1305 (its default)", start: tinc::rust_defaults },
            Setup { what: "Mode=switch, AES-256-GCM", start: tinc::rust_aes },
        ],
    },
    Contender {
        name: "fastd",
        layer: Layer::Ethernet,
        encrypted: true,
        source: "Debian package fastd",
        programs: &[fastd::FASTD],
        settles: AT_ONCE,
        setups: &[
            Setup { what: "mode tap, salsa2012+umac", start: fastd::salsa },
            Setup { what: "mode tap, aes128-ctr+umac", start: fastd::aes },
        ],
    },
    Contender {
        name: "vpncloud",
        layer: Layer::Ethernet,
        encrypted: true,
        source: "crate vpncloud",
        programs: &[vpncloud::VPNCLOUD],
        settles: AT_ONCE,
        setups: &[
            Setup { what: "type tap, AES-256", start: vpncloud::aes },
            Setup { what: "type tap, ChaCha20", start: vpncloud::chacha },
        ],
    },
    Contender {
        name: "wireguard-go+vxlan",
        layer: Layer::Ethernet,
        encrypted: true,
        source: "Debian package wireguard-go",
        programs: &[wireguard::WIREGUARD_GO],
        settles: AT_ONCE,
        setups: &[Setup { what: "a kernel vxlan device through the tunnel", start: wireguard::go_with_vxlan }],
    },
    Contender {
        name: "wireguard-go",
        layer: Layer::Ip,
        encrypted: true,
        source: "Debian package wireguard-go",
        programs: &[wireguard::WIREGUARD_GO],
        settles: AT_ONCE,
        setups: &[Setup { what: "its defaults", start: wireguard::go }],
    },
    Contender {
        name: "boringtun",
        layer: Layer::Ip,
        encrypted: true,
        source: "crate boringtun-cli",
        programs: &[wireguard::BORINGTUN],
        settles: AT_ONCE,
        setups: &[Setup { what: "its defaults", start: wireguard::boringtun }],
    },
    Contender {
        name: "gotatun",
        layer: Layer::Ip,
        encrypted: true,
        source: "crate gotatun-cli",
        programs: &[wireguard::GOTATUN],
        settles: AT_ONCE,
        setups: &[Setup { what: "its defaults", start: wireguard::gotatun }],
    },
    Contender {
        name: "nebula",
        layer: Layer::Ip,
        encrypted: true,
        source: "Debian package nebula",
        programs: &[nebula::NEBULA, nebula::NEBULA_CERT],
        settles: AT_ONCE,
        setups: &[
            Setup { what: "AES-256-GCM, one routine", start: nebula::one },
            Setup { what: "AES-256-GCM, two routines", start: nebula::two },
        ],
    },
    Contender {
        name: "openvswitch",
        layer: Layer::Ethernet,
        encrypted: false,
        source: "Debian package openvswitch-switch",
        programs: &[openvswitch::VSWITCHD, openvswitch::SERVER, openvswitch::VSCTL, openvswitch::TOOL],
        settles: AT_ONCE,
        setups: &[Setup { what: "datapath_type=netdev, vxlan port", start: openvswitch::start }],
    },
];

/// The contenders called so, in the order of [`ALL`]; all when no name is given. The bare path is always among them:
/// shares are shares of it.
///
/// # Errors
/// A name that no contender has.
pub fn called(names: &[String]) -> Result<Vec<&'static Contender>, LabError> {
    if let Some(unknown) = names.iter().find(|name| ALL.iter().all(|one| one.name != **name)) {
        let known: Vec<&str> = ALL.iter().map(|one| one.name).collect();
        return Err(LabError::Refused(format!("there is no '{unknown}' to compare: there are {}", known.join(", "))));
    }
    let wanted = |one: &Contender| names.is_empty() || one.name == BARE || names.iter().any(|name| name == one.name);
    Ok(ALL.iter().filter(|one| wanted(one)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn contenders_are_chosen_by_name_and_the_bare_path_is_always_there() {
        let names = |wanted: &[&str]| -> Vec<&str> {
            let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
            called(&wanted).unwrap().iter().map(|one| one.name).collect()
        };
        assert_eq!(names(&[]).len(), ALL.len());
        assert_eq!(names(&["weft", "vxlan"]), [BARE, "vxlan", WEFT]);
        let error = called(&["tink".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("'tink'") && error.contains("tinc, tincr"), "{error}");
    }

    #[test]
    fn every_contender_has_a_name_of_its_own_and_a_setup() {
        for (n, one) in ALL.iter().enumerate() {
            assert!(!one.setups.is_empty() && !one.source.is_empty());
            assert!(ALL[..n].iter().all(|other| other.name != one.name), "{}", one.name);
        }
    }
}
