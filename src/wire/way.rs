//! Ways to a peer, as socket addresses: the data plane names every way by a `SocketAddr`, also one that is no underlay
//! address.
//!
//! | way | written as |
//! |---|---|
//! | direct | the underlay address |
//! | relayed | the peer's own tunnel address, 100.64.0.0/10 unless configured: the pair's datagrams travel inside the relays' tunnels |
//! | stream | 100::N (RFC 6666, the discard prefix: on no wire), N the number of a TCP connection |
//!
//! So batches, tunnels and logs handle one type, and WireGuard's own rule, to answer where the last authentic datagram
//! came from, holds for all three.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The number of the TCP connection that `endpoint` stands for.
pub fn stream_of(endpoint: &SocketAddr) -> Option<u32> {
    let IpAddr::V6(address) = endpoint.ip() else { return None };
    let [0x0100, 0, 0, 0, 0, 0, high, low] = address.segments() else { return None };
    Some(u32::from(high) << 16 | u32::from(low))
}

/// The endpoint that stands for TCP connection `number`.
pub fn stream(number: u32) -> SocketAddr {
    let [high, low] = [(number >> 16) as u16, number as u16];
    SocketAddr::from((Ipv6Addr::new(0x0100, 0, 0, 0, 0, 0, high, low), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

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
