//! What is sent to a resolver for a question, and what of its answer is passed on.
//!
//! Nothing is passed on as it came: each message is written anew from what could be read of it, so that containers get no
//! malformed bytes of strangers, and what was said between the two ends of one hop (EDNS) stays there.

use crate::names::MAX_DATAGRAM;
use crate::names::query::{Asker, Query};
use domain::base::iana::{Class, OptRcode, Rcode, Rtype};
use domain::base::name::ParsedName;
use domain::base::{Message, MessageBuilder, ParsedRecord, Record, Ttl};
use domain::rdata::AllRecordData;
use std::time::Duration;

/// What an answer may be kept for, whatever its owner thinks: whom the host asks has a cache too.
const MAX_TTL: u32 = 300;
/// The same for what is not there. It may come to be.
const MAX_NEGATIVE_TTL: u32 = 30;

/// What makes two questions one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// The labels, in lower case.
    name: Box<[u8]>,
    rtype: u16,
    /// Bits that change the answer.
    flags: u8,
}

impl Key {
    pub(super) fn of(query: &Query<'_>) -> Self {
        let mut name = Vec::with_capacity(64);
        for label in query.name.iter() {
            name.extend(u8::try_from(label.len()));
            name.extend(label.iter().map(|byte| byte.to_ascii_lowercase()));
        }
        let header = query.message.header();
        let edns = query.asker.edns;
        let flags = [header.rd(), header.cd(), header.ad(), edns.is_some(), edns.is_some_and(|edns| edns.dnssec_ok)];
        let flags = flags.iter().fold(0, |flags, &is_set| flags << 1 | u8::from(is_set));
        Self { name: name.into(), rtype: query.rtype.to_int(), flags }
    }
}

/// The message for a resolver. By EDNS only if the asker speaks it: then it also understands what may come back.
pub(super) fn question(query: &Query<'_>, id: u16) -> Option<Vec<u8>> {
    let mut builder = MessageBuilder::from_target(Vec::with_capacity(64)).ok()?;
    let (asked, header) = (query.message.header(), builder.header_mut());
    header.set_id(id);
    header.set_rd(asked.rd());
    header.set_cd(asked.cd());
    header.set_ad(asked.ad());
    let mut builder = builder.question();
    builder.push((&query.name, query.rtype, Class::IN)).ok()?;
    let mut builder = builder.additional();
    if let Some(edns) = query.asker.edns {
        let opt = builder.opt(|opt| {
            opt.set_udp_payload_size(u16::try_from(MAX_DATAGRAM).unwrap_or(u16::MAX));
            opt.set_dnssec_ok(edns.dnssec_ok);
            Ok(())
        });
        opt.ok()?;
    }
    Some(builder.finish())
}

/// What a resolver's message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    /// To another question, or none of a resolver's.
    Foreign,
    /// This resolver could not or would not; another may.
    Failure,
    /// Not all of it fits a datagram.
    Truncated,
    /// The answer, and for how long it may be kept.
    Final(Duration),
}

/// Reads a message to the end.
pub(super) fn read(bytes: &[u8], asked: &[u8]) -> Response {
    let (Ok(message), Ok(asked)) = (Message::from_slice(bytes), Message::from_slice(asked)) else {
        return Response::Foreign;
    };
    let header = message.header();
    if !header.qr() || header.id() != asked.header().id() || header.opcode() != asked.header().opcode() {
        return Response::Foreign;
    }
    let code = header.rcode();
    let may_be_kept = match code {
        Rcode::NOERROR | Rcode::NXDOMAIN => true,
        Rcode::YXDOMAIN => false,
        _ => return Response::Failure,
    };
    // Letters of the question count for as little as a resolver may think of them.
    match (message.sole_question(), asked.sole_question()) {
        (Ok(question), Ok(asked)) if question == asked => {}
        _ => return Response::Foreign,
    }
    if header.tc() {
        return Response::Truncated;
    }
    match kept_for(message) {
        Some(ttl) if may_be_kept => Response::Final(Duration::from_secs(ttl.into())),
        Some(_) => Response::Final(Duration::ZERO),
        None => Response::Failure,
    }
}

/// Whether a message says that it is cut off.
pub(super) fn is_truncated(bytes: &[u8]) -> bool {
    Message::from_slice(bytes).is_ok_and(|message| message.header().tc())
}

/// For how many seconds a message may be kept (RFC 2181 §5.2, RFC 2308 §5); `None` if it is malformed.
fn kept_for(message: &Message<[u8]>) -> Option<u32> {
    let mut ttl = MAX_TTL;
    let asked = message.sole_question().ok()?.qtype();
    let mut answer = message.answer().ok()?;
    let mut is_positive = false;
    for record in &mut answer {
        let record = record.ok()?;
        // An alias whose target has nothing of the kind is no more than that (RFC 2308 §2.2).
        is_positive |= asked == Rtype::ANY || record.rtype() == asked;
        ttl = ttl.min(readable(record)?.0);
    }
    let mut authority = answer.next_section().ok()??;
    let mut negative = 0;
    for record in &mut authority {
        let (own, data) = readable(record.ok()?)?;
        if let AllRecordData::Soa(soa) = data {
            negative = own.min(soa.minimum().as_secs()).min(MAX_NEGATIVE_TTL);
        }
        ttl = ttl.min(own);
    }
    for record in authority.next_section().ok()?? {
        let (own, data) = readable(record.ok()?)?;
        // The TTL of this one is something else.
        if !matches!(data, AllRecordData::Opt(_)) {
            ttl = ttl.min(own);
        }
    }
    let is_error = message.header().rcode() != Rcode::NOERROR;
    Some(if is_positive && !is_error { ttl } else { ttl.min(negative) })
}

type Data<'m> = AllRecordData<&'m [u8], ParsedName<&'m [u8]>>;

/// A TTL with the highest bit set is none (RFC 2181 §8).
fn meant(ttl: Ttl) -> u32 {
    Some(ttl.as_secs()).filter(|seconds| *seconds <= i32::MAX.unsigned_abs()).unwrap_or_default()
}

/// The TTL and the data of a record whose data can be read.
fn readable(record: ParsedRecord<'_, [u8]>) -> Option<(u32, Data<'_>)> {
    let ttl = meant(record.ttl());
    Some((ttl, record.into_any_record::<Data<'_>>().ok()?.into_data()))
}

/// A record that is older by some seconds.
fn aged(record: ParsedRecord<'_, [u8]>, age: u32) -> Option<Record<ParsedName<&[u8]>, Data<'_>>> {
    let mut record = record.into_any_record::<Data<'_>>().ok()?;
    record.set_ttl(Ttl::from_secs(meant(record.ttl()).saturating_sub(age)));
    Some(record)
}

/// What an asker gets of a resolver's message that is this old.
pub(super) fn answer(query: &Message<[u8]>, asker: Asker, bytes: &[u8], age: Duration) -> Option<Vec<u8>> {
    let message = Message::from_slice(bytes).ok()?;
    let header = message.header();
    let mut out = Vec::new();
    let mut builder = asker.begin(&mut out, query, header.rcode())?;
    let wants_ad = query.header().ad() || asker.edns.is_some_and(|edns| edns.dnssec_ok);
    let begun = builder.header_mut();
    begun.set_ra(header.ra());
    begun.set_aa(header.aa() && age.is_zero());
    begun.set_ad(header.ad() && wants_ad);
    begun.set_cd(query.header().cd());
    begun.set_tc(header.tc());
    let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
    let mut section = message.answer().ok()?;
    let mut fits = true;
    for record in &mut section {
        fits = fits && builder.push(aged(record.ok()?, age)?).is_ok();
    }
    let mut section = section.next_section().ok()??;
    let mut builder = builder.authority();
    for record in &mut section {
        fits = fits && builder.push(aged(record.ok()?, age)?).is_ok();
    }
    if !fits {
        builder.header_mut().set_tc(true);
    }
    let mut builder = builder.additional();
    for record in section.next_section().ok()?? {
        let record = record.ok()?;
        let is_of_the_hop = matches!(record.rtype(), Rtype::OPT | Rtype::TSIG);
        if fits && !is_of_the_hop && builder.push(aged(record, age)?).is_err() {
            break;
        }
    }
    asker.end(builder, OptRcode::from_rcode(header.rcode()), &mut out);
    Some(out)
}
