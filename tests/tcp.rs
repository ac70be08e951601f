//! The daemon's TCP ports: which there are, and what strangers get there.

#![allow(clippy::unwrap_used)]

mod common;
mod support;

use common::eventually;
use common::place::{lab, spec, usable};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use support::{dropped, status};
use weft::lab::spec::{LISTEN_PORT, LabSpec};
use weft::lab::{Host, Stop};

/// Connects to a port of `host` from `host`.
fn connect(host: &Host, address: IpAddr, port: u16) -> io::Result<TcpStream> {
    let stream =
        host.netns.run(|| TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(5)));
    stream.unwrap()
}

#[test]
fn strangers_on_the_tcp_ports_are_hung_up_on_and_counted() {
    if !usable() {
        return;
    }
    let lab = lab(LabSpec { extra_node: "tcp_ports = [443]".to_owned(), ..spec(1, 0) });
    let host = lab.host(1);
    let mut refused = 0;
    for port in [LISTEN_PORT, 443] {
        for address in [IpAddr::V4(host.v4), IpAddr::V6(host.v6)] {
            let mut stream = connect(host, address, port).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: example.net\r\n\r\n").unwrap();
            // Closed with something unread, a connection ends with a reset.
            match stream.read(&mut [0; 64]) {
                Ok(0) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                other => panic!("{address} {port}: {other:?}"),
            }
            refused += 1;
            eventually("it is counted", || (dropped(&lab, 1, "stream_refused") == refused).then_some(()));
        }
    }
    assert!(status(&lab, 1).warnings.is_empty());
}

#[test]
fn without_tcp_nobody_listens_and_a_taken_port_is_a_warning() {
    if !usable() {
        return;
    }
    let without = lab(LabSpec { extra_node: "tcp = false\ntcp_ports = [443]".to_owned(), ..spec(1, 0) });
    let host = without.host(1);
    for port in [LISTEN_PORT, 443] {
        assert_eq!(connect(host, host.v4.into(), port).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    let mut taken = lab(LabSpec { extra_node: "tcp_ports = [443]".to_owned(), ..spec(1, 0) });
    taken.kill_daemon(1, libc::SIGTERM).unwrap();
    let other = taken.host(1).netns.run(|| TcpListener::bind("0.0.0.0:443")).unwrap().unwrap();
    taken.start_daemon(1, &Stop::default()).unwrap();
    let warnings = status(&taken, 1).warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("TCP port 443 cannot be listened on"), "{warnings:?}");
    assert!(connect(taken.host(1), taken.host(1).v4.into(), LISTEN_PORT).is_ok());
    drop(other);
}
