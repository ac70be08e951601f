//! The command line from the outside: the real binary against a daemon that says what the test wants it to say.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use weft::control::request::{Attach, Detach, Request, Response};

/// A directory with a control socket in it, gone at the end of the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weft-cli-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// A daemon that gives these answers, one after the other, and then goes; gives back what it was asked.
    fn daemon(&self, answers: Vec<Response>) -> JoinHandle<Vec<Request>> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        std::thread::spawn(move || {
            let answer = |answer: Response| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let answer = serde_json::to_string(&answer).unwrap() + "\n";
                stream.write_all(answer.as_bytes()).unwrap();
                serde_json::from_str(&line).unwrap()
            };
            answers.into_iter().map(answer).collect()
        })
    }

    fn weft(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command.env("WEFT_SOCKET", self.socket()).args(arguments);
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn response(json: &str) -> Response {
    serde_json::from_str(json).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn port(state: &str) -> String {
    format!(
        r#"{{"name":"web:eth1","network":"blue","state":"{state}","target":"web","ifname":"eth1",
        "mac":"02:42:0a:20:00:05","addresses":["10.32.0.5/16@10.32.0.1","fd00:32::5/64"],"names":["web","www","shop","cart"],"mtu":1500,"origin":"attach",
        "rx_frames":3,"rx_bytes":300,"tx_frames":2,"tx_bytes":2000000,"drops":7}}"#
    )
}

fn attached(state: &str) -> Response {
    response(&format!(r#"{{"response":"attached","body":{}}}"#, port(state)))
}

fn ports(state: &str) -> Response {
    response(&format!(r#"{{"response":"ports","body":[{}]}}"#, port(state)))
}

#[test]
fn a_question_becomes_a_table_or_json_of_the_same_data() {
    let place = Place::new("ports");
    let daemon = place.daemon(vec![ports("up"), ports("up")]);
    let table = place.weft(&["ports"]);
    assert_eq!(
        stdout(&table),
        "NAME      NETWORK  STATE  TARGET  INTERFACE  MAC                ADDRESSES                             NAMES            MTU  \
         FROM     SENT  RECEIVED  DROPS\n\
         web:eth1  blue     up     web     eth1       02:42:0a:20:00:05  10.32.0.5/16@10.32.0.1,fd00:32::5/64  web,www,shop+1  1500  \
         attach  300 B   1.9 MiB      7\n"
    );
    let json = place.weft(&["ports", "--json"]);
    let parsed: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(parsed[0]["tx_bytes"], 2_000_000);
    assert_eq!(parsed[0]["addresses"][0], "10.32.0.5/16@10.32.0.1");
    assert_eq!(daemon.join().unwrap(), [Request::Ports, Request::Ports]);
}

#[test]
fn status_shows_what_matters_and_why_frames_died() {
    let place = Place::new("status");
    let status = r#"{"response":"status","body":{"name":"alpha","version":"0.1.0","pid":42,"uptime_s":11520,
        "public_key":"S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU=","tunnel_address":"100.89.197.233",
        "listen_port":51820,"config_file":"/etc/weft/weft.toml","workers":1,"networks":2,"ports":1,"peers":3,
        "peers_up":2,"fdb_entries":5,"fdb":{"learned":6,"moved":1,"expired":1,"evicted":0},
        "offloads":{"tap_tso":"on","udp_gro":"off (switched off)"},
        "traffic":{"port_rx_frames":1,"port_tx_frames":2,"tunnel_tx_frames":3,"tunnel_rx_frames":4,
        "flooded_frames":5,"suppressed_frames":8,"datagrams_tx":6,"datagrams_rx":7},
        "drops":{"replay":12,"no_receiver":0},"warnings":["port 'db' is waiting"]}}"#;
    let daemon = place.daemon(vec![response(status)]);
    assert_eq!(
        stdout(&place.weft(&["status"])),
        "alpha: weft 0.1.0, pid 42, up 3h 12m\n\n  \
           public key      S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU=\n  \
           tunnel address  100.89.197.233\n  \
           UDP port        51820\n  \
           configuration   /etc/weft/weft.toml\n  \
           workers         1\n  \
           networks        2\n  \
           ports           1\n  \
           peers           3, 2 of them up\n  \
           FDB entries     5 (6 learned, 1 moved, 1 expired, 0 evicted since start)\n  \
           offloads        tap_tso       on\n                  \
                           udp_gro       off (switched off)\n  \
           frames          1 from ports, 2 to ports\n                  \
                           3 into tunnels, 4 out of tunnels\n                  \
                           5 flooded, 8 answered instead\n  \
           datagrams       6 sent, 7 received\n\n\
         DROPS   COUNT  WHY\n\
         replay     12  A data message was a replay, or older than the replay window.\n\n\
         WARNINGS\n  \
           port 'db' is waiting\n"
    );
    daemon.join().unwrap();
}

#[test]
fn peers_networks_and_fdb_have_their_tables() {
    let place = Place::new("tables");
    let peers = r#"{"response":"peers","body":[{"name":"beta","public_key":"S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU=",
        "tunnel_address":"100.89.197.233","state":"up","path":"direct","endpoint":"192.0.2.7:51820","endpoints":[],"handshake_age_s":75,
        "rtt_ms":0.4567,"path_mtu":1500,"path_mtu_source":"probed","weft":true,"networks":["blue"],"tx_packets":1,
        "tx_bytes":1024,"rx_packets":0,"rx_bytes":0},
        {"name":"gamma","public_key":"ai7Wb0+GByLxJIXDoZuRUqSAgC0pZe0fVYzCPUCfA0s=","tunnel_address":"100.64.0.2",
        "state":"idle","endpoint":null,"endpoints":[],"handshake_age_s":null,"rtt_ms":null,"path_mtu":1280,
        "path_mtu_source":"assumed","weft":false,"networks":null,"tx_packets":0,"tx_bytes":0,"rx_packets":0,"rx_bytes":0}]}"#;
    let networks = r#"{"response":"networks","body":[{"name":"blue","vni":100,"subnets":["10.32.0.0/16"],
        "slices":["10.32.1.0/24"],"mtu":1500,"ageing_s":300,"ports":["web:eth1"],"peers":[],"fdb_entries":2}]}"#;
    let fdb = r#"{"response":"fdb","body":[{"network":"blue","mac":"02:42:0a:20:00:05","at":"port web:eth1",
        "kind":"dynamic","age_s":4}]}"#;
    let empty = r#"{"response":"fdb","body":[]}"#;
    let daemon = place.daemon([peers, networks, fdb, empty].map(response).to_vec());
    assert_eq!(
        stdout(&place.weft(&["peers"])),
        "NAME   STATE  ENDPOINT         TUNNEL ADDRESS  PATH    HANDSHAKE       RTT      PATH MTU  KIND  NETWORKS     SENT  \
         RECEIVED\n\
         beta   up     192.0.2.7:51820  100.89.197.233  direct  1m 15s ago  0.46 ms   1500 probed  weft  blue      1.0 KiB       \
         0 B\n\
         gamma  idle   -                100.64.0.2      -       -                 -  1280 assumed  -     unknown       0 B       \
         0 B\n"
    );
    assert_eq!(
        stdout(&place.weft(&["networks"])),
        "NAME  VNI  SUBNETS       SLICES         MTU  AGEING  FDB  PORTS     PEERS\n\
         blue  100  10.32.0.0/16  10.32.1.0/24  1500  5m 0s     2  web:eth1  -\n"
    );
    assert_eq!(
        stdout(&place.weft(&["fdb", "--network", "blue"])),
        "NETWORK  MAC                AT             KIND     LAST HEARD\n\
         blue     02:42:0a:20:00:05  port web:eth1  dynamic  4s ago\n"
    );
    assert_eq!(stdout(&place.weft(&["fdb"])), "no entries: no station has been heard of\n");
    let asked = daemon.join().unwrap();
    assert_eq!(asked[2], Request::Fdb { network: Some("blue".into()) });
}

#[test]
fn names_are_shown_added_and_removed() {
    let place = Place::new("names");
    let names = r#"{"response":"names","body":[{"name":"db","network":"blue","zone":"blue.weft","addresses":["192.0.2.7"],
        "services":["sql:5432/tcp"],"member":"alpha","kind":"added"},{"name":"web","network":"blue","zone":"blue.weft",
        "addresses":["10.32.0.5","fd00:32::5"],"services":[],"member":"beta","kind":"attachment"}]}"#;
    let (empty, done) = (r#"{"response":"names","body":[]}"#, r#"{"response":"done","body":["db in network blue"]}"#);
    let daemon = place.daemon([names, empty, done, done].map(response).to_vec());
    assert_eq!(
        stdout(&place.weft(&["names"])),
        "NAME  NETWORK  ADDRESSES                MEMBER  KIND\n\
         db    blue     192.0.2.7 :sql:5432/tcp  alpha   added\n\
         web   blue     10.32.0.5 fd00:32::5     beta    attachment\n"
    );
    let none = stdout(&place.weft(&["names", "--network", "blue", "--json"]));
    assert_eq!(none, "[]\n");
    let add = ["names", "add", "DB.blue.weft.", "--network", "blue", "--ip", "192.0.2.7", "--srv", "sql:5432"];
    assert_eq!(stdout(&place.weft(&add)), "db in network blue\n");
    stdout(&place.weft(&["names", "remove", "db", "--network", "blue"]));
    let asked = daemon.join().unwrap();
    assert_eq!(asked[1], Request::Names { network: Some("blue".into()) });
    let Request::AddName(add) = &asked[2] else { panic!("{:?}", asked[2]) };
    assert_eq!((add.name.as_str(), add.services[0].to_string().as_str()), ("db.blue.weft", "sql:5432/tcp"));
    assert!(matches!(&asked[3], Request::RemoveName(remove) if remove.addresses.is_empty()));
    for wrong in [
        &["names", "add", "a b", "--network", "blue"][..],
        &["names", "add", "db", "--network", "blue", "--ip", "10.0.0.1/8"],
        &["names", "add", "db", "--network", "blue", "--srv", "0"],
        &["names", "add", "db"],
    ] {
        assert_eq!(place.weft(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn attach_sends_what_was_asked_and_says_what_came_of_it() {
    let place = Place::new("attach");
    let daemon = place.daemon(vec![attached("up")]);
    let output =
        place.weft(&["attach", "web", "--network", "blue", "--ip", "10.32.0.5/16@10.32.0.1", "--mac", "U:hello"]);
    assert_eq!(
        stdout(&output),
        "web:eth1: eth1 in web is in network blue: MAC 02:42:0a:20:00:05, addresses 10.32.0.5/16@10.32.0.1, \
         fd00:32::5/64, MTU 1500\n"
    );
    let wanted = Attach {
        addresses: vec!["10.32.0.5/16@10.32.0.1".parse().unwrap()],
        mac: Some("02:b1:94:6a:c9:24".parse().unwrap()),
        ..Attach::new("web".parse().unwrap(), "blue")
    };
    assert_eq!(daemon.join().unwrap(), [Request::Attach(wanted)]);
}

#[test]
fn attach_waits_for_the_target_and_then_for_the_interface() {
    let place = Place::new("wait");
    let absent = || Response::Absent("no container 'web' runs".into());
    let daemon =
        place.daemon(vec![absent(), absent(), attached("waiting: soon"), ports("waiting: soon"), ports("up")]);
    let output = place.weft(&["attach", "web", "--network", "blue", "--wait"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).ends_with("MTU 1500\n"), "{}", stdout(&output));
    assert_eq!(daemon.join().unwrap()[3..], [Request::Ports, Request::Ports]);
}

#[test]
fn attach_without_wait_asks_once() {
    let place = Place::new("once");
    let daemon =
        place.daemon(vec![Response::Absent("no container 'web' runs: start it, or attach with --wait".into())]);
    let output = place.weft(&["attach", "web", "--network", "blue"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "no container 'web' runs: start it, or attach with --wait\n");
    assert_eq!(daemon.join().unwrap().len(), 1);
}

#[test]
fn leases_are_shown_with_who_has_them_and_can_be_let_go() {
    let place = Place::new("leases");
    let leases = r#"{"response":"leases","body":[
        {"network":"blue","address":"10.32.1.1/16","holder":"web:eth1","member":"alpha","state":"in use","since":1795219200},
        {"network":"blue","address":"10.32.1.2/16","holder":"db:eth1","member":"alpha","state":"kept","expires_s":21}]}"#;
    let done = r#"{"response":"done","body":["10.32.1.2 of network blue is free"]}"#;
    let daemon = place.daemon(vec![response(leases), response(leases), response(done), response(done)]);
    assert_eq!(
        stdout(&place.weft(&["leases"])),
        "NETWORK  ADDRESS       HOLDER    MEMBER  STATE\n\
         blue     10.32.1.1/16  web:eth1  alpha   in use\n\
         blue     10.32.1.2/16  db:eth1   alpha   kept for 21s\n"
    );
    let json: serde_json::Value = serde_json::from_str(&stdout(&place.weft(&["leases", "--json"]))).unwrap();
    assert_eq!((&json[1]["expires_s"], &json[0]["holder"]), (&21.into(), &"web:eth1".into()));
    place.weft(&["leases", "release", "--network", "blue", "10.32.1.2"]);
    place.weft(&["leases", "reclaim", "beta"]);
    let asked = daemon.join().unwrap();
    let release = Request::Release { network: "blue".into(), address: "10.32.1.2".parse().unwrap() };
    assert_eq!(asked, [Request::Leases, Request::Leases, release, Request::Reclaim { member: "beta".into() }]);
}

#[test]
fn a_refusal_is_one_sentence_on_stderr_and_exit_code_1() {
    let place = Place::new("refusal");
    let daemon = place.daemon(vec![Response::Refused("no port 'web': `weft ports` lists them".into())]);
    let output = place.weft(&["detach", "web", "--ifname", "eth0"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    assert_eq!(stderr(&output), "no port 'web': `weft ports` lists them\n");
    let wanted = Detach { port: "web".into(), ifname: Some("eth0".into()) };
    assert_eq!(daemon.join().unwrap(), [Request::Detach(wanted)]);
}

#[test]
fn without_a_daemon_the_remedy_is_told() {
    let place = Place::new("nobody");
    let output = place.weft(&["status"]);
    let socket = place.socket();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        format!(
            "no weft daemon answers on {}: start one with `weft up -c FILE`, or name its socket with --socket\n",
            socket.display()
        )
    );
    let output = place.weft(&["--socket", "/nowhere/s", "status"]);
    assert!(stderr(&output).starts_with("no weft daemon answers on /nowhere/s: "));
}

#[test]
fn a_reader_that_goes_away_is_nothing_to_complain_about() {
    let place = Place::new("pipe");
    let one = port("up");
    let many = vec![one.as_str(); 20_000].join(",");
    let daemon = place.daemon(vec![response(&format!(r#"{{"response":"ports","body":[{many}]}}"#))]);
    let mut child = place.command(&["ports"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    daemon.join().unwrap();
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let place = Place::new("usage");
    for wrong in [&["fly"][..], &[], &["attach", "web"], &["attach", "we b", "--network", "blue"]] {
        assert_eq!(place.weft(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let help = place.weft(&["--help"]);
    assert!(help.status.success() && stdout(&help).contains("First steps:"));
    let version = format!("weft {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&place.weft(&["--version"])), version);
}

#[test]
fn config_check_tells_every_error_with_its_line() {
    let place = Place::new("check");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/weft.toml");
    let output = place.weft(&["config", "check", example.to_str().unwrap()]);
    assert!(stdout(&output).ends_with("config/weft.toml is right: 2 networks, 3 peers, 1 port\n"));
    let file = place.0.join("bad.toml");
    std::fs::write(&file, "[node]\nlog = 'loud'\nnaem = 'x'\n").unwrap();
    let output = place.weft(&["config", "check", file.to_str().unwrap()]);
    let name = file.display();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        format!(
            "{name}:2: node.log: 'loud': a level is error, warn, info or debug; write it like log = \"debug\"\n\
             {name}:3: node.naem: there is no key 'naem' in [node]; did you mean 'name'?\n"
        )
    );
}

#[test]
fn keys_are_made_once_and_shown() {
    let place = Place::new("key");
    let file = place.0.join("sub/key");
    let file = file.to_str().unwrap();
    let made = place.weft(&["key", "new", file]);
    assert_eq!(stdout(&made).len(), 45, "{}", stderr(&made));
    assert_eq!(stdout(&place.weft(&["key", "show", file])), stdout(&made));
    assert!(stdout(&place.weft(&["key", "show", "--address", file])).starts_with("100."));
    let again = place.weft(&["key", "new", file]);
    assert_eq!((again.status.code(), stdout(&again).as_str()), (Some(1), ""));
    let [one, two] = [(); 2].map(|()| stdout(&place.weft(&["key", "psk"])));
    assert!(one.len() == 45 && one != two);
}

#[test]
fn waiting_inside_a_container_ends_with_the_interface_or_the_patience() {
    let place = Place::new("inside");
    let output = place.weft(&["wait", "-i", "weft-none", "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "interface weft-none is not up after 0 seconds: attach it with `weft attach` on the host\n"
    );
}

#[test]
fn a_mesh_begins_with_files_that_the_daemon_takes() {
    let place = Place::new("init");
    let (file, state) = (place.0.join("etc/weft.toml"), place.0.join("state"));
    let (file, state) = (file.to_str().unwrap(), state.to_str().unwrap());
    let arguments = ["init", "alpha", "-c", file, "--state-dir", state, "--endpoint", "192.0.2.1:51820"];
    let made = place.weft(&arguments);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert!(stdout(&made).contains(&format!("weft up -c {file}")), "{}", stdout(&made));
    let checked = place.weft(&["config", "check", file]);
    assert!(stdout(&checked).ends_with("is right: 1 network, 0 peers, 0 ports\n"), "{}", stderr(&checked));
    let key = stdout(&place.weft(&["key", "show", &format!("{state}/key")]));
    assert!(stdout(&made).contains(key.trim()));
    let again = place.weft(&arguments);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("exists: this host has its configuration"));
}

#[test]
fn a_token_prepares_a_host_and_a_bad_one_leaves_nothing() {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};
    use weft::trust::token::{Introducer, InviteId, InviteSecret, NetworkHint, Token};
    use weft::wire::key::{AuthorityKey, PublicKey};
    let place = Place::new("join");
    let (file, state) = (place.0.join("weft.toml"), place.0.join("state"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let token = Token {
        authority: AuthorityKey([1; 32]),
        id: InviteId(1),
        secret: InviteSecret::new([2; 16]),
        name: "beta".into(),
        expires: now + Duration::from_secs(3600),
        introducers: vec![Introducer {
            key: PublicKey([3; 32]),
            tunnel_address: [100, 64, 0, 3].into(),
            endpoints: vec!["192.0.2.1:51820".into()],
        }],
        networks: vec![NetworkHint { vni: 7, name: "blue".into(), subnets: vec!["10.7.0.0/16".into()] }],
    };
    let join = |line: &str| {
        let (file, state) = (file.to_str().unwrap(), state.to_str().unwrap());
        place.weft(&["join", line, "-c", file, "--state-dir", state, "--no-up"])
    };
    let line = token.to_string();
    let altered = line.replacen("weft1:A", "weft1:B", 1);
    let old = Token { expires: now - Duration::from_secs(3600), ..token.clone() }.to_string();
    for (wrong, sentence) in [
        (
            altered.as_str(),
            "the invitation is damaged: a part is missing or was altered; copy the whole line again\n",
        ),
        (&old, "ask for another, or set the clock if that is wrong\n"),
        ("hello", "this is no invitation: one is a line that begins with weft1:, as 'weft invite' prints it\n"),
    ] {
        let refused = join(wrong);
        assert_eq!((refused.status.code(), stdout(&refused).as_str()), (Some(1), ""));
        assert!(stderr(&refused).ends_with(sentence), "{}", stderr(&refused));
        assert!(!file.exists() && !state.exists());
    }
    let joined = join(&line);
    assert_eq!(joined.status.code(), Some(0), "{}", stderr(&joined));
    assert!(stdout(&joined).contains("joins as 'beta'") && stdout(&joined).contains("Next: weft up -c"));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("name = \"blue\"\nvni = 7\nsubnets = [\"10.7.0.0/16\"]"), "{text}");
    // Again, as after an error; and with the line of another network, or for another host.
    assert_eq!(join(&line).status.code(), Some(0));
    let foreign = Token { authority: AuthorityKey([9; 32]), ..token.clone() }.to_string();
    assert!(stderr(&join(&foreign)).starts_with("the invitation is of another network"));
    let other = Token { name: "gamma".into(), ..token }.to_string();
    assert!(stderr(&join(&other)).starts_with("the invitation is for 'gamma', and"));
}

#[test]
fn an_invitation_is_one_line_and_revoking_tells_what_was_done() {
    let place = Place::new("invite");
    let done = r#"{"response":"done","body":["'beta' is revoked; all members are told"]}"#;
    let daemon = place.daemon(vec![Response::Invited("weft1:AAAA".into()), response(done), response(done)]);
    assert_eq!(stdout(&place.weft(&["invite", "beta", "--slice", "10.32.16.0/20"])), "weft1:AAAA\n");
    assert_eq!(stdout(&place.weft(&["revoke", "beta"])), "'beta' is revoked; all members are told\n");
    place.weft(&["authority", "rotate", "--overlap", "1d"]);
    let asked = daemon.join().unwrap();
    let Request::Invite(invite) = &asked[0] else { panic!("an invitation") };
    assert_eq!((invite.name.as_str(), invite.life_s, invite.slices.len()), ("beta", 3600, 1));
    assert_eq!(asked[1..], [Request::Revoke { member: "beta".into() }, Request::Rotate { overlap_s: 86_400 }]);
}

#[test]
fn what_is_exposed_and_published_is_asked_for_and_shown() {
    let place = Place::new("outside");
    let published = r#"{"response":"published","body":{"exposed":[{"network":"blue","ifname":"weft-blue","state":"up",
        "addresses":["10.32.0.2/16"],"masquerade":true,"asked_for":true}],"published":[{"publish":{"network":"blue",
        "host_ip":null,"host_port":8080,"proto":"tcp","to":{"name":"web"},"port":80,"holder":"cni:1:eth0"},
        "instances":[{"address":"10.32.0.5","state":"used"},{"address":"10.32.1.5","state":"unhealthy"}]}]}}"#;
    let done = || response(r#"{"response":"done","body":["done"]}"#);
    let nothing = r#"{"response":"published","body":{"exposed":[],"published":[]}}"#;
    let answers = vec![done(), done(), done(), done(), done(), response(published), response(nothing)];
    let daemon = place.daemon(answers);
    for line in [
        "expose blue --ip 10.32.0.2/16 --ip auto --masquerade",
        "hide blue",
        "publish 127.0.0.1:53:web:5353/udp --network blue --holder cni:1:eth0",
        "unpublish 8080",
        "unpublish --holder cni:1:eth0",
    ] {
        assert_eq!(stdout(&place.weft(&line.split(' ').collect::<Vec<_>>())), "done\n", "{line}");
    }
    assert_eq!(
        stdout(&place.weft(&["published"])),
        "EXPOSED  INTERFACE  STATE  ADDRESSES     MASQUERADE  BY\n\
         blue     weft-blue  up     10.32.0.2/16  yes         expose\n\
         \n\
         PUBLISHED  NETWORK  TO      FOR         INSTANCES\n\
         8080/tcp   blue     web:80  cni:1:eth0  10.32.0.5 used, 10.32.1.5 unhealthy\n"
    );
    assert!(stdout(&place.weft(&["published"])).contains("weft expose NETWORK"));
    let asked: Vec<String> =
        daemon.join().unwrap().iter().map(|request| serde_json::to_string(request).unwrap()).collect();
    assert_eq!(
        asked,
        [
            r#"{"request":"expose","network":"blue","addresses":["10.32.0.2/16"],"auto":true,"masquerade":true}"#,
            r#"{"request":"hide","network":"blue"}"#,
            r#"{"request":"publish","network":"blue","host_ip":"127.0.0.1","host_port":53,"proto":"udp","to":{"name":"web"},"port":5353,"holder":"cni:1:eth0"}"#,
            r#"{"request":"unpublish","port":{"host_ip":null,"host_port":8080,"proto":"tcp"}}"#,
            r#"{"request":"unpublish","holder":"cni:1:eth0"}"#,
            r#"{"request":"published"}"#,
            r#"{"request":"published"}"#,
        ]
    );
    for line in ["publish 8080:web --network blue", "publish 8080:web:80/sctp --network blue", "unpublish", "expose"]
    {
        assert_eq!(place.weft(&line.split(' ').collect::<Vec<_>>()).status.code(), Some(2), "{line}");
    }
}
