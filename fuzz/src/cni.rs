//! A call of a container runtime, and what an IPAM plugin answers to us. Fields are separated by zero bytes: the six variables, the
//! configuration, the plugin's answer, and a byte that says what fails.
//!
//! Whatever comes in, what goes out is what runtimes can read: JSON, with a code and a message where it is an error. What failed to be
//! made is not there; what was made is, once, and its own answer is understood when it comes back.

use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;
use weft::cni::env::{Command, Variables};
use weft::cni::{self, Delegated, NoSandbox, Seen, World};
use weft::control::request::{Outside, PortStatus, Request, Response};
use weft::wire::cidr::Cidr;

/// What fails, a bit each.
const PLUGIN_FAILS: u8 = 1;
const ROUTES_FAIL: u8 = 2;
const ATTACH_FAILS: u8 = 4;
const NO_NAMESPACE: u8 = 8;
const NO_DAEMON: u8 = 16;

struct Machine {
    answer: Vec<u8>,
    fails: u8,
    ports: Vec<PortStatus>,
}

impl Machine {
    fn does(&self, what: u8) -> bool {
        self.fails & what == 0
    }
}

impl World for Machine {
    fn ask(&mut self, _: Option<&Path>, request: &Request) -> Result<Response, String> {
        if !self.does(NO_DAEMON) {
            return Err("no daemon answers".to_owned());
        }
        Ok(match request {
            Request::Ports => Response::Ports(self.ports.clone()),
            Request::Networks => {
                let network = json!({
                    "name": "blue", "vni": 7, "subnets": ["10.32.0.0/16", "fd00:32::/64"],
                    "gateways": ["10.32.0.1/16", "fd00:32::1/64"], "mtu": 1400, "ageing_s": 300, "ports": [], "peers": [],
                    "fdb_entries": 0,
                });
                Response::Networks(vec![serde_json::from_value(network).expect("a network")])
            }
            Request::Attach(_) if !self.does(ATTACH_FAILS) => Response::Refused("no".to_owned()),
            Request::Attach(attach) => {
                let port = json!({
                    "name": attach.name, "network": attach.network, "state": "up", "target": attach.target,
                    "ifname": attach.ifname, "mac": attach.mac, "addresses": attach.addresses, "labels": attach.labels,
                    "mtu": 1400, "origin": "attach", "rx_frames": 0, "rx_bytes": 0, "tx_frames": 0, "tx_bytes": 0, "drops": 0,
                });
                let port: PortStatus = serde_json::from_value(port).expect("a port");
                self.ports.push(port.clone());
                Response::Attached(Box::new(port))
            }
            Request::Detach(detach) => {
                self.ports.retain(|port| port.name != detach.port);
                Response::Done(Vec::new())
            }
            Request::Published => Response::Published(Outside::default()),
            Request::Publish(publish) => {
                assert!(publish.host_port != 0 && publish.port != 0 && publish.holder.is_some());
                Response::Done(Vec::new())
            }
            _ => Response::Done(Vec::new()),
        })
    }

    fn delegate(&mut self, _: &str, command: Command) -> Result<Delegated, String> {
        let done = command == Command::Del || self.does(PLUGIN_FAILS);
        Ok(Delegated { done, stdout: self.answer.clone(), stderr: Vec::new() })
    }

    fn look(&mut self, netns: &Path, ifname: &str) -> Result<Option<Seen>, NoSandbox> {
        assert!(netns.is_absolute() && !ifname.is_empty());
        match self.does(NO_NAMESPACE) {
            true => Ok(None),
            false => Err(NoSandbox::Absent("it is not there".to_owned())),
        }
    }

    fn add_routes(&mut self, _: &Path, _: &str, routes: &[(Cidr, IpAddr)]) -> Result<(), String> {
        assert!(routes.iter().all(|(to, gateway)| to.address.is_ipv4() == gateway.is_ipv4()));
        if self.does(ROUTES_FAIL) { Ok(()) } else { Err("no".to_owned()) }
    }
}

/// The target.
pub fn run(data: &[u8]) {
    let mut fields = data.split(|byte| *byte == 0).map(<[u8]>::to_vec);
    let variables = Variables::from(|_| String::from_utf8_lossy(&fields.next().unwrap_or_default()).into_owned());
    let stdin = fields.next().unwrap_or_default();
    let answer = fields.next().unwrap_or_default();
    let fails = fields.next().and_then(|field| field.first().copied()).unwrap_or_default();
    let mut machine = Machine { answer, fails, ports: Vec::new() };

    let Ok(made) = answered(cni::run(&variables, &stdin, &mut machine)) else {
        return assert!(machine.ports.is_empty(), "something is left of a call that failed");
    };
    if variables.command != "ADD" {
        return assert!(machine.ports.is_empty());
    }
    let name = cni::env::port_name(&variables.container, &variables.ifname);
    assert!(matches!(&machine.ports[..], [port] if port.name == name));
    let ours = made["interfaces"].as_array().expect("a list").last().expect("ours");
    assert_eq!((&ours["name"], &ours["sandbox"]), (&json!(variables.ifname), &json!(variables.netns)));

    // What comes back is understood, and DEL undoes it all.
    let mut conf: Value = serde_json::from_slice(&stdin).expect("it was read before");
    conf["prevResult"] = made;
    let conf = conf.to_string().into_bytes();
    if let Err(text) = cni::run(&Variables { command: "CHECK".to_owned(), ..variables.clone() }, &conf, &mut machine)
    {
        let error: Value = serde_json::from_str(&text).expect("an object");
        assert_ne!(error["code"], 6, "{text}");
    }
    let deleted = cni::run(&Variables { command: "DEL".to_owned(), ..variables }, &conf, &mut machine);
    assert_eq!(deleted, Ok(String::new()));
    assert!(machine.ports.is_empty());
}

/// What a runtime reads of an answer.
fn answered(outcome: Result<String, String>) -> Result<Value, ()> {
    match outcome {
        Ok(text) if text.is_empty() => Ok(Value::Null),
        Ok(text) => {
            let value: Value = serde_json::from_str(&text).expect("a result is JSON");
            assert!(value["cniVersion"].is_string());
            Ok(value)
        }
        Err(text) => {
            let error: Value = serde_json::from_str(&text).expect("an error is JSON");
            assert!(error["cniVersion"].is_string() && error["code"].as_u64().is_some_and(|code| code > 0), "{text}");
            assert!(error["msg"].as_str().is_some_and(|message| !message.is_empty()), "{text}");
            Err(())
        }
    }
}

/// Calls of which a fuzzer makes others.
pub fn seeds(add: &mut dyn FnMut(&'static str, &str, Vec<u8>)) {
    let conf = |version: &str, more: Value| {
        let mut conf = json!({ "cniVersion": version, "name": "pods", "type": "weft-cni", "network": "blue" });
        conf.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        conf.to_string()
    };
    let given = r#"{"ips":[{"address":"10.32.0.5/16","gateway":"10.32.0.1"}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"192.0.2.0/24","gw":"10.32.0.9"}],"dns":{"nameservers":["10.32.0.1"]}}"#;
    let host_local = || json!({ "ipam": { "type": "host-local" } });
    let asked = json!({
        "dns": { "nameservers": ["9.9.9.9"], "search": ["a"] }, "labels": { "a": "b" }, "defaultRoute": true,
        "args": { "cni": { "ips": ["10.32.0.7"], "labels": [{ "key": "c", "value": "d" }] } },
        "runtimeConfig": {
            "ips": ["10.32.0.6/16", "fd00:32::6"], "mac": "02:00:00:00:00:01", "aliases": { "pods": ["www"] },
            "dns": { "servers": ["1.1.1.1"], "searches": ["b"], "options": ["ndots:1"] },
            "bandwidth": { "ingressRate": 8000, "ingressBurst": 8000, "egressRate": 8000, "egressBurst": 8000 },
            "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1" }],
        },
    });
    let previous = json!({ "prevResult": {
        "cniVersion": "1.1.0", "interfaces": [{ "name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/c" }],
        "ips": [{ "address": "10.32.0.5/16", "gateway": "", "interface": 0 }], "routes": null, "dns": {},
    } });
    let valid = json!({ "cni.dev/valid-attachments": [{ "containerID": "c", "ifname": "eth0" }] });
    let args = "IgnoreUnknown=1;IP=10.32.0.8;MAC=02:00:00:00:00:02;K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop";
    let mut call = |name: &str, command: &str, args: &str, conf: String, answer: &str, fails: u8| {
        let bytes =
            [command, "c", "/run/netns/c", "eth0", args, "/opt/cni/bin", &conf, answer].join("\0").into_bytes();
        add("cni", name, [&bytes[..], &[0, fails]].concat());
    };
    call("add", "ADD", "", conf("1.1.0", json!({})), "", 32);
    call("add-asked", "ADD", args, conf("0.4.0", asked), "", 32);
    call("add-args", "ADD", args, conf("0.3.1", json!({ "ipam": {} })), "", 32);
    call("add-given", "ADD", "", conf("1.0.0", host_local()), given, 32);
    call("add-chained", "ADD", "", conf("1.1.0", previous.clone()), "", 32);
    call("add-not-given", "ADD", "", conf("1.0.0", host_local()), r#"{"code":103,"msg":"none left"}"#, PLUGIN_FAILS);
    call("add-no-routes", "ADD", "", conf("1.0.0", host_local()), given, ROUTES_FAIL);
    call("add-refused", "ADD", "", conf("1.0.0", host_local()), given, ATTACH_FAILS);
    call("add-nowhere", "ADD", "", conf("1.0.0", json!({})), "", NO_NAMESPACE);
    call("add-nobody", "ADD", "", conf("1.0.0", json!({})), "", NO_DAEMON);
    call("add-unknown", "ADD", "IP", conf("1.0.0", json!({ "colour": 1, "ipMasq": true })), "", 32);
    call("del", "DEL", "", conf("0.4.0", previous.clone()), "", 32);
    call("check", "CHECK", "", conf("1.0.0", previous), "", 32);
    call("gc", "GC", "", conf("1.1.0", valid), "", 32);
    call("status", "STATUS", "", conf("1.1.0", host_local()), r#"{"code":50,"msg":"full"}"#, PLUGIN_FAILS);
    call("version", "VERSION", "", conf("0.2.0", json!({})), "", 32);
}
