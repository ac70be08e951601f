//! Podman and containerd, which call the plugin by the file that comes with weft.

use super::*;
use crate::common::engine::{IDLE, IMAGE, Podman, text, with_engines};
use std::io::Read;
use std::net::TcpStream;
use std::process::{Child, Stdio};

/// Where `ctr` looks for lists and for plugins; it cannot be told another place.
const LISTS: &str = "/etc/cni/net.d";
const PLUGINS: &str = "/opt/cni/bin";

/// The file that comes with weft, with the lab's network and daemon, in a directory of its own.
fn write_list(lab: &Lab, dir: &Path) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/10-weft.conflist");
    let mut list: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let plugin = &mut list["plugins"][0];
    plugin["network"] = "lab".into();
    plugin["socket"] = socket(lab, 1).to_str().unwrap().into();
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("10-weft.conflist"), list.to_string()).unwrap();
}

/// Podman on host 1, with CNI for its networks.
fn podman(lab: &Lab, image: &Path) -> Podman {
    let (lists, plugins) = (Path::new("/run/lists"), plugins_in(Path::new("/run/plugins")));
    write_list(lab, lists);
    let settings = PathBuf::from("/run/containers.conf");
    let text = format!(
        "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
         [network]\nnetwork_backend = \"cni\"\nnetwork_config_dir = {lists:?}\ncni_plugin_dirs = [{plugins:?}]\n"
    );
    fs::write(&settings, text).unwrap();
    let podman = Podman { settings: Some(settings), netns: None };
    podman.import(image);
    podman
}

#[test]
fn podman_runs_containers_in_a_network_of_weft() {
    with_engines(&["podman", "tar"], |image| {
        let lab = sliced(2);
        let other = lab.container(2, 1);
        let podman = podman(&lab, image);
        assert!(podman.run(&["network", "ls", "--format", "{{.Name}}"]).lines().any(|name| name == "weft"));
        let run = |name: &str, more: &[&str]| {
            podman.run(&[&["run", "-d", "--name", name, "--network", "weft"][..], more, &[IMAGE], &IDLE].concat())
        };
        run("web", &["--ip", "10.32.7.1", "--mac-address", "02:00:00:00:07:01"]);
        let answered = podman.run(&["exec", "web", "/bin/ping", "-c", "1", "-w", "20", &other.v4.to_string()]);
        assert!(answered.contains("1 packets received"), "{answered}");
        let shown = podman.run(&[
            "inspect",
            "-f",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}{{end}}",
            "web",
        ]);
        assert_eq!(shown, "10.32.7.1 02:00:00:00:07:01");
        let own =
            podman.run(&["run", "--rm", "--network", "weft", IMAGE, "/bin/ping", "-c", "1", "-w", "20", "10.32.7.1"]);
        assert!(own.contains("1 packets received"), "{own}");
        run("db", &["--ip", "10.32.7.2"]);
        ping(&podman.netns("db"), "10.32.7.1");
        assert_eq!(ports(&lab, 1).len(), 2);
        // Containers know each other by name, those of one mesh on all hosts.
        let answered = podman.run(&["exec", "db", "/bin/ping", "-c", "1", "-w", "20", "web"]);
        assert!(answered.contains("(10.32.7.1)") && answered.contains("1 packets received"), "{answered}");
        podman.run(&["exec", "db", "/bin/ping", "-c", "1", "-w", "20", "web.lab.weft"]);

        // One that cannot be had is refused with weft's reason, and leaves nothing.
        let refused = podman
            .command(&["run", "--name", "no", "--network", "weft", "--ip", "10.32.7.2", IMAGE, "/bin/true"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("10.32.7.2"), "{said}");
        assert_eq!(ports(&lab, 1).len(), 2);

        // The address is free as soon as its container is gone, and a restarted container has its own again.
        podman.run(&["rm", "-f", "-t", "0", "db"]);
        assert_eq!(ports(&lab, 1).len(), 1);
        run("db2", &["--ip", "10.32.7.2"]);
        podman.run(&["restart", "-t", "0", "web"]);
        ping(&podman.netns("db2"), "10.32.7.1");
        podman.run(&["stop", "-t", "0", "web"]);
        assert_eq!(ports(&lab, 1).len(), 1);

        // Podman listens on a published port itself.
        let serve = "while true; do echo hello | /bin/busybox nc -l -p 80; done";
        let front =
            ["run", "-d", "--name", "front", "--network", "weft", "-p", "7788:80", IMAGE, "/bin/sh", "-c", serve];
        let mut command = podman.command(&front);
        process::inside(&lab.host(1).netns, &mut command).unwrap();
        text(&command.output().unwrap());
        let answers = || {
            let mut said = String::new();
            TcpStream::connect("127.0.0.1:7788").ok()?.read_to_string(&mut said).ok()?;
            (said == "hello\n").then_some(())
        };
        lab.host(1).netns.run(|| eventually("the published port answers", answers)).unwrap();
        podman.run(&["rm", "-af", "-t", "0"]);
        assert_eq!(ports(&lab, 1), Vec::<String>::new());
        Ok(())
    });
}

/// A containerd of this mount namespace, on host 1. Dropping it ends its containers and it.
struct Containerd<'l> {
    lab: &'l Lab,
    daemon: Child,
}

impl<'l> Containerd<'l> {
    const SOCKET: &'static str = "/run/containerd/containerd.sock";

    fn start(lab: &'l Lab) -> Result<Self, String> {
        let log = fs::File::create("/run/containerd.log").unwrap();
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        fs::write("/run/containerd.toml", config).unwrap();
        let mut command = Command::new("containerd");
        command.args(["--config", "/run/containerd.toml", "--root", "/run/containerd.root"]);
        command.args(["--state", "/run/containerd.state", "--address", Self::SOCKET]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        process::inside(&lab.host(1).netns, &mut command).unwrap();
        process::die_with_us(&mut command);
        let mut containerd = Self { lab, daemon: command.spawn().unwrap() };
        let up = eventually("containerd is up or has ended", || {
            let ended = containerd.daemon.try_wait().unwrap().is_some();
            let answers = Self::ctr(lab, &["version"]).output().unwrap().status.success();
            (ended || answers).then_some(answers)
        });
        match up {
            true => Ok(containerd),
            false => {
                Err(format!("containerd does not run here: {}", fs::read_to_string("/run/containerd.log").unwrap()))
            }
        }
    }

    fn ctr(lab: &Lab, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.args(["--address", Self::SOCKET]).args(arguments).stdin(Stdio::null());
        process::inside(&lab.host(1).netns, &mut command).unwrap();
        command
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        // A container's shim ends with its task, and outlives the daemon else.
        if let Ok(output) = Self::ctr(self.lab, &["task", "ls", "-q"]).output() {
            for task in String::from_utf8_lossy(&output.stdout).split_whitespace() {
                let _ = Self::ctr(self.lab, &["task", "rm", "-f", task]).output();
            }
        }
        let _ = process::end(&mut self.daemon, common::SOON);
    }
}

#[test]
fn containerd_runs_containers_in_a_network_of_weft() {
    with_engines(&["containerd", "ctr", "runc", "tar"], |_| {
        if !Path::new(LISTS).is_dir() {
            return Err(format!("there is no {LISTS} to put a list into"));
        }
        let lab = sliced(2);
        let other = lab.container(2, 1);
        for (at, below) in [("/opt", PLUGINS), (LISTS, LISTS)] {
            place::mount("none", Path::new(at), "tmpfs", 0);
            fs::create_dir_all(below).unwrap();
        }
        plugins_in(Path::new(PLUGINS));
        write_list(&lab, Path::new(LISTS));
        let _containerd = Containerd::start(&lab)?;
        let root = "/run/root";
        let run = |more: &[&str], id: &str, program: &[&str]| {
            let mut command =
                Containerd::ctr(&lab, &[&["run", "--cni", "--rootfs"], more, &[root, id], program].concat());
            text(&command.output().unwrap())
        };
        // In the foreground: DEL comes when it ends.
        let address = other.v4.to_string();
        let said = run(&["--rm"], "brief", &["/bin/ping", "-c", "1", "-w", "20", &address]);
        assert!(said.contains("1 packets received"), "{said}");
        assert_eq!(ports(&lab, 1), Vec::<String>::new());
        run(&["-d"], "web", &IDLE);
        assert_eq!(ports(&lab, 1), ["cni:default-web:eth0"]);
        let all: Vec<PortStatus> = weft(&socket(&lab, 1), "ports --json").json();
        let web = all.iter().find(|port| port.name == "cni:default-web:eth0").unwrap();
        ping(&other.netns, &web.addresses[0].cidr.address.to_string());
        text(&Containerd::ctr(&lab, &["task", "kill", "-s", "KILL", "web"]).output().unwrap());
        eventually("the port is gone", || ports(&lab, 1).is_empty().then_some(()));
        Ok(())
    });
}
