//! Whether cost is flat: the same stream between the same two containers while everything else of one host grows.
//!
//! One lab of two hosts is measured again and again: as it is, with more ports on h1, with peers in its file that never
//! answer, with stations in its FDB. Each row has everything of the rows above. Memory is h1's daemon's; what one port, one
//! peer and one entry take is the difference between two rows, after the traffic of both.
//!
//! The containers of the crowd are namespaces with an interface and nothing else: with IPv6, a thousand kernels would
//! greet one another by multicast, a million frames that have nothing to do with the question.

use super::generator::Bulk;
use super::host::{self, Container};
use super::report::{GB, Machine};
use super::spec::{CONTAINER_IFNAME, LISTEN_PORT, LabSpec};
use super::underlay::sysctl;
use super::{Lab, LabError, Stop, generator, process};
use crate::control::request::{Attach, Request, Response, Status};
use crate::io::netns::Netns;
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use serde::Serialize;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::ffi::CString;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Where peers that never answer are: an address of the underlay that nobody has, and a port for each.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 250);
/// How long a first ping, or the learning of what is missing, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Frames sent before the daemon gets time to read them: fewer than a TAP queues.
const BURST: usize = 256;
/// That time.
const PAUSE: Duration = Duration::from_micros(500);

/// What to measure.
#[derive(Debug, Clone)]
pub struct ScaleSpec {
    /// The lab; [`spec`] makes one that fits.
    pub lab: LabSpec,
    /// How long each measurement lasts.
    pub measure: Duration,
    /// Ports to add to h1.
    pub ports: usize,
    /// Peers to add to h1's file.
    pub peers: usize,
    /// Stations to add to h1's FDB.
    pub stations: usize,
}

/// One size of h1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was added.
    pub size: String,
    /// Ports, peers and FDB entries of h1 then.
    pub ports: usize,
    /// Peers.
    pub peers: usize,
    /// FDB entries.
    pub fdb_entries: usize,
    /// One TCP stream from h1, in Gbit/s.
    pub out_gbps: f64,
    /// One TCP stream to h1, in Gbit/s.
    pub in_gbps: f64,
    /// CPU seconds of both daemons per GB, both streams together.
    pub cpu_per_gb: Option<f64>,
    /// Resident memory of h1's daemon in bytes.
    pub memory: u64,
    /// How long it took until h1 had that size, in seconds.
    pub took: f64,
}

/// All rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// The rows, in the order they were measured.
    pub rows: Vec<Row>,
    /// Resident bytes for one more of what a row added: `port`, `peer`, `FDB entry`.
    pub bytes_per: Vec<(String, f64)>,
}

/// A lab to be measured: two hosts with two containers each.
pub fn spec(name: impl Into<String>) -> LabSpec {
    let mut spec = LabSpec::new(name, 2, 2);
    // One container speaks for all the stations that the FDBs are filled with.
    spec.network_config = "guard = \"off\"".to_owned();
    spec.extra_config = "\n[fdb]\nmax_entries = 4194304\nmax_per_port = 4194304\n".to_owned();
    spec
}

/// Builds the lab, lets it grow and measures. `progress` is told what is done next.
///
/// # Errors
/// The lab cannot be built, something cannot be added, or traffic does not flow.
pub fn run(spec: &ScaleSpec, stop: &Stop, progress: &mut dyn FnMut(&str)) -> Result<Report, LabError> {
    progress("build the lab");
    let lab = Lab::build(spec.lab.clone(), stop)?;
    let mut scale = Scale { lab: &lab, spec, stop, rows: Vec::new(), crowd: Vec::new() };
    // Kernels and daemons warm up: the first seconds are slower than those that follow.
    scale.stream(true)?;
    progress("measure two containers on each of two hosts");
    scale.row("two hosts, two containers each".to_owned(), Duration::ZERO)?;
    let mut bytes_per = Vec::new();
    let steps = [(Grown::Port, spec.ports), (Grown::Peer, spec.peers), (Grown::FdbEntry, spec.stations)];
    for (what, count) in steps.into_iter().filter(|(_, count)| *count > 0) {
        let (one, many) = what.names();
        progress(&format!("add {count} {many}"));
        let begun = Instant::now();
        match what {
            Grown::Port => scale.add_ports()?,
            Grown::Peer => scale.add_peers()?,
            Grown::FdbEntry => scale.add_stations()?,
        }
        let took = begun.elapsed();
        progress(&format!("measure with {count} {many} more"));
        scale.row(format!("and {count} {many}"), took)?;
        if let [.., before, after] = scale.rows.as_slice() {
            let more = after.memory as f64 - before.memory as f64;
            bytes_per.push((one.to_owned(), (more / count as f64).max(0.0).round()));
        }
    }
    Ok(Report { machine: Machine::this(), rows: scale.rows, bytes_per })
}

/// What h1 gets more of.
#[derive(Clone, Copy)]
enum Grown {
    Port,
    Peer,
    FdbEntry,
}

impl Grown {
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Port => ("port", "ports"),
            Self::Peer => ("peer", "peers"),
            Self::FdbEntry => ("FDB entry", "FDB entries"),
        }
    }
}

struct Scale<'a> {
    lab: &'a Lab,
    spec: &'a ScaleSpec,
    stop: &'a Stop,
    rows: Vec<Row>,
    /// Containers beside those of the lab.
    crowd: Vec<Container>,
}

impl Scale<'_> {
    fn row(&mut self, size: String, took: Duration) -> Result<(), LabError> {
        let before = self.cpu_time();
        let (out, into) = (self.stream(true)?, self.stream(false)?);
        let used = self.cpu_time().zip(before).map(|(after, before)| after.saturating_sub(before));
        let status = self.status()?;
        self.rows.push(Row {
            size,
            ports: status.ports,
            peers: status.peers,
            fdb_entries: status.fdb_entries,
            out_gbps: rounded(out.gbps()),
            in_gbps: rounded(into.gbps()),
            cpu_per_gb: used.map(|used| rounded(used.as_secs_f64() / ((out.bytes + into.bytes) as f64 / GB))),
            memory: self.lab.host(1).daemon().and_then(|daemon| process::memory(daemon.pid())).unwrap_or_default(),
            took: rounded(took.as_secs_f64()),
        });
        Ok(())
    }

    /// One TCP stream from h1/c1 to h2/c1, or the other way.
    fn stream(&self, from_first: bool) -> Result<Bulk, LabError> {
        let (near, far) = (self.lab.container(1, 1), self.lab.container(2, 1));
        let (from, to) = if from_first { (near, far) } else { (far, near) };
        from.ping(to.v4.into(), 64, PATIENCE)?;
        Ok(generator::bulk_tcp(&from.netns, &to.netns, (to.v4, 0).into(), 1, self.spec.measure, self.stop)?)
    }

    /// Each in a namespace of its own.
    fn add_ports(&mut self) -> Result<(), LabError> {
        for n in 1..=self.spec.ports {
            self.stop.check()?;
            let name = format!("x{n}");
            let netns = host::fresh(&name)?;
            sysctl(&netns, "ipv6/conf/default/disable_ipv6", "1");
            let network = self.lab.container(1, 1).network.clone();
            let (v4, v6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
            let container =
                Container { name: name.clone(), netns, network: network.clone(), v4, v6, link_local: None };
            let attach = Attach {
                ifname: Some(CONTAINER_IFNAME.to_owned()),
                name: Some(name),
                ..Attach::new(container.target(), network)
            };
            self.crowd.push(container);
            self.ask("attach a container of the crowd", &Request::Attach(attach))?;
        }
        Ok(())
    }

    /// In the file, which the daemon then reads again.
    fn add_peers(&self) -> Result<(), LabError> {
        let path = self.lab.host(1).files.config();
        let mut text = std::fs::read_to_string(&path).map_err(LabError::io(format!("read {}", path.display())))?;
        for n in 1..=self.spec.peers {
            // Any 32 bytes are a public key; nobody has the private one to these.
            let mut key = [0x5c; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            let key = PublicKey(key);
            let port = LISTEN_PORT.wrapping_add(n as u16).max(1);
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n[[peer]]\nname = \"p{n}\"\npublic_key = \"{key}\"\nendpoints = [\"{NOBODY}:{port}\"]\n"
            );
        }
        std::fs::write(&path, text).map_err(LabError::io(format!("write {}", path.display())))?;
        self.ask("read its file again", &Request::Reload)
    }

    /// By frames of h1/c2 from as many source addresses, to itself: learned, and then dropped.
    fn add_stations(&self) -> Result<(), LabError> {
        let container = self.lab.container(1, 2);
        let own = self.own_mac("c2")?;
        let socket = packet_socket(&container.netns).map_err(LabError::io("open a packet socket in h1/c2"))?;
        let wanted = self.status()?.fdb_entries + self.spec.stations;
        let deadline = Instant::now() + PATIENCE + Duration::from_micros(10 * self.spec.stations as u64);
        while self.status()?.fdb_entries < wanted {
            // Frames that a full queue lost are sent again with all others.
            for n in 0..self.spec.stations {
                let [.., a, b, c, d] = n.to_be_bytes();
                let source = [2, 0x5c, a, b, c, d];
                let frame = [&own.0[..], &source, &[0x88, 0xb5], &[0; 46]].concat();
                let _ = socket.send(&frame);
                if n % BURST == BURST - 1 {
                    std::thread::sleep(PAUSE);
                    self.stop.check()?;
                }
            }
            if Instant::now() > deadline {
                let learned = self.status()?.fdb_entries;
                return Err(LabError::Refused(format!("h1 learned {learned} FDB entries of {wanted}")));
            }
        }
        Ok(())
    }

    fn own_mac(&self, port: &str) -> Result<Mac, LabError> {
        let found = match self.lab.host(1).control(&Request::Ports)? {
            Response::Ports(ports) => ports.into_iter().find(|status| status.name == port).and_then(|port| port.mac),
            _ => None,
        };
        found.ok_or_else(|| LabError::Refused(format!("h1 has no port {port}")))
    }

    fn ask(&self, what: &str, request: &Request) -> Result<(), LabError> {
        match self.lab.host(1).control(request)? {
            Response::Refused(reason) => {
                Err(LabError::Request { host: "h1".to_owned(), what: what.to_owned(), reason })
            }
            _ => Ok(()),
        }
    }

    fn status(&self) -> Result<Status, LabError> {
        match self.lab.host(1).control(&Request::Status)? {
            Response::Status(status) => Ok(*status),
            other => Err(LabError::Refused(format!("h1 gave its status as {other:?}"))),
        }
    }

    /// User and system time of both daemons so far.
    fn cpu_time(&self) -> Option<Duration> {
        self.lab.hosts().iter().map(|host| process::cpu_time(host.daemon()?.pid())).sum()
    }
}

/// A socket that sends whole frames through a container's interface.
fn packet_socket(netns: &Netns) -> std::io::Result<Socket> {
    let open = || {
        let name = CString::new(CONTAINER_IFNAME)?;
        // SAFETY: `name` is a C string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: sockaddr_ll is one of the addresses the storage is for, and plain old data.
        let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index.cast_signed();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the storage holds a sockaddr_ll of that length.
        socket.bind(&unsafe { SockAddr::new(storage, length) })?;
        Ok(socket)
    };
    netns.run(open)?
}

fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
