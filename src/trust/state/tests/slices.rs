//! Slices: given once and to one, asked for ahead of time, and taken from members that are gone.

use super::*;
use crate::trust::Ledger;
use crate::wire::cidr::Cidr;

const SECOND: Duration = Duration::from_secs(1);

fn cidrs(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

const PLAN: [&str; 2] = ["10.32.0.0/16", "fd00:32::/64"];

impl Mesh {
    /// One issuer, which gives slices of [`PLAN`].
    fn giving() -> Self {
        let mut mesh = Self::new();
        mesh.give();
        mesh
    }

    fn give(&mut self) {
        self.member(1).set_slices(Some(cidrs(&PLAN)), Vec::new(), Vec::new());
    }

    fn slices(&mut self, n: u8) -> Vec<Cidr> {
        let unix = self.unix;
        self.member(n).slices(unix)
    }

    /// A host joins as this member.
    fn takes_in(&mut self, n: u8) -> Vec<Cidr> {
        let token = self.invite(&format!("host{n}"), &[1]);
        self.host(n, &token);
        self.pass(3 * SECOND);
        self.slices(n)
    }

    /// A member lacks slices of these subnets, and has time to ask.
    fn wants(&mut self, n: u8, subnets: &[&str]) {
        let plan = (n == 1).then(|| cidrs(&PLAN));
        self.member(n).set_slices(plan, Vec::new(), cidrs(subnets));
        self.pass(10 * SECOND);
    }
}

#[test]
fn everybody_gets_the_lowest_slice_that_nobody_has_also_after_a_restart_of_the_issuer() {
    let mut mesh = Mesh::giving();
    mesh.wants(1, &PLAN);
    assert_eq!(mesh.slices(1), cidrs(&["10.32.0.0/24", "fd00:32::/80"]));
    mesh.wants(1, &[]);
    assert_eq!(mesh.takes_in(2), cidrs(&["10.32.1.0/24", "fd00:32:0:0:1::/80"]));
    mesh.start(1, "alpha", Some(authority(1)));
    mesh.give();
    assert_eq!(mesh.takes_in(3), cidrs(&["10.32.2.0/24", "fd00:32:0:0:2::/80"]));
    // What another member says that it has, by its file, is not given either.
    let said = vec![(key(9), cidrs(&["10.32.3.128/25"])[0])];
    mesh.member(1).set_slices(Some(cidrs(&PLAN)), said, Vec::new());
    assert_eq!(mesh.takes_in(4)[0], cidrs(&["10.32.4.0/24"])[0]);
}

#[test]
fn who_lacks_a_slice_asks_until_it_has_one_and_is_told_why_not() {
    let mut mesh = Mesh::giving();
    mesh.takes_in(2);
    mesh.takes_in(3);
    mesh.wants(2, &PLAN[..1]);
    assert_eq!(mesh.slices(2), cidrs(&["10.32.0.0/24", "fd00:32::/80", "10.32.2.0/24"]));
    assert_eq!(mesh.member(2).slice_trouble(), None);
    mesh.wants(2, &["10.99.0.0/16"]);
    assert!(mesh.member(2).slice_trouble().unwrap().contains("no network with the subnet 10.99.0.0/16"));
    // A renewal keeps what was given.
    mesh.unix += Duration::from_secs(70 * DAY);
    mesh.wants(2, &[]);
    mesh.pass(60 * SECOND);
    assert_eq!(mesh.slices(2).len(), 3);
    // An issuer that does not give slices gives none.
    mesh.member(1).set_slices(None, Vec::new(), Vec::new());
    mesh.wants(3, &PLAN[..1]);
    assert!(mesh.member(3).slice_trouble().unwrap().contains("gives_slices"));
}

#[test]
fn a_member_that_is_gone_loses_its_slices_and_gets_others_when_it_comes_back() {
    let mut mesh = Mesh::giving();
    let (lost, other) = (mesh.takes_in(2), mesh.takes_in(3));
    mesh.members.remove(&key(2));
    let unix = mesh.unix;
    let told = mesh.member(1).reclaim(unix, "host2").unwrap();
    assert!(told[0].contains("10.32.0.0/24"), "{told:?}");
    mesh.run();
    // The ledger is on the disk before anybody can be given what is free.
    let saved = |wanted: fn(&Record) -> bool| {
        let is_it = |output: &Output| matches!(output, Output::Save(record) if wanted(record));
        mesh.heard.iter().position(|(by, output)| *by == key(1) && is_it(output))
    };
    let ledger = saved(|record| matches!(record, Record::Ledger(_))).unwrap();
    let issued = saved(|record| matches!(record, Record::Issued(issued) if issued.reclaimed.is_some())).unwrap();
    assert!(ledger < issued);
    for (whom, why) in [("host2", "no slice"), ("nobody", "no certificate"), ("alpha", "is there")] {
        let refused = mesh.member(1).reclaim(unix, whom).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(mesh.takes_in(4), lost);

    // It comes back: a member still, and with no slice until it has asked for one.
    mesh.start(2, "host2", None);
    assert_eq!(mesh.slices(2), lost, "it has not heard");
    let heard = mesh.members[&key(1)].policy().ledger().unwrap().bytes().to_vec();
    mesh.member(2).ledger_input(unix, &heard);
    assert_eq!(mesh.slices(2), []);
    let certificate = mesh.member(2).certificate().map(<[u8]>::to_vec);
    assert!(mesh.member(3).policy().judge(unix, &key(2), certificate.as_deref()).is_ok());
    mesh.wants(2, &PLAN);
    assert_eq!(mesh.slices(2), cidrs(&["10.32.2.0/24", "fd00:32:0:0:2::/80"]));
    assert_eq!(mesh.slices(3), other);
    // And these can be reclaimed too.
    assert!(mesh.member(1).reclaim(unix, "host2").is_ok());
}

#[test]
fn a_ledger_of_another_issuer_that_knew_nothing_of_it_undoes_no_reclaim() {
    let mut mesh = Mesh::giving();
    mesh.takes_in(2);
    let unix = mesh.unix;
    mesh.member(1).reclaim(unix, "host2").unwrap();
    mesh.run();
    let version = mesh.members[&key(1)].policy().ledger().unwrap().version + 1_000_000;
    let (none, authority) = (Vec::new, authority(1));
    let empty = Ledger::sign(&authority, version, Vec::new(), none(), none(), Vec::new()).unwrap();
    mesh.member(1).ledger_input(unix, empty.bytes());
    mesh.run();
    let ledger = mesh.members[&key(2)].policy().ledger().unwrap();
    assert!(ledger.version > version && ledger.reclaimed.iter().any(|reclaim| reclaim.key == key(2)));
    assert_eq!(mesh.slices(2), []);
}
