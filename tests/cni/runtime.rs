//! A container runtime for tests, of as much as the CNI library of real ones does: it hands a list of plugins a call, each the result
//! of the one before it, and remembers what came of it.

use crate::common::cli::WEFT;
use serde_json::{Map, Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

/// Where Debian has the upstream plugins.
pub(crate) const UPSTREAM: &str = "/usr/lib/cni";

/// A list of plugins, where they are, and the results of what was added.
pub(crate) struct Runtime {
    /// As in a `.conflist` file.
    pub(crate) list: Value,
    /// What a runtime would put in: capabilities, port mappings.
    pub(crate) runtime_config: Value,
    /// `CNI_ARGS`.
    pub(crate) args: String,
    plugins: PathBuf,
    results: Mutex<Map<String, Value>>,
}

/// How a plugin failed: the code and the message of its error object.
pub(crate) type Failed = (u64, String);

impl Runtime {
    /// Runs `list`, whose plugins are ours in `dir`, which is made, and the upstream ones.
    pub(crate) fn new(dir: &Path, list: Value) -> Self {
        let plugins = plugins_in(dir);
        Self { list, runtime_config: json!({}), args: String::new(), plugins, results: Mutex::default() }
    }

    /// A list of version 1.1.0 called `pods` with weft alone, behind `socket`, in the lab's network.
    pub(crate) fn weft(dir: &Path, socket: &Path, more: &Value) -> Self {
        let mut plugin = json!({ "type": "weft-cni", "network": "lab", "socket": socket });
        plugin.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Self::new(dir, json!({ "cniVersion": "1.1.0", "name": "pods", "plugins": [plugin] }))
    }

    pub(crate) fn add(&self, container: &str, netns: &Path, ifname: &str) -> Result<Value, Failed> {
        let mut previous = None;
        for plugin in self.list["plugins"].as_array().unwrap() {
            let output = self.run("ADD", plugin, container, Some(netns), ifname, previous.as_ref());
            previous = Some(outcome(&output)?);
        }
        let result = previous.unwrap();
        self.results.lock().unwrap().insert(format!("{container}/{ifname}"), result.clone());
        Ok(result)
    }

    pub(crate) fn del(&self, container: &str, netns: Option<&Path>, ifname: &str) -> Result<(), Failed> {
        let previous = self.result(container, ifname);
        for plugin in self.list["plugins"].as_array().unwrap().iter().rev() {
            outcome(&self.run("DEL", plugin, container, netns, ifname, previous.as_ref()))?;
        }
        self.results.lock().unwrap().remove(&format!("{container}/{ifname}"));
        Ok(())
    }

    pub(crate) fn check(&self, container: &str, netns: &Path, ifname: &str) -> Result<(), Failed> {
        let previous = self.result(container, ifname);
        for plugin in self.list["plugins"].as_array().unwrap() {
            outcome(&self.run("CHECK", plugin, container, Some(netns), ifname, previous.as_ref()))?;
        }
        Ok(())
    }

    /// STATUS or GC, to the first plugin; GC with what is valid.
    pub(crate) fn ask(&self, command: &str, valid: Option<Value>) -> Result<(), Failed> {
        let mut plugin = self.list["plugins"][0].clone();
        if let Some(valid) = valid {
            plugin["cni.dev/valid-attachments"] = valid;
        }
        outcome(&self.run(command, &plugin, "", None, "", None)).map(drop)
    }

    fn result(&self, container: &str, ifname: &str) -> Option<Value> {
        self.results.lock().unwrap().get(&format!("{container}/{ifname}")).cloned()
    }

    fn run(
        &self,
        command: &str,
        plugin: &Value,
        container: &str,
        netns: Option<&Path>,
        ifname: &str,
        previous: Option<&Value>,
    ) -> Output {
        let mut conf = plugin.clone();
        conf["name"] = self.list["name"].clone();
        conf["cniVersion"] = self.list["cniVersion"].clone();
        if let Some(previous) = previous {
            conf["prevResult"] = previous.clone();
        }
        // Only what the plugin says that it can do.
        let can = |key: &str| plugin["capabilities"][key] == Value::Bool(true);
        let config: Map<String, Value> =
            self.runtime_config.as_object().unwrap().clone().into_iter().filter(|(key, _)| can(key)).collect();
        if !config.is_empty() {
            conf["runtimeConfig"] = config.into();
        }
        conf.as_object_mut().unwrap().remove("capabilities");
        let kind = plugin["type"].as_str().unwrap();
        let program = [self.plugins.join(kind), Path::new(UPSTREAM).join(kind)];
        let program = program.iter().find(|program| program.exists()).unwrap();
        let mut process = Command::new(program);
        process.env_clear().env("CNI_COMMAND", command).env("CNI_ARGS", &self.args);
        process.env("CNI_PATH", format!("{}:{UPSTREAM}", self.plugins.display()));
        for (name, value) in [("CNI_CONTAINERID", container), ("CNI_IFNAME", ifname)] {
            if !value.is_empty() {
                process.env(name, value);
            }
        }
        process.envs(netns.iter().map(|netns| ("CNI_NETNS", netns)));
        given(process, conf.to_string().as_bytes())
    }
}

/// A directory with our plugin in it, and nothing else.
pub(crate) fn plugins_in(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let _ = symlink(WEFT, dir.join("weft-cni"));
    dir.to_owned()
}

/// Runs a program with something on its standard input.
pub(crate) fn given(mut process: Command, stdin: &[u8]) -> Output {
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process.spawn().unwrap();
    // One that fails early reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

/// What came of a call: JSON on standard output in any case, and an error object exactly when the exit code says so.
pub(crate) fn outcome(output: &Output) -> Result<Value, Failed> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let value: Value = if text.trim().is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    if output.status.success() {
        return Ok(value);
    }
    Err((value["code"].as_u64().unwrap(), value["msg"].as_str().unwrap().to_owned()))
}
