//! One contender, measured once.
//!
//! The order matters little, but for one thing: round trips on an idle path come first, before anything has filled a
//! queue.

use super::BenchSpec;
use super::summary::Metric;
use crate::lab::contenders::pair::{Pair, Route};
use crate::lab::datagrams::{RoundTrips, flood, ping_pong};
use crate::lab::generator::{Bulk, TrafficError, bulk_tcp, joined};
use crate::lab::report::GB;
use crate::lab::{LabError, Stop};
use std::collections::BTreeMap;
use std::time::Duration;

/// The figures of one round.
pub(super) type Sample = BTreeMap<Metric, f64>;

/// Payload of the small datagrams.
const SMALL: usize = 64;
/// By how much bulk traffic outlasts the round trips that are measured beside it.
const MARGIN: Duration = Duration::from_millis(100);
const MIB: f64 = 1024.0 * 1024.0;

/// Measures everything there is a way for.
pub(super) fn once(pair: &mut Pair, spec: &BenchSpec, stop: &Stop) -> Result<Sample, LabError> {
    // While the others were measured, sessions, neighbours and flows of this one may have been forgotten.
    pair.across.iter().chain(&pair.local).try_for_each(Route::until_it_carries)?;
    let mut sample = Sample::new();
    if let Some(route) = &pair.across {
        across(pair, route, spec, stop, &mut sample)?;
    }
    if let Some(route) = &pair.local {
        sample.insert(Metric::TcpLocal, tcp(route, 1, spec.measure, stop)?.gbps());
    }
    if let Some(bytes) = pair.memory() {
        sample.insert(Metric::Memory, bytes as f64 / MIB);
    }
    pair.check()?;
    Ok(sample)
}

fn across(pair: &Pair, route: &Route, spec: &BenchSpec, stop: &Stop, sample: &mut Sample) -> Result<(), LabError> {
    let measure = spec.measure;
    let idle = trips(route, measure, stop)?;
    sample.insert(Metric::TripHalf, idle.percentile(0.5));
    sample.insert(Metric::TripMost, idle.percentile(0.99));

    let before = pair.cpu_time();
    let moved = tcp(route, 1, measure, stop)?;
    let used = pair.cpu_time().zip(before).map(|(after, before)| after.saturating_sub(before));
    sample.insert(Metric::Tcp, moved.gbps());
    if moved.bytes > 0 {
        let gigabytes = moved.bytes as f64 / GB;
        sample.insert(Metric::Retransmits, moved.retransmits as f64 / gigabytes);
        sample.extend(used.map(|used| (Metric::Cpu, used.as_secs_f64() / gigabytes)));
    }
    let back = bulk_tcp(&route.to, &route.from, (route.here, 0).into(), 1, measure, stop)?;
    sample.insert(Metric::TcpReverse, back.gbps());
    sample.insert(Metric::TcpSeveral, tcp(route, spec.streams, measure, stop)?.gbps());
    sample.extend(trips_under_load(route, measure, stop)?.map(|most| (Metric::TripLoaded, most)));
    let flood = flood(&route.from, &route.to, (route.there, 0).into(), SMALL, measure, stop)?;
    sample.insert(Metric::Small, flood.delivered_kpps());
    Ok(())
}

fn tcp(route: &Route, streams: usize, duration: Duration, stop: &Stop) -> Result<Bulk, TrafficError> {
    bulk_tcp(&route.from, &route.to, (route.there, 0).into(), streams, duration, stop)
}

fn trips(route: &Route, duration: Duration, stop: &Stop) -> Result<RoundTrips, TrafficError> {
    ping_pong(&route.from, &route.to, (route.there, 0).into(), SMALL, duration, stop)
}

/// The p99 beside one TCP stream, in µs; `None` when every datagram was lost.
fn trips_under_load(route: &Route, duration: Duration, stop: &Stop) -> Result<Option<f64>, TrafficError> {
    std::thread::scope(|scope| {
        let load = scope.spawn(|| tcp(route, 1, duration + MARGIN, stop));
        let trips = trips(route, duration, stop);
        joined(load)?;
        match trips {
            Ok(trips) => Ok(Some(trips.percentile(0.99))),
            Err(TrafficError::Wrong(_)) => Ok(None),
            Err(error) => Err(error),
        }
    })
}
