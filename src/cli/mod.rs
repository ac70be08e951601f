//! The command line: every command but `up` and `lab` is a question and the printing of its answer.
//!
//! A command gives back its whole output as text, or the sentence for stderr; [`run`] alone prints and turns the
//! outcome into an exit code: 0 done, 1 refused or failed, 2 wrong command line. A reader that goes away (`weft ports
//! | head -1`) is nothing to complain about.

mod args;
mod attach;
mod bench;
mod cni;
mod host;
mod key;
pub mod lab;
mod leases;
mod names;
mod policy;
mod scale;
mod scene;
mod show;
mod table;
mod trust;
mod underlay;

use crate::control::request::{self, Request, Response};
use crate::io::{client, configfile, daemon};
use args::{AuthorityCommand, Cli, Command, Config, Connect};
use clap::Parser;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The control socket of a daemon that was not told another.
const SOCKET: &str = "/run/weft/control.sock";
/// The environment variable that names another control socket.
const SOCKET_VARIABLE: &str = "WEFT_SOCKET";

/// Runs the command that the arguments ask for.
pub fn run() -> ExitCode {
    if cni::is_meant() {
        return cni::run();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout, the rest to stderr; neither may be there.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let from_environment = || std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let socket = cli.socket.or_else(from_environment).unwrap_or_else(|| SOCKET.into());
    let outcome = match cli.command {
        Command::Lab(args) => return lab::run(args),
        Command::Up(up) => daemon::run(&up.config).map(|()| String::new()),
        Command::Attach(args) => attach::attach(&socket, args),
        Command::Detach(args) => attach::detach(&socket, args),
        Command::Wait(args) => attach::wait(&args),
        Command::Status(args) => show(&socket, &Request::Status, args.json),
        Command::Peers(args) => show(&socket, &Request::Peers, args.json),
        Command::Paths(args) if args.peer.is_some() && !args.json => {
            ask(&socket, &Request::Paths { peer: args.peer }).map(|response| show::path(&response))
        }
        Command::Paths(args) => show(&socket, &Request::Paths { peer: args.peer }, args.json),
        Command::Connect(args) => {
            let endpoints = args.endpoints.iter().map(ToString::to_string).collect();
            let Connect { name, key: public_key, tunnel_address, .. } = args;
            show(&socket, &Request::Connect(request::Connect { name, public_key, endpoints, tunnel_address }), false)
        }
        Command::Forget { name } => show(&socket, &Request::Forget(request::Forget { name }), false),
        Command::Ports(args) => show(&socket, &Request::Ports, args.json),
        Command::Networks(args) => show(&socket, &Request::Networks, args.json),
        Command::Fdb(args) => show(&socket, &Request::Fdb { network: args.network }, args.json),
        Command::Expose(args) => show(&socket, &Request::Expose(args.into()), false),
        Command::Hide { network } => show(&socket, &Request::Hide { network }, false),
        Command::Publish(args) => show(&socket, &Request::Publish(args.into()), false),
        Command::Unpublish(args) => show(&socket, &Request::Unpublish(args.into()), false),
        Command::Published(args) => show(&socket, &Request::Published, args.json),
        Command::Policy(args) => show(&socket, &Request::Policy, args.json),
        Command::Names(args) => {
            let json = args.json;
            show(&socket, &names::request(args), json)
        }
        Command::Leases(args) => {
            let (request, json) = args.request();
            show(&socket, &request, json)
        }
        Command::Reload => show(&socket, &Request::Reload, false),
        Command::Config(Config::Check { file }) => check(&file),
        Command::Key(key) => key::run(key),
        Command::Init(args) => trust::init(&args),
        Command::Invite(args) => show(&socket, &trust::invitation(args), false),
        Command::Join(args) => trust::join(&args),
        Command::Revoke { member } => show(&socket, &Request::Revoke { member }, false),
        Command::Authority(AuthorityCommand::Rotate { overlap }) => {
            show(&socket, &Request::Rotate { overlap_s: overlap }, false)
        }
    };
    match outcome {
        Ok(text) => {
            let mut stdout = std::io::stdout().lock();
            match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    complain(&format!("cannot write to standard output: {error}"))
                }
                _ => ExitCode::SUCCESS,
            }
        }
        Err(sentence) => complain(&sentence),
    }
}

fn complain(sentence: &str) -> ExitCode {
    // Without a stderr there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{sentence}");
    ExitCode::FAILURE
}

/// Asks the daemon; a refusal is the sentence for stderr.
fn ask(socket: &Path, request: &Request) -> Result<Response, String> {
    match client::ask(socket, request) {
        Ok(Response::Refused(sentence) | Response::Absent(sentence)) => Err(sentence),
        Ok(response) => Ok(response),
        Err(error) => Err(error.to_string()),
    }
}

/// Asks the daemon and shows its answer.
fn show(socket: &Path, request: &Request, json: bool) -> Result<String, String> {
    let response = ask(socket, request)?;
    if json { show::json(&response) } else { Ok(show::text(&response)) }
}

/// `weft config check`.
fn check(file: &Path) -> Result<String, String> {
    let config = configfile::load(file).map_err(|errors| errors.to_string())?;
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    Ok(format!(
        "{} is right: {}, {}, {}\n",
        file.display(),
        counted(config.networks.len(), "network"),
        counted(config.peers.len(), "peer"),
        counted(config.ports.len(), "port")
    ))
}
