//! `weft lab scale`: a host that grows while traffic goes on, and what its daemon takes.

use super::{Running, assert_bare, in_own_run};

/// What the daemon of a host with 100 ports and 100 peers may take, in bytes.
const MEMORY: u64 = 64 << 20;

#[test]
fn a_host_with_a_hundred_ports_and_peers_forwards_and_stays_small() {
    in_own_run(|| {
        let scale = Running::start("scale --json --seconds 1 --ports 100 --peers 100 --fdb 20000");
        scale.until("add 100 ports");
        let belongings = scale.belongings();
        let (ended, netns) = scale.end();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.err);
        let report = ended.json();
        let rows = report["rows"].as_array().unwrap();
        let sizes = rows.iter().map(|row| ["ports", "peers"].map(|key| row[key].as_u64().unwrap()));
        assert_eq!(sizes.collect::<Vec<_>>(), [[2, 1], [102, 1], [102, 101], [102, 101]], "{report:#}");
        for row in rows {
            let flows = ["out_gbps", "in_gbps"].iter().all(|key| row[key].as_f64() > Some(0.0));
            assert!(flows && row["memory"].as_u64() < Some(MEMORY), "{row:#}");
        }
        assert!(rows[3]["fdb_entries"].as_u64() >= Some(20_000), "{report:#}");
        belongings.assert_gone();
        assert_bare(&netns);
    });
}
