//! The daemon as its operator meets it: what it shows, who may ask it and how badly, its key, its start beside another
//! and its end. What a reload does is in `reload.rs`.

#![allow(clippy::unwrap_used)]

mod common;

use common::cli::{self, Said, weft};
use common::place::{self, Sleeper, lab, link, spec};
use common::{SOON, eventually, repeat_during};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use weft::control::request::{FdbEntry, NetworkStatus, PeerStatus, PortStatus, Request, Response, Status};
use weft::lab::ping::Pinger;
use weft::lab::{Lab, Stop, process};

fn socket(lab: &Lab, h: usize) -> PathBuf {
    lab.host(h).files.socket()
}

fn ask(lab: &Lab, request: &Request) -> Response {
    lab.host(1).control(request).unwrap()
}

/// The rows of a table, each as its cells up to the `n`th.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .skip(1)
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect()
}

#[test]
fn what_the_tables_show_is_what_the_json_says_and_the_daemon_knows() {
    if !place::usable() {
        return;
    }
    let lab = lab(spec(2, 1));
    let socket = socket(&lab, 1);
    lab.container(1, 1).ping(lab.container(2, 1).v4.into(), 56, SOON).unwrap();

    let status: Status = weft(&socket, "status --json").json();
    let Response::Status(known) = ask(&lab, &Request::Status) else { panic!("another answer") };
    assert_eq!(
        Status { uptime_s: known.uptime_s, traffic: known.traffic, drops: known.drops.clone(), ..status },
        *known
    );
    assert_eq!((known.name.as_str(), known.networks, known.ports, known.peers, known.peers_up), ("h1", 1, 1, 1, 1));
    assert_eq!((known.public_key, known.listen_port), (lab.host(1).public_key, 51820));
    assert_eq!(known.pid, lab.host(1).daemon().unwrap().pid());
    let text = weft(&socket, "status").done();
    for part in
        [&known.public_key.to_string(), &known.config_file, "1, 1 of them up", &known.tunnel_address.to_string()]
    {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }

    let peers: Vec<PeerStatus> = weft(&socket, "peers --json").json();
    assert_eq!(peers.len(), 1);
    let peer = &peers[0];
    assert_eq!((peer.name.as_str(), peer.public_key, peer.state.as_str()), ("h2", lab.host(2).public_key, "up"));
    assert_eq!(peer.endpoint, Some((lab.host(2).v4, 51820).into()));
    assert_eq!((peer.weft, peer.networks.clone()), (true, Some(vec!["lab".to_owned()])));
    let text = weft(&socket, "peers").done();
    let row = &rows(&text)[0];
    assert_eq!(row[..4], ["h2", "up", "192.0.2.2:51820", &peer.tunnel_address.to_string()]);

    let ports: Vec<PortStatus> = weft(&socket, "ports --json").json();
    let made = link(&lab.container(1, 1).netns, "eth1").unwrap();
    assert_eq!((ports[0].name.as_str(), ports[0].mac), ("c1", made.mac));
    let text = weft(&socket, "ports").done();
    let row = &rows(&text)[0];
    assert_eq!(row[..3], ["c1", "lab", "up"]);
    assert_eq!(row[5..7], [made.mac.unwrap().to_string(), "10.32.1.1/16,fd00:32::1:1/64".to_owned()]);

    let networks: Vec<NetworkStatus> = weft(&socket, "networks --json").json();
    assert_eq!((networks[0].name.as_str(), networks[0].vni, networks[0].mtu), ("lab", 100, 1500));
    assert_eq!((&networks[0].ports, &networks[0].peers), (&vec!["c1".to_owned()], &vec!["h2".to_owned()]));
    assert!(rows(&weft(&socket, "networks").done())[0].starts_with(&["lab", "100"]));

    let far = link(&lab.container(2, 1).netns, "eth1").unwrap().mac.unwrap();
    let learned = eventually("the far station is known", || {
        let entries: Vec<FdbEntry> = weft(&socket, "fdb --json").json();
        entries.iter().any(|entry| entry.mac == far).then_some(entries)
    });
    let of = |mac| learned.iter().find(|entry| Some(entry.mac) == mac).unwrap();
    assert_eq!(
        (of(made.mac).at.as_str(), of(made.mac).kind.as_str(), of(made.mac).age_s),
        ("port c1", "static", None)
    );
    assert_eq!((of(Some(far)).at.as_str(), of(Some(far)).network.as_str()), ("peer h2", "lab"));
    let text = weft(&socket, "fdb --network lab").done();
    assert_eq!(rows(&text).len(), learned.len());
    assert!(rows(&text).iter().any(|row| row[..3] == ["lab", &far.to_string(), "peer h2"]), "{text}");
    assert!(weft(&socket, "fdb --network red").refused().contains("no network 'red'"));
}

/// Sends bytes as they are and gives back the daemon's answer.
fn shout(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    // It may hang up before it has heard everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn whatever_comes_to_the_socket_disturbs_nobody() {
    if !place::usable() {
        return;
    }
    let lab = lab(spec(2, 1));
    let socket = socket(&lab, 1);
    let metadata = fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let pid = weft(&socket, "status --json").json::<Status>().pid;

    let to = lab.container(2, 1).v4.into();
    lab.container(1, 1).ping(to, 56, SOON).unwrap();
    // A stream through the daemon that must not lose anything meanwhile.
    let mut pinger = Pinger::open(&lab.container(1, 1).netns, to, None).unwrap();
    let stream = || {
        pinger.once(56, SOON).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    };
    let pings = repeat_during(stream, || {
        let deep = "[".repeat(60_000) + "\n";
        for (bytes, part) in [
            (&b""[..], "not a request"),
            (b"\n", "not a request"),
            (b"hello\n", "not a request"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not a request"),
            (b"\xff\xfe\x00\x01\n", "not a request"),
            (b"{\"request\":\"fly\"}\n", "not a request"),
            (b"{\"request\":\"attach\",\"target\":\"pid:0\",\"network\":\"lab\"}\n", "pid:0"),
            (deep.as_bytes(), "not a request"),
            // Cut off in the middle, yet whole: the line's end may be missing.
            (b"{\"request\":\"networks\"}", "\"lab\""),
        ] {
            let answer = shout(&socket, bytes);
            assert!(answer.contains(part) && answer.ends_with('\n'), "{bytes:?}: {answer}");
        }
        assert!(shout(&socket, &vec![b'x'; 1 << 20]).contains("at most 65536 bytes"));

        // More callers than are served at once that say nothing, one that drips, some that are gone at once: whoever
        // asks properly waits at worst until the daemon has lost patience with them.
        let silent: Vec<_> = (0..40).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        let mut slow = UnixStream::connect(&socket).unwrap();
        let drip = std::thread::spawn(move || {
            while slow.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        (0..40).for_each(|_| drop(UnixStream::connect(&socket).unwrap()));
        weft(&socket, "status").done();
        drip.join().unwrap();
        drop(silent);

        // Many at once that all ask properly.
        let children: Vec<_> = (0..100)
            .map(|_| {
                cli::command(&socket, "ports --json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in children {
            let ports: Vec<PortStatus> = cli::said("ports --json", &child.wait_with_output().unwrap()).json();
            assert_eq!(ports.len(), 1);
        }
        let sleepers: Vec<_> = (0..10).map(|_| Sleeper::new()).collect();
        let line = |sleeper: &Sleeper| format!("attach pid:{} --network lab", sleeper.pid());
        let attach = |sleeper| cli::command(&socket, &line(sleeper)).stdout(Stdio::null()).spawn().unwrap();
        let attached: Vec<_> = sleepers.iter().map(attach).collect();
        attached.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
        assert!(sleepers.iter().all(|sleeper| link(&sleeper.netns(), "eth1").is_some_and(|link| link.carrier)));
    });
    assert!(pings > 100, "{pings}");
    assert_eq!(weft(&socket, "status --json").json::<Status>().pid, pid);
}

/// `weft up` on host 1 with this file, not started.
fn up(lab: &Lab, config: &Path) -> Command {
    let mut command = Command::new(cli::WEFT);
    command.arg("up").arg("-c").arg(config);
    process::inside(&lab.host(1).netns, &mut command).unwrap();
    process::die_with_us(&mut command);
    command
}

fn cannot_start(lab: &Lab, config: &Path) -> String {
    let said = cli::said("up", &up(lab, config).output().unwrap());
    let told = said.err.lines().filter(|line| !line.contains(" INFO ")).map(|line| format!("{line}\n")).collect();
    Said { err: told, ..said }.refused()
}

#[test]
fn the_first_start_makes_a_key_that_only_its_owner_can_read() {
    if !place::usable() {
        return;
    }
    let mut lab = Lab::lay(spec(1, 0)).unwrap();
    let files = lab.host(1).files.clone();
    fs::remove_file(files.key()).unwrap();
    lab.start_daemon(1, &Stop::default()).unwrap();
    assert_eq!(fs::metadata(files.key()).unwrap().permissions().mode() & 0o7777, 0o600);
    let key = weft(&files.socket(), "status --json").json::<Status>().public_key;
    assert_eq!(weft(&files.socket(), &format!("key show {}", files.key().display())).done(), format!("{key}\n"));
    assert!(fs::read_to_string(files.log()).unwrap().contains(&format!("our public key is {key}")));
    lab.kill_daemon(1, libc::SIGTERM).unwrap();
    lab.start_daemon(1, &Stop::default()).unwrap();
    assert_eq!(weft(&files.socket(), "status --json").json::<Status>().public_key, key);
    lab.kill_daemon(1, libc::SIGTERM).unwrap();

    fs::set_permissions(files.key(), fs::Permissions::from_mode(0o640)).unwrap();
    let said = cannot_start(&lab, &files.config());
    let path = files.key().display().to_string();
    assert!(said.contains(&path) && said.contains("mode 0640") && said.contains("chmod 600"), "{said}");
    fs::set_permissions(files.key(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(files.key(), "hello\n").unwrap();
    let said = cannot_start(&lab, &files.config());
    assert!(said.contains(&path) && said.contains("no WireGuard private key"), "{said}");
    assert!(!files.socket().exists());
}

#[test]
fn a_second_daemon_is_refused_and_the_first_is_not_disturbed() {
    if !place::usable() {
        return;
    }
    let lab = lab(spec(2, 1));
    let files = &lab.host(1).files;
    let text = fs::read_to_string(files.config()).unwrap();
    let first = weft(&files.socket(), "status --json").json::<Status>();
    let (state, control) = (files.state().display().to_string(), files.socket().display().to_string());
    let (other_state, other_control) = (format!("{state}2"), format!("{control}2"));
    let other_port = ("listen_port = 51820", "listen_port = 51821");
    let config = lab.dir().join("second.toml");
    let taken = vec!["another weft daemon answers on", &*control, "control_socket"];
    for (text, parts) in [
        (text.clone(), taken.clone()),
        (text.replace(&state, &other_state).replace(other_port.0, other_port.1), taken),
        (
            text.replace(&control, &other_control).replace(other_port.0, other_port.1),
            vec!["another weft daemon", &state, "state_dir"],
        ),
        (
            text.replace(&control, &other_control).replace(&state, &other_state),
            vec!["UDP port 51820 is taken", "listen_port"],
        ),
    ] {
        fs::write(&config, text).unwrap();
        let said = cannot_start(&lab, &config);
        for part in parts {
            assert!(said.contains(part), "'{part}' is not in: {said}");
        }
        assert!(!Path::new(&other_control).exists());
        let still = weft(&files.socket(), "status --json").json::<Status>();
        assert_eq!((still.pid, still.ports, still.peers_up), (first.pid, 1, 1));
        lab.container(1, 1).ping(lab.container(2, 1).v4.into(), 56, SOON).unwrap();
    }
    // What a killed daemon left behind is in nobody's way.
    let mut lab = lab;
    lab.kill_daemon(1, libc::SIGKILL).unwrap();
    assert!(lab.host(1).files.socket().exists());
    lab.start_daemon(1, &Stop::default()).unwrap();
}

#[test]
fn a_daemon_told_to_end_does_so_at_once_and_leaves_the_interfaces() {
    if !place::usable() {
        return;
    }
    let mut lab = lab(spec(2, 1));
    let to = lab.container(2, 1).v4;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        lab.container(1, 1).ping(to.into(), 56, SOON).unwrap();
        let before = link(&lab.container(1, 1).netns, "eth1").unwrap();
        // While traffic runs, and while somebody holds the control socket open.
        let idle = UnixStream::connect(socket(&lab, 1)).unwrap();
        let mut pinger = Pinger::open(&lab.container(1, 1).netns, to.into(), None).unwrap();
        let traffic = || drop(pinger.once(8000, Duration::from_millis(20)));
        repeat_during(traffic, || {
            let (status, took) = lab.kill_daemon(1, signal).unwrap();
            assert!(status.success(), "{status}");
            assert!(took < Duration::from_secs(1), "{took:?}");
        });
        drop(idle);
        assert!(!socket(&lab, 1).exists());
        let after = link(&lab.container(1, 1).netns, "eth1").unwrap();
        assert_eq!((after.index, after.mac, after.mtu, after.up), (before.index, before.mac, before.mtu, true));
        let begun = Instant::now();
        lab.start_daemon(1, &Stop::default()).unwrap();
        lab.container(1, 1).ping(to.into(), 56, SOON).unwrap();
        assert!(begun.elapsed() < SOON);
    }
}
