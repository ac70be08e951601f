//! A machine without a machine: ports are entries of a map, namespaces are numbers, what is saved is in maps.

use super::*;

/// Where frames and datagrams end up.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) frames: Vec<(PortId, Vec<u8>)>,
    pub(super) datagrams: Vec<SocketAddr>,
}

impl Egress for Sink {
    fn deliver(&mut self, port: PortId, pieces: &[IoSlice<'_>]) {
        self.frames.push((port, pieces.iter().flat_map(|piece| piece.to_vec()).skip(vnet::LEN).collect()));
    }

    fn transmit(&mut self, to: SocketAddr, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        if fill(&mut vec![0; room]).is_some() {
            self.datagrams.push(to);
        }
    }

    fn serve(&mut self, _: &Port, _: VnetHeader, _: &[u8]) -> bool {
        true
    }

    fn notify(&mut self, _: Event<'_>) {}
}

/// A machine of maps.
pub(super) struct Fake {
    pub(super) file: Result<Config, String>,
    /// Name, place, MTU.
    pub(super) ports: BTreeMap<PortId, (String, u32, u16)>,
    pub(super) dead: BTreeSet<PortId>,
    pub(super) refusal: Option<String>,
    pub(super) sought: Vec<(String, Target)>,
    pub(super) lookups: Vec<Lookup>,
    pub(super) log: Option<LogLevel>,
    pub(super) random: u64,
    pub(super) contacts: BTreeMap<PublicKey, Contact>,
    pub(super) unix: Duration,
    /// What trust has saved, by slot; `None` when nothing can be.
    pub(super) trust: Option<BTreeMap<String, Record>>,
    /// What leases were saved; `None` when nothing can be.
    pub(super) leases: Option<BTreeMap<(u32, IpAddr), Lease>>,
    pub(super) claims: BTreeSet<Claim>,
    /// How often those were written.
    pub(super) claim_changes: usize,
    pub(super) authorities: Vec<[u8; 32]>,
    pub(super) docker: BTreeMap<String, DockerRecord>,
    /// Ports that have no interface and are to come back.
    pub(super) remembered: BTreeSet<String>,
    pub(super) host_records: BTreeMap<String, exposures::Record>,
    pub(super) rules: Rules,
    pub(super) obstacles: Vec<String>,
    pub(super) held: BTreeSet<HostPort>,
    /// Ports that a program has.
    pub(super) busy: BTreeSet<u16>,
    pub(super) probed: Vec<SocketAddr>,
    /// Why interfaces cannot be mended.
    pub(super) unmendable: Option<String>,
    pub(super) names: BTreeMap<(String, String), AddedName>,
    pub(super) out: Sink,
}

impl Host for Fake {
    type Place = u32;
    type Out = Sink;

    fn create_port(&mut self, port: &NewPort<'_>, place: &u32) -> Result<(), String> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let before = self.ports.insert(port.port.id, (port.spec.name.clone(), *place, port.mtu));
        assert!(before.is_none(), "an id is given once");
        Ok(())
    }

    fn remove_port(&mut self, id: PortId, comes_back: bool) {
        let (name, ..) = self.ports.remove(&id).expect("a port is removed once");
        if comes_back {
            self.remembered.insert(name);
        }
    }

    fn forget_port(&mut self, name: &str) {
        self.remembered.remove(name);
    }

    fn mend_interface(&mut self, _: &str, _: &[PortAddress]) -> Result<bool, String> {
        self.unmendable.clone().map_or(Ok(false), Err)
    }

    fn port_lives(&mut self, id: PortId) -> bool {
        self.ports.contains_key(&id) && !self.dead.contains(&id)
    }

    fn set_port_mtu(&mut self, id: PortId, mtu: u16) -> Result<(), String> {
        self.ports.get_mut(&id).ok_or("the port is gone")?.2 = mtu;
        Ok(())
    }

    fn load_config(&mut self) -> Result<Config, String> {
        self.file.clone()
    }

    fn seek(&mut self, targets: Vec<(String, Target)>) {
        self.sought = targets;
    }

    fn resolve(&mut self, names: Vec<Lookup>) {
        self.lookups = names;
    }

    fn connect_stream(&mut self, _: PublicKey, _: SocketAddr) -> bool {
        false
    }

    fn close_stream(&mut self, _: u32) {}

    fn set_known(&mut self, _: Vec<PublicKey>) {}

    fn set_log_level(&mut self, level: LogLevel) {
        self.log = Some(level);
    }

    fn random(&mut self) -> u64 {
        // Another number each time; SplitMix64's increment.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random
    }

    fn contacts(&mut self) -> Vec<Contact> {
        Vec::new()
    }

    fn keep_contact(&mut self, contact: &Contact) -> Result<(), String> {
        self.contacts.insert(contact.public_key, contact.clone());
        Ok(())
    }

    fn drop_contact(&mut self, key: &PublicKey) {
        self.contacts.remove(key);
    }

    fn underlay_addresses(&mut self) -> Vec<IpAddr> {
        Vec::new()
    }

    fn unix_time(&self) -> Duration {
        self.unix
    }

    fn fill_random(&mut self, bytes: &mut [u8]) {
        bytes.fill(self.random() as u8);
    }

    fn keep_trust(&mut self, record: &Record) -> Result<(), String> {
        self.trust.as_mut().ok_or("the disk is full")?.insert(record.slot(), record.clone());
        Ok(())
    }

    fn drop_trust(&mut self, slot: &str) -> Result<(), String> {
        self.trust.as_mut().ok_or("the disk is full")?.remove(slot);
        Ok(())
    }

    fn create_loose_port(&mut self, port: &NewPort<'_>) -> Result<(), String> {
        self.create_port(port, &0)
    }

    fn remove_loose_interface(&mut self, _: &str) {}

    fn find_loose_port(&mut self, id: PortId, _: Option<&str>) -> Whereabouts {
        match self.ports.get(&id) {
            None => Whereabouts::Nowhere,
            Some(_) if self.dead.contains(&id) => Whereabouts::Nowhere,
            Some((_, 0, _)) => Whereabouts::Here,
            Some(_) => Whereabouts::There("eth0".to_owned()),
        }
    }

    fn docker_records(&mut self) -> Vec<DockerRecord> {
        self.docker.values().cloned().collect()
    }

    fn keep_docker(&mut self, record: &DockerRecord) -> Result<(), String> {
        self.docker.insert(record.slot(), record.clone());
        Ok(())
    }

    fn drop_docker(&mut self, slot: &str) {
        self.docker.remove(slot);
    }

    fn next_authority(&mut self) -> Result<Authority, String> {
        self.authorities.push([self.authorities.len() as u8 + 50; 32]);
        Ok(Authority::new(&Secret::shared(self.authorities[self.authorities.len() - 1])))
    }

    fn adopt_next_authority(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn host_place(&mut self) -> Result<u32, String> {
        Ok(0)
    }

    fn host_records(&mut self) -> Vec<exposures::Record> {
        self.host_records.values().cloned().collect()
    }

    fn keep_host_record(&mut self, record: &exposures::Record) -> Result<(), String> {
        self.host_records.insert(record.slot(), record.clone());
        Ok(())
    }

    fn drop_host_record(&mut self, slot: &str) -> Result<(), String> {
        assert!(self.host_records.remove(slot).is_some(), "a record is dropped once");
        Ok(())
    }

    fn set_rules(&mut self, rules: &Rules) -> Result<(), String> {
        match &self.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => {
                self.rules = rules.clone();
                Ok(())
            }
        }
    }

    fn obstacles(&self) -> Vec<String> {
        self.obstacles.clone()
    }

    fn hold_port(&mut self, port: HostPort) -> Result<(), String> {
        match port.port {
            port if self.busy.contains(&port) => Err(format!("port {port} is taken by python3")),
            22 => Err("port 22 is taken by sshd".to_owned()),
            _ if self.held.insert(port) => Ok(()),
            _ => panic!("{port} is held once"),
        }
    }

    fn release_port(&mut self, port: HostPort) {
        self.held.remove(&port);
    }

    fn probe(&mut self, instances: Vec<SocketAddr>) {
        self.probed = instances;
    }

    fn added_names(&mut self) -> Vec<AddedName> {
        self.names.values().cloned().collect()
    }

    fn keep_name(&mut self, added: &AddedName) -> Result<(), String> {
        self.names.insert((added.network.clone(), added.name.clone()), added.clone());
        Ok(())
    }

    fn drop_name(&mut self, added: &AddedName) -> Result<(), String> {
        self.names.remove(&(added.network.clone(), added.name.clone()));
        Ok(())
    }

    fn leases(&mut self) -> Vec<Lease> {
        self.leases.iter().flat_map(BTreeMap::values).cloned().collect()
    }

    fn change_leases(&mut self, keep: &[Lease], forget: &[(u32, IpAddr)]) -> Result<(), String> {
        let leases = self.leases.as_mut().ok_or("the disk is full")?;
        forget.iter().for_each(|key| drop(leases.remove(key)));
        leases.extend(keep.iter().map(|lease| ((lease.vni, lease.address), lease.clone())));
        Ok(())
    }

    fn claims(&mut self) -> Vec<Claim> {
        self.claims.iter().copied().collect()
    }

    fn change_claims(&mut self, keep: &[Claim], forget: &[Claim]) -> Result<(), String> {
        forget.iter().for_each(|claim| assert!(self.claims.remove(claim), "it was kept"));
        self.claims.extend(keep);
        self.claim_changes += 1;
        Ok(())
    }

    fn confirm_neighbour(&mut self, _: SocketAddr) {}

    fn out(&mut self) -> &mut Sink {
        &mut self.out
    }

    fn machine(&self) -> MachineReport {
        MachineReport::default()
    }
}
