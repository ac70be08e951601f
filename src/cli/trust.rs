//! `weft init`, `invite`, `join`, `revoke` and `authority`: how a mesh begins, grows, and lets go.

use super::args::{Init, Invite, Join};
use crate::config::Config;
use crate::control::request::{self, Request};
use crate::io::{clocks, configfile, daemon, keyfile, setup};
use crate::trust::{Authority, Token};
use crate::wire::name::is_name;
use std::fmt::Write as _;
use std::io::{BufRead, Read, Write as _};
use std::path::{Path, PathBuf};

/// What an authority's key is called beside the configuration file.
const AUTHORITY_FILE: &str = "authority.key";
/// The longest line that is read as an invitation.
const LONGEST_TOKEN: u64 = 8192;

/// `weft init`.
pub(super) fn init(args: &Init) -> Result<String, String> {
    let name = args.name.clone().unwrap_or_else(configfile::hostname);
    if !is_name(&name) {
        return Err(format!("'{name}' cannot name this host: a name has 1 to 64 letters, digits, '.', '_' or '-'"));
    }
    if setup::exists(&args.config) {
        return Err(format!(
            "{} exists: this host has its configuration, and it stays as it is",
            args.config.display()
        ));
    }
    let key_file = args.config.parent().unwrap_or_else(|| Path::new("")).join(AUTHORITY_FILE);
    // One that an earlier attempt made is as good.
    let seed = match keyfile::create_authority(&key_file) {
        Err(keyfile::KeyFileError::Exists(_)) => keyfile::load_authority(&key_file),
        other => other,
    };
    let authority = Authority::new(&seed.map_err(|error| error.to_string())?).key();
    let mut text = format!(
        "# A member of a mesh, made by `weft init`. Every key is explained in docs/configuration.md; apply changes with\n\
         # `weft reload`.\n\n[node]\nname = {name:?}\n{}",
        state_dir_line(args.state_dir.as_deref())
    );
    let endpoints: Vec<String> =
        args.endpoints.iter().map(|endpoint| format!("{:?}", endpoint.to_string())).collect();
    match endpoints.is_empty() {
        true => text.push_str(
            "# advertise = [\"192.0.2.1:51820\"]   # where other hosts reach this one, if it cannot know itself\n",
        ),
        false => drop(writeln!(text, "advertise = [{}]", endpoints.join(", "))),
    }
    let _ = write!(
        text,
        "\n# Whoever shows a certificate of this authority is a member. Its secret key makes invitations: only this host has it,\n\
         # and whoever copies it can do the same. Keep a copy where you keep such things.\n\
         [trust]\nauthority = [\"{authority}\"]\nauthority_key_file = \"{AUTHORITY_FILE}\"\n\
         gives_slices = true   # the members' containers get addresses of their own parts of the networks below\n\n\
         # `weft invite` tells the hosts that join of these networks.\n\
         [[network]]\nname = \"mesh\"\nvni = 1\nsubnets = [\"10.32.0.0/12\"]\n"
    );
    setup::create_config(&args.config, &text)?;
    let config = load(&args.config)?;
    let (private, _) = keyfile::load_or_create(&config.node.key_file).map_err(|error| error.to_string())?;
    Ok(format!(
        "{name} begins a mesh.\n  \
           configuration   {}\n  \
           this host       {} in {}\n  \
           the authority   {authority} in {}\n\n\
         Next:\n  \
           weft up -c {}\n  \
           weft invite NAME      a line for each further host, to be given there to `weft join`\n",
        args.config.display(),
        private.public_key(),
        config.node.key_file.display(),
        key_file.display(),
        args.config.display()
    ))
}

/// `weft invite`, as a request.
pub(super) fn invitation(args: Invite) -> Request {
    let Invite { name, life_s, slices, endpoints, .. } = args;
    let endpoints = endpoints.iter().map(ToString::to_string).collect();
    Request::Invite(request::Invite { name, life_s, slices, endpoints })
}

/// `weft join`: everything the daemon needs, and then the daemon.
pub(super) fn join(args: &Join) -> Result<String, String> {
    let line = if args.token == "-" { read_line()? } else { args.token.clone() };
    let token = Token::parse(&line).map_err(|error| error.to_string())?;
    token.check_time(clocks().0).map_err(|error| error.to_string())?;
    let made = !setup::exists(&args.config);
    if made {
        setup::create_config(&args.config, &config_of(&token, args.state_dir.as_deref()))?;
    }
    let config = load(&args.config)?;
    check(&config, &token, &args.config)?;
    let (private, _) = keyfile::load_or_create(&config.node.key_file).map_err(|error| error.to_string())?;
    setup::remember_token(&config, line.trim())?;
    let mut text =
        format!("{} joins as '{}', with the key {}.\n", args.config.display(), token.name, private.public_key());
    if args.no_up {
        let _ = writeln!(text, "Next: weft up -c {}", args.config.display());
        return Ok(text);
    }
    let places: Vec<&str> = token.introducers.iter().flat_map(|i| i.endpoints.iter().map(String::as_str)).collect();
    let _ = writeln!(text, "Asking {} to be let in; this goes on as `weft up`.", places.join(", "));
    // The daemon stays: what was said must be seen before.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    daemon::join(&args.config, made).map(|()| String::new())
}

/// Whether a file that was there already is one of the network that the invitation is for.
fn check(config: &Config, token: &Token, path: &Path) -> Result<(), String> {
    let (authority, file) = (token.authority, path.display());
    if !config.trust.authorities.contains(&authority) {
        let known: Vec<String> = config.trust.authorities.iter().map(ToString::to_string).collect();
        return Err(match known.is_empty() {
            true => {
                format!("{file} names no authority: add authority = [\"{authority}\"] to its [trust], and join again")
            }
            false => format!(
                "the invitation is of another network: its authority is {authority}, and {file} names {}; join with \
                 another file and state directory (-c FILE --state-dir DIR), or move that one away",
                known.join(", ")
            ),
        });
    }
    if config.node.name != token.name {
        let name = &config.node.name;
        return Err(format!(
            "the invitation is for '{}', and {file} calls this host '{name}': change name there",
            token.name
        ));
    }
    Ok(())
}

/// The configuration of a host that joins.
fn config_of(token: &Token, state_dir: Option<&Path>) -> String {
    let mut text = format!(
        "# A member of a mesh, made by `weft join`. Every key is explained in docs/configuration.md; apply changes with\n\
         # `weft reload`.\n\n[node]\nname = {:?}\n{}\n[trust]\nauthority = [\"{}\"]\n",
        token.name,
        state_dir_line(state_dir),
        token.authority
    );
    for network in &token.networks {
        let subnets: Vec<String> = network.subnets.iter().map(|subnet| format!("{subnet:?}")).collect();
        let _ = write!(
            text,
            "\n[[network]]\nname = {:?}\nvni = {}\nsubnets = [{}]\n",
            network.name,
            network.vni,
            subnets.join(", ")
        );
    }
    text
}

fn state_dir_line(state_dir: Option<&Path>) -> String {
    let Some(path) = state_dir else { return String::new() };
    // A debug string of Rust is a basic string of TOML, but for escapes of what no sane path has.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let path = absolute.display().to_string();
    format!("state_dir = {path:?}\ncontrol_socket = {:?}\n", format!("{path}/control.sock"))
}

fn load(path: &Path) -> Result<Config, String> {
    configfile::load(path).map_err(|errors| errors.to_string())
}

/// A token from standard input, where no process list and no shell history shows it.
fn read_line() -> Result<String, String> {
    let mut line = String::new();
    let read = std::io::stdin().lock().take(LONGEST_TOKEN).read_line(&mut line);
    read.map(|_| line).map_err(|error| format!("cannot read the invitation from standard input: {error}"))
}
