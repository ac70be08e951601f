//! The daemon: `weft up`. Starts the planes in order, runs the control loop, stops.
//!
//! ```text
//!  workers ──notices──►┐
//!  callers ──calls────►├─ control thread ── publishes ──► workers
//!  finders ──found────►│
//!  signals ──────────► ┘
//! ```
//!
//! Stopping leaves the ports' interfaces where they are: the next daemon takes them over ("restarts don't cut
//! containers"). What removes them is `weft detach`, or their namespace's end.

use super::api::{Api, Ask, Call};
use super::docker;
use super::finders::{self, Found};
use super::hostside::HostSide;
use super::lan::Lan;
use super::machine::Machine;
use super::outbox::{Notice, Outbox, PortTable};
use super::service;
use super::store::Store;
use super::stream;
use super::tap::{self, TapOffload};
use super::trust;
use super::udp::{UdpOffload, UdpSockets};
use super::worker::Worker;
use super::{clocks, configfile, gate_settings, keyfile, limits, log, random};
use crate::config::{Config, check_identity};
use crate::control::reload::limits;
use crate::control::request::{Request, Response};
use crate::control::{Control, Host, Identity, MachineReport, TICK};
use crate::names::Directory;
use crate::switch::Switch;
use crate::switch::staging::Merge;
use crate::switch::topology::Topology;
use crate::trust::sign::Signer;
use crate::tunnel::Engine;
use crate::tunnel::Gate;
use crate::wire::key::Secret;
use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, bounded, select};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Notices of the data plane that wait for control; more are dropped and counted. A second of a hundred peers' messages.
const NOTICES: usize = 4096;
/// The shortest pause between two looks at what is due: the mesh's timers are in tens of milliseconds.
const LEAST_PAUSE: Duration = Duration::from_millis(5);
/// Calls that wait for control: as many as there can be callers.
const CALLS: usize = 32;
/// A receive buffer below this drops bursts of one fast peer.
const SMALL_BUFFER: usize = 1024 * 1024;

/// Runs the daemon with the configuration in `path` until it is told to stop.
///
/// # Errors
/// Why it could not start: one sentence, or one line for each error of the file.
pub fn run(path: &Path) -> Result<(), String> {
    run_until(path, |_| None)
}

/// Runs the daemon as [`run`] does, after `weft join`: an invitation that cannot be redeemed is the end. A configuration that
/// was `made` for it goes with it, so that the next invitation finds the host as this one did.
///
/// # Errors
/// As of [`run`], and why this host was not let in.
pub fn join(path: &Path, made: bool) -> Result<(), String> {
    run_until(path, |control| {
        let reason = control.join_failure()?;
        if made && let Err(error) = std::fs::remove_file(path) {
            tracing::warn!("{} stays: {error}", path.display());
        }
        Some(format!("cannot join: {reason}"))
    })
}

/// Runs the daemon until it is told to stop or has a reason to.
fn run_until(path: &Path, failure: impl Fn(&Control<Machine>) -> Option<String>) -> Result<(), String> {
    let config = configfile::load(path).map_err(|errors| errors.to_string())?;
    log::start(config.node.log);
    limits::raise_open_files();
    let api = Api::bind(&config.node.control_socket)?;
    let mut store = Store::open(&config.node.state_dir).map_err(|error| error.to_string())?;
    let (private, created) = keyfile::load_or_create(&config.node.key_file).map_err(|error| error.to_string())?;
    let identity = identity(&config, &private)?;
    if created {
        tracing::info!("made the key file {}: our public key is {}", config.node.key_file.display(), identity.key);
    }
    let signals = signals().map_err(|error| format!("cannot catch signals: {error}"))?;
    let trust = trust::load(&config, identity, store.take_trust())?;
    let (mut control, switch, events) = start(path, config, &private, identity, store)?;
    control.set_trust(Instant::now(), trust);
    control.host.outbox.flush();
    api.serve(events.calls.0.clone(), control.config().node.container_sockets.clone())
        .map_err(|error| format!("cannot serve the control socket: {error}"))?;
    let _docker = start_docker(&mut control, &events);
    tracing::info!(
        "weft {} runs: member {}, public key {}, tunnel address {}, UDP port {}",
        env!("CARGO_PKG_VERSION"),
        control.config().node.name,
        identity.key,
        identity.address,
        control.config().node.listen_port
    );
    control_loop(&mut control, &switch.gate, &events, &signals, &failure)?;
    tracing::info!("weft stops; the ports' interfaces stay for the next start");
    Ok(())
}

/// Answers Docker, where it is wanted. What stands in the way costs only Docker's containers.
fn start_docker(control: &mut Control<Machine>, events: &Incoming) -> Option<docker::Server> {
    let config = control.config().docker.clone();
    if !config.enabled.unwrap_or_else(docker::is_installed) {
        return None;
    }
    control.host.sweep();
    let (calls, found) = (events.docker.0.clone(), events.found.0.clone());
    let started = docker::Server::start(&config, calls, found);
    started
        .map_err(|reason| {
            tracing::warn!("Docker is not served: {reason}");
            control.host.report.warnings.push(format!("Docker is not served: {reason}"));
        })
        .ok()
}

/// Our key and tunnel address, which no peer may have.
fn identity(config: &Config, private: &Secret) -> Result<Identity, String> {
    let key = private.public_key();
    check_identity(config, &key)?;
    Ok(Identity { key, address: config.node.tunnel_address.unwrap_or_else(|| key.tunnel_address()) })
}

type Channel<T> = (crossbeam::channel::Sender<T>, Receiver<T>);

/// What wakes the control thread.
struct Incoming {
    notices: Channel<Notice>,
    calls: Channel<Call>,
    found: Channel<Found>,
    docker: Channel<docker::Call>,
}

/// Probes the machine, starts the data plane and takes over the ports of an earlier run.
fn start(
    path: &Path,
    config: Config,
    private: &Secret,
    identity: Identity,
    store: Store,
) -> Result<(Control<Machine>, Arc<Switch>, Incoming), String> {
    let now = Instant::now();
    let events =
        Incoming { notices: bounded(NOTICES), calls: bounded(CALLS), found: bounded(CALLS), docker: bounded(CALLS) };
    let (tap_offload, udp_offload, mut report) = probe(&config)?;
    let worker_count = config.node.workers.unwrap_or_else(default_workers);
    let port = config.node.listen_port;
    let sockets = UdpSockets::bind(port, worker_count, udp_offload).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "UDP port {port} is taken, perhaps by another weft daemon or WireGuard: stop it, or set listen_port in [node]"
        ),
        _ => format!("cannot bind UDP port {port}: {error}"),
    })?;
    let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
    let (receive_buffer, _) = sockets[0].buffer_sizes();
    if receive_buffer < SMALL_BUFFER {
        report.warnings.push(format!(
            "the socket receive buffer is only {receive_buffer} bytes: run with CAP_NET_ADMIN or raise net.core.rmem_max"
        ));
    }
    let topology = Topology::new(identity.address, Vec::new(), &[]);
    let switch = Arc::new(Switch::new(
        Gate::new(private, gate_settings(engine(&config))),
        topology,
        limits(config.fdb),
        random(),
        now,
    ));
    let table = Arc::new(ArcSwap::from_pointee(PortTable::default()));
    let merge = match tap_offload {
        TapOffload { checksum: true, uso: true, .. } if config.offload.merge => Merge::TcpAndUdp,
        TapOffload { checksum: true, .. } if config.offload.merge => Merge::Tcp,
        _ => Merge::Nothing,
    };
    let streams = prepare_streams(&config, &mut report)?;
    let stream_queue = streams.as_ref().map(stream::Prepared::queue);
    let no_thread = |error| format!("cannot start a thread: {error}");
    let service = service::Prepared::new().map_err(no_thread)?;
    let (service_queue, directory) = (service.queue(), Arc::new(Directory::default()));
    let outbox_of = |sockets: &Arc<UdpSockets>| {
        let (sockets, notices) = (sockets.clone(), events.notices.0.clone());
        let outbox = Outbox::new(switch.clone(), sockets, table.clone(), stream_queue.clone(), notices);
        outbox.with_service(directory.clone(), service_queue.clone())
    };
    let make_outbox = || outbox_of(&sockets[0]);
    let mut workers = Vec::new();
    for (number, sockets) in sockets.iter().enumerate() {
        let outbox = outbox_of(sockets);
        let worker = Worker::start(number, switch.clone(), sockets.clone(), table.clone(), outbox, merge);
        workers.push(worker.map_err(|error| format!("cannot start a worker: {error}"))?);
    }
    report.workers = workers.len();
    report.config_file = path.display().to_string();
    report.pid = std::process::id();
    let own = |streams: stream::Prepared| {
        let (limits, notices) = (stream::Limits::default(), events.notices.0.clone());
        streams.start(&identity.key, limits, switch.clone(), make_outbox(), notices, merge)
    };
    let streams = streams.map(own).transpose().map_err(no_thread)?;
    let lan = start_lan(&config, &identity, &table, &events, &mut report);
    let outbox = make_outbox();
    let service_outbox = make_outbox();
    let found = &events.found.0;
    let seek = finders::seek_targets(found.clone(), config.node.container_sockets.clone()).map_err(no_thread)?;
    let resolve = finders::resolve_names(found.clone()).map_err(no_thread)?;
    let side = HostSide::start(found.clone()).map_err(no_thread)?;
    let authority_key_file = config.trust.authority_key_file.clone();
    let mut machine = Machine::new(
        path.to_owned(),
        tap_offload,
        table,
        store,
        workers,
        sockets,
        outbox,
        seek,
        resolve,
        side,
        report,
    );
    (machine.streams, machine.lan) = (streams, lan);
    machine.authority_key_file = authority_key_file;
    let left = machine.left_ports();
    let signer = Signer::new(private);
    let mut control = Control::new(machine, config, signer, identity.address, switch.clone(), directory.clone(), now);
    let service = service.start(switch.clone(), service_outbox, directory);
    control.host.service = Some(service.map_err(no_thread)?);
    for record in left {
        if !control.wants_adopted(&record.spec, record.origin, record.vni) {
            tracing::info!("port {}: removed, the configuration has no place for it any more", record.spec.name);
            control.host.discard(&record);
            continue;
        }
        let port = control.new_port(record.vni, record.mac);
        match control.host.adopt(&record, port.clone()) {
            Ok(()) => {
                tracing::info!("port {}: taken over as it was", record.spec.name);
                control.adopted(now, record.spec, record.origin, port, record.sequence);
            }
            Err((reason, is_gone)) => {
                tracing::info!("port {}: not taken over: {reason}", record.spec.name);
                if is_gone && !control.not_adopted(&record.spec, record.origin) {
                    control.host.forget_port(&record.spec.name);
                }
            }
        }
    }
    control.host.outbox.flush();
    Ok((control, switch, events))
}

/// The thread of TCP connections, listening; `None` when it is not wanted. A port that cannot be had costs only those who
/// would have come by it.
fn prepare_streams(config: &Config, report: &mut MachineReport) -> Result<Option<stream::Prepared>, String> {
    if !config.node.tcp {
        return Ok(None);
    }
    let mut streams =
        stream::Prepared::new().map_err(|error| format!("cannot prepare for TCP connections: {error}"))?;
    let ports: BTreeSet<u16> = config.node.tcp_ports.iter().copied().chain([config.node.listen_port]).collect();
    for port in ports {
        if let Err(error) = streams.listen(port) {
            report.warnings.push(format!(
                "TCP port {port} cannot be listened on ({error}): members behind firewalls will not come by it; stop who has \
                 it, or set tcp = false in [node]"
            ));
        }
    }
    Ok(Some(streams))
}

/// The thread that looks for members on our LANs, where it is wanted and can be.
fn start_lan(
    config: &Config,
    identity: &Identity,
    table: &Arc<ArcSwap<PortTable>>,
    events: &Incoming,
    report: &mut MachineReport,
) -> Option<Lan> {
    if !config.node.discovery || !config.node.lan_discovery {
        return None;
    }
    let lan = Lan::start(identity.key, config.node.listen_port, table.clone(), events.notices.0.clone());
    lan.map_err(|error| report.warnings.push(format!("members on the LAN are not looked for: {error}"))).ok()
}

/// One worker per two cores, at least one: on a small host more of them only take turns.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2).max(1)
}

/// Finds out which offloads this kernel grants of those that are wanted.
fn probe(config: &Config) -> Result<(TapOffload, UdpOffload, MachineReport), String> {
    let wanted = config.offload;
    let probe = tap::probe(TapOffload { checksum: wanted.tap_checksum, tso: wanted.tap_tso, uso: wanted.tap_uso })
        .map_err(|error| error.to_string())?;
    let granted = probe.granted();
    let mut offloads = BTreeMap::new();
    let mut tell = |name: &str, switched_on: bool, result: Result<(), String>| {
        let state = match result {
            Ok(()) => "on".to_owned(),
            Err(_) if !switched_on => "off (switched off in the configuration)".to_owned(),
            Err(reason) => format!("off ({reason})"),
        };
        offloads.insert(name.to_owned(), state);
    };
    tell("tap_checksum", wanted.tap_checksum, probe.checksum.clone());
    tell("tap_tso", wanted.tap_tso, probe.tso.clone());
    tell("tap_uso", wanted.tap_uso, probe.uso.clone());
    let merge = if !wanted.merge {
        Err(String::new())
    } else if granted.checksum {
        Ok(())
    } else {
        Err("needs tap_checksum".to_owned())
    };
    tell("merge", wanted.merge, merge);
    let udp = UdpSockets::probe(UdpOffload { segment: wanted.udp_segment, gro: wanted.udp_gro });
    let [(_, segment), (_, gro)] = &udp;
    let udp_offload = UdpOffload { segment: segment.is_ok(), gro: gro.is_ok() };
    for (name, result) in udp {
        let switched_on = if name == "udp_segment" { wanted.udp_segment } else { wanted.udp_gro };
        tell(name, switched_on, result);
    }
    let has_avx512 = match Engine::fastest() {
        Engine::Avx512 => Ok(()),
        Engine::Ring => Err("this processor lacks it".to_owned()),
    };
    tell("avx512", wanted.avx512, if wanted.avx512 { has_avx512 } else { Err(String::new()) });
    Ok((granted, udp_offload, MachineReport { offloads, ..MachineReport::default() }))
}

/// What encrypts packets: the fastest that the configuration allows.
fn engine(config: &Config) -> Engine {
    if config.offload.avx512 { Engine::fastest() } else { Engine::Ring }
}

/// Signals as messages, from a thread that waits for them.
fn signals() -> io::Result<Receiver<i32>> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let (sender, receiver) = bounded(8);
    let forward = move || {
        for signal in signals.forever() {
            if sender.send(signal).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("weft-signals".to_owned()).spawn(forward)?;
    Ok(receiver)
}

fn control_loop(
    control: &mut Control<Machine>,
    gate: &Gate,
    events: &Incoming,
    signals: &Receiver<i32>,
    failure: impl Fn(&Control<Machine>) -> Option<String>,
) -> Result<(), String> {
    let mut next_tick = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next_tick {
            next_tick = now + TICK;
            control.host.count_receive_drops();
            let (unix_time, then) = clocks();
            gate.set_clock(then, unix_time);
            control.tick(now);
        }
        control.host.outbox.flush();
        if let Some(reason) = failure(control) {
            return Err(reason);
        }
        let now = Instant::now();
        let pause = next_tick.saturating_duration_since(now).min(control.idle_for(now).max(LEAST_PAUSE));
        select! {
            recv(events.notices.1) -> notice => if let Ok(notice) = notice { take_notice(control, notice) },
            recv(events.calls.1) -> call => if let Ok(call) = call {
                let response = answer(control, &call.ask);
                control.host.outbox.flush();
                let _ = call.answer.send(response);
            },
            recv(events.docker.1) -> call => if let Ok(call) = call {
                call.answer(|path, body| control.docker_call(Instant::now(), path, body));
            },
            recv(events.found.1) -> found => match found {
                Ok(Found::Place(name, place)) => control.located(Instant::now(), &name, place),
                Ok(Found::Addresses(name, addresses)) => control.resolved(Instant::now(), name, addresses),
                Ok(Found::Docker(heard)) => control.docker_heard(Instant::now(), heard),
                Ok(Found::Health(answers)) => control.probed(Instant::now(), &answers),
                Err(_) => {}
            },
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => drop(control.reload(Instant::now())),
                _ => return Ok(()),
            },
            default(pause) => control.run_due(Instant::now()),
        }
    }
}

fn take_notice(control: &mut Control<Machine>, notice: Notice) {
    let now = Instant::now();
    match notice {
        Notice::Message(peer, from, payload) => control.message(now, peer, from, &payload),
        Notice::Stranger { key, from, datagram } => control.stranger(now, key, from, &datagram),
        Notice::SessionUp(peer) => control.session_up(now, peer),
        Notice::Snooped(port, frame) => control.snooped(now, port, &frame),
        Notice::TooBig(to, bytes) => control.too_big(now, to, bytes),
        Notice::Stream { to, address, number } => control.stream(now, to, address, number),
        Notice::StreamClosed(number) => control.stream_closed(now, number),
        Notice::Seen { key, address } => control.seen(now, key, address),
        Notice::PortFailed(port) => control.port_failed(now, port),
    }
}

fn answer(control: &mut Control<Machine>, ask: &Ask) -> Response {
    let now = Instant::now();
    match ask {
        Ask::Attach(attach, place) => control.attach(now, attach, place),
        Ask::Request(Request::Detach(detach)) => control.detach(now, detach),
        Ask::Request(Request::Reload) => control.reload(now),
        Ask::Request(Request::Connect(connect)) => control.connect(now, connect),
        Ask::Request(Request::Forget(forget)) => control.forget(now, forget),
        Ask::Request(Request::Invite(invite)) => control.invite(now, invite),
        Ask::Request(Request::Revoke { member }) => control.revoke(now, member),
        Ask::Request(Request::AddName(add)) => control.add_name(add),
        Ask::Request(Request::RemoveName(remove)) => control.remove_name(remove),
        Ask::Request(Request::Lease(wanted)) => control.leased(now, wanted),
        Ask::Request(Request::Release { network, address }) => control.released(now, network, *address),
        Ask::Request(Request::Reclaim { member }) => control.reclaim(now, member),
        Ask::Request(Request::Rotate { overlap_s }) => control.rotate(now, Duration::from_secs(*overlap_s)),
        Ask::Request(Request::Expose(expose)) => control.expose(now, expose),
        Ask::Request(Request::Hide { network }) => control.hide(now, network),
        Ask::Request(Request::Publish(publish)) => control.publish_port(now, publish),
        Ask::Request(Request::Unpublish(unpublish)) => control.unpublish(now, unpublish),
        Ask::Request(request) => control
            .show(now, request)
            .unwrap_or_else(|| Response::Refused("an attach must name a target that exists".to_owned())),
    }
}
