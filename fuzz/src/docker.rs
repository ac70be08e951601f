//! Docker's calls, in any order and with any content, while interfaces come and go and time passes; and what its API says of its
//! containers. A line is one step:
//!
//! ```text
//!   CALL BODY     a call of Docker          !places   the next port's interface is elsewhere
//!   +N            N seconds pass            ?JSON     a container's description
//! ```

use std::time::Duration;
use weft::config::parse::{Defaults, parse};
use weft::docker::names::Containers;
use weft::docker::record::Record;
use weft::docker::testing::Maps;
use weft::docker::{Driver, Place};

const FILE: &str = "[[network]]\nname = 'blue'\nvni = 7\nsubnets = ['10.32.0.0/28', 'fd00:32::/64']\n\
                    [[network]]\nname = 'red'\nvni = 8\nsubnets = ['10.40.0.0/30']\n[[network]]\nname = 'plain'\nvni = 9\n";
/// Steps of one input: some hundred containers.
const STEPS: usize = 1000;

/// The target.
pub fn run(data: &[u8]) {
    let _ = weft::io::docker::parse(data);
    let file = parse("weft.toml", FILE, &Defaults { hostname: "alpha".into() }, &|_| Err("none".into()));
    let mut maps = Maps::new(file.expect("the file is right").networks);
    let mut driver = Driver::default();
    let mut containers = Containers::default();
    let mut now = Duration::from_secs(1000);
    for (number, line) in data.split(|&byte| byte == b'\n').take(STEPS).enumerate() {
        match line {
            [b'+', seconds, ..] => now += Duration::from_secs(u64::from(*seconds)),
            [b'!', ..] => {
                let places = [Place::Host, Place::Container, Place::Gone];
                let count = maps.ports.len().max(1);
                if let Some((_, place)) = maps.ports.values_mut().nth(number % count) {
                    *place = places[line.len() % 3];
                }
            }
            [b'?', json @ ..] => {
                let _ = containers.learn(json);
                let changed = containers.changed();
                assert!(changed.iter().all(|(_, names)| names.len() <= weft::config::parse::MAX_NAMES));
                assert!(containers.changed().is_empty());
            }
            _ => {
                let at = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
                let path = String::from_utf8_lossy(&line[..at]).into_owned();
                let body = line.get(at + 1..).unwrap_or_default();
                let reply = driver.answer(now, &path, body, &mut maps);
                let value: serde_json::Value = serde_json::from_slice(&reply.body).expect("an answer is JSON");
                assert!(value.is_object() && value.get("Err") == value.get("Error"), "{value}");
                assert!(reply.status == 200 || value.get("Err").is_some());
                assert_ne!(value.get("Err").and_then(|text| text.as_str()), Some(""));
            }
        }
        maps.check();
        driver.tick(now, &mut maps);
        maps.check();
    }
    // What is remembered is enough to go on with.
    let records: Vec<Record> = maps.kept.values().cloned().collect();
    let text = serde_json::to_string(&records).expect("records can be written");
    assert_eq!(serde_json::from_str::<Vec<Record>>(&text).expect("and read"), records);
    let mut driver = Driver::new(records, now);
    for _ in 0..2 {
        now += Duration::from_secs(3600);
        maps.ports.values_mut().for_each(|(_, place)| *place = Place::Gone);
        driver.tick(now, &mut maps);
        maps.check();
    }
    assert!(maps.ports.is_empty(), "endpoints of containers that are gone stay");
}

/// Lines as Docker 20.10 writes them, and what it does when it is killed.
pub fn seeds(add: &mut dyn FnMut(&'static str, &str, Vec<u8>)) {
    let network = "b1946ac92492d2347c6235b4d2611184";
    let endpoint = "591785b801163e5f6f0e5c6b8b0d4e3a";
    let pool = r#"/IpamDriver.RequestPool {"AddressSpace":"weft","Pool":"","SubPool":"","Options":{"network":"blue"},"V6":false}"#;
    let gateway = r#"/IpamDriver.RequestAddress {"PoolID":"weft/blue/10.32.0.0/28","Address":"","Options":{"RequestAddressType":"com.docker.network.gateway"}}"#;
    let create = format!(
        r#"/NetworkDriver.CreateNetwork {{"NetworkID":"{network}","Options":{{"com.docker.network.enable_ipv6":false,"com.docker.network.generic":{{"network":"blue","mtu":"1400"}}}},"IPv4Data":[{{"AddressSpace":"weft","Gateway":"10.32.0.1/28","Pool":"10.32.0.0/28","AuxAddresses":{{"a":"10.32.0.9/28"}}}}],"IPv6Data":[]}}"#
    );
    let any = r#"/IpamDriver.RequestAddress {"PoolID":"weft/blue/10.32.0.0/28","Address":"","Options":null}"#;
    let this = r#"/IpamDriver.RequestAddress {"PoolID":"weft/blue/10.32.0.0/28","Address":"10.32.0.5","Options":{}}"#;
    let free = r#"/IpamDriver.ReleaseAddress {"PoolID":"weft/blue/10.32.0.0/28","Address":"10.32.0.5"}"#;
    let make = |id: &str, address: &str| {
        format!(
            r#"/NetworkDriver.CreateEndpoint {{"NetworkID":"{network}","EndpointID":"{id}","Interface":{{"Address":"{address}","AddressIPv6":"","MacAddress":""}},"Options":{{"com.docker.network.endpoint.macaddress":"AkKsEQAF"}}}}"#
        )
    };
    let join = format!(
        r#"/NetworkDriver.Join {{"NetworkID":"{network}","EndpointID":"{endpoint}","SandboxKey":"/var/run/docker/netns/8c1b0f5e7b1d","Options":{{}}}}"#
    );
    let which = format!(r#"{{"NetworkID":"{network}","EndpointID":"{endpoint}"}}"#);
    let (leave, delete) = (format!("/NetworkDriver.Leave {which}"), format!("/NetworkDriver.DeleteEndpoint {which}"));
    let drop = format!("/NetworkDriver.DeleteNetwork {which}");
    let mut script = |name: &str, lines: &[&str]| add("docker", name, lines.join("\n").into_bytes());
    script(
        "handshake",
        &["/Plugin.Activate", "/NetworkDriver.GetCapabilities null", "/IpamDriver.GetCapabilities", "/x"],
    );
    let (one, two) = (make(endpoint, "10.32.0.5/28"), make(&endpoint.replace("5917", "6917"), "10.32.0.5/28"));
    script("life", &[pool, gateway, &create, this, &one, &join, "!.", &leave, "!..", &delete, free, &drop]);
    script("killed", &[&create, this, &one, &join, "!.", "!...", this, &two, "+\u{7f}", "!.", free, this, &two]);
    script("twice", &[&create, &create, &one, &one, &join, &join, &two, &delete, &delete, &leave, &drop, &drop]);
    script("forgotten", &[&create, any, any, any, &one, "+\u{7f}", "+\u{7f}", "+\u{7f}", &drop, any]);
    script("exhausted", &[&create, any, any, any, any, any, any, any, any, any, any, any, any, any, any, any, any]);
    script("unknown", &[&one, &join, &delete, &make("00", "10.40.0.1/30"), &make("01", "192.0.2.1/24"), &drop]);
    script("overlap", &[pool, pool, pool, gateway, pool]);
    script(
        "empty",
        &[
            "/NetworkDriver.CreateNetwork",
            "/NetworkDriver.Join",
            "/IpamDriver.RequestAddress null",
            "/IpamDriver.RequestPool {}",
        ],
    );
    script("http", &["POST /Plugin.Activate HTTP/1.1\r", "Host: \r", "Content-Length: 4\r", "\r", "null"]);
    let inspected = format!(
        r#"?{{"Id":"8c1b0f5e7b1d","Name":"/web","Config":{{"Hostname":"front"}},"NetworkSettings":{{"Networks":{{"lan":{{"NetworkID":"{network}","EndpointID":"{endpoint}","Aliases":["www"],"Links":["web:other"]}}}}}}}}"#
    );
    script("container", &[&inspected, &inspected.replace("web", "db").replace("8c1b", "9c1b")]);
}
