//! A member that speaks WireGuard properly and puts into its tunnel whatever it likes.
//!
//! It takes the place, the address and the key of a lab host whose daemon does not run, so the others take it for that
//! host.

use crate::common::SOON;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use weft::io::{gate_settings, keyfile};
use weft::lab::Host;
use weft::lab::spec::LISTEN_PORT;
use weft::tunnel::{Claim, Content, Engine, Gate, HANDSHAKE_ROOM, OVERHEAD, Tunnel, TunnelSettings};
use weft::wire::key::Secret;
use weft::wire::{MESH_PORT, vxlan};

/// See the head of this file.
pub(crate) struct Member {
    pub(crate) socket: UdpSocket,
    gate: Gate,
    tunnel: Tunnel,
    to: SocketAddr,
    /// Its tunnel address.
    pub(crate) ours: Ipv4Addr,
    /// The victim's.
    pub(crate) theirs: Ipv4Addr,
    /// Inner packets that came out of its tunnel.
    pub(crate) received: u64,
    /// Messages of the mesh among them.
    pub(crate) messages: Vec<Vec<u8>>,
    /// The sealed form of what was sent last.
    pub(crate) sealed: Vec<u8>,
}

impl Member {
    /// Becomes `host` and makes a session with `victim`.
    pub(crate) fn join(host: &Host, victim: &Host) -> Self {
        let secret = keyfile::load(&host.files.key()).unwrap();
        Self::with_key(host, victim, &secret)
    }

    /// Makes a session with `victim` from where `host` is, with this key.
    pub(crate) fn with_key(host: &Host, victim: &Host, secret: &Secret) -> Self {
        assert!(host.daemon().is_none(), "{} has a daemon", host.name);
        let gate = Gate::new(secret, gate_settings(Engine::Ring));
        let to = SocketAddr::new(IpAddr::V4(victim.v4), LISTEN_PORT);
        let settings = TunnelSettings {
            peer: victim.public_key,
            preshared_key: None,
            keepalive: None,
            index: 0x00c0_ffee,
            endpoints: vec![to],
        };
        let tunnel = Tunnel::new(&gate, &settings, Instant::now());
        let socket = host.netns.run(|| UdpSocket::bind((host.v4, LISTEN_PORT))).unwrap().unwrap();
        let (ours, theirs) = (secret.public_key().tunnel_address(), victim.public_key.tunnel_address());
        let mut member =
            Self { socket, gate, tunnel, to, ours, theirs, received: 0, messages: Vec::new(), sealed: Vec::new() };
        let deadline = Instant::now() + SOON;
        while !member.tunnel.is_live() {
            assert!(Instant::now() < deadline, "no session with {}", victim.name);
            let mut message = [0; HANDSHAKE_ROOM];
            if let Some(length) = member.tunnel.initiate(Instant::now(), &mut message) {
                member.socket.send_to(&message[..length], to).unwrap();
            }
            member.listen(Duration::from_millis(500));
        }
        member
    }

    /// Takes what arrives within `patience`.
    pub(crate) fn listen(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let (mut datagram, mut packet) = ([0; 65_536], [0; 65_536]);
        while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok((length, from)) = self.socket.recv_from(&mut datagram) else { continue };
            let (datagram, now) = (&datagram[..length], Instant::now());
            if from != self.to {
                continue;
            }
            match Gate::claim(datagram) {
                Some(Claim::Data(index)) => {
                    let Some(opener) = self.tunnel.opener(now, index) else { continue };
                    if let Ok(length) = opener.open(datagram, &mut packet) {
                        self.received += 1;
                        if packet[..length].get(22..24) == Some(&MESH_PORT.to_be_bytes()) {
                            self.messages.push(packet[28..length].to_vec());
                        }
                        let content = if length > 0 { Content::Frame } else { Content::Keepalive };
                        self.tunnel.heard(now, from, index, content);
                    }
                }
                Some(claim @ (Claim::Initiation | Claim::Response(_))) => {
                    let mut reply = [0; HANDSHAKE_ROOM];
                    let length = match claim {
                        Claim::Initiation => {
                            let Some(called) = self.gate.read(datagram) else { continue };
                            self.tunnel.answer(now, from, called, &mut reply)
                        }
                        _ => self.tunnel.take_response(now, from, datagram, &mut reply).map(|outcome| outcome.reply),
                    };
                    if let Ok(length) = length {
                        self.socket.send_to(&reply[..length], from).unwrap();
                    }
                    if self.tunnel.is_live() {
                        return;
                    }
                }
                Some(Claim::Cookie(_)) | None => {}
            }
        }
    }

    /// Seals a packet and sends it.
    pub(crate) fn send(&mut self, packet: &[u8]) {
        self.sealed.resize(packet.len() + OVERHEAD, 0);
        let (sealer, _) = self.tunnel.outgoing(Instant::now()).unwrap();
        assert_eq!(sealer.seal(packet, &mut self.sealed), Some(self.sealed.len()));
        self.socket.send_to(&self.sealed, self.to).unwrap();
    }

    /// Sends an Ethernet frame of the network `vni` in one packet.
    pub(crate) fn send_frame(&mut self, vni: u32, frame: &[u8]) {
        let packet = self.frame_packet(vni, 0, frame);
        self.send(&packet);
    }

    /// The inner packet that carries a frame.
    pub(crate) fn frame_packet(&self, vni: u32, identification: u16, frame: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; weft::wire::INNER_OVERHEAD];
        vxlan::emit(&mut packet, self.ours, self.theirs, identification, vni, 0, None, frame.len());
        packet.extend_from_slice(frame);
        packet
    }

    /// An IPv4 packet with anything in it: `flags` are the header's flags and fragment offset.
    pub(crate) fn packet(&self, identification: u16, flags: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&identification.to_be_bytes());
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        packet[8] = 64;
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&self.ours.octets());
        packet[16..20].copy_from_slice(&self.theirs.octets());
        super::raw::finish_ipv4(&mut packet);
        packet.extend_from_slice(payload);
        packet
    }

    /// A UDP datagram to `port` in such a packet.
    pub(crate) fn udp_packet(&self, port: u16, payload: &[u8]) -> Vec<u8> {
        let mut udp = vec![0; 8];
        udp[0..2].copy_from_slice(&port.to_be_bytes());
        udp[2..4].copy_from_slice(&port.to_be_bytes());
        udp[4..6].copy_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
        udp.extend_from_slice(payload);
        self.packet(0, 0, 17, &udp)
    }
}
