//! Two hosts for one contender, and what it runs on them.
//!
//! ```text
//!   h1  eth0 192.0.2.1 ── bridge ── eth0 192.0.2.2  h2        the underlay
//!       overlay 10.32.1.1/16          overlay 10.32.2.1/16    what the contender makes of it
//! ```

use super::program::{Found, Started};
use crate::io::netlink::{Netlink, NetlinkError};
use crate::io::netns::Netns;
use crate::lab::spec::{CONTAINER_IFNAME, LabSpec, container_addresses};
use crate::lab::underlay::{index, inside};
use crate::lab::{Host, Lab, LabError, Stop, ping, process};
use crate::wire::cidr::Cidr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Hosts of a pair.
pub const HOSTS: [usize; 2] = [1, 2];
/// How long a program may take until it has made its interface or file; Open vSwitch takes seconds on a busy machine.
const READY: Duration = Duration::from_secs(20);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long the first ping through a contender may take: some find each other only on their second try.
const FIRST_PING: Duration = Duration::from_secs(20);
/// Bytes of the pings that show that an overlay carries traffic: a small one, and one that fills the MTU of most.
const PINGS: [usize; 2] = [64, 1200];
/// Prefix length of the overlay.
const PREFIX: u8 = 16;

/// A way traffic can take, with the addresses of both ends.
#[derive(Debug)]
pub struct Route {
    /// Where it starts.
    pub from: Netns,
    /// The address of that end.
    pub here: Ipv4Addr,
    /// Where it ends.
    pub to: Netns,
    /// The address of that end.
    pub there: Ipv4Addr,
}

impl Route {
    /// # Errors
    /// Out of file descriptors.
    pub fn new(from: (&Netns, Ipv4Addr), to: (&Netns, Ipv4Addr)) -> Result<Self, LabError> {
        let hold = |netns: &Netns| netns.try_clone().map_err(LabError::io("hold a namespace"));
        Ok(Self { from: hold(from.0)?, here: from.1, to: hold(to.0)?, there: to.1 })
    }

    /// Waits until pings of several sizes come back.
    ///
    /// # Errors
    /// One does not.
    pub fn until_it_carries(&self) -> Result<(), LabError> {
        let failed = |source| LabError::Ping { from: self.here.to_string(), to: self.there.to_string(), source };
        let mut pinger = ping::Pinger::open(&self.from, self.there.into(), None).map_err(failed)?;
        PINGS.iter().try_for_each(|&size| pinger.until(size, FIRST_PING).map(drop).map_err(failed))
    }
}

/// Two hosts and one contender's programs on them. Dropping it ends them and removes everything.
#[derive(Debug)]
pub struct Pair {
    /// Between the hosts, where there is such a way.
    pub across: Option<Route>,
    /// Between two containers on one host, where there is such a way.
    pub local: Option<Route>,
    programs: Vec<Started>,
    /// Files outside the lab's directory that go with the pair.
    litter: Vec<PathBuf>,
    found: Vec<Found>,
    lab: Lab,
    stop: Stop,
}

impl Pair {
    /// Lays out the hosts and their underlay, with two idle containers each. `found` are the programs of the
    /// contender.
    ///
    /// # Errors
    /// [`LabError`]; nothing is left behind.
    pub fn lay(spec: LabSpec, found: Vec<Found>, stop: &Stop) -> Result<Self, LabError> {
        let lab = Lab::lay(spec)?;
        Ok(Self {
            across: None,
            local: None,
            programs: Vec::new(),
            litter: Vec::new(),
            found,
            lab,
            stop: stop.clone(),
        })
    }

    /// The lab, for the contender that it was made for.
    pub(super) fn lab_mut(&mut self) -> (&mut Lab, &Stop) {
        (&mut self.lab, &self.stop)
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Host `h`, 1 or 2.
    pub fn host(&self, h: usize) -> &Host {
        self.lab.host(h)
    }

    /// A directory on host `h` for the contender's files.
    pub fn dir(&self, h: usize) -> &Path {
        &self.host(h).files.dir
    }

    /// The overlay's address of host `h`.
    pub fn overlay(h: usize) -> Ipv4Addr {
        container_addresses(h, 1).0
    }

    /// The MTU of an overlay whose packets grow by `overhead` bytes on the underlay, all headers counted.
    pub fn mtu(&self, overhead: u16) -> u16 {
        self.lab.spec().underlay_mtu.saturating_sub(overhead)
    }

    /// Writes a file of host `h` that only we can read.
    ///
    /// # Errors
    /// The file system refused.
    pub fn write(&self, h: usize, name: &str, text: &str) -> Result<PathBuf, LabError> {
        let path = self.dir(h).join(name);
        fs::write(&path, text).map_err(LabError::io(format!("write {}", path.display())))?;
        Ok(path)
    }

    /// A file of host `h`, whole.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, h: usize, name: &str) -> Result<String, LabError> {
        let path = self.dir(h).join(name);
        fs::read_to_string(&path).map_err(LabError::io(format!("read {}", path.display())))
    }

    /// One of the contender's programs, to be run on host `h`.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn command(&self, h: usize, program: &str) -> Result<Command, LabError> {
        let path = self.found.iter().find(|found| found.name == program).map(|found| found.path.as_path());
        let mut command = Command::new(path.unwrap_or_else(|| Path::new(program)));
        command.current_dir(self.dir(h));
        process::inside(&self.host(h).netns, &mut command).map_err(LabError::io(format!("enter h{h}")))?;
        Ok(command)
    }

    /// Runs a command to its end and returns what it printed.
    ///
    /// # Errors
    /// It failed; what it complained about is in the error.
    pub fn run(&self, mut command: Command) -> Result<String, LabError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = command.stdin(Stdio::null()).output().map_err(LabError::io(format!("run {name}")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(LabError::Refused(format!("{name} failed ({}): {said}", output.status)))
    }

    /// Starts a command that runs as long as the pair is there.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn start(&mut self, h: usize, command: Command) -> Result<(), LabError> {
        let started = Started::start(command, &format!("h{h}"), self.dir(h))?;
        self.programs.push(started);
        Ok(())
    }

    /// Lets a file outside the lab's directory go with the pair.
    pub fn remove_in_the_end(&mut self, file: PathBuf) {
        self.litter.push(file);
    }

    /// Waits until `look` finds what the program started last is to make.
    ///
    /// # Errors
    /// One of the programs ended, or it takes too long; its last words are in the error.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Self) -> Result<Option<T>, LabError>,
    ) -> Result<T, LabError> {
        let deadline = Instant::now() + READY;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            self.programs.iter_mut().try_for_each(Started::check)?;
            self.stop.check()?;
            if Instant::now() > deadline {
                let late = format!("has not made {what} within {} s", READY.as_secs());
                return Err(match self.programs.last() {
                    Some(program) => program.failed(late),
                    None => LabError::Refused(late),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for an interface on host `h`, then gives it an MTU, unless its program knows best, and an address, and
    /// brings it up.
    ///
    /// # Errors
    /// It does not come, or the kernel refused.
    pub fn bring_up(&mut self, h: usize, name: &str, mtu: Option<u16>, address: Ipv4Addr) -> Result<(), LabError> {
        let link = self.until(&format!("interface {name}"), |pair| pair.netlink(h, |netlink| netlink.link(name)))?;
        self.netlink(h, |netlink| {
            if let Some(mtu) = mtu {
                netlink.set_mtu(link.index, mtu.into())?;
            }
            netlink.set_up(link.index)?;
            netlink.add_address(link.index, Cidr { address: IpAddr::V4(address), prefix: PREFIX }, true)
        })
    }

    /// Brings up the interface of container `c` of the first host, with its address.
    ///
    /// # Errors
    /// It has none, or the kernel refused.
    pub fn bring_up_container(&self, c: usize) -> Result<(), LabError> {
        let container = self.lab.container(1, c);
        inside(&container.netns, &format!("set up {}", container.name), |netlink| {
            let port = index(netlink, CONTAINER_IFNAME)?;
            netlink.set_up(port)?;
            netlink.add_address(port, Cidr { address: IpAddr::V4(container.v4), prefix: PREFIX }, true)
        })
    }

    /// Says that the containers of the first host reach each other.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn containers_reach_each_other(&mut self) -> Result<(), LabError> {
        let (one, two) = (self.lab.container(1, 1), self.lab.container(1, 2));
        self.local = Some(Route::new((&one.netns, one.v4), (&two.netns, two.v4))?);
        Ok(())
    }

    /// Asks the kernel on host `h`.
    ///
    /// # Errors
    /// It refused.
    pub fn netlink<T: Send>(
        &self,
        h: usize,
        job: impl FnOnce(&mut Netlink) -> Result<T, NetlinkError> + Send,
    ) -> Result<T, LabError> {
        inside(&self.host(h).netns, &format!("set up h{h}"), job)
    }

    /// Says that the hosts reach each other by their addresses on the overlay.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn hosts_reach_each_other(&mut self) -> Result<(), LabError> {
        let (near, far) = (self.host(1), self.host(2));
        self.across = Some(Route::new((&near.netns, Self::overlay(1)), (&far.netns, Self::overlay(2)))?);
        Ok(())
    }

    /// # Errors
    /// One of the programs ended; its last words are in the error.
    pub fn check(&mut self) -> Result<(), LabError> {
        self.programs.iter_mut().try_for_each(Started::check)
    }

    /// An error of the contender, with what its programs said last.
    pub fn last_words(&mut self, error: &LabError) -> String {
        let mut text = error.to_string();
        // An error of a daemon has its words already.
        if !matches!(error, LabError::Daemon { .. }) {
            for program in &mut self.programs {
                if let Err(ended) = program.check() {
                    text.push_str(&format!("; {ended}"));
                } else if let Some(words) = program.words() {
                    text.push_str(&format!("; {words}"));
                }
            }
        }
        text
    }

    /// User and system time of all daemons on both hosts so far; `None` where there are none: the kernel's work is in
    /// nobody's account.
    pub fn cpu_time(&self) -> Option<Duration> {
        let pids = self.pids();
        if pids.is_empty() { None } else { pids.into_iter().map(process::cpu_time).sum() }
    }

    /// The resident memory, in bytes, of the daemons of the host on which they have more.
    pub fn memory(&self) -> Option<u64> {
        self.pids().into_iter().filter_map(process::memory).max()
    }

    /// Packets of the underlay that a host had to fragment so far, IPv4 only; 0 when the kernel does not say.
    pub fn fragmented(&self) -> u64 {
        let of = |host: &Host| {
            let text = host.netns.run(|| fs::read_to_string("/proc/thread-self/net/snmp")).ok()?.ok()?;
            snmp(&text, "Ip:", "FragOKs")
        };
        self.lab.hosts().iter().filter_map(of).sum()
    }

    fn pids(&self) -> Vec<u32> {
        let daemons = self.lab.hosts().iter().filter_map(|host| Some(host.daemon()?.pid()));
        self.programs.iter().map(Started::pid).chain(daemons).collect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // All at once first, so that the ends overlap; each is waited for when it is dropped.
        self.programs.iter().for_each(Started::ask_to_end);
        self.programs.clear();
        for file in &self.litter {
            // Most programs remove their files themselves, and nothing depends on it.
            let _ = fs::remove_file(file);
        }
    }
}

/// A counter of `/proc/net/snmp`: of each group there is a line with names and one with values.
fn snmp(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_ascii_whitespace().position(|word| word == name)?;
    values.split_ascii_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::snmp;

    #[test]
    fn a_counter_of_snmp_is_found_by_its_name() {
        let text = "Ip: Forwarding FragOKs FragFails\nIp: 1 42 7\nUdp: InDatagrams\nUdp: 9\n";
        assert_eq!(snmp(text, "Ip:", "FragOKs"), Some(42));
        assert_eq!(snmp(text, "Udp:", "InDatagrams"), Some(9));
        assert_eq!(
            (snmp(text, "Ip:", "Lost"), snmp(text, "Tcp:", "FragOKs"), snmp("", "Ip:", "x")),
            (None, None, None)
        );
    }
}
