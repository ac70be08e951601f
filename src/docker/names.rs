//! What containers are called: read out of Docker's own API, since its drivers are never told.
//!
//! A container is known in a network by its name, its host name where it was given one, its aliases there, and by what others
//! that were linked to it call it (`--link db:database` makes `db` answer to `database`, for all who are in the network).

use super::options::shortened;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Containers remembered, of those that run and are in a network: far more than a host has.
pub const MAX_CONTAINERS: usize = 4096;
/// Names of one endpoint that are taken.
const MAX_NAMES: usize = crate::config::parse::MAX_NAMES;

/// The part of `ContainerInspect` that matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    #[serde(default)]
    config: Option<Settings>,
    #[serde(default)]
    network_settings: Option<NetworkSettings>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    #[serde(default)]
    hostname: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: Option<BTreeMap<String, Option<Settled>>>,
}

#[derive(Debug, Deserialize)]
struct Settled {
    #[serde(default, rename = "NetworkID")]
    network: Option<String>,
    #[serde(default, rename = "EndpointID")]
    endpoint: Option<String>,
    #[serde(default, rename = "Aliases")]
    aliases: Option<Vec<String>>,
    #[serde(default, rename = "Links")]
    links: Option<Vec<String>>,
}

/// One container.
#[derive(Debug, Default)]
struct Container {
    name: String,
    /// Endpoint → its network, and the names in there.
    endpoints: BTreeMap<String, (String, Vec<String>)>,
    /// Network, who was linked to, by what name.
    links: Vec<(String, String, String)>,
}

/// The containers of one Docker.
#[derive(Debug, Default)]
pub struct Containers {
    known: BTreeMap<String, Container>,
    /// Those that there was no room for.
    left_out: BTreeSet<String>,
    told: BTreeMap<String, Vec<String>>,
    told_left_out: Option<usize>,
}

/// Digits of an id that Docker shows.
const SHORT_ID: usize = 12;

impl Containers {
    /// What `GET /containers/ID/json` answered.
    ///
    /// # Errors
    /// It is something else.
    pub fn learn(&mut self, json: &[u8]) -> Result<(), String> {
        let found: Inspected =
            serde_json::from_slice(json).map_err(|error| error.to_string().replace(char::is_control, " "))?;
        let mut container = Container { name: found.name.trim_start_matches('/').to_owned(), ..Container::default() };
        // Docker makes the beginning of the id the host name of a container that was given none, and an alias of every one. What is
        // shorter and looks so was chosen by somebody: `db`, `cafe`.
        let is_id = |name: &str| name.len() >= SHORT_ID && found.id.starts_with(name);
        let hostname = found.config.and_then(|config| config.hostname);
        let hostname = hostname.filter(|name| !name.is_empty() && !is_id(name));
        let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        for settled in networks.into_values().flatten() {
            let (Some(network), Some(endpoint)) = (settled.network, settled.endpoint) else { continue };
            // Of one that does not run.
            if endpoint.is_empty() {
                continue;
            }
            let aliases = settled.aliases.unwrap_or_default().into_iter();
            let aliases = aliases.filter(|alias| !is_id(alias));
            let names = [container.name.clone()].into_iter().chain(hostname.clone()).chain(aliases);
            let links = settled.links.unwrap_or_default();
            let links = links.iter().filter_map(|link| link.split_once(':'));
            container.links.extend(links.map(|(whom, alias)| (network.clone(), whom.to_owned(), alias.to_owned())));
            container.endpoints.insert(endpoint, (network, usable(names)));
        }
        if container.endpoints.is_empty() {
            // It stopped, and may never be removed.
            self.forget(&found.id);
        } else if self.known.len() >= MAX_CONTAINERS && !self.known.contains_key(&found.id) {
            self.left_out.insert(found.id);
        } else {
            self.left_out.remove(&found.id);
            self.known.insert(found.id, container);
        }
        Ok(())
    }

    /// A container is gone.
    pub fn forget(&mut self, id: &str) {
        self.known.remove(id);
        self.left_out.remove(id);
    }

    /// How many containers have no names because there are more than [`MAX_CONTAINERS`], if that is another number than when this was
    /// last asked.
    pub fn left_out_changed(&mut self) -> Option<usize> {
        let left_out = Some(self.left_out.len());
        left_out.filter(|_| std::mem::replace(&mut self.told_left_out, left_out) != left_out)
    }

    /// The endpoints whose names are others than when this was last asked, with all their names.
    pub fn changed(&mut self) -> Vec<(String, Vec<String>)> {
        let mut all = BTreeMap::new();
        for container in self.known.values() {
            for (endpoint, (network, names)) in &container.endpoints {
                let linked = self.known.values().flat_map(|other| &other.links);
                let linked = linked.filter(|(within, whom, _)| {
                    within == network && (*whom == container.name || names.contains(&whom.to_lowercase()))
                });
                let linked = linked.map(|(_, _, alias)| alias.clone());
                all.insert(endpoint.clone(), usable(names.iter().cloned().chain(linked)));
            }
        }
        let news = all.iter().filter(|(endpoint, names)| self.told.get(*endpoint) != Some(names));
        let news = news.map(|(endpoint, names)| (endpoint.clone(), names.clone())).collect();
        self.told = all;
        news
    }
}

/// Those that DNS can have, once each, in small letters.
fn usable(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let names = names.map(|name| name.to_lowercase()).filter(|name| seen.insert(name.clone()));
    let (good, odd): (Vec<_>, Vec<_>) = names.partition(|name| crate::config::text::host_name(name).is_ok());
    for name in odd {
        tracing::debug!("a container's name {} cannot be one of DNS", shortened(&name));
    }
    good.into_iter().take(MAX_NAMES).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    const NETWORK: &str = "b1946ac92492d2347c6235b4d2611184";

    #[test]
    fn containers_are_called_by_name_host_name_aliases_and_links() {
        let inspect = |id: &str, name: &str, hostname: &str, endpoint: &str, aliases: Value, links: Value| {
            json!({
            "Id": format!("{id}{}", "0".repeat(52)), "Name": format!("/{name}"), "Config": { "Hostname": hostname },
            "NetworkSettings": { "Networks": {
                "lan": { "NetworkID": NETWORK, "EndpointID": endpoint, "Aliases": aliases, "Links": links },
                "off": { "NetworkID": "x", "EndpointID": "", "Aliases": null }, "odd": null,
            } },
        })
        .to_string()
        };
        let mut containers = Containers::default();
        let db = inspect(
            "aaaaaaaaaaaa",
            "Db_1",
            "aaaaaaaaaaaa",
            "e1",
            json!(["aaaaaaaaaaaa", "store", "STORE", "not a name"]),
            json!(null),
        );
        containers.learn(db.as_bytes()).unwrap();
        assert_eq!(containers.changed(), [("e1".to_owned(), vec!["db_1".to_owned(), "store".to_owned()])]);
        assert!(containers.changed().is_empty());
        // A short name that the id happens to begin with is somebody's all the same.
        let cafe = inspect("cafecafecafe", "cafe_1", "cafe", "e3", json!(["ca", "cafecafecafe"]), json!(null));
        containers.learn(cafe.as_bytes()).unwrap();
        let of = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(containers.changed(), [("e3".to_owned(), of(&["cafe_1", "cafe", "ca"]))]);
        containers.forget(&format!("cafecafecafe{}", "0".repeat(52)));
        assert!(containers.changed().is_empty());
        let web = inspect("bbbbbbbbbbbb", "web", "front", "e2", json!(null), json!(["Db_1:database", "web2:other"]));
        containers.learn(web.as_bytes()).unwrap();
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            containers.changed(),
            [("e1".to_owned(), names(&["db_1", "store", "database"])), ("e2".to_owned(), names(&["web", "front"]))]
        );
        containers.forget(&format!("bbbbbbbbbbbb{}", "0".repeat(52)));
        assert_eq!(containers.changed(), [("e1".to_owned(), names(&["db_1", "store"]))]);
        for odd in ["", "[]", "{}", r#"{"Id":5}"#, r#"{"Id":"a","Name":"b","NetworkSettings":{"Networks":[]}}"#] {
            assert!(containers.learn(odd.as_bytes()).is_err(), "{odd}");
        }
    }

    #[test]
    fn containers_that_stopped_take_no_room_and_those_without_room_are_counted() {
        let inspect = |n: usize, endpoint: &str| {
            json!({ "Id": format!("{n:064}"), "Name": format!("/c{n}"), "NetworkSettings": { "Networks": {
                "lan": { "NetworkID": NETWORK, "EndpointID": endpoint },
            } } })
            .to_string()
        };
        let mut containers = Containers::default();
        for n in 0..=MAX_CONTAINERS {
            containers.learn(inspect(n, &format!("e{n}")).as_bytes()).unwrap();
            if n % 2 == 0 {
                containers.learn(inspect(n, "").as_bytes()).unwrap();
            }
        }
        assert_eq!((containers.known.len(), containers.left_out_changed()), (MAX_CONTAINERS / 2, Some(0)));
        for n in 0..=MAX_CONTAINERS {
            containers.learn(inspect(n, &format!("e{n}")).as_bytes()).unwrap();
        }
        assert_eq!((containers.known.len(), containers.left_out_changed()), (MAX_CONTAINERS, Some(1)));
        containers.forget(&format!("{:064}", 1));
        containers.learn(inspect(MAX_CONTAINERS, "last").as_bytes()).unwrap();
        assert_eq!((containers.known.len(), containers.left_out_changed()), (MAX_CONTAINERS, Some(0)));
    }
}
