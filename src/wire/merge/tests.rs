//! Merging against frames made field by field, and against cutting.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::wire::segment::Plan;
use crate::wire::testing::{CWR, FIN, SYN, Spec, naive_sum, spec};
use proptest::prelude::*;
use proptest::sample::Index;

/// A frame and its partial checksum, if it is partial.
type Sent = (Vec<u8>, Option<PartialChecksum>);
/// A frame of a run.
type Member = (Candidate, Sent);

fn sent(spec: &Spec, partial: bool) -> Sent {
    if partial { (spec.frame_partial(), Some(spec.partial())) } else { (spec.frame(), None) }
}

fn candidate(spec: &Spec, partial: bool) -> Candidate {
    let (frame, partial) = sent(spec, partial);
    match inspect(&frame, partial) {
        Inspection::Mergeable(candidate) => candidate,
        other => panic!("{other:?}"),
    }
}

/// The super-frame of a run over `frames`, as the caller would gather it.
fn gather(run: &Run, frames: &[Member]) -> (Vec<u8>, VnetHeader) {
    let header_len = run.first.header_len();
    let mut whole = frames[0].1.0[..header_len].to_vec();
    let vnet = run.finish(&mut whole);
    for (candidate, (frame, _)) in frames {
        whole.extend(&frame[header_len..header_len + candidate.payload_len()]);
    }
    (whole, vnet)
}

/// Merges as a caller does: one open run per flow. Returns super-frames by flow, in order.
fn merge_all(frames: Vec<Sent>) -> Vec<(Vec<u8>, VnetHeader)> {
    // Each with its members, and whether it is the open one of its flow.
    let mut runs: Vec<(Run, Vec<Member>, bool)> = Vec::new();
    for frame in frames {
        let Inspection::Mergeable(candidate) = inspect(&frame.0, frame.1) else { panic!("not mergeable") };
        let open = runs.iter_mut().find(|(run, _, open)| *open && run.key() == candidate.key());
        if let Some((run, members, open)) = open {
            if run.append(&candidate) {
                members.push((candidate, frame));
                continue;
            }
            *open = false;
        }
        runs.push((Run::new(&candidate), vec![(candidate, frame)], true));
    }
    runs.iter().map(|(run, members, _)| gather(run, members)).collect()
}

/// The complete frames a super-frame stands for.
fn cut((frame, vnet): &(Vec<u8>, VnetHeader)) -> Vec<Vec<u8>> {
    let finish = |mut frame: Vec<u8>, partial: Option<PartialChecksum>| {
        if let Some(partial) = partial {
            checksum::finish(&mut frame, partial.start.into(), partial.offset.into()).unwrap();
        }
        frame
    };
    if vnet.gso_type == vnet::GSO_NONE {
        return vec![finish(frame.clone(), vnet.partial())];
    }
    let plan = Plan::new(frame, vnet, usize::MAX).unwrap();
    let segment = |i| {
        let mut segment = vec![0; plan.header_len()];
        plan.stamp(i, &mut segment);
        segment.extend(&frame[plan.payload(i)]);
        finish(segment, vnet.partial())
    };
    (0..plan.count()).map(segment).collect()
}

/// The identification of an IPv4 packet with DF set means nothing.
fn without_meaningless_id(mut frame: Vec<u8>, spec: &Spec) -> Vec<u8> {
    if !spec.v6 && spec.dont_fragment {
        frame[spec.l3() + 4..spec.l3() + 6].fill(0);
        frame[spec.l3() + 10..spec.l3() + 12].fill(0);
    }
    frame
}

proptest! {
    #[test]
    fn what_was_cut_becomes_the_same_super_frame(
        spec in spec(8000, false), size in 200usize..3000, partial in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let segments = spec.cut(size);
        let frames: Vec<_> = segments.iter().zip(&partial)
            .map(|(segment, &partial)| (candidate(segment, partial), sent(segment, partial)))
            .collect();
        let mut run = Run::new(&frames[0].0);
        for (next, _) in &frames[1..] {
            prop_assert!(run.append(next));
        }
        prop_assert_eq!(run.len(), segments.len());
        let (whole, vnet) = gather(&run, &frames);
        if segments.len() == 1 {
            prop_assert_eq!(&whole, &frames[0].1.0);
            prop_assert_eq!(vnet, VnetHeader::single(frames[0].1.1));
        } else {
            prop_assert_eq!(&whole, &spec.frame_partial());
            prop_assert_eq!(vnet, VnetHeader {
                flags: vnet::NEEDS_CSUM,
                gso_type: if spec.udp { 5 } else if spec.v6 { 4 } else { 1 },
                hdr_len: spec.header_len() as u16,
                gso_size: size as u16,
                csum_start: spec.partial().start,
                csum_offset: spec.partial().offset,
            });
        }
    }

    #[test]
    fn cutting_what_was_merged_gives_back_every_flow_in_order(
        specs in proptest::collection::vec(spec(3000, false), 1..4), sizes in proptest::collection::vec(40usize..900, 4),
        picks in proptest::collection::vec((any::<Index>(), any::<Index>(), any::<bool>()), 1..120),
        swaps in proptest::collection::vec(any::<Index>(), 0..6),
    ) {
        // The flows differ in their ports; the frames of each come mostly in order, with losses and duplicates.
        let flows: Vec<Vec<Spec>> = specs.into_iter().zip(&sizes).enumerate()
            .map(|(i, (spec, &size))| Spec { ports: [0, i as u8, 0, 1], ..spec }.cut(size))
            .collect();
        let mut positions = vec![0; flows.len()];
        let mut order: Vec<(Spec, bool)> = Vec::new();
        for (flow, jump, partial) in picks {
            let at = flow.index(flows.len());
            let jump = jump.index(12);
            positions[at] += match jump { 0 => 2, 1 => 0, _ => 1 };
            order.push((flows[at][positions[at] % flows[at].len()].clone(), partial));
        }
        for swap in swaps {
            let at = swap.index(order.len());
            let next = (at + 1) % order.len();
            order.swap(at, next);
        }
        let merged = merge_all(order.iter().map(|(spec, partial)| sent(spec, *partial)).collect());
        for flow in &flows {
            let ports = flow[0].ports;
            let expected: Vec<_> = order.iter().filter(|(spec, _)| spec.ports == ports)
                .map(|(spec, _)| without_meaningless_id(spec.frame(), spec)).collect();
            let of_flow = |frame: &[u8]| {
                let is_like = frame.get(flow[0].l4()..).is_some_and(|l4| l4.starts_with(&ports));
                is_like && frame.starts_with(&flow[0].frame()[..flow[0].l3()])
            };
            let got: Vec<_> = merged.iter().filter(|(frame, _)| of_flow(frame)).flat_map(cut)
                .map(|frame| without_meaningless_id(frame, &flow[0])).collect();
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn no_corrupted_segment_is_ever_mergeable(spec in spec(200, false), at: Index, bit in 0u8..8) {
        let mut frame = spec.frame();
        let l4 = spec.l4();
        let at = l4 + at.index(frame.len() - l4);
        frame[at] ^= 1 << bit;
        prop_assert!(!matches!(inspect(&frame, None), Inspection::Mergeable(_)));
    }

    #[test]
    fn changed_bytes_never_panic(
        spec in spec(200, true), changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        cut_at: Index, start: u16, partial: bool,
    ) {
        let mut frame = spec.frame_partial();
        changes.into_iter().for_each(|(at, byte)| { let len = frame.len(); frame[at.index(len)] = byte; });
        frame.truncate(cut_at.index(frame.len()) + 1);
        let partials = [None, Some(spec.partial()), Some(PartialChecksum { start, offset: 16 })];
        for partial in partials {
            if let Inspection::Mergeable(candidate) = inspect(&frame, partial) {
                let payload = candidate.header_len()..candidate.header_len() + candidate.payload_len();
                prop_assert!(frame.get(payload).is_some_and(|payload| !payload.is_empty()));
                let mut run = Run::new(&candidate);
                run.append(&candidate);
                run.finish(&mut frame[..candidate.header_len()]);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..150)) {
        inspect(&frame, None);
    }
}

/// Two segments of one flow, the second changed.
fn follows(udp: bool, v6: bool, change: impl Fn(&mut Spec)) -> bool {
    let spec =
        Spec { udp, v6, dont_fragment: false, options: vec![1; if udp { 0 } else { 4 }], ..Spec::tcp(vec![7; 300]) };
    let mut segments = spec.cut(100);
    change(&mut segments[1]);
    let mut run = Run::new(&candidate(&segments[0], false));
    run.append(&candidate(&segments[1], true))
}

#[test]
fn only_frames_a_cut_could_have_made_follow_one_another() {
    for (udp, v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let follows = |change: fn(&mut Spec)| follows(udp, v6, change);
        assert!(follows(|_| ()));
        assert!(follows(|next| next.payload.truncate(1)));
        assert!(!follows(|next| next.payload.push(7)));
        assert!(!follows(|next| next.tos = 1));
        assert!(!follows(|next| next.ttl = 63));
        assert!(!follows(|next| next.tags.push([0x81, 0, 0, 1])));
        assert!(!follows(|next| next.ports[3] = 9));
        assert!(!follows(|next| next.source[0] = 9));
        assert_eq!(follows(|next| next.id = 5), v6);
        assert_eq!(follows(|next| next.dont_fragment = true), v6);
        assert_eq!(follows(|next| next.label = 1), !v6);
        assert_eq!(follows(|next| next.seq += 1), udp);
        assert_eq!(follows(|next| next.ack += 1), udp);
        assert_eq!(follows(|next| next.window += 1), udp);
        assert_eq!(follows(|next| next.options.fill(0)), udp);
        assert!(!follows(|next| next.udp = !next.udp));
    }
}

#[test]
fn nothing_follows_a_push_or_a_short_frame() {
    let segments = Spec::tcp(vec![7; 300]).cut(100);
    let pushed = Spec { flags: ACK | PSH, ..segments[0].clone() };
    assert!(!Run::new(&candidate(&pushed, true)).append(&candidate(&segments[1], true)));
    let short = Spec { payload: vec![7; 50], ..segments[1].clone() };
    let next = Spec { seq: short.seq + 50, ..segments[2].clone() };
    let mut run = Run::new(&candidate(&segments[0], true));
    assert!(run.append(&candidate(&short, true)));
    assert!(!run.append(&candidate(&next, true)));
}

#[test]
fn a_run_is_bounded_in_frames_and_bytes() {
    let length = |spec: &Spec, size: usize| {
        let mut segments = spec.cut(size).into_iter();
        let mut run = Run::new(&candidate(&segments.next().unwrap(), true));
        segments.all(|segment| run.append(&candidate(&segment, true)));
        run.len()
    };
    let tcp = Spec::tcp(vec![7; 64_000]);
    let udp = Spec { udp: true, ..tcp.clone() };
    assert_eq!(length(&tcp, 100), MAX_RUN);
    assert_eq!(length(&udp, 100), MAX_UDP_RUN);
    // Each frame alone is well within bounds; the 46th would make the packet longer than 65,535 bytes.
    let mut run = Run::new(&candidate(&Spec::tcp(vec![7; 1448]), true));
    let mut next = Spec::tcp(vec![7; 1448]);
    loop {
        next.seq = next.seq.wrapping_add(1448);
        if !run.append(&candidate(&next, true)) {
            break;
        }
    }
    assert_eq!(run.len(), (65_535 - 40) / 1448);
}

#[test]
fn every_frame_is_told_apart() {
    let data = Spec::tcp(vec![7; 100]);
    let key = *candidate(&data, false).key();
    let closes = Inspection::Closes(key);
    let inspected = |spec: &Spec| inspect(&spec.frame(), None);
    for flags in [SYN, SYN | ACK, ACK | FIN, ACK | 0x04, ACK | 0x20, ACK | 0x40, ACK | CWR, 0, PSH] {
        assert_eq!(inspected(&Spec { flags, ..data.clone() }), closes, "{flags:#x}");
    }
    assert_eq!(inspected(&Spec { payload: vec![], ..data.clone() }), Inspection::Passes);
    assert_eq!(inspected(&Spec { payload: vec![], flags: ACK | PSH, ..data.clone() }), closes);
    // A partial checksum elsewhere, and one that would be summed over padding.
    let partial = data.partial();
    assert_eq!(inspect(&data.frame_partial(), Some(PartialChecksum { start: 36, ..partial })), closes);
    assert_eq!(inspect(&[data.frame_partial(), vec![0; 6]].concat(), Some(partial)), closes);
    // Without one, padding is not part of the packet.
    assert!(
        matches!(inspect(&[data.frame(), vec![9; 6]].concat(), None), Inspection::Mergeable(c) if c.payload_len() == 100)
    );

    let udp = Spec { udp: true, ..data.clone() };
    let udp_key = *candidate(&udp, false).key();
    let mut unsummed = udp.frame();
    unsummed[40..42].fill(0);
    assert_eq!(inspect(&unsummed, None), Inspection::Closes(udp_key));
    assert_eq!(inspected(&Spec { payload: vec![], ..udp.clone() }), Inspection::Closes(udp_key));
    assert!(udp_key.is_udp() && !key.is_udp());

    assert_eq!(inspected(&Spec { extra: vec![1; 4], ..data.clone() }), Inspection::Opaque);
    assert_eq!(inspected(&Spec { extra: vec![0; 8], v6: true, ..data.clone() }), Inspection::Opaque);
    let changed = |changes: &[(usize, u8)]| {
        let mut frame = data.frame();
        changes.iter().for_each(|&(at, byte)| frame[at] = byte);
        frame[24..26].fill(0);
        let checksum = !naive_sum(0, &frame[14..34]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        inspect(&frame, None)
    };
    assert_eq!(changed(&[(20, 0x20)]), Inspection::Opaque, "a first fragment");
    assert_eq!(changed(&[(21, 1)]), Inspection::Opaque, "a later fragment");
    assert_eq!(changed(&[(23, 1)]), Inspection::Opaque, "ICMP");
    assert_eq!(changed(&[(12, 8), (13, 6)]), Inspection::Opaque, "ARP");
    assert_eq!(changed(&[(17, 200)]), Inspection::Opaque, "cut short");
    let mut corrupt = data.frame();
    corrupt[22] ^= 1;
    assert_eq!(inspect(&corrupt, None), Inspection::Opaque, "a bad header checksum");
}
