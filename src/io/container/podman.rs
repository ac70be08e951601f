//! Podman's containers as its storage on the disk tells of them.
//!
//! Podman has no daemon: who wants to know what runs must look where its storage library (containers/storage) and
//! its runtime keep their notes. `{graph}/{driver}-containers/containers.json` lists ids and names, and from Podman 4.4
//! on `volatile-containers.json` those run with `--rm`; a transient store (containers-storage.conf(5)) has the second
//! below `{run}`. `{run}/{driver}-containers/ID/userdata/pidfile` has the first process of one that was started. That
//! note outlives the process, so it counts only while the process's parent is the monitor Podman gave to this
//! container (`conmon`, with the id among its arguments).

use super::{Answer, odd};
use serde::Deserialize;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Storage drivers that Podman can have been set up with, as they appear in directory names.
const DRIVERS: &[&str] = &["overlay", "vfs", "btrfs", "zfs"];
/// The list of containers that need not survive a crash.
const VOLATILE: &str = "volatile-containers.json";
/// The longest list read: at some 500 bytes each, more containers than fit on a host.
const LONGEST_LIST: u64 = 64 << 20;

/// Where a Podman keeps its notes.
#[derive(Debug)]
pub(super) struct Storage {
    /// `graphroot`: what survives a reboot.
    pub graph: PathBuf,
    /// `runroot`: what does not.
    pub run: PathBuf,
    /// proc(5).
    pub proc: PathBuf,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            graph: "/var/lib/containers/storage".into(),
            run: "/run/containers/storage".into(),
            proc: "/proc".into(),
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Podman's storage {}", self.graph.display())
    }
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

impl Storage {
    /// Looks for a container by name or id. An exact name wins over the beginning of an id.
    pub(super) fn find(&self, name: &str) -> io::Result<Answer> {
        let mut any = false;
        let mut by_id = Vec::new();
        for driver in DRIVERS {
            let directory = format!("{driver}-containers");
            let (durable, transient) = (self.graph.join(&directory), self.run.join(&directory));
            let lists = [(&durable, "containers.json"), (&durable, VOLATILE), (&transient, VOLATILE)];
            for (directory, list) in lists {
                let Some(entries) = read_list(&directory.join(list))? else { continue };
                any = true;
                for entry in entries {
                    if entry.names.iter().any(|have| have == name) {
                        return Ok(self.answer(driver, entry.id));
                    }
                    if entry.id.starts_with(name) {
                        by_id.push((driver, entry.id));
                    }
                }
            }
        }
        match (by_id.pop(), by_id.is_empty()) {
            (Some((driver, id)), true) => Ok(self.answer(driver, id)),
            (Some(_), false) => Err(odd("several ids begin like this: give more of it")),
            (None, _) if any => Ok(Answer::Unknown),
            (None, _) => Ok(Answer::Absent),
        }
    }

    fn answer(&self, driver: &str, id: String) -> Answer {
        let pidfile = self.run.join(format!("{driver}-containers")).join(&id).join("userdata/pidfile");
        let pid = fs::read_to_string(pidfile).ok().and_then(|text| text.trim().parse().ok());
        let process = pid.filter(|&pid| self.is_monitored(pid, &id)).ok_or_else(|| "stopped".to_owned());
        Answer::Found(id, process)
    }

    /// Whether the process is alive and the child of a monitor that was started for container `id`.
    fn is_monitored(&self, pid: i32, id: &str) -> bool {
        let read = |pid: &str, file: &str| fs::read_to_string(self.proc.join(pid).join(file)).unwrap_or_default();
        let status = read(&pid.to_string(), "status");
        let Some(parent) = status.lines().find_map(|line| line.strip_prefix("PPid:")) else { return false };
        read(parent.trim(), "cmdline").split('\0').any(|argument| argument == id)
    }
}

fn read_list(path: &Path) -> io::Result<Option<Vec<Entry>>> {
    let in_file = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(in_file)?,
    };
    if metadata.len() > LONGEST_LIST {
        return Err(in_file(odd("it is far too long")));
    }
    // Podman replaces the file as a whole, so what is read is complete.
    let text = fs::read(path).map_err(in_file)?;
    serde_json::from_slice(&text).map(Some).map_err(|error| in_file(error.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::scratch::Scratch;

    const WEB: &str = "aaaa0000aaaa0000aaaa0000aaaa0000aaaa0000aaaa0000aaaa0000aaaa0000";
    const JOB: &str = "aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111";

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A storage with a running container, one of `--rm` whose process is gone, and a process table.
    fn storage(dir: &Path) -> Storage {
        let storage = Storage { graph: dir.join("graph"), run: dir.join("run"), proc: dir.join("proc") };
        let listed =
            |id: &str, name: &str| format!(r#"[{{"id":"{id}","names":["{name}"],"image":"x","layer":"y"}}]"#);
        write(&storage.graph.join("overlay-containers/containers.json"), &listed(WEB, "web"));
        write(&storage.graph.join("overlay-containers/volatile-containers.json"), &listed(JOB, "job"));
        for (id, pid) in [(WEB, "100\n"), (JOB, "200\n")] {
            write(&storage.run.join(format!("overlay-containers/{id}/userdata/pidfile")), pid);
        }
        write(&storage.proc.join("100/status"), "Name:\tsleep\nPPid:\t99\n");
        write(&storage.proc.join("99/cmdline"), &format!("conmon\0--api-version\x001\0-c\0{WEB}\0-u\0{WEB}\0"));
        // The id 200 belongs to somebody else meanwhile.
        write(&storage.proc.join("200/status"), "Name:\tbash\nPPid:\t1\n");
        write(&storage.proc.join("1/cmdline"), "init\0");
        storage
    }

    fn found(storage: &Storage, name: &str) -> Option<(String, Result<i32, String>)> {
        match storage.find(name).unwrap() {
            Answer::Found(id, process) => Some((id, process)),
            _ => None,
        }
    }

    #[test]
    fn a_running_container_is_found_by_name_and_by_id() {
        let dir = Scratch::new();
        let storage = storage(dir.path());
        for name in ["web", WEB, &WEB[..6]] {
            assert_eq!(found(&storage, name), Some((WEB.to_owned(), Ok(100))), "{name}");
        }
        assert!(matches!(storage.find("absent").unwrap(), Answer::Unknown));
        assert!(storage.find("aaaa").is_err());
    }

    #[test]
    fn a_transient_store_lists_its_containers_elsewhere() {
        let dir = Scratch::new();
        let storage = storage(dir.path());
        let id = WEB.replace('0', "2");
        write(
            &storage.run.join("overlay-containers/volatile-containers.json"),
            &format!(r#"[{{"id":"{id}","names":["fleeting"],"flags":{{"Volatile":true}}}}]"#),
        );
        assert_eq!(found(&storage, "fleeting"), Some((id, Err("stopped".to_owned()))));
    }

    #[test]
    fn a_pidfile_whose_process_is_somebody_elses_does_not_count() {
        let dir = Scratch::new();
        let storage = storage(dir.path());
        assert_eq!(found(&storage, "job"), Some((JOB.to_owned(), Err("stopped".to_owned()))));
        fs::remove_dir_all(storage.proc.join("100")).unwrap();
        assert_eq!(found(&storage, "web").unwrap().1, Err("stopped".to_owned()));
    }

    #[test]
    fn without_podman_there_is_no_answer_and_a_broken_list_is_an_error() {
        let dir = Scratch::new();
        let storage = storage(dir.path());
        write(&storage.graph.join("vfs-containers/containers.json"), "[{");
        assert!(storage.find("absent").map(drop).unwrap_err().to_string().contains("vfs-containers/containers.json"));
        let nowhere = Storage { graph: dir.path().join("nowhere"), ..storage };
        assert!(matches!(nowhere.find("web").unwrap(), Answer::Absent));
    }
}
