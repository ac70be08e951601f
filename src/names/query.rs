//! A question as it was asked, and how its answer is begun and ended.

use super::{MAX_DATAGRAM, Transport};
use domain::base::iana::{Class, Opcode, OptRcode, Rcode, Rtype};
use domain::base::message_builder::{AdditionalBuilder, AnswerBuilder, StaticCompressor};
use domain::base::name::ParsedName;
use domain::base::{Message, MessageBuilder};

/// The longest message in a stream, where its length has 16 bits.
const MAX_MESSAGE: usize = 65_535;
/// The longest datagram for who does not say what it takes (RFC 1035 §2.3.4).
const MIN_DATAGRAM: usize = 512;
/// An OPT record without options.
const OPT_LEN: usize = 11;

pub(super) type Builder = AnswerBuilder<StaticCompressor<Vec<u8>>>;

/// The longest message that may be a plain question: what one without EDNS has at most (RFC 1035 §4.2.1).
const LONGEST_PLAIN: usize = 512;
/// Labels of the name in one: those of any name of ours but addresses of IPv6. What has 127 costs ten times as much to answer.
const MOST_LABELS: usize = 16;

/// What an asker says of itself by EDNS (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edns {
    /// The longest datagram it takes.
    pub(super) size: u16,
    /// It wants signatures (RFC 3225).
    pub(super) dnssec_ok: bool,
}

/// What of a question has to be kept until its answer is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) transport: Transport,
    pub(super) edns: Option<Edns>,
}

/// A question.
pub(super) struct Query<'q> {
    pub(super) message: &'q Message<[u8]>,
    pub(super) name: ParsedName<&'q [u8]>,
    pub(super) rtype: Rtype,
    pub(super) asker: Asker,
}

/// Why there is no question.
#[derive(Debug, Clone, Copy)]
pub(super) enum NoQuery<'q> {
    /// Not even a header, or an answer.
    Silent,
    /// To be answered with this code.
    Error(&'q Message<[u8]>, Option<Edns>, OptRcode),
}

impl<'q> Query<'q> {
    /// Whether a message is as short and as simple as those of resolvers are: a question for a name of few labels, and EDNS at most. To read
    /// and to answer another takes as long as it is.
    pub(super) fn is_plain(bytes: &[u8]) -> bool {
        let counts = bytes.get(4..12).filter(|_| bytes.len() <= LONGEST_PLAIN);
        if !counts.is_some_and(|counts| matches!(counts, [0, 1, 0, 0, 0, 0, 0, 0 | 1])) {
            return false;
        }
        let mut name = &bytes[12..];
        for _ in 0..=MOST_LABELS {
            match name.split_first() {
                Some((0, _)) => return true,
                Some((&length @ 1..=63, rest)) if rest.len() >= usize::from(length) => {
                    name = &rest[usize::from(length)..];
                }
                _ => return false,
            }
        }
        false
    }

    /// Reads the one question of a message.
    pub(super) fn read(bytes: &'q [u8], transport: Transport) -> Result<Self, NoQuery<'q>> {
        let message = Message::from_slice(bytes).map_err(|_| NoQuery::Silent)?;
        let header = message.header();
        if header.qr() {
            return Err(NoQuery::Silent);
        }
        if header.opcode() != Opcode::QUERY {
            return Err(NoQuery::Error(message, None, OptRcode::NOTIMP));
        }
        let malformed = NoQuery::Error(message, None, OptRcode::FORMERR);
        let question = message.sole_question().map_err(|_| malformed)?;
        let edns = match edns(message).map_err(|()| malformed)? {
            Some((edns, 0)) => Some(edns),
            Some((edns, _)) => return Err(NoQuery::Error(message, Some(edns), OptRcode::BADVERS)),
            None => None,
        };
        if question.qclass() != Class::IN {
            return Err(NoQuery::Error(message, edns, OptRcode::REFUSED));
        }
        let asker = Asker { transport, edns };
        Ok(Self { message, name: *question.qname(), rtype: question.qtype(), asker })
    }
}

/// What a message says by EDNS, and in which version of it. The whole message is read for it.
fn edns(message: &Message<[u8]>) -> Result<Option<(Edns, u8)>, ()> {
    let mut found = None;
    for record in message.additional().map_err(|_| ())? {
        let record = record.map_err(|_| ())?;
        if record.rtype() != Rtype::OPT {
            continue;
        }
        // Its class and TTL are something else (RFC 6891 §6.1.3).
        let bits = record.ttl().as_secs();
        let edns = Edns { size: record.class().to_int(), dnssec_ok: bits & 0x8000 != 0 };
        let [_, version, ..] = bits.to_be_bytes();
        if found.replace((edns, version)).is_some() {
            return Err(());
        }
    }
    Ok(found)
}

impl Asker {
    /// How long an answer may be.
    pub(super) fn most(&self) -> usize {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => MAX_MESSAGE,
            (Transport::Udp, None) => MIN_DATAGRAM,
            (Transport::Udp, Some(edns)) => usize::from(edns.size).clamp(MIN_DATAGRAM, MAX_DATAGRAM),
        }
    }

    /// Begins an answer in `out`, limited to what the asker takes.
    pub(super) fn begin(&self, out: &mut Vec<u8>, query: &Message<[u8]>, rcode: Rcode) -> Option<Builder> {
        let mut target = std::mem::take(out);
        target.clear();
        let mut builder = MessageBuilder::from_target(StaticCompressor::new(target)).ok()?;
        // The limit is the first length that is too much.
        builder.set_push_limit(self.most() + 1 - if self.edns.is_some() { OPT_LEN } else { 0 });
        Some(builder.start_error(query, rcode))
    }

    /// Ends it.
    pub(super) fn end(
        &self,
        mut builder: AdditionalBuilder<StaticCompressor<Vec<u8>>>,
        code: OptRcode,
        out: &mut Vec<u8>,
    ) {
        if let Some(edns) = self.edns {
            builder.set_push_limit(MAX_MESSAGE + 1);
            // There is room for it: the limit was less before.
            let _ = builder.opt(|opt| {
                opt.set_udp_payload_size(u16::try_from(MAX_DATAGRAM).unwrap_or(u16::MAX));
                opt.set_dnssec_ok(edns.dnssec_ok);
                opt.set_rcode(code);
                Ok(())
            });
        }
        *out = builder.finish().into_target();
    }
}

/// An answer that is but a code.
pub(super) fn error(query: &Message<[u8]>, asker: Asker, code: OptRcode, out: &mut Vec<u8>) {
    if let Some(builder) = asker.begin(out, query, code.rcode()) {
        asker.end(builder.additional(), code, out);
    }
}
