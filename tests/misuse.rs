//! What `weft attach`, `detach` and `up` refuse: each with one clear sentence and an exit code, and nothing half-made.

#![allow(clippy::unwrap_used)]

mod common;

use common::cli::{self, Said, weft};
use common::place::{self, Sleeper, inside, lab, path_of, spec};
use common::skip::skip;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use weft::control::request::{Attach, PortStatus, Request, Response};
use weft::io::netns::Netns;
use weft::lab::{Lab, process};

const BLUE: &str = r#"
[[network]]
name = "blue"
vni = 200
subnets = ["10.77.0.0/16", "fd77::/64"]
static = [{ mac = "02:00:00:00:77:01", port = "pinned" }]
[[network]]
name = "small"
vni = 300
mtu = 1000
[[port]]
name = "pinned"
network = "blue"
target = "netns:/no/such/namespace"
ip = ["10.77.0.9/16"]
"#;

fn socket(lab: &Lab) -> PathBuf {
    lab.host(1).files.socket()
}

/// All that an attach could leave behind: interfaces here and there, addresses there, ports.
fn traces(lab: &Lab, target: &Netns) -> (Vec<String>, Vec<String>, Vec<String>, Vec<String>) {
    let ports: Vec<PortStatus> = weft(&socket(lab), "ports --json").json();
    let ports = ports.iter().map(|p| format!("{} {} {:?} {:?}", p.name, p.state, p.mac, p.addresses)).collect();
    let addresses = inside(target, |netlink| netlink.all_addresses().unwrap());
    let addresses = addresses.iter().map(|address| format!("{address:?}")).collect();
    (place::links(&lab.host(1).netns), place::links(target), addresses, ports)
}

#[test]
fn what_is_refused_leaves_no_trace() {
    if !place::usable() {
        return;
    }
    let nowhere = "container_sockets = [\"/no/such/engine.sock\"]".to_owned();
    let lab = lab(weft::lab::spec::LabSpec { extra_config: BLUE.to_owned(), extra_node: nowhere, ..spec(1, 1) });
    let sleeper = Sleeper::new();
    let (netns, pid) = (sleeper.netns(), sleeper.pid());
    let dead = {
        let sleeper = Sleeper::new();
        let pid = sleeper.pid();
        sleeper.end();
        pid
    };
    let first = format!("attach pid:{pid} --network blue --ip 10.77.0.5/16 --ip fd77::5/64 --name first");
    weft(&socket(&lab), &first).done();
    inside(&netns, |netlink| netlink.add_bridge("br7").unwrap());
    let mac = weft(&socket(&lab), "ports --json").json::<Vec<PortStatus>>();
    let mac = mac.iter().find(|port| port.name == "first").unwrap().mac.unwrap();
    weft(&socket(&lab), &format!("attach pid:{pid} --network lab --ip 10.32.7.7/16 --ifname lab0")).done();

    let path = path_of(&netns);
    let other_way = format!("netns:{}", path.display());
    let before = traces(&lab, &netns);
    let refused = [
        // Once more, by the same words and by others for the same namespace.
        (format!("pid:{pid} --network blue"), vec!["'first'", "eth1", "choose another interface name"]),
        (format!("pid:{pid} --network lab --ifname lab0"), vec!["is the interface lab0 of", "already"]),
        (format!("{other_way} --network blue"), vec!["eth1 already exists in namespace", "--ifname"]),
        (format!("pid:{pid} --network blue --ifname br7"), vec!["br7 already exists", "a bridge", "--ifname"]),
        (format!("{other_way} --network blue --ifname lo"), vec!["lo already exists"]),
        (format!("pid:{dead} --network blue"), vec!["no process", "ended"]),
        ("pid:2147483647 --network blue".into(), vec!["no process 2147483647"]),
        ("netns:/etc/passwd --network blue".into(), vec!["/etc/passwd is not a network namespace"]),
        ("netns:/proc/self/ns/mnt --network blue".into(), vec!["is not a network namespace"]),
        ("netns:/no/such --network blue".into(), vec!["/no/such", "No such file"]),
        ("nobody --network blue".into(), vec!["nobody"]),
        (format!("pid:{pid} --network red --ifname x"), vec!["no network 'red'", "lab, blue, small"]),
        (format!("pid:{pid} --network blue --ifname x --name first"), vec!["a port 'first'", "choose another name"]),
        (format!("pid:{pid} --network blue --ifname x --name pinned"), vec!["a port 'pinned'"]),
        (format!("pid:{pid} --network blue --ifname x --ip 10.77.0.5/16"), vec!["'first'", "10.77.0.5 already"]),
        (format!("pid:{pid} --network blue --ifname x --ip fd77::5/64"), vec!["'first'", "fd77::5 already"]),
        (format!("pid:{pid} --network blue --ifname x --ip 10.77.0.9/16"), vec!["'pinned'", "10.77.0.9 already"]),
        (
            format!("pid:{pid} --network blue --ifname x --ip 10.78.0.5/16"),
            vec!["outside", "10.77.0.0/16 and fd77::/64"],
        ),
        (format!("pid:{pid} --network blue --ifname x --ip 10.77.0.0/16"), vec!["10.77.0.0"]),
        (format!("pid:{pid} --network blue --ifname x --ip 10.77.0.6/16 --ip 10.77.0.6/24"), vec!["twice"]),
        (
            format!("pid:{pid} --network blue --ifname x --ip 10.77.0.6/16@10.77.0.1 --ip 10.77.0.7/16@10.77.0.2"),
            vec!["two gateways"],
        ),
        // Not of this network, but on an interface of this namespace.
        (format!("pid:{pid} --network small --ifname x --ip 10.32.7.7/16"), vec!["10.32.7.7", "lab0", "--ip"]),
        (format!("pid:{pid} --network small --ifname x --ip fd01::1/64"), vec!["MTU of at least 1280", "'small'"]),
        (format!("pid:{pid} --network blue --ifname x --mac {mac}"), vec!["first", "choose another"]),
        (format!("pid:{pid} --network blue --ifname x --mac 02:00:00:00:77:01"), vec!["pinned elsewhere"]),
    ];
    for (arguments, parts) in refused {
        let said = weft(&socket(&lab), &format!("attach {arguments}")).refused();
        for part in parts {
            assert!(said.contains(part), "weft attach {arguments}: '{part}' is not in: {said}");
        }
        assert_eq!(traces(&lab, &netns), before, "weft attach {arguments}");
    }
    // The third port makes 'pid:N' ambiguous; the others are not there, or not ours to remove.
    for (arguments, parts) in [
        (format!("pid:{pid}"), vec!["has 2 ports", "first", "--ifname"]),
        ("nobody".to_owned(), vec!["no port 'nobody'", "weft ports"]),
        (format!("pid:{pid} --ifname eth9"), vec!["no port"]),
        ("pinned".to_owned(), vec!["configuration file", "weft reload"]),
        (other_way.clone(), vec!["no port"]),
    ] {
        let said = weft(&socket(&lab), &format!("detach {arguments}")).refused();
        for part in parts {
            assert!(said.contains(part), "weft detach {arguments}: '{part}' is not in: {said}");
        }
        assert_eq!(traces(&lab, &netns), before, "weft detach {arguments}");
    }
    for line in [
        format!("attach pid:{pid}"),
        format!("attach pid:{pid} --network blue --ifname a/b"),
        format!("attach pid:{pid} --network blue --ifname .."),
        format!("attach pid:{pid} --network blue --ifname sixteen-letters-"),
        format!("attach pid:{pid} --network blue --ifname x%d"),
        format!("attach pid:{pid} --network blue --ip 10.77.0.6"),
        format!("attach pid:{pid} --network blue --ip 10.77.0.6/33"),
        format!("attach pid:{pid} --network blue --ip 10.77.0.6/16@10.78.0.1"),
        format!("attach pid:{pid} --network blue --ip 10.77.0.6/16@fd77::1"),
        format!("attach pid:{pid} --network blue --mac 01:00:5e:00:00:01"),
        format!("attach pid:{pid} --network blue --mac 00:00:00:00:00:00"),
        format!("attach pid:{pid} --network blue --mac hello"),
        "attach pid:0 --network blue".to_owned(),
        "attach pid:-1 --network blue".to_owned(),
        "attach netns:relative --network blue".to_owned(),
        "attach ../../etc --network blue".to_owned(),
        "detach".to_owned(),
        "wait -i sixteen-letters-".to_owned(),
    ] {
        weft(&socket(&lab), &line).misused();
    }
    // What the command line would not let through is refused by the daemon as well.
    let request = |change: fn(&mut Attach)| {
        let mut attach = Attach { ifname: Some("x".to_owned()), ..attach_of(pid) };
        change(&mut attach);
        match lab.host(1).control(&Request::Attach(attach)).unwrap() {
            Response::Refused(reason) => reason,
            other => panic!("{other:?}"),
        }
    };
    for ifname in ["", ".", "a/b", "a b", "sixteen-letters-", "x%d", "a\0b", "é\n"] {
        let attach = Attach { ifname: Some(ifname.to_owned()), ..attach_of(pid) };
        let response = lab.host(1).control(&Request::Attach(attach)).unwrap();
        assert!(
            matches!(&response, Response::Refused(said) if said.contains("cannot name an interface")),
            "{response:?}"
        );
    }
    assert!(request(|attach| attach.name = Some("a b".to_owned())).contains("cannot name a port"));
    assert!(request(|attach| attach.mac = "01:00:00:00:00:01".parse().ok()).contains("MAC address"));
    assert!(request(|attach| attach.network = "\u{1b}[31m".to_owned()).contains("no network"));
    assert_eq!(traces(&lab, &netns), before);
}

fn attach_of(pid: u32) -> Attach {
    let target = format!("pid:{pid}").parse().unwrap();
    Attach::new(target, "blue")
}

/// A host whose daemon has not been started.
fn laid() -> Lab {
    Lab::lay(spec(1, 0)).unwrap()
}

/// The daemon of `lab`'s host, not started.
fn up(lab: &Lab) -> Command {
    let mut command = Command::new(cli::WEFT);
    command.arg("up").arg("-c").arg(lab.host(1).files.config());
    process::inside(&lab.host(1).netns, &mut command).unwrap();
    process::die_with_us(&mut command);
    command
}

fn cannot_start(lab: &Lab, mut command: Command) -> String {
    let said = cli::said("up", &command.output().unwrap());
    assert!(!socket(lab).exists() && place::links(&lab.host(1).netns) == ["eth0", "lo"]);
    Said { err: said.err.lines().filter(|line| !line.contains("INFO")).map(|l| format!("{l}\n")).collect(), ..said }
        .refused()
}

/// A minor number of major 10 that the kernel has given to nobody (devices.txt).
const NO_DRIVER: u32 = 239;

#[test]
fn without_the_tun_device_the_daemon_says_how_to_get_it() {
    if !place::usable() {
        return;
    }
    place::with_own_mounts(|| {
        let lab = laid();
        place::mount("none", Path::new("/dev/net"), "tmpfs", 0);
        let said = cannot_start(&lab, up(&lab));
        assert!(said.contains("there is no /dev/net/tun") && said.contains("modprobe tun"), "{said}");
        // A device that is there and has no driver behind it.
        place::device(Path::new("/dev/net/tun"), 10, NO_DRIVER);
        let said = cannot_start(&lab, up(&lab));
        assert!(said.contains("there is no /dev/net/tun") && said.contains("modprobe tun"), "{said}");
    });
}

/// Makes a program lack capabilities although it is root's.
fn without(command: &mut Command, capabilities: &'static [libc::c_ulong]) {
    let drop = move || {
        for &capability in capabilities {
            // SAFETY: prctl takes numbers here.
            if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and makes system calls only.
    unsafe { command.pre_exec(drop) };
}

const CAP_NET_ADMIN: libc::c_ulong = 12;
const CAP_SYS_ADMIN: libc::c_ulong = 21;

#[test]
fn without_privileges_the_daemon_says_which_it_needs() {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        skip!("only root can give up privileges");
    }
    if !place::usable() {
        return;
    }
    let lab = laid();
    // Root in a container that was given nothing.
    let mut command = up(&lab);
    without(&mut command, &[CAP_NET_ADMIN, CAP_SYS_ADMIN]);
    let said = cannot_start(&lab, command);
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    // An ordinary user, on a distribution where everybody may open the device.
    const NOBODY: u32 = 65534;
    let own = |path: &Path| chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    let files = &lab.host(1).files;
    let _ = std::fs::remove_dir_all(files.state());
    std::fs::create_dir(files.state()).unwrap();
    [&files.dir, &files.state(), &files.key()].into_iter().for_each(|path| own(path));
    for above in [lab.dir(), lab.dir().parent().unwrap()] {
        std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o711)).unwrap();
    }
    place::with_own_mounts(|| {
        let tun = lab.dir().join("tun");
        place::device(&tun, 10, 200);
        std::fs::set_permissions(&tun, std::fs::Permissions::from_mode(0o666)).unwrap();
        place::bind(&tun, Path::new("/dev/net/tun"));
        let mut command = up(&lab);
        // After the namespace was entered, which needs root.
        // SAFETY: the closure runs between fork and exec and makes system calls only.
        unsafe {
            command.pre_exec(|| {
                let dropped = libc::setgroups(0, std::ptr::null()) == 0
                    && libc::setgid(NOBODY) == 0
                    && libc::setuid(NOBODY) == 0;
                if dropped { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        let said = cannot_start(&lab, command);
        assert!(said.contains("run as root or with CAP_NET_ADMIN"), "{said}");
    });
}

#[test]
fn a_daemon_that_may_not_enter_namespaces_says_so_when_it_is_asked_to() {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        skip!("only root can give up privileges");
    }
    if !place::usable() {
        return;
    }
    let lab = laid();
    let mut command = up(&lab);
    without(&mut command, &[CAP_SYS_ADMIN]);
    let mut daemon = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    common::eventually("the daemon answers", || lab.host(1).control(&Request::Status).ok());
    let sleeper = Sleeper::new();
    let before = traces(&lab, &sleeper.netns());
    let said = weft(&socket(&lab), &format!("attach pid:{} --network lab", sleeper.pid())).refused();
    assert!(said.contains("CAP_SYS_ADMIN"), "{said}");
    assert_eq!(traces(&lab, &sleeper.netns()), before);
    process::end(&mut daemon, common::SOON).unwrap();
}
