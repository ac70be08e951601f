//! smoltcp's device: one packet goes in, what comes out is a frame.
//!
//! IP packets, not frames: whom they go to on the link is known from who asked, so there is no neighbour to be looked for, and
//! no memory of neighbours that strangers could fill or mislead.

use super::packet;
use crate::wire::ethernet::{HEADER_LEN, Mac};
use smoltcp::iface::{Config, Interface};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::net::IpAddr;
use std::time::Duration;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Wire {
    mtu: usize,
    vni: u32,
    mac: Mac,
    incoming: Option<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

impl Wire {
    pub(super) fn new(mtu: u16) -> Self {
        Self { mtu: usize::from(mtu), vni: 0, mac: Mac([0; 6]), incoming: None, outgoing: Vec::new() }
    }

    /// What comes next belongs to this station, and so do the answers.
    pub(super) fn is_of(&mut self, vni: u32, mac: Mac) {
        (self.vni, self.mac) = (vni, mac);
    }

    /// Puts a packet in.
    pub(super) fn put(&mut self, packet: &[u8]) {
        self.incoming = Some(packet.to_vec());
    }

    /// The frames that came out.
    pub(super) fn take(&mut self) -> std::vec::Drain<'_, Vec<u8>> {
        self.outgoing.drain(..)
    }
}

/// smoltcp's time.
pub(super) fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// A stack that has this address and takes everybody for its neighbour.
pub(super) fn interface(now: Duration, random: u64, wire: &mut Wire) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = random;
    Interface::new(config, wire, instant(now))
}

/// Gives the stack another address.
pub(super) fn set_address(interface: &mut Interface, address: IpAddr) {
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        // It holds more than one.
        let _ = addresses.push(IpCidr::new(IpAddress::from(address), 0));
    });
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        // The container's kernel may have left them to us.
        (checksum.tcp, checksum.udp) = (Checksum::Tx, Checksum::Tx);
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = (Medium::Ip, self.mtu);
        capabilities.checksum = checksum;
        capabilities
    }

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let incoming = Incoming(self.incoming.take()?);
        Some((incoming, Outgoing(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(self))
    }
}

pub(super) struct Incoming(Vec<u8>);

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub(super) struct Outgoing<'a>(&'a mut Wire);

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = Vec::with_capacity(HEADER_LEN + len);
        let packet = packet::begin(&mut frame, self.0.mac, self.0.vni, true, len);
        let result = write(packet);
        if packet.first().is_some_and(|first| first >> 4 == 6) {
            frame[HEADER_LEN - 2..HEADER_LEN].copy_from_slice(&crate::wire::ethernet::IPV6.to_be_bytes());
        }
        self.0.outgoing.push(frame);
        result
    }
}
