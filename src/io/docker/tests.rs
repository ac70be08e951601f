//! What comes on the plugin socket: calls as Docker writes them, in pieces and in chunks, and what is none.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::io::scratch::Scratch;
use crossbeam::channel::{Receiver, unbounded};

/// As dockerd 20.10 sends it: nothing behind `Host:`.
const ACTIVATE: &str = "POST /Plugin.Activate HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\nAccept-Encoding: gzip\r\n\r\n";

#[test]
fn a_call_is_read_however_it_comes() {
    let leave = "POST /NetworkDriver.Leave HTTP/1.1\r\nHost: plugin.moby.localhost\r\nContent-Length: 4\r\n\r\nnull";
    let chunked = "POST /NetworkDriver.Leave HTTP/1.1\r\nhost:\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnul\r\n1\r\nl\r\n0\r\n\r\n";
    for (text, path, body) in [
        (ACTIVATE, "/Plugin.Activate", ""),
        ("POST /Plugin.Activate HTTP/1.1\r\n\r\n", "/Plugin.Activate", ""),
        (leave, "/NetworkDriver.Leave", "null"),
        (chunked, "/NetworkDriver.Leave", "null"),
    ] {
        let whole = Some((path.to_owned(), body.as_bytes().to_vec()));
        assert_eq!(parse(text.as_bytes()).unwrap(), whole, "{text}");
        for end in 0..text.len() {
            let part = parse(&text.as_bytes()[..end]).unwrap();
            assert!(part.is_none() || part == whole, "{}", &text[..end]);
        }
    }
    let long = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", MAX_BODY + 1);
    let endless = format!("POST / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
    let odd = "POST / HTTP/1.1\r\nContent-Length: minus one\r\n\r\n";
    for wrong in ["hello\r\n\r\n", "\u{0}", &long, &endless, odd] {
        parse(wrong.as_bytes()).unwrap_err();
    }
}

/// A server whose control is the test.
fn server() -> (Scratch, PathBuf, Receiver<Call>, Server) {
    let dir = Scratch::new();
    let (socket, engine) = (dir.path().join("plugins/weft.sock"), dir.path().join("docker.sock"));
    let (calls, called) = unbounded();
    let config = config::Docker { enabled: None, socket: socket.clone(), engine };
    let server = Server::start(&config, calls, unbounded().0).unwrap();
    (dir, socket, called, server)
}

fn call(socket: &Path, text: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_call_is_answered_by_control_or_refused_within_a_second() {
    let (_dir, socket, called, server) = server();
    let caller = std::thread::spawn({
        let socket = socket.clone();
        move || call(&socket, ACTIVATE)
    });
    called.recv().unwrap().answer(|path, body| {
        assert_eq!((path, body), ("/Plugin.Activate", &b""[..]));
        Reply { may_pass: true, ..Reply::of(Err("beta has it".to_owned().into())) }
    });
    // That may pass, and does.
    called.recv().unwrap().answer(|_, _| Reply::of(Ok(serde_json::json!({}))));
    let answer = caller.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n{}"), "{answer}");

    // Nobody answers; and what nobody waits for any more is not done.
    let began = Instant::now();
    let answer = call(&socket, ACTIVATE);
    assert!(began.elapsed() < Duration::from_secs(2) && answer.contains("does not keep up"), "{answer}");
    called.recv().unwrap().answer(|_, _| panic!("it is too late for this"));

    // What is no call is answered without asking anybody.
    let answer = call(&socket, "GET\r\n\r\n");
    assert!(answer.contains("\"Err\"") && answer.contains("\"Error\""), "{answer}");
    drop(server);
    assert!(!socket.exists());
}

#[test]
fn a_second_daemon_does_not_take_the_socket_away() {
    let (dir, socket, _called, _server) = server();
    let config = config::Docker { enabled: None, socket, engine: dir.path().join("docker.sock") };
    let error = Server::start(&config, unbounded().0, unbounded().0).unwrap_err();
    assert!(error.contains("another weft daemon") && error.contains("[docker]"), "{error}");
}
