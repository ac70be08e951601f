//! Open vSwitch with its datapath in user space (`datapath_type=netdev`) and a VXLAN port: a switch without kernel
//! module and without encryption.
//!
//! ```text
//!   br-lab  10.32.H.1 ── port vxlan ──┐ routed by Open vSwitch itself
//!   br-phy  198.51.100.H ── port eth0 ┘
//! ```
//!
//! Each host has its own database and daemons, with their sockets in the host's directory. The underlay's address
//! moves to `br-phy`, as the manual of userspace tunnels has it.

use super::kernel::VXLAN_OVERHEAD;
use super::pair::{HOSTS, Pair};
use super::program::Program;
use crate::lab::LabError;
use crate::lab::spec::{CONTAINER_IFNAME, HOST_IFNAME};
use crate::lab::underlay::sysctl;
use std::net::Ipv4Addr;
use std::path::Path;

pub(super) const VSWITCHD: Program =
    Program { name: "ovs-vswitchd", version: "--version", says: "ovs-vswitchd (Open vSwitch)" };
pub(super) const SERVER: Program =
    Program { name: "ovsdb-server", version: "--version", says: "ovsdb-server (Open vSwitch)" };
pub(super) const VSCTL: Program =
    Program { name: "ovs-vsctl", version: "--version", says: "ovs-vsctl (Open vSwitch)" };
pub(super) const TOOL: Program =
    Program { name: "ovsdb-tool", version: "--version", says: "ovsdb-tool (Open vSwitch)" };

/// The interfaces that carry addresses.
const OVERLAY: &str = "br-lab";
const UNDERLAY: &str = "br-phy";
/// Where packages put the database's schema.
const SCHEMAS: [&str; 2] =
    ["/usr/share/openvswitch/vswitch.ovsschema", "/usr/local/share/openvswitch/vswitch.ovsschema"];

fn underlay_address(h: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, h as u8)
}

pub(super) fn start(pair: &mut Pair) -> Result<(), LabError> {
    let schema = SCHEMAS.iter().find(|path| Path::new(path).exists());
    let schema = schema.ok_or_else(|| LabError::Refused(format!("there is no {}", SCHEMAS[0])))?;
    for h in HOSTS {
        let socket = pair.dir(h).join("db.sock");
        let command = |pair: &Pair, program: &str| {
            let mut command = pair.command(h, program)?;
            // Everything else that it would put into the system's directories.
            for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
                command.env(variable, pair.dir(h));
            }
            Ok::<_, LabError>(command)
        };
        let mut create = command(pair, "ovsdb-tool")?;
        create.args(["create", "conf.db", schema]);
        pair.run(create)?;
        let mut server = command(pair, "ovsdb-server")?;
        server.arg("conf.db").arg(format!("--remote=punix:{}", socket.display()));
        pair.start(h, server)?;
        pair.until("its socket", |_| Ok(socket.exists().then_some(())))?;
        let vsctl = |pair: &Pair, arguments: &str| {
            let mut vsctl = command(pair, "ovs-vsctl")?;
            vsctl.arg(format!("--db=unix:{}", socket.display())).args(arguments.split_whitespace());
            pair.run(vsctl)
        };
        vsctl(pair, "--no-wait init")?;
        let mut daemon = command(pair, "ovs-vswitchd")?;
        daemon.arg(format!("unix:{}", socket.display()));
        pair.start(h, daemon)?;
        let remote = underlay_address(3 - h);
        vsctl(
            pair,
            &format!(
                "--timeout=20 add-br {UNDERLAY} -- set bridge {UNDERLAY} datapath_type=netdev \
                 -- add-port {UNDERLAY} {HOST_IFNAME} \
                 -- add-br {OVERLAY} -- set bridge {OVERLAY} datapath_type=netdev \
                 -- add-port {OVERLAY} tunnel \
                 -- set interface tunnel type=vxlan options:key=100 options:remote_ip={remote}"
            ),
        )?;
        // The host's own stack is not to answer for what arrives at eth0.
        for interface in ["all", HOST_IFNAME] {
            sysctl(&pair.host(h).netns, &format!("ipv4/conf/{interface}/rp_filter"), "1");
        }
        pair.bring_up(h, UNDERLAY, Some(pair.mtu(0)), underlay_address(h))?;
        pair.bring_up(h, OVERLAY, Some(pair.mtu(VXLAN_OVERHEAD)), Pair::overlay(h))?;
        if h == 1 {
            for c in [1, 2] {
                let name = format!("c{c}");
                vsctl(
                    pair,
                    &format!("--timeout=20 add-port {OVERLAY} {name} -- set interface {name} type=internal"),
                )?;
                let find = |pair: &Pair| pair.netlink(1, |netlink| netlink.link(&name));
                let link = pair.until(&format!("interface {name}"), find)?;
                let container = pair.lab().container(1, c);
                pair.netlink(1, |netlink| netlink.move_to(link.index, &container.netns, CONTAINER_IFNAME))?;
                pair.bring_up_container(c)?;
            }
        }
    }
    pair.containers_reach_each_other()?;
    pair.hosts_reach_each_other()
}
