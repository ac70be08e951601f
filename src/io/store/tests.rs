#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::Target;
use crate::io::scratch::Scratch;
use crate::trust::record::Blob;

fn record(name: &str) -> PortRecord {
    PortRecord {
        spec: Port {
            name: name.to_owned(),
            network: "blue".to_owned(),
            target: Target::Container("web".to_owned()),
            ifname: "eth1".to_owned(),
            mac: None,
            addresses: vec!["10.32.0.5/16@10.32.0.1".parse().unwrap(), "fd00:32::5/64".parse().unwrap()],
            auto: false,
            names: vec!["web".to_owned()],
            labels: [("tier".to_owned(), "web".to_owned())].into(),
            allow: vec![crate::config::policy::Permission::Router],
            rate: Default::default(),
        },
        vni: 7,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        origin: Origin::Attach,
        netns: NetnsId { dev: 4, ino: 4_026_532_000 },
        via: Via::Process { pid: 42, started: 123_456, engine: None },
        sequence: 3,
    }
}

fn names(store: &Store) -> Vec<&str> {
    store.ports().iter().map(|port| port.spec.name.as_str()).collect()
}

#[test]
fn what_was_put_is_there_after_reopening_and_what_was_removed_is_not() {
    let dir = Scratch::new();
    let path = dir.path().join("var/lib/weft");
    let mut store = Store::open(&path).unwrap();
    assert!(store.ports().is_empty());
    let host = PortRecord { via: Via::Host, origin: Origin::File, ..record("b") };
    let bound = PortRecord { via: Via::Path("/run/netns/x".into()), ..record("c") };
    for port in [&bound, &host, &record("a")] {
        store.put(port).unwrap();
    }
    store.put(&PortRecord { vni: 8, ..host.clone() }).unwrap();
    store.remove("a").unwrap();
    store.remove("nobody").unwrap();
    assert_eq!(names(&store), ["b", "c"]);
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.ports(), [PortRecord { vni: 8, ..host }, bound]);
}

#[test]
fn what_trust_remembers_is_there_after_reopening_also_in_a_file_of_an_earlier_weft() {
    let dir = Scratch::new();
    // As an earlier weft left it: with a port, and without the table of trust.
    Store::open(dir.path()).unwrap().put(&record("a")).unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    assert!(store.take_trust().is_empty());
    let (token, ledger) = (Record::Token("weft1:x".into()), Record::Ledger(Blob(vec![1, 2, 3])));
    store.put_trust(&token).unwrap();
    store.put_trust(&Record::Ledger(Blob(vec![9]))).unwrap();
    store.put_trust(&ledger).unwrap();
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!((store.take_trust(), names(&store)), (vec![ledger.clone(), token], vec!["a"]));
    store.forget_trust("token").unwrap();
    store.forget_trust("nothing").unwrap();
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().take_trust(), [ledger]);
}

#[test]
fn leases_are_changed_all_or_none_and_are_there_after_reopening() {
    let dir = Scratch::new();
    let lease = |address: &str, holder: &str| Lease {
        vni: 7,
        address: address.parse().unwrap(),
        holder: holder.to_owned(),
        by: crate::ipam::By::Port,
        chosen: true,
        since: 1_795_219_200,
    };
    let (web, db) = (lease("10.32.0.2", "web:eth1"), lease("fd00:32::2", "db:eth1"));
    let store = Store::open(dir.path()).unwrap();
    store.change_leases(&[web.clone(), lease("fd00:32::2", "old:eth1")], &[]).unwrap();
    store.change_leases(std::slice::from_ref(&db), &[(7, web.address), (8, db.address)]).unwrap();
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!((store.take_leases(), store.take_leases()), (vec![db], vec![]));
}

#[test]
fn claims_are_kept_by_member_and_address() {
    let dir = Scratch::new();
    let claim =
        |member: u8, vni| Claim { member: PublicKey([member; 32]), vni, address: "fd00:32::2".parse().unwrap() };
    let store = Store::open(dir.path()).unwrap();
    store.change_claims(&[claim(1, 7), claim(1, 8), claim(2, 7)], &[]).unwrap();
    store.change_claims(&[claim(3, 7)], &[claim(1, 8), claim(9, 9)]).unwrap();
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    let mut kept = store.take_claims();
    kept.sort();
    assert_eq!((kept, store.take_claims()), (vec![claim(1, 7), claim(2, 7), claim(3, 7)], vec![]));
}

#[test]
fn a_second_daemon_on_the_same_state_is_told_who_has_it() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_process_that_dies_without_a_word_loses_nothing_it_put() {
    let dir = Scratch::new();
    let mut store = Store::open(dir.path()).unwrap();
    store.put(&record("a")).unwrap();
    // What a kill leaves: the file as it is on the disk, never closed.
    let after = Scratch::new();
    fs::copy(dir.path().join("state.redb"), after.path().join("state.redb")).unwrap();
    store.put(&record("b")).unwrap();
    assert_eq!(names(&Store::open(after.path()).unwrap()), ["a"]);
}

#[test]
fn a_foreign_or_truncated_file_is_refused_by_name_and_left_alone() {
    let dir = Scratch::new();
    let path = dir.path().join("state.redb");
    drop(Store::open(dir.path()).unwrap());
    let whole = fs::read(&path).unwrap();
    let half = whole[..whole.len() / 2].to_vec();
    for wrong in [b"not a database, but long enough to be read as one".repeat(200), half, vec![0; 100], vec![]] {
        fs::write(&path, &wrong).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(&format!("'mv {0} {0}.bad'", path.display())), "{error}");
        assert_eq!(fs::read(&path).unwrap(), wrong);
    }
}

#[test]
fn a_file_of_a_later_weft_or_another_program_is_refused() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    store.change(PORTS, |table| table.insert("a", br#"{"schema":2,"whatever":[]}"#.as_slice()).map(drop)).unwrap();
    drop(store);
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Later { schema: 2, .. })));

    let dir = Scratch::new();
    let other: TableDefinition<'_, &str, &str> = TableDefinition::new("bookmarks");
    let database = Database::create(dir.path().join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(other).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("bookmarks"), "{error}");
}

#[test]
fn no_flipped_byte_ends_in_a_panic_or_a_wrong_record() {
    let dir = Scratch::new();
    let mut store = Store::open(dir.path()).unwrap();
    for number in 0..20 {
        store.put(&record(&format!("port{number}"))).unwrap();
    }
    drop(store);
    let whole = fs::read(dir.path().join("state.redb")).unwrap();
    let used: Vec<usize> = (0..whole.len()).filter(|&at| whole[at] != 0).collect();
    for at in used.iter().step_by(used.len() / 100 + 1) {
        let broken = Scratch::new();
        let mut bytes = whole.clone();
        bytes[*at] ^= 0x55;
        fs::write(broken.path().join("state.redb"), bytes).unwrap();
        if let Ok(store) = Store::open(broken.path()) {
            for port in store.ports() {
                assert_eq!(port, &record(&port.spec.name), "byte {at}");
            }
        }
    }
}

#[test]
fn what_could_not_be_written_does_not_keep_the_next_from_being_written() {
    let dir = Scratch::new();
    let mut store = Store::open(dir.path()).unwrap();
    store.put(&record("before")).unwrap();
    let full = || redb::StorageError::Io(io::Error::from_raw_os_error(libc::ENOSPC));
    let error = store.change(PORTS, |_| Err(full())).unwrap_err().to_string();
    assert!(error.contains("is the disk full?"), "{error}");
    store.put(&record("later")).unwrap();
    drop(store);
    let names: Vec<_> = Store::open(dir.path()).unwrap().ports().iter().map(|port| port.spec.name.clone()).collect();
    assert_eq!(names, ["before", "later"]);
}
