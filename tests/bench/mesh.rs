//! What membership costs and how fast it is, with 10 to 1,000 members: the real code in virtual time.
//!
//! `cargo bench --bench mesh -- 10 100 300 1000` prints the table of docs/mesh.md; 1,000 take twenty minutes to compute. Each member
//! has twenty attachments. *Fresh fact* is how long a container that was just attached takes to be known by every member, and
//! *lossy* the same while 10 % of all messages are lost; *quiet* is what a member sends while nothing changes, with 96 bytes for the
//! headers of each message, and *churn* while somewhere a container comes or goes each second and a host each half minute; *healing* is
//! how long the halves of a partition need to agree again; *memory* is what one member's allocations grow by as it learns of all
//! the others; *computing* is what one member takes of a processor each second, its share of the imagined network included.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../members/world.rs"]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use world::{World, attachment};

const ATTACHMENTS: usize = 20;
const SECOND: Duration = Duration::from_secs(1);
/// More than that begin acquainted: a thousand that all come in the same moment are too much to compute on one processor.
const MOST_TOGETHER: usize = 300;

/// The system's allocator, and how much of it is in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let sizes: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![10, 100, 300] } else { sizes };
    println!(
        "| members | sessions (mean, most) | fresh fact (median, slowest) | lossy | quiet (mean, most) | churn | healing | memory | computing (quiet, churn) |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for count in sizes {
        measure(count);
    }
}

fn measure(count: usize) {
    let began = Instant::now();
    let mut world = World::new(count, ATTACHMENTS, 1);
    if count > MOST_TOGETHER {
        world.start_acquainted();
    } else {
        world.start(0, &[]);
        for n in 1..count {
            let contact = world.chance.below(n);
            world.start(n, &[contact]);
            // Many come together: a rollout, and less to compute than one newcomer after the other.
            if count <= 100 || n.is_multiple_of(100) {
                world.run(Duration::from_millis(20));
            }
        }
    }
    let told = |what: String| eprintln!("{count} members, after {:.0} s: {what}", began.elapsed().as_secs_f64());
    let time = world.agree_within(60 * SECOND, "at first");
    told(format!("all know all in {time:?}"));
    // The links of the beginning are let go.
    world.run(60 * SECOND);
    let sessions: Vec<usize> = (0..count).map(|n| world.sessions_of(n)).collect();
    let fresh: Vec<Duration> = (0..11).map(|turn| fresh_fact(&mut world, 100 + turn)).collect();
    told(format!("{sessions:?} sessions at most, fresh facts {fresh:?}", sessions = sessions.iter().max()));
    world.run(10 * SECOND);
    let computing = computed();
    let (quiet, most) = traffic(&mut world, 30, |_, _| {});
    let quiet_takes = (computed() - computing) * 1e6 / (30 * count) as f64;
    told(format!("quiet {quiet} B/s, at most {most} B/s, {quiet_takes:.0} µs"));
    world.loss = 10;
    let lossy = (0..5).map(|turn| fresh_fact(&mut world, 200 + turn)).max().unwrap();
    told(format!("lossy {lossy:?}"));
    world.loss = 0;
    let mut dead = None;
    let computing = computed();
    let (churn, _) = traffic(&mut world, 60, |world, second| {
        let n = 1 + world.chance.below(count - 1);
        world.change(n, |facts| facts.attachments[0].sequence += 1);
        if second % 30 == 5 {
            world.crash(n);
            dead = Some(n);
        } else if let Some(n) = dead.filter(|_| second % 30 == 20) {
            world.start(n, &[0]);
        }
    });
    let churn_takes = (computed() - computing) * 1e6 / (60 * count) as f64;
    told(format!("churn {churn} B/s, {churn_takes:.0} µs"));
    let memory = memory(&mut world);
    told(format!("memory {memory} B"));
    let healing = (count <= MOST_TOGETHER).then(|| {
        world.run(30 * SECOND);
        heal(&mut world, count)
    });
    let healing =
        healing.map_or_else(|| "not computed".to_owned(), |healing| format!("{:.1} s", healing.as_secs_f64()));
    let mean = sessions.iter().sum::<usize>() as f64 / count as f64;
    println!(
        "| {count} | {mean:.1}, {} | {:.2} s, {:.2} s | {:.2} s | {quiet} B/s, {most} B/s | {churn} B/s | {healing} | {:.1} MiB | {quiet_takes:.0} µs, {churn_takes:.0} µs |",
        sessions.iter().max().unwrap(),
        median(&fresh).as_secs_f64(),
        fresh.iter().max().unwrap().as_secs_f64(),
        lossy.as_secs_f64(),
        memory as f64 / f64::from(1 << 20),
    );
    eprintln!(
        "{count} members: {:.0} s of computing, {} signatures verified",
        began.elapsed().as_secs_f64(),
        world.archive.verified()
    );
}

/// Until the container that a host attaches is known by all that are there.
fn fresh_fact(world: &mut World, at: usize) -> Duration {
    let n = world.chance.below(world.hosts.len());
    let (key, container) = (world.hosts[n].key, attachment(n, at));
    let expected = container.clone();
    world.change(n, |facts| facts.attachments.push(container));
    let knows = |world: &World, other: usize| {
        let Some(membership) = &world.hosts[other].membership else { return true };
        other == n || membership.member(&key).is_some_and(|view| view.facts.attachments.contains(&expected))
    };
    let everyone = |world: &mut World| (0..world.hosts.len()).all(|other| knows(world, other));
    world.run_until(30 * SECOND, everyone).unwrap_or(30 * SECOND)
}

/// Bytes a second of each while something happens every second, and of the one that sends most.
fn traffic(world: &mut World, seconds: u64, mut act: impl FnMut(&mut World, u64)) -> (u64, u64) {
    let before: Vec<u64> = world.hosts.iter().map(|host| host.bytes).collect();
    for second in 0..seconds {
        act(world, second);
        world.run(SECOND);
    }
    let each = world.hosts.iter().zip(&before).map(|(host, before)| (host.bytes - before) / seconds);
    let each: Vec<u64> = each.collect();
    (each.iter().sum::<u64>() / each.len() as u64, each.into_iter().max().unwrap_or_default())
}

/// Two halves, for half a minute, that change while they are apart.
fn heal(world: &mut World, count: usize) -> Duration {
    (0..count).filter(|n| n % 2 == 0).for_each(|n| world.cut(n, 1));
    world.run(30 * SECOND);
    for n in (0..count).step_by(10) {
        world.change(n, |facts| facts.attachments[1].sequence += 1);
    }
    (0..count).for_each(|n| world.cut(n, 0));
    let seen = |world: &mut World| {
        let is_seen = |n: usize| {
            let membership = world.hosts[n].membership.as_ref();
            membership.is_none_or(|membership| membership.members().filter(|view| view.alive).count() == count - 1)
        };
        (0..count).all(is_seen) && (count > 200 || world.disagreement().is_none())
    };
    world.run_until(60 * SECOND, seen).unwrap_or(60 * SECOND)
}

/// What a member that begins with nothing takes until it knows all, with nothing shared.
fn memory(world: &mut World) -> usize {
    let shared = std::mem::take(&mut world.archive);
    let count = world.hosts.len();
    world.crash(1);
    world.run(30 * SECOND);
    world.start(1, &[0]);
    let alone = IN_USE.load(Relaxed);
    let others: Vec<usize> = (0..count).filter(|&n| n != 1).collect();
    let knows_all = |world: &mut World| {
        let membership = world.hosts[1].membership.as_ref().unwrap();
        membership.members().count() == others.len()
    };
    world.run_until(60 * SECOND, knows_all);
    world.run(SECOND);
    world.archive = shared;
    IN_USE.load(Relaxed).saturating_sub(alone)
}

/// The processor's time that this process took, in seconds: others may use the machine too.
fn computed() -> f64 {
    let taken = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    taken.split(' ').next().and_then(|taken| taken.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}
