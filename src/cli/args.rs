//! The words of the command line and their help. What each command does is in the files beside this one.

use super::host::{Expose, Publish, Unpublish};
use super::lab::LabArgs;
use super::names::NamesArgs;
use crate::config::policy::{Permission, RateText};
use crate::config::text::{check_ifname, host_name, is_port_name, label};
use crate::config::{Endpoint, PortAddress, Target, mac_from_text};
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Where the daemon's configuration is, unless it is named.
const CONFIG_FILE: &str = "/etc/weft/weft.toml";

const OVERVIEW: &str = "\
weft is an Ethernet switch for containers that spans hosts. Every host runs one daemon (`weft up`). It gives each \
container a TAP interface in one or more networks and carries their frames to the other hosts inside \
WireGuard-encrypted UDP. All other commands talk to the daemon of this host over its control socket.";

const FIRST_STEPS: &str = "\
First steps:
  weft lab                             see it work: hosts and containers on this machine alone
  weft init                            begin a mesh: keys and a configuration for the first host
  weft up                              run its daemon
  weft invite beta                     print a line for the next host, to be given there to `weft join`
  weft config check weft.toml          check a configuration: the source has config/weft.toml as an example
  weft attach web --network blue --ip 10.32.0.5/16
                                       give the running container `web` an interface
  weft status                          see how the daemon is

Exit codes: 0 done; 1 refused or failed, with the reason on stderr; 2 the command line is wrong.
`weft COMMAND --help` tells more about each command.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "weft", version, about = "One encrypted Ethernet for containers on many hosts")]
#[command(long_about = OVERVIEW, after_help = FIRST_STEPS, max_term_width = 110)]
pub(super) struct Cli {
    /// The daemon's control socket [env: WEFT_SOCKET] [default: /run/weft/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What `weft` can do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon of this host
    ///
    /// Runs in the foreground until SIGTERM or Ctrl-C, and logs to stderr. SIGHUP is `weft reload`. It needs root (or
    /// CAP_NET_ADMIN and CAP_SYS_ADMIN) and /dev/net/tun. Interfaces in containers outlive it: a daemon that is
    /// started again takes them up where the last one left them.
    Up(Up),
    /// Give a container an interface in a network
    ///
    /// Makes a port: a TAP interface in the network namespace of TARGET, with a MAC address and any addresses given,
    /// up and announced to the network. The port stays until `weft detach` or until its namespace ends, also across
    /// restarts of the daemon; that of a container comes back when the container is started again, until that is removed.
    /// Nothing is left half-made when it fails.
    #[command(after_help = "\
Examples:
  weft attach web --network blue --ip auto
  weft attach web --network blue --ip 10.32.0.5/16@10.32.0.1
  weft attach pid:4711 --network blue --ip 10.32.0.6/16 --ip fd00:32::6/64 --ifname eth0
  weft attach netns:/run/netns/lab --network blue --mac U:lab
  weft attach host --network blue --ifname blue0 --ip 10.32.0.2/16
  weft attach web --network blue --wait=30     while the container is being started")]
    Attach(Attach),
    /// Take an interface away from a container
    ///
    /// Removes a port that `weft attach` made, by its name or by its target. A port of the configuration file is
    /// removed by changing the file and `weft reload`.
    Detach(Detach),
    /// Wait, inside a container, until its interface is up
    ///
    /// For the start script of a container that needs its interface before its program: blocks until the interface is
    /// up and has a carrier. Looks at the network namespace it runs in and needs no daemon, like `pipework --wait`.
    Wait(Wait),
    /// Show how the daemon is: identity, sessions, offloads, traffic, drops, warnings
    Status(Json),
    /// Show the other members and how each is reached
    Peers(Json),
    /// Show how each member is reached: path, round trip, loss, MTU, and why not better
    Paths(Paths),
    /// Make a peer at run time, as `[[peer]]` in the file does; it stays until `weft forget`
    #[command(after_help = "\
Examples:
  weft connect beta --key S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU= --endpoint 192.0.2.7:51820
  weft connect beta --endpoint beta.example.net:51820 --endpoint tcp:beta.example.net:443
                                       more endpoints for a member that is known")]
    Connect(Connect),
    /// Undo `weft connect`, or drop what is kept of a member that is gone
    Forget {
        /// The peer's name
        name: String,
    },
    /// Show the interfaces this host's containers have
    Ports(Json),
    /// Show the networks of this host
    Networks(Json),
    /// Show the forwarding database: which MAC address is behind which port or peer
    Fdb(Fdb),
    /// Give this host an address in a network
    ///
    /// Makes an interface `weft-NETWORK` on this host, so that the host and the network's containers reach each other. It stays until
    /// `weft hide`, across restarts of the daemon and of the host. Asked again it changes what is different.
    #[command(after_help = "\
Examples:
  weft expose blue
  weft expose blue --ip 10.32.0.2/16 --ip fd00:32::2/64
  weft expose blue --masquerade                containers whose default route is the network's service address
                                               reach the outside, with the address of this host")]
    Expose(Expose),
    /// Undo `weft expose`
    Hide {
        /// The network's name
        network: String,
    },
    /// Make a port of this host lead to containers, wherever in the mesh they are
    ///
    /// Connections to HOSTPORT of this host go to PORT of the containers called NAME, in turn; to those that answer, if they are
    /// several. The network is exposed for that if it is not. It stays until `weft unpublish`, across restarts of the daemon and of the host.
    #[command(after_help = "\
Examples:
  weft publish 8080:web:80 --network blue
  weft publish 127.0.0.1:5353:resolver:53/udp --network blue
  weft publish '[2001:db8::1]:443:[fd00:32::5]:8443' --network blue")]
    Publish(Publish),
    /// Undo `weft publish`
    Unpublish(Unpublish),
    /// Show what of this host is in networks, and which of its ports lead to containers
    Published(Json),
    /// Show what frames may do in each network, how often each rule was used, and what was refused
    Policy(Json),
    /// Show the names that DNS answers in this host's networks, add names and remove them
    Names(NamesArgs),
    /// Show who has which address, here and at other members
    #[command(after_help = "\
Examples:
  weft leases
  weft leases release --network blue 10.32.0.9
  weft leases reclaim beta             beta is gone for good: its part of the range may go to others")]
    Leases(super::leases::Leases),
    /// Apply the changes of the configuration file
    ///
    /// The daemon reads its file again and applies the difference; what did not change is not touched. A file with an
    /// error, or with a change that needs a restart, is refused whole, and the daemon goes on as it was.
    Reload,
    /// Check a configuration file
    #[command(subcommand)]
    Config(Config),
    /// Make and show keys
    #[command(subcommand)]
    Key(Key),
    /// Begin a mesh: make an authority, this host's key, and a configuration to start from
    ///
    /// Needs no daemon. The authority's secret key stays on this host, which can then invite others.
    Init(Init),
    /// Print a line that makes one further host a member
    ///
    /// The line is a secret until it was used: it works once, until it expires. Give it to `weft join` on the new host. Run
    /// this where the authority's key is, while the daemon runs.
    #[command(after_help = "\
Examples:
  weft invite beta
  weft invite beta --expires 7d --slice 10.32.16.0/20
  weft invite beta --endpoint alpha.example.net:51820")]
    Invite(Invite),
    /// Make this host a member by an invitation, and go on as `weft up`
    ///
    /// Makes key and configuration where there are none, asks to be let in, and keeps the certificate in the state
    /// directory. TOKEN is the line of `weft invite`, or - to read it from standard input, where no process list shows it.
    Join(Join),
    /// Cut a member off, everywhere and for good
    ///
    /// Takes back the certificate of a member and withdraws the invitations for its name. It may be invited again.
    Revoke {
        /// The member's name, or its public key
        member: String,
    },
    /// The authority's key
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Try weft on this machine alone: hosts and containers out of network namespaces
    Lab(LabArgs),
}

/// `weft up`.
#[derive(Debug, Args)]
pub(super) struct Up {
    /// The configuration file
    #[arg(short, long = "config", value_name = "FILE", default_value = CONFIG_FILE)]
    pub(super) config: PathBuf,
}

/// An address of `weft attach`: this one, or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AddressWish {
    Exactly(PortAddress),
    Auto,
}

fn address_wish(text: &str) -> Result<AddressWish, crate::config::NotAPortAddress> {
    if text == "auto" { Ok(AddressWish::Auto) } else { text.parse().map(AddressWish::Exactly) }
}

/// `weft attach`.
#[derive(Debug, Args)]
pub(super) struct Attach {
    /// Whose: the name of a running Docker or Podman container, pid:N, netns:PATH, or host
    pub(super) target: Target,
    /// The network's name, as in the configuration file
    #[arg(long, value_name = "NAME")]
    pub(super) network: String,
    /// An address with prefix length, and with @GATEWAY a default route, or `auto`; may be given several times
    #[arg(long = "ip", value_name = "CIDR[@GATEWAY]|auto", value_parser = address_wish)]
    pub(super) addresses: Vec<AddressWish>,
    /// A name that DNS answers with its addresses [default: the container's]; may be given several times
    #[arg(long = "dns-name", value_name = "NAME", value_parser = host_name)]
    pub(super) names: Vec<String>,
    /// By what policies may know it; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(super) labels: Vec<(String, String)>,
    /// What it may do although its network guards or isolates: bridge, any-source, dhcp-server, router or promiscuous
    #[arg(long, value_name = "PERMISSION", value_delimiter = ',')]
    pub(super) allow: Vec<Permission>,
    /// Bits a second that the container may get, like 100M; /1M behind it allows so many at once
    #[arg(long, value_name = "RATE[/BURST]")]
    pub(super) rate_in: Option<RateText>,
    /// Bits a second that it may send
    #[arg(long, value_name = "RATE[/BURST]")]
    pub(super) rate_out: Option<RateText>,
    /// The MAC address, or U:TEXT for one that follows from the text [default: made up and kept]
    #[arg(long, value_name = "MAC", value_parser = mac_from_text)]
    pub(super) mac: Option<Mac>,
    /// The interface's name in the container [default: eth1]
    #[arg(long, value_name = "NAME", value_parser = ifname)]
    pub(super) ifname: Option<String>,
    /// The port's name on this host [default: TARGET:IFNAME]
    #[arg(long, value_name = "NAME", value_parser = port_name)]
    pub(super) name: Option<String>,
    /// Wait for a target that does not exist yet, and then until the interface is up; at most SECS seconds, or 60
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true, default_missing_value = "60")]
    pub(super) wait: Option<u64>,
    /// Print the port as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `weft detach`.
#[derive(Debug, Args)]
pub(super) struct Detach {
    /// The port's name, or the target as it was given to `weft attach`
    #[arg(value_name = "PORT|TARGET")]
    pub(super) port: String,
    /// The interface's name, where the target has several
    #[arg(long, value_name = "NAME", value_parser = ifname)]
    pub(super) ifname: Option<String>,
}

/// `weft wait`.
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// The interface
    #[arg(short, long, value_name = "NAME", default_value = "eth1", value_parser = ifname)]
    pub(super) ifname: String,
    /// Give up, with exit code 1, after this many seconds [default: never]
    #[arg(long, value_name = "SECS")]
    pub(super) timeout: Option<u64>,
}

/// A command that shows something.
#[derive(Debug, Args)]
pub(super) struct Json {
    /// Print JSON, for programs: the same data, unrounded
    #[arg(long)]
    pub(super) json: bool,
}

/// `weft paths`.
#[derive(Debug, Args)]
pub(super) struct Paths {
    /// Only of this peer, and all ways that are known
    pub(super) peer: Option<String>,
    /// Print JSON, for programs: the same data, unrounded
    #[arg(long)]
    pub(super) json: bool,
}

/// `weft connect`.
#[derive(Debug, Args)]
pub(super) struct Connect {
    /// The peer's name
    pub(super) name: String,
    /// Its public key, as `weft key show` prints it there; not needed for a member that is known
    #[arg(long, value_name = "KEY")]
    pub(super) key: Option<PublicKey>,
    /// Where it may be reached, HOST:PORT or tcp:HOST:PORT; may be given several times
    #[arg(long = "endpoint", value_name = "ENDPOINT")]
    pub(super) endpoints: Vec<Endpoint>,
    /// Its tunnel address, where its file sets one
    #[arg(long, value_name = "ADDRESS")]
    pub(super) tunnel_address: Option<std::net::Ipv4Addr>,
}

/// `weft fdb`.
#[derive(Debug, Args)]
pub(super) struct Fdb {
    /// Only of this network
    #[arg(long, value_name = "NAME")]
    pub(super) network: Option<String>,
    /// Print JSON, for programs: the same data, unrounded
    #[arg(long)]
    pub(super) json: bool,
}

/// `weft config`.
#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Tell everything that is wrong with a configuration file; needs no daemon
    Check {
        /// The configuration file
        #[arg(default_value = CONFIG_FILE)]
        file: PathBuf,
    },
}

/// `weft init`.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// This host's name in the mesh [default: the host's name]
    pub(super) name: Option<String>,
    /// The configuration file to make
    #[arg(short, long = "config", value_name = "FILE", default_value = CONFIG_FILE)]
    pub(super) config: PathBuf,
    /// The directory for key, state and control socket [default: /var/lib/weft, and the socket in /run/weft]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Where other hosts reach this one; may be given several times
    #[arg(long = "endpoint", value_name = "IP:PORT")]
    pub(super) endpoints: Vec<std::net::SocketAddr>,
}

/// `weft invite`.
#[derive(Debug, Args)]
pub(super) struct Invite {
    /// What the new member will be called
    pub(super) name: String,
    /// How long the line works: a number and s, m, h or d; at most 30d
    #[arg(long = "expires", value_name = "TIME", default_value = "1h", value_parser = seconds)]
    pub(super) life_s: u64,
    /// A part of a network's range for the new member's containers; may be given several times
    #[arg(long = "slice", value_name = "CIDR")]
    pub(super) slices: Vec<Cidr>,
    /// Where the new host reaches this one, besides where it knows itself; may be given several times
    #[arg(long = "endpoint", value_name = "HOST:PORT")]
    pub(super) endpoints: Vec<Endpoint>,
}

/// `weft join`.
#[derive(Debug, Args)]
pub(super) struct Join {
    /// The line that `weft invite` printed, or - to read it from standard input
    pub(super) token: String,
    /// The configuration file; made if it does not exist
    #[arg(short, long = "config", value_name = "FILE", default_value = CONFIG_FILE)]
    pub(super) config: PathBuf,
    /// The directory for key, state and control socket, in a file that is made [default: /var/lib/weft]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Only prepare: the next `weft up` asks to be let in
    #[arg(long, conflicts_with = "up")]
    pub(super) no_up: bool,
    /// Go on as `weft up`; this is what happens anyway
    #[arg(long)]
    pub(super) up: bool,
}

/// `weft authority`.
#[derive(Debug, Subcommand)]
pub(super) enum AuthorityCommand {
    /// Hand the authority on to a new key
    ///
    /// Run this where the authority's key is, while the daemon runs. Members renew their certificates by themselves; those that
    /// have not been seen when the overlap ends have to be invited again.
    Rotate {
        /// For how long certificates of the old key count: a number and s, m, h or d
        #[arg(long, value_name = "TIME", default_value = "7d", value_parser = seconds)]
        overlap: u64,
    },
}

/// `weft key`.
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Make a private key in FILE, readable by its owner alone, and print its public key
    New {
        /// The key file; one that exists is never replaced
        file: PathBuf,
    },
    /// Print the public key that belongs to the private key in FILE
    Show {
        /// The key file
        file: PathBuf,
        /// Print the tunnel address that follows from the key instead
        #[arg(long)]
        address: bool,
    },
    /// Print a pre-shared key, to be given to both sides
    Psk,
}

fn ifname(text: &str) -> Result<String, String> {
    check_ifname(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// `30s`, `5m`, `1h`, `7d`.
fn seconds(text: &str) -> Result<u64, &'static str> {
    let wrong = "a time is a number and s, m, h or d, like 1h";
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 86_400,
        _ => return Err(wrong),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong)?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or(wrong)
}

fn port_name(text: &str) -> Result<String, &'static str> {
    if is_port_name(text) { Ok(text.to_owned()) } else { Err("a port's name has 1 to 255 bytes, none of them blank") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_words_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn attach_takes_what_pipework_takes() {
        let line = "weft attach web --network blue --ip 10.32.0.5/16@10.32.0.1 --ip fd00::5/64 --mac U:hello --wait";
        let Command::Attach(attach) = parse(line).unwrap().command else { panic!("another command") };
        assert_eq!(attach.target, Target::Container("web".into()));
        assert_eq!(attach.addresses.len(), 2);
        assert_eq!(attach.mac, Some("02:b1:94:6a:c9:24".parse().unwrap()));
        assert_eq!((attach.wait, attach.ifname, attach.name), (Some(60), None, None));
        let Command::Attach(attach) = parse("weft attach --wait=5 pid:7 --network n").unwrap().command else {
            panic!("another command")
        };
        assert_eq!((attach.wait, attach.target), (Some(5), Target::Pid(7)));
    }

    #[test]
    fn the_socket_may_be_named_before_or_behind_the_command() {
        for line in ["weft --socket /s status --json", "weft status --json --socket /s"] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.socket.as_deref(), Some(std::path::Path::new("/s")));
            assert!(matches!(cli.command, Command::Status(Json { json: true })));
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let Command::Up(up) = parse("weft up").unwrap().command else { panic!("another command") };
        assert_eq!(up.config, PathBuf::from(CONFIG_FILE));
        let Command::Wait(wait) = parse("weft wait").unwrap().command else { panic!("another command") };
        assert_eq!((wait.ifname.as_str(), wait.timeout), ("eth1", None));
    }

    #[test]
    fn an_invitation_lives_for_an_hour_unless_it_is_told_otherwise() {
        let life = |line: &str| match parse(line).unwrap().command {
            Command::Invite(invite) => invite.life_s,
            _ => panic!("another command"),
        };
        assert_eq!((life("weft invite b"), life("weft invite b --expires 7d")), (3600, 7 * 86_400));
    }

    #[test]
    fn a_wrong_command_line_is_a_usage_error() {
        for line in [
            "weft",
            "weft fly",
            "weft attach web",
            "weft attach ../web --network n",
            "weft attach web --network n --ip 10.32.0.5",
            "weft attach web --network n --ip 10.32.0.5/16@10.33.0.1",
            "weft attach web --network n --mac ff:ff:ff:ff:ff:ff",
            "weft attach web --network n --ifname much-too-long-a-name",
            "weft attach web --network n --ifname a/b",
            "weft attach web --network n --wait=soon",
            "weft key new",
            "weft invite beta --expires soon",
            "weft invite beta --expires 0s",
            "weft invite beta --slice 10.32.0.0",
            "weft join weft1:x --up --no-up",
            "weft authority rotate --overlap 7",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
        assert_eq!(parse("weft --help").unwrap_err().exit_code(), 0);
        assert_eq!(parse("weft --version").unwrap_err().exit_code(), 0);
    }
}
