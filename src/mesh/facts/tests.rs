#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn read(records: &[Record]) -> (Facts, usize) {
    let mut facts = Facts::default();
    let skipped: usize = records.iter().map(|record| facts.absorb(&record.bytes)).sum();
    let excess = facts.settle();
    (facts, skipped + excess)
}

fn full() -> Facts {
    let addresses = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let services = ["53/udp", "sql:5432/tcp"].map(|service| service.parse().unwrap()).to_vec();
    let endpoint = |kind, address: &str| Endpoint { kind, address: address.parse().unwrap() };
    Facts {
        name: "alpha".to_owned(),
        tunnel_address: Ipv4Addr::new(100, 64, 0, 1),
        program: "weft 1.2".to_owned(),
        capabilities: 5,
        relay: Relay::Prefer,
        endpoints: vec![
            endpoint(EndpointKind::Observed, "192.0.2.1:51820"),
            endpoint(EndpointKind::Configured, "[2001:db8::1]:51820"),
        ],
        networks: vec![7, 9],
        attachments: vec![Attachment {
            vni: 7,
            mac,
            addresses: addresses.clone(),
            sequence: 3,
            name: "web".to_owned(),
        }],
        groups: vec![(7, "239.1.1.1".parse().unwrap())],
        links: vec![Link { neighbour: PublicKey([9; 32]), round_trip: 4, loss: 1 }],
        certificate: Some(vec![1, 2, 3]),
        labels: vec![Labels {
            vni: 7,
            mac,
            promiscuous: true,
            host: false,
            labels: vec![("tier".to_owned(), "web".to_owned())],
        }],
        names: vec![
            Name { vni: 7, name: "db".to_owned(), of: Named::Added { addresses, services } },
            Name { vni: 7, name: "web".to_owned(), of: Named::Attachment(mac) },
        ],
        leases: vec![LeaseFact { vni: 7, address: "10.0.0.9".parse().unwrap(), holder: "web:eth1".to_owned() }],
        slices: vec![SliceFact { vni: 7, slice: "10.0.0.0/26".parse().unwrap() }],
        incarnation: 0,
    }
}

#[test]
fn what_is_written_is_read_in_any_order() {
    let mut records = records(&full());
    assert_eq!(read(&records), (full(), 0));
    records.reverse();
    assert_eq!(read(&records), (full(), 0));
    assert_eq!(records.iter().find(|record| record.name[0] == LINK).unwrap().bytes[..5], [6, 0, 34, 9, 9]);
}

#[test]
fn what_comes_from_the_future_is_skipped_and_what_is_broken_is_counted() {
    let mut facts = Facts::default();
    assert_eq!(facts.absorb(&[200, 0, 2, 1, 2, NETWORK, 0, 6, 0, 0, 0, 7, 99, 99]), 0);
    assert_eq!(facts.networks, [7]);
    for broken in [&[NETWORK, 0, 4, 0, 0, 0, 0][..], &[NETWORK, 0, 3, 0, 0, 1], &[NETWORK, 0], &[LINK, 0, 1, 0]] {
        assert_eq!(facts.absorb(broken), 1, "{broken:?}");
    }
    assert_eq!(facts.absorb(&[ENDPOINTS, 0, 8, 77, 4, 1, 2, 3, 4, 0, 9]), 0, "a kind of endpoint from the future");
    assert_eq!(facts.endpoints, []);
}

#[test]
fn too_much_is_cut_and_named() {
    let mut facts = full();
    facts.name = "x\u{1b}[2J".repeat(30);
    facts.networks = (1..2000).collect();
    facts.certificate = Some(vec![0; MAX_CERTIFICATE + 1]);
    let said = facts.tidy().unwrap();
    assert!(said.contains("975 of 1999 networks") && said.contains("name") && said.contains("certificate"), "{said}");
    assert!(is_name(&facts.name));
    assert_eq!(facts.tidy(), None);
}

#[test]
fn names_are_as_many_as_fit_a_quarter_of_a_document() {
    let of = |count: usize, length: usize| {
        let name = |n: usize| format!("{n:06}{}", ".x".repeat(length / 2));
        let of = Named::Attachment(Mac([2, 0, 0, 0, 0, 1]));
        let names = (0..count).map(|n| Name { vni: 7, name: name(n), of: of.clone() }).collect();
        let mut facts = Facts { names, ..Facts::default() };
        let said = facts.tidy();
        let bytes: usize = facts.names.iter().map(|name| name.record().bytes.len()).sum();
        assert!(bytes <= MAX_NAME_BYTES);
        (said, facts.names.len())
    };
    assert_eq!(of(MAX_NAMES, 10), (None, MAX_NAMES));
    assert_eq!(of(10_000, 10), (Some("7952 of 10000 names".to_owned()), MAX_NAMES));
    let (said, left) = of(MAX_NAMES, 120);
    assert!(said.is_some() && left > 400, "{said:?}");
}

proptest! {
    #[test]
    fn arbitrary_pages_are_read_within_the_limits(page in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..13) {
        let mut facts = Facts::default();
        facts.absorb(&page);
        let mut record = Writer::default();
        record.u8(kind).prefixed(&page);
        facts.absorb(&record.0);
        facts.settle();
        prop_assert_eq!(read(&records(&facts)).0, facts);
    }
}
