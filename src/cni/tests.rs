//! Calls of runtimes, and the answers and errors they get, word for word; what is asked of the daemon on the way.

#![allow(clippy::unwrap_used)]

mod add;
mod others;
mod refusals;
mod world;

use super::env::Variables;
use super::*;
use world::Fake;

/// The variables of a call about interface `eth0` of container `c1`.
fn variables(command: &str) -> Variables {
    let text = str::to_owned;
    Variables {
        command: text(command),
        container: text("c1"),
        netns: text("/run/netns/c1"),
        ifname: text("eth0"),
        args: String::new(),
        path: text("/opt/cni/bin"),
    }
}

/// A configuration of the list `pods`, with these keys besides.
fn conf(version: &str, more: Value) -> Vec<u8> {
    let mut object = json!({ "cniVersion": version, "name": "pods", "type": "weft-cni", "network": "blue" });
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object.to_string().into_bytes()
}

fn call(world: &mut Fake, variables: &Variables, stdin: &[u8]) -> Result<Value, Value> {
    let read = |text: String| if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    run(variables, stdin, world).map(read).map_err(read)
}

/// The code and the message of an error.
#[track_caller]
fn refused(outcome: Result<Value, Value>) -> (u64, String) {
    let error = outcome.unwrap_err();
    (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
}
