//! Docker's calls down to ports: made in the host's namespace, known to the mesh, and none that are not Docker's touched.

use super::*;
use crate::control::docker::Heard;
use serde_json::{Value, json};

const NETWORK: &str = "b1946ac92492d2347c6235b4d2611184";
const ENDPOINT: &str = "591785b801163e5f6f0e5c6b8b0d4e3a";
const PORT: &str = "docker:591785b80116";

impl Plane {
    fn docker(&mut self, call: &str, body: Value) -> Value {
        let reply = self.control.docker_call(self.now, &format!("/{call}"), body.to_string().as_bytes());
        serde_json::from_slice(&reply.body).unwrap()
    }

    fn docker_network(&mut self, options: Value) {
        let options = json!({ "com.docker.network.generic": options });
        let body = json!({ "NetworkID": NETWORK, "Options": options });
        assert_eq!(self.docker("NetworkDriver.CreateNetwork", body), json!({}));
    }

    fn docker_endpoint(&mut self, address: &str) -> Value {
        let interface = json!({ "Address": address });
        let body = json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT, "Interface": interface });
        self.docker("NetworkDriver.CreateEndpoint", body)
    }

    fn join(&mut self) {
        let body = json!({ "EndpointID": ENDPOINT, "SandboxKey": "/var/run/docker/netns/8c1b0f5e7b1d" });
        assert_eq!(self.docker("NetworkDriver.Join", body)["InterfaceName"]["SrcName"], "wd591785b80116");
    }

    /// Docker moves the interface.
    fn move_docker_port(&mut self) {
        let ports = self.control.host.ports.values_mut();
        ports.filter(|(name, ..)| name == PORT).for_each(|(_, place, _)| *place = 7);
        self.pass(Duration::from_secs(2));
    }
}

#[test]
fn an_endpoint_is_a_port_until_docker_deletes_it() {
    let mut plane = Plane::new(FILE);
    plane.docker_network(json!({ "network": "blue", "mtu": "1400" }));
    let made = plane.docker_endpoint("10.32.7.1/16");
    let port = plane.port(PORT).unwrap();
    assert_eq!(made["Interface"]["MacAddress"], port.mac.unwrap().to_string());
    assert_eq!((port.origin.as_str(), port.mtu, port.ifname.as_str()), ("docker", 1400, "wd591785b80116"));
    assert_eq!(plane.control.attachments().next().unwrap().addresses, ["10.32.7.1".parse::<IpAddr>().unwrap()]);
    plane.join();
    plane.move_docker_port();
    let port = plane.port(PORT).unwrap();
    assert_eq!((port.ifname.as_str(), port.target.as_str()), ("eth0", "netns:/var/run/docker/netns/8c1b0f5e7b1d"));
    // It is Docker's: neither detached by hand nor cut off by a reload.
    let detach = Detach { port: PORT.to_owned(), ifname: None };
    assert!(
        matches!(plane.control.detach(plane.now, &detach), Response::Refused(why) if why.contains("docker network"))
    );
    let without = FILE.replace("\"blue\"", "\"green\"").replace("vni = 100", "vni = 101");
    assert!(plane.reload(&without).unwrap_err().contains(PORT));
    // A smaller MTU of the network counts, a larger one does not.
    plane.reload(&FILE.replace("vni = 100", "vni = 100\nmtu = 1300")).unwrap();
    assert_eq!(plane.port(PORT).unwrap().mtu, 1300);
    plane.reload(&FILE.replace("vni = 100", "vni = 100\nmtu = 9000")).unwrap();
    assert_eq!(plane.port(PORT).unwrap().mtu, 1400);

    plane.docker("NetworkDriver.Leave", json!({ "EndpointID": ENDPOINT }));
    plane.docker("NetworkDriver.DeleteEndpoint", json!({ "EndpointID": ENDPOINT }));
    assert!(plane.control.host.ports.is_empty() && plane.control.attachments().next().is_none());
}

#[test]
fn an_endpoint_whose_container_is_gone_is_collected() {
    let mut plane = Plane::new(FILE);
    plane.docker_network(json!({ "network": "blue" }));
    plane.docker_endpoint("10.32.7.1/16");
    plane.join();
    plane.move_docker_port();
    assert_eq!(plane.control.host.docker.len(), 2);
    let id = *plane.control.host.ports.keys().next().unwrap();
    plane.control.host.dead.insert(id);
    plane.pass(Duration::from_secs(2));
    assert!(plane.control.host.ports.is_empty());
    assert_eq!(plane.control.host.docker.len(), 1);
    assert!(plane.docker_endpoint("10.32.7.1/16")["Err"].is_null());
}

#[test]
fn after_a_restart_only_endpoints_that_are_remembered_are_taken_over() {
    let mut plane = Plane::new(FILE);
    plane.docker_network(json!({ "network": "blue" }));
    plane.docker_endpoint("10.32.7.1/16");
    let spec = plane.control.ports.get(PORT).unwrap().spec.clone();
    let wants = |plane: &Plane, spec: &crate::config::Port| plane.control.wants_adopted(spec, Origin::Docker, 100);
    assert!(!wants(&plane, &spec), "it is there");
    plane.control.ports.remove(PORT);
    assert!(wants(&plane, &spec));
    assert!(!wants(&plane, &crate::config::Port { name: "docker:other".to_owned(), ..spec }));
    // An endpoint of which no port is left is dropped with it.
    plane.pass(Duration::from_secs(2));
    assert_eq!(plane.control.host.docker.len(), 1);
    plane.control.docker_heard(plane.now, Heard::Names(vec![(ENDPOINT.to_owned(), vec!["web".to_owned()])]));
}

#[test]
fn a_published_port_is_held_and_goes_with_its_container_and_names_outlive_a_restart_without_docker() {
    let mut plane = Plane::new(FILE);
    plane.docker_network(json!({ "network": "blue", "gateway": "weft" }));
    plane.docker_endpoint("10.32.7.1/16");
    plane.join();
    let binding = json!({ "Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080 });
    let options = json!({ "com.docker.network.portmap": [binding] });
    let program = json!({ "EndpointID": ENDPOINT, "Options": options });
    assert!(plane.docker("NetworkDriver.ProgramExternalConnectivity", program)["Err"].is_null());
    assert_eq!((plane.control.host.rules.forwards.len(), plane.control.host.held.len()), (1, 1));
    plane.control.docker_heard(plane.now, Heard::Names(vec![(ENDPOINT.to_owned(), vec!["web".to_owned()])]));
    assert_eq!(plane.port(PORT).unwrap().names, ["web"]);
    let kept = plane.control.host.docker.values().any(|record| format!("{record:?}").contains("\"web\""));
    assert!(kept, "they are there as long as the endpoint is");
    plane.docker("NetworkDriver.DeleteEndpoint", json!({ "EndpointID": ENDPOINT }));
    assert!(plane.control.host.rules.forwards.is_empty() && plane.control.host.held.is_empty());
}

#[test]
fn a_container_called_docker_has_its_address_as_any_other() {
    let mut plane = Plane::new("[[network]]\nname = 'blue'\nvni = 100\nsubnets = ['10.32.0.0/16']\n");
    plane.docker_network(json!({ "network": "blue" }));
    let mut attach = Attach::new(Target::Container("docker".into()), "blue");
    attach.auto = true;
    let Response::Attached(port) = plane.control.attach(plane.now, &attach, &1) else { panic!() };
    assert_eq!((port.name.as_str(), port.addresses[0].to_string()), ("docker:eth1", "10.32.0.2/16".into()));
    let said = plane.docker_endpoint("10.32.0.2/16")["Err"].to_string();
    assert!(said.contains("belongs to docker:eth1"), "{said}");
    // Stopped for long, it is waited for; Docker's driver collects only what was leased for Docker.
    let id = plane.id("docker:eth1");
    plane.control.host.dead.insert(id);
    plane.pass(Duration::from_secs(300));
    plane.attach(2, |attach| attach.auto = true).unwrap();
    plane.found("docker:eth1", Ok(3));
    assert_eq!(plane.port("docker:eth1").unwrap().addresses[0].to_string(), "10.32.0.2/16");
}

#[test]
fn leases_of_a_network_that_is_gone_are_not_kept_for_docker() {
    let file = "[[network]]\nname = 'blue'\nvni = 100\nsubnets = ['10.32.0.0/16']\n";
    let mut plane = Plane::new(file);
    let asked =
        plane.docker("IpamDriver.RequestAddress", json!({ "PoolID": "weft/blue/10.32.0.0/16", "Address": "" }));
    assert_eq!(asked["Address"], "10.32.0.2/16");
    plane.reload(&file.replace("blue", "green").replace("100", "101")).unwrap();
    plane.pass(Duration::from_secs(2));
    assert!(plane.control.host.leases.as_ref().unwrap().is_empty());
}
