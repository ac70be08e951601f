//! weft as Docker's network and IPAM driver, driven by real dockerds: two of them, each on a host of a lab with a weft daemon of its
//! own, started, stopped, killed and started again.
//!
//! Docker looks for its drivers in `/run/docker/plugins` and nowhere else, so each dockerd has a mount namespace of its own, with a
//! `/run/docker` that is another directory of the test's.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::cli::weft;
use common::place::{self, spec};
use common::skip::skip;
use common::{SOON, eventually};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};
use weft::control::request::{LeaseStatus, NameStatus, PortStatus};
use weft::io::netns::Netns;
use weft::lab::ping::Pinger;
use weft::lab::spec::LabSpec;
use weft::lab::{Lab, Stop, process};

const IMAGE: &str = "box";
/// What a container that has nothing to do does: it ends by itself should the test be killed.
const IDLE: [&str; 2] = ["/bin/sleep", "900"];
/// The weft networks, and who gives which addresses of them; HOST is the host's number.
const CONFIG: &str = r#"
[docker]
enabled = true
socket = "/run/docker-of-hHOST/run/plugins/weft.sock"
engine = "/run/docker-of-hHOST/docker.sock"

[[network]]
name = "blue"
vni = 300
subnets = ["10.99.0.0/16", "fd00:99::/64"]
slice = ["10.99.HOST.0/24", "fd00:99::HOST:0/112"]

[[network]]
name = "red"
vni = 301
mtu = 1400
subnets = ["10.98.0.0/16"]
slice = ["10.98.HOST.0/24"]
"#;
/// Both ways to name a network; Docker wants to hear the subnet from whoever wants to say `--ip`.
const BLUE: &str = "network create -d weft --ipam-driver weft --subnet 10.99.0.0/16 -o network=blue";
const ANY_BLUE: &str = "network create -d weft --ipam-driver weft --ipam-opt network=blue -o network=blue";

/// Why dockerd cannot be tried here.
fn missing() -> Option<String> {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("container engines need root".to_owned());
    }
    if busybox().is_none() {
        return Some("there is no busybox (package busybox-static)".to_owned());
    }
    let have = |program: &&str| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    ["dockerd", "docker", "tar"]
        .iter()
        .find(|program| !have(program))
        .map(|program| format!("{program} is not installed"))
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists())
}

/// The image as a tar archive.
fn image() -> PathBuf {
    let (root, archive) = (Path::new("/run/root"), PathBuf::from("/run/image.tar"));
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy(busybox().unwrap(), root.join("bin/busybox")).unwrap();
    let programs = ["sh", "sleep", "ping", "nc", "ip", "cat"];
    programs.iter().for_each(|name| symlink("busybox", root.join("bin").join(name)).unwrap());
    let tar = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg(".").status().unwrap();
    assert!(tar.success());
    archive
}

fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.trim().to_owned()
}

/// A dockerd on a host of the lab. Dropping it ends its containers and it.
struct Docker {
    h: usize,
    dir: PathBuf,
    /// Holds the mount namespace, in which dockerd keeps its containers' network namespaces when it is killed.
    keeper: Child,
    daemon: Child,
}

impl Docker {
    /// Starts it, or says why this machine does not let it run.
    fn start(lab: &Lab, h: usize, image: &Path, arguments: &[&str]) -> Result<Self, String> {
        let dir = PathBuf::from(format!("/run/docker-of-h{h}"));
        fs::create_dir_all(dir.join("run")).unwrap();
        fs::create_dir_all("/run/docker").unwrap();
        let mut keeper = Command::new("sleep");
        keeper.arg("3600");
        process::die_with_us(&mut keeper);
        // SAFETY: between fork and exec it makes system calls only, on strings that were made before.
        unsafe { keeper.pre_exec(own_mounts(&dir.join("run"))) };
        let keeper = keeper.spawn().unwrap();
        let daemon = Self::spawn(lab, h, &dir, &keeper, arguments);
        let mut docker = Self { h, dir, keeper, daemon };
        docker.wait()?;
        text(&docker.command(&["import", image.to_str().unwrap(), IMAGE]).output().unwrap());
        Ok(docker)
    }

    fn spawn(lab: &Lab, h: usize, dir: &Path, keeper: &Child, arguments: &[&str]) -> Child {
        let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let mut command = Command::new("dockerd");
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--log-level=warn"]).args(arguments);
        command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
        command.arg("-H").arg(format!("unix://{}", dir.join("docker.sock").display()));
        command.arg("--pidfile").arg(dir.join("pid")).stdout(log.try_clone().unwrap()).stderr(log);
        process::inside(&lab.host(h).netns, &mut command).unwrap();
        process::die_with_us(&mut command);
        let mounts = fs::File::open(format!("/proc/{}/ns/mnt", keeper.id())).unwrap();
        let enter = move || {
            // SAFETY: setns takes no pointer; the descriptor is open as long as the closure lives.
            let code = unsafe { libc::setns(mounts.as_raw_fd(), libc::CLONE_NEWNS) };
            if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: between fork and exec it makes one system call.
        unsafe { command.pre_exec(enter) };
        command.spawn().unwrap()
    }

    fn wait(&mut self) -> Result<(), String> {
        let up = eventually("dockerd is up or has ended", || {
            let ended = self.daemon.try_wait().unwrap().is_some();
            let answers = self.command(&["version"]).output().unwrap().status.success();
            (ended || answers).then_some(answers)
        });
        let log = || fs::read_to_string(self.dir.join("log")).unwrap();
        if up { Ok(()) } else { Err(format!("dockerd does not run here: {}", log())) }
    }

    fn kill(&mut self) {
        process::signal(&self.daemon, libc::SIGKILL);
        self.daemon.wait().unwrap();
        // Its containerd is killed with it; one that is dying would be taken for one that runs.
        let file = self.dir.join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(&file).unwrap();
        eventually("containerd has ended", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            let state = stat.rsplit(") ").next().unwrap_or_default();
            (state.is_empty() || state.starts_with(['Z', 'X'])).then_some(())
        });
        for left in [file, self.dir.join("pid")] {
            fs::remove_file(left).unwrap();
        }
    }

    fn stop(&mut self) {
        process::signal(&self.daemon, libc::SIGTERM);
        self.daemon.wait().unwrap();
    }

    fn start_again(&mut self, lab: &Lab, arguments: &[&str]) {
        self.daemon = Self::spawn(lab, self.h, &self.dir, &self.keeper, arguments);
        self.wait().unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.dir.join("docker.sock").display())).args(arguments);
        command
    }

    /// `docker LINE`; arguments are separated by blanks.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        let output = self.command(&line.split_whitespace().collect::<Vec<_>>()).output().unwrap();
        let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {line}: {all}\n{}", process::last_words(&self.dir.join("log"), 20));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[track_caller]
    fn refused(&self, line: &str) -> String {
        let output = self.command(&line.split_whitespace().collect::<Vec<_>>()).output().unwrap();
        assert!(!output.status.success(), "docker {line} worked");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Starts a container that does nothing, with these options.
    #[track_caller]
    fn container(&self, name: &str, options: &str) {
        self.run(&format!("run -d --stop-signal KILL --name {name} {options} {IMAGE} {} {}", IDLE[0], IDLE[1]));
    }

    /// As [`Docker::container`] with a MAC address, which command lines later than this Docker cannot ask it for.
    fn container_with_mac(&self, name: &str, mac: &str, network: &str, v4: &str, v6: &str) {
        let addresses = json!({ "IPv4Address": v4, "IPv6Address": v6 });
        let body = json!({
            "Image": IMAGE, "Cmd": IDLE, "MacAddress": mac, "HostConfig": { "NetworkMode": network },
            "NetworkingConfig": { "EndpointsConfig": { network: { "IPAMConfig": addresses } } },
        });
        let body = body.to_string();
        let mut stream = UnixStream::connect(self.dir.join("docker.sock")).unwrap();
        let head =
            format!("POST /v1.41/containers/create?name={name} HTTP/1.0\r\nContent-Type: application/json\r\n");
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 201 "), "{answer}");
        self.run(&format!("start {name}"));
    }

    fn netns(&self, name: &str) -> Netns {
        Netns::of_pid(self.run(&format!("inspect -f {{{{.State.Pid}}}} {name}")).parse().unwrap()).unwrap()
    }

    /// A container's address in one of Docker's networks, as Docker has it.
    fn address(&self, name: &str, network: &str) -> IpAddr {
        let format = "{{json .NetworkSettings.Networks}}";
        let networks = text(&self.command(&["inspect", "-f", format, name]).output().unwrap());
        let networks: Value = serde_json::from_str(&networks).unwrap();
        networks[network]["IPAddress"].as_str().unwrap().parse().unwrap()
    }
}

/// Between fork and exec: `/run/docker` becomes another directory, for this process and those it starts.
fn own_mounts(run: &Path) -> impl FnMut() -> io::Result<()> + Send + Sync + use<> {
    let c = |text: &str| std::ffi::CString::new(text).unwrap();
    let (none, root, from, to) = (c("none"), c("/"), c(run.to_str().unwrap()), c("/run/docker"));
    move || {
        let checked = |code: i32| if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        // SAFETY: unshare takes no pointer.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        let (private, null) = (libc::MS_REC | libc::MS_PRIVATE, std::ptr::null::<libc::c_char>());
        // SAFETY: all are C strings that live as long as this closure, or null where mount(2) ignores them.
        checked(unsafe { libc::mount(none.as_ptr(), root.as_ptr(), null, private, null.cast()) })?;
        // SAFETY: as above.
        checked(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), null, libc::MS_BIND, null.cast()) })
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Ok(output) = self.command(&["ps", "-aq"]).output() {
            let ids = String::from_utf8_lossy(&output.stdout).into_owned();
            let ids: Vec<&str> = ids.split_whitespace().collect();
            if !ids.is_empty() {
                let _ = self.command(&["rm", "-f"]).args(ids).output();
            }
        }
        let _ = process::end(&mut self.daemon, SOON);
        let _ = process::end(&mut self.keeper, SOON);
        if std::thread::panicking() {
            println!("--- dockerd of h{}:\n{}", self.h, process::last_words(&self.dir.join("log"), 60));
        }
    }
}

/// Two hosts with a weft each, and a dockerd each.
struct World {
    one: Docker,
    two: Docker,
    lab: Lab,
}

impl World {
    fn new(image: &Path, arguments: &[&str]) -> Result<Self, String> {
        let mut lab = Lab::lay(LabSpec { extra_config: CONFIG.to_owned(), ..spec(2, 0) }).unwrap();
        for (host, number) in lab.hosts().iter().zip(1..) {
            let text = fs::read_to_string(host.files.config()).unwrap();
            fs::write(host.files.config(), text.replace("HOST", &number.to_string())).unwrap();
        }
        lab.start_daemons(&Stop::default()).unwrap();
        let (one, two) = (Docker::start(&lab, 1, image, arguments)?, Docker::start(&lab, 2, image, arguments)?);
        Ok(Self { one, two, lab })
    }

    fn ports(&self, h: usize) -> Vec<PortStatus> {
        weft(&self.lab.host(h).files.socket(), "ports --json").json()
    }

    fn leases(&self, h: usize) -> Vec<LeaseStatus> {
        let name = self.lab.host(h).name.clone();
        let leases: Vec<LeaseStatus> = weft(&self.lab.host(h).files.socket(), "leases --json").json();
        leases.into_iter().filter(|lease| lease.member == name).collect()
    }

    /// Nothing of Docker is left on either host.
    #[track_caller]
    fn clean(&self) {
        for h in [1, 2] {
            let left = || {
                let mut left: Vec<String> = self.ports(h).into_iter().map(|port| port.name).collect();
                left.extend(self.leases(h).into_iter().map(|lease| format!("{lease:?}")));
                left.extend(place::links(&self.lab.host(h).netns).into_iter().filter(|name| name.starts_with("wd")));
                left
            };
            let deadline = Instant::now() + SOON;
            while !left().is_empty() {
                assert!(Instant::now() < deadline, "left on h{h}: {:?}", left());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    fn restart_weft(&mut self, h: usize, signal: i32) {
        self.lab.kill_daemon(h, signal).unwrap();
        self.lab.start_daemon(h, &Stop::default()).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in self.lab.hosts() {
                println!("--- weft of {}:\n{}", host.name, process::last_words(&host.files.log(), 40));
            }
        }
    }
}

fn ping(from: &Netns, to: IpAddr) {
    Pinger::open(from, to, None).unwrap().until(56, SOON).unwrap();
}

fn with_docker(arguments: &[&str], test: impl FnOnce(World) + Send) {
    if let Some(why) = missing() {
        skip!("{why}");
    }
    if !place::usable() {
        return;
    }
    let mut outcome = Ok(());
    place::with_own_mounts(|| {
        place::mount("none", Path::new("/run"), "tmpfs", 0);
        outcome = World::new(&image(), arguments).map(test);
    });
    if let Err(why) = outcome {
        skip!("{why}");
    }
}

#[test]
fn containers_of_two_dockers_share_a_network() {
    with_docker(&[], |world| {
        let (one, two) = (&world.one, &world.two);
        // What is wrong is said so.
        for (line, part) in [
            ("network create -d weft --ipam-driver weft --ipam-opt network=blue lan", "-o network=NAME"),
            (
                "network create -d weft --ipam-driver weft --ipam-opt network=blue -o network=bleu lan",
                "no network 'bleu'",
            ),
            ("network create -d weft --ipam-driver weft -o network=blue lan", "--ipam-opt network=NAME"),
            ("network create -d weft --ipam-driver weft --ipam-opt net=blue -o network=blue lan", "'net'"),
            (
                "network create -d weft --ipam-driver weft --ipam-opt network=blue -o network=blue -o icc=false lan",
                "'icc'",
            ),
            ("network create -d weft --ipam-driver weft --subnet 10.1.0.0/16 -o network=blue lan", "no subnet"),
        ] {
            let said = one.refused(line);
            assert!(said.contains(part), "'{part}' is not in: {said}");
        }
        one.run(&format!("{BLUE} lan"));
        two.run("network create -d weft --ipam-driver weft --ipv6 --subnet 10.99.0.0/16 --subnet fd00:99::/64 -o network=blue other");
        one.container("web", "--network lan");
        two.container_with_mac("db", "02:00:00:00:77:77", "other", "10.99.7.7", "fd00:99::7:7");
        assert!(one.address("web", "lan").to_string().starts_with("10.99.1."), "not of this host's slice");
        assert!(one.run("exec web /bin/ping -c 1 -w 20 10.99.7.7").contains("1 packets received"));
        ping(&two.netns("db"), one.address("web", "lan"));
        // The name is Docker's, the MAC address ours to see, and docker_gwbridge leads out.
        assert_eq!(place::links(&one.netns("web")), ["eth0", "eth1", "lo"]);
        let db = eventually("the port is where Docker moved it", || {
            world.ports(2).into_iter().find(|port| port.ifname == "eth0")
        });
        assert_eq!((db.mac.unwrap().to_string().as_str(), db.origin.as_str()), ("02:00:00:00:77:77", "docker"));
        assert_eq!(place::link(&two.netns("db"), "eth0").unwrap().mac, db.mac);
        // An address is one container's in all of the mesh.
        let said = one.refused(&format!("run --rm --network lan --ip 10.99.7.7 {IMAGE} /bin/sleep 1"));
        assert!(said.contains("h2"), "{said}");
        let said = two.refused(&format!("run --rm --network other --ip 10.99.7.7 {IMAGE} /bin/sleep 1"));
        assert!(said.contains("a running container"), "{said}");

        // Another network, while it runs; with an MTU of its own, and nothing leads out of it.
        one.run("network create -d weft --ipam-driver weft --subnet 10.98.0.0/16 -o network=red -o mtu=1300 --internal back");
        two.run("network create -d weft --ipam-driver weft --subnet 10.98.0.0/16 -o network=red --internal back");
        one.run("network connect --ip 10.98.7.1 back web");
        two.run("network connect back db");
        ping(&one.netns("web"), two.address("db", "back"));
        assert_eq!(world.ports(1).len(), 2);
        let mtu = |docker: &Docker, ifname: &str| place::link(&docker.netns("web"), ifname).unwrap().mtu;
        assert_eq!((mtu(one, "eth0"), mtu(one, "eth2")), (1500, 1300));
        one.container("inner", "--network back");
        assert_eq!(place::links(&one.netns("inner")), ["eth0", "lo"], "it has a way out");
        one.run("network disconnect back web");
        assert_eq!(place::links(&one.netns("web")), ["eth0", "eth1", "lo"]);
        one.run("network connect --ip 10.98.7.1 back web");
        ping(&two.netns("db"), "10.98.7.1".parse().unwrap());

        // What containers are called is known on the other host, and answered there by the network itself.
        one.container("mail", "--network lan --network-alias smtp --hostname mx");
        two.container("client", "--network other --dns 10.99.0.1 --link db:database");
        let names = |h: usize, whose: &str| -> Vec<String> {
            let names: Vec<NameStatus> = weft(&world.lab.host(h).files.socket(), "names --json").json();
            names
                .into_iter()
                .filter(|name| name.network == "blue" && name.member == whose)
                .map(|name| name.name)
                .collect()
        };
        eventually("names are known on the other host", || {
            let (of_one, of_two) = (names(2, "h1"), names(1, "h2"));
            let all = ["web", "mail", "smtp", "mx"].iter().all(|name| of_one.iter().any(|known| known == name));
            (all && ["db", "database"].iter().all(|name| of_two.iter().any(|known| known == name))).then_some(())
        });
        let said = two.run("exec client /bin/ping -c 1 -w 20 smtp.blue.weft.");
        assert!(said.contains("1 packets received"), "{said}");
        one.run("rename mail post");
        eventually("the new name is known", || names(2, "h1").contains(&"post".to_owned()).then_some(()));
        one.run("rm -f post");
        two.run("rm -f client");
        eventually("names of what is gone are gone", || {
            let gone = |name: &str| !names(2, "h1").iter().any(|known| known == name);
            (gone("post") && gone("smtp") && !names(1, "h2").contains(&"database".to_owned())).then_some(())
        });

        // Published by docker_gwbridge.
        let serve = "while true; do echo hello | nc -l -p 80; done";
        let line =
            ["run", "-d", "--name", "front", "--network", "lan", "-p", "8080:80", IMAGE, "/bin/sh", "-c", serve];
        text(&one.command(&line).output().unwrap());
        let port = world.lab.host(1).netns.run(|| {
            eventually("the published port answers", || {
                let mut stream = TcpStream::connect("127.0.0.1:8080").ok()?;
                let mut said = String::new();
                stream.read_to_string(&mut said).ok()?;
                (said == "hello\n").then_some(())
            });
        });
        port.unwrap();

        for (docker, names) in [(one, "web inner front"), (two, "db")] {
            docker.run(&format!("rm -f {names}"));
        }
        one.run("network rm lan back");
        two.run("network rm other back");
        world.clean();
    });
}

#[test]
fn restarts_and_kills_leave_nothing_behind_and_cut_nothing_that_lives() {
    with_docker(&[], |mut world| {
        for docker in [&world.one, &world.two] {
            docker.run(&format!("{BLUE} lan"));
        }
        world.one.container("web", "--network lan --ip 10.99.7.1 --restart always");
        world.two.container("db", "--network lan --ip 10.99.7.2");
        let (web, db): (IpAddr, IpAddr) = ("10.99.7.1".parse().unwrap(), "10.99.7.2".parse().unwrap());
        ping(&world.two.netns("db"), web);

        // weft is stopped, then killed: running containers stay as they are, also one that it had no time to look at.
        for signal in [libc::SIGTERM, libc::SIGKILL] {
            world.two.container("fresh", "--network lan --ip 10.99.7.3");
            world.restart_weft(2, signal);
            ping(&world.two.netns("db"), web);
            ping(&world.one.netns("web"), "10.99.7.3".parse().unwrap());
            world.two.run("rm -f fresh");
            assert_eq!(world.ports(2).len(), 1);
        }
        // What has gone while weft was away is found out, and free.
        world.two.container("fresh", "--network lan --ip 10.99.7.3");
        world.lab.kill_daemon(2, libc::SIGKILL).unwrap();
        let id = world.two.run("inspect -f {{.State.Pid}} fresh");
        // SAFETY: a signal to a process that this test started.
        unsafe { libc::kill(id.parse().unwrap(), libc::SIGKILL) };
        world.lab.start_daemon(2, &Stop::default()).unwrap();
        eventually("the address is free again", || {
            let _ = world.two.command(&["rm", "-f", "fresh"]).output();
            let line = format!("run -d --name fresh --network lan --ip 10.99.7.3 {IMAGE} /bin/sleep 900");
            let arguments: Vec<&str> = line.split_whitespace().collect();
            world.two.command(&arguments).output().unwrap().status.success().then_some(())
        });
        ping(&world.one.netns("web"), "10.99.7.3".parse().unwrap());

        // dockerd is stopped and started, then killed and started: the container comes back with its address, each time.
        for kill in [false, true, true] {
            if kill {
                world.one.kill();
            } else {
                world.one.stop();
            }
            world.one.start_again(&world.lab, &[]);
            eventually("the container runs again", || {
                let output = world.one.command(&["inspect", "-f", "{{.State.Running}}", "web"]).output().unwrap();
                (String::from_utf8_lossy(&output.stdout).trim() == "true").then_some(())
            });
            assert_eq!(world.one.address("web", "lan"), web);
            ping(&world.two.netns("db"), web);
            eventually("one port is left", || (world.ports(1).len() == 1).then_some(()));
        }

        // Killed, and its container with it, while its address is asked for again as soon as it is back.
        let pid = world.two.run("inspect -f {{.State.Pid}} db");
        world.two.kill();
        // SAFETY: as above.
        unsafe { libc::kill(pid.parse().unwrap(), libc::SIGKILL) };
        world.two.start_again(&world.lab, &[]);
        world.two.container("db2", "--network lan --ip 10.99.7.2");
        ping(&world.one.netns("web"), db);

        // From one host to the other, with its address: at once.
        let watcher = world.two.netns("db2");
        for _ in 0..3 {
            world.one.run("rm -f web");
            world.two.container("web", "--network lan --ip 10.99.7.1");
            ping(&watcher, web);
            world.two.run("rm -f web");
            world.one.container("web", "--network lan --ip 10.99.7.1");
            ping(&watcher, web);
        }
        world.one.run("rm -f web");
        world.two.run("rm -f db db2 fresh");
        for docker in [&world.one, &world.two] {
            docker.run("network rm lan");
        }
        world.clean();
    });
}

#[test]
fn containers_outlive_a_docker_with_live_restore() {
    with_docker(&["--live-restore"], |mut world| {
        for docker in [&world.one, &world.two] {
            docker.run(&format!("{BLUE} lan"));
        }
        world.one.container("web", "--network lan --ip 10.99.7.1");
        world.two.container("db", "--network lan --ip 10.99.7.2");
        let (web, netns) = ("10.99.7.1".parse().unwrap(), world.one.netns("web"));
        for kill in [false, true] {
            if kill {
                world.one.kill();
            } else {
                world.one.stop();
            }
            ping(&world.two.netns("db"), web);
            world.restart_weft(1, libc::SIGKILL);
            ping(&world.two.netns("db"), web);
            world.one.start_again(&world.lab, &["--live-restore"]);
            assert_eq!(world.one.netns("web").id(), netns.id());
            ping(&world.two.netns("db"), web);
            let said = world.one.refused(&format!("run --rm --network lan --ip 10.99.7.1 {IMAGE} /bin/sleep 1"));
            assert!(said.contains("a running container"), "{said}");
        }
        drop(netns);
        for (docker, name) in [(&world.one, "web"), (&world.two, "db")] {
            docker.run(&format!("rm -f {name}"));
            docker.run("network rm lan");
        }
        world.clean();
    });
}

#[test]
fn twenty_containers_start_at_once() {
    with_docker(&[], |world| {
        for docker in [&world.one, &world.two] {
            docker.run(&format!("{ANY_BLUE} lan"));
        }
        std::thread::scope(|scope| {
            for docker in [&world.one, &world.two] {
                for n in 0..10 {
                    scope.spawn(move || docker.container(&format!("c{n}"), "--network lan"));
                }
            }
        });
        let mut addresses = Vec::new();
        for docker in [&world.one, &world.two] {
            addresses.extend((0..10).map(|n| docker.address(&format!("c{n}"), "lan")));
        }
        let from = world.one.netns("c0");
        addresses.iter().skip(1).for_each(|&address| ping(&from, address));
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 20);
        let names: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
        for docker in [&world.one, &world.two] {
            docker.run(&format!("rm -f {}", names.join(" ")));
            docker.run("network rm lan");
        }
        world.clean();
    });
}
