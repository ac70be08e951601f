//! Engines played by a thread behind a Unix socket.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::io::scratch::Scratch;
use proptest::prelude::*;
use std::os::unix::net::UnixListener;

const ID: &str = "4fa6e0f0c6786287e131c3852c58a2e01cc697a68231826813597e4994f1d6e2";

/// Answers one request on `dir/NAME.sock` with these pieces, then closes. Gives the socket's path.
fn engine(dir: &Scratch, name: &str, pieces: &[&str]) -> PathBuf {
    let path = dir.path().join(format!("{name}.sock"));
    let listener = UnixListener::bind(&path).unwrap();
    let pieces: Vec<String> = pieces.iter().map(|&piece| piece.to_owned()).collect();
    std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let length = connection.read(&mut request).unwrap();
        let request = String::from_utf8_lossy(&request[..length]);
        assert!(request.starts_with("GET /containers/web/json HTTP/1.0\r\n"), "{request}");
        for piece in pieces {
            if connection.write_all(piece.as_bytes()).is_err() {
                return;
            }
        }
    });
    path
}

fn body(id: &str, running: bool, pid: i32, status: &str) -> String {
    format!(
        r#"{{"Id":"{id}","Created":"2025-01-01T00:00:00Z","Name":"/web",
            "State":{{"Status":"{status}","Running":{running},"Paused":false,"Pid":{pid},"ExitCode":0}}}}"#
    )
}

fn ok(body: &str) -> String {
    format!("HTTP/1.0 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\r\n{body}")
}

const NONE: &str = "HTTP/1.0 404 Not Found\r\n\r\n{\"message\":\"No such container: web\"}\n";

fn ask(dir: &Scratch, sockets: &[PathBuf]) -> Result<Running, ContainerError> {
    let nowhere = dir.path().join("nowhere");
    resolve_with("web", sockets, &Storage { graph: nowhere.clone(), run: nowhere.clone(), proc: nowhere })
}

#[test]
fn a_running_container_is_found_whichever_way_the_answer_is_framed() {
    let json = body(ID, true, 4242, "running");
    let (first, second) = json.split_at(40);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n{:x}\r\n{first}\r\n{:X};x=y\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    let (head, tail) = chunked.split_at(60);
    let counted = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json} and more", json.len());
    for pieces in [vec![ok(&json)], vec![head.to_owned(), tail.to_owned()], vec![counted]] {
        let dir = Scratch::new();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let socket = engine(&dir, "docker", &pieces);
        let engine = socket.display().to_string();
        assert_eq!(ask(&dir, &[socket]).unwrap(), Running { pid: 4242, id: ID.to_owned(), engine });
    }
}

#[test]
fn an_unknown_name_lists_who_was_asked() {
    let dir = Scratch::new();
    let sockets = [engine(&dir, "docker", &[NONE]), dir.path().join("absent.sock"), engine(&dir, "podman", &[NONE])];
    match ask(&dir, &sockets).unwrap_err() {
        ContainerError::NotFound { asked, .. } => {
            assert_eq!(asked, [sockets[0].display().to_string(), sockets[2].display().to_string()]);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_stopped_container_is_named_with_its_state() {
    let dir = Scratch::new();
    let socket = engine(&dir, "docker", &[&ok(&body(ID, false, 0, "exited"))]);
    let error = ask(&dir, &[socket]).unwrap_err();
    assert!(matches!(&error, ContainerError::NotRunning { state, .. } if state == "exited"), "{error}");
}

#[test]
fn two_containers_of_one_name_are_ambiguous_and_one_seen_twice_is_not() {
    let running = |id: &str| ok(&body(id, true, 7, "running"));
    let other = ID.replace('4', "5");
    let dir = Scratch::new();
    let sockets = [engine(&dir, "docker", &[&running(ID)]), engine(&dir, "podman", &[&running(&other)])];
    let error = ask(&dir, &sockets).unwrap_err().to_string();
    assert!(error.contains(&format!("{ID:.12} in {}", sockets[0].display())), "{error}");
    assert!(error.contains(&format!("{other:.12} in {}", sockets[1].display())), "{error}");

    let dir = Scratch::new();
    let sockets = [engine(&dir, "docker", &[&running(ID)]), engine(&dir, "podman", &[&running(ID)])];
    assert_eq!(ask(&dir, &sockets).unwrap().pid, 7);

    let dir = Scratch::new();
    let stopped = ok(&body(&other, false, 0, "exited"));
    let sockets = [engine(&dir, "docker", &[&stopped]), engine(&dir, "podman", &[&running(ID)])];
    assert_eq!(ask(&dir, &sockets).unwrap().id, ID);
}

#[test]
fn without_any_engine_the_sockets_looked_for_are_named() {
    let dir = Scratch::new();
    let left_behind = dir.path().join("stale.sock");
    drop(UnixListener::bind(&left_behind).unwrap());
    let error = ask(&dir, &[left_behind.clone(), dir.path().join("absent.sock")]).unwrap_err();
    assert!(matches!(error, ContainerError::NoEngine { .. }), "{error}");
    assert!(error.to_string().contains(&left_behind.display().to_string()), "{error}");
}

#[test]
fn an_engine_that_answers_nonsense_is_an_error_unless_another_knows_the_name() {
    let wrong = [
        "",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        "HTTP/1.0 500 Internal Server Error\r\n\r\n{\"message\":\"out of order\"}",
    ];
    for answer in wrong {
        let dir = Scratch::new();
        let error = ask(&dir, &[engine(&dir, "docker", &[answer])]).unwrap_err();
        assert!(matches!(error, ContainerError::Engine { .. }), "{answer:?}: {error}");
    }
    let dir = Scratch::new();
    let sockets = [engine(&dir, "a", &["nonsense"]), engine(&dir, "b", &[&ok(&body(ID, true, 7, "running"))])];
    assert_eq!(ask(&dir, &sockets).unwrap().pid, 7);
}

#[test]
fn an_engine_that_says_nothing_is_given_up_after_its_time() {
    let dir = Scratch::new();
    let path = dir.path().join("silent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let started = Instant::now();
    let error = ask(&dir, std::slice::from_ref(&path)).unwrap_err();
    assert!(error.to_string().contains("no answer within 3s"), "{error}");
    assert!(started.elapsed() < PATIENCE * 3);
    drop(listener);
}

#[test]
fn an_endless_answer_is_cut_off() {
    let dir = Scratch::new();
    let flood = "x".repeat(1 << 20);
    let error = ask(&dir, &[engine(&dir, "docker", &[&ok(""), &flood, &flood, &flood, &flood, &flood])]).unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

proptest! {
    #[test]
    fn no_answer_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        answer.truncate(answer.len().min(cut));
        answer.extend(bytes);
        let _ = (parse_answer(&answer), is_complete(&answer), unchunk(&answer));
    }
}
