//! Ways to a peer, as socket addresses: the data plane names every way by a `SocketAddr`, also one that is no underlay
//! address.
//!
//! | way | written as |
//! |---|---|
//! | direct | the underlay address |
//! | relayed | the peer's own tunnel address, port 0: the pair's datagrams travel inside the relays' tunnels |
//! | stream | 100::N (RFC 6666, the discard prefix: on no wire), port 0, N the number of a TCP connection |
//!
//! Port 0 is what tells them apart, since nothing can be sent there: an underlay may use the addresses of tunnels, too.
//!
//! So batches, tunnels and logs handle one type, and WireGuard's own rule, to answer where the last authentic datagram
//! came from, holds for all three.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The number of the TCP connection that `endpoint` stands for.
pub fn stream_of(endpoint: &SocketAddr) -> Option<u32> {
    let (IpAddr::V6(address), 0) = (endpoint.ip(), endpoint.port()) else { return None };
    let [0x0100, 0, 0, 0, 0, 0, high, low] = address.segments() else { return None };
    Some(u32::from(high) << 16 | u32::from(low))
}

/// The endpoint that stands for TCP connection `number`.
pub fn stream(number: u32) -> SocketAddr {
    let [high, low] = [(number >> 16) as u16, number as u16];
    SocketAddr::from((Ipv6Addr::new(0x0100, 0, 0, 0, 0, 0, high, low), 0))
}

/// The tunnel address of the peer that `endpoint` reaches through other members.
pub fn relayed_of(endpoint: &SocketAddr) -> Option<Ipv4Addr> {
    match (endpoint.ip(), endpoint.port()) {
        (IpAddr::V4(address), 0) => Some(address),
        _ => None,
    }
}

/// The endpoint that stands for the way to the member with this tunnel address through other members.
pub fn relayed(address: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((address, 0))
}

/// Whether `endpoint` is an address of the underlay.
pub fn is_underlay(endpoint: &SocketAddr) -> bool {
    endpoint.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_one_way_only() {
        let tunnel = Ipv4Addr::new(100, 64, 0, 9);
        let direct: [SocketAddr; 2] =
            [(tunnel, 51820).into(), (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 7), 51820).into()];
        for endpoint in direct {
            assert!(is_underlay(&endpoint));
            assert_eq!((relayed_of(&endpoint), stream_of(&endpoint)), (None, None));
        }
        assert_eq!((relayed_of(&relayed(tunnel)), stream_of(&relayed(tunnel))), (Some(tunnel), None));
        assert_eq!((relayed_of(&stream(0x7_0000)), stream_of(&stream(0x7_0000))), (None, Some(0x7_0000)));
        assert!(!is_underlay(&relayed(tunnel)) && !is_underlay(&stream(1)));
    }

    #[test]
    fn a_stream_is_told_from_every_other_endpoint() {
        for number in [0, 1, 0xffff, 0x1_0000, u32::MAX] {
            assert_eq!(stream_of(&stream(number)), Some(number));
        }
        for other in ["192.0.2.1:0", "[100::1:0:0:1]:0", "[2001:db8::1]:0", "100.64.0.1:51820"] {
            assert_eq!(other.parse().ok().as_ref().and_then(stream_of), None, "{other}");
        }
    }
}
