//! Bytes to a question and back to bytes, within what the asker can take.

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::DNSClass,
};

/// The least that a DNS header has.
const HEADER: usize = 12;

/// What every asker over UDP takes.
const UDP_LEAST: usize = 512;

/// What we send over UDP at most: one Ethernet frame whatever it is carried in, as agreed on DNS flag
/// day 2020.
pub(crate) const UDP_MOST: usize = 1232;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// One question that can be answered.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) question: Query,
    pub(crate) metadata: Metadata,
    edns: bool,
    /// Bytes that the answer may have.
    most: usize,
}

/// Whether an answer, a whole message, says that there is such a name.
pub(crate) fn is_known(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| flags & 0x0f == 0)
}

/// What to do with bytes that arrived.
#[derive(Debug)]
pub(crate) enum Arrived {
    Request(Request),
    /// Not a question that we answer; these bytes say so.
    Refused(Vec<u8>),
    /// Not a question at all. To answer could begin an endless exchange of errors.
    Ignored,
}

pub(crate) fn read(bytes: &[u8], transport: Transport) -> Arrived {
    // The highest bit of the third byte says that it is an answer.
    if bytes.len() < HEADER || bytes[2] & 0x80 != 0 {
        return Arrived::Ignored;
    }
    let Ok(message) = Message::from_vec(bytes) else {
        let id = u16::from_be_bytes([bytes[0], bytes[1]]);
        let error = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
        return error.to_vec().map_or(Arrived::Ignored, Arrived::Refused);
    };
    let most = match (transport, &message.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => UDP_LEAST,
        (Transport::Udp, Some(edns)) => usize::from(edns.max_payload()).clamp(UDP_LEAST, UDP_MOST),
    };
    let edns = message.edns.is_some();
    let request = |question| Request { question, metadata: message.metadata, edns, most };
    let refuse = |code| {
        let question = message.queries.first().cloned().unwrap_or_default();
        let mut reply = Reply::failed(&request(question), code);
        reply.message.queries.clone_from(&message.queries);
        Arrived::Refused(reply.bytes())
    };
    if message.metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    let [question] = &message.queries[..] else { return refuse(ResponseCode::FormErr) };
    if message.version() > 0 {
        return refuse(ResponseCode::BADVERS);
    }
    if question.query_class() != DNSClass::IN {
        return refuse(ResponseCode::Refused);
    }
    Arrived::Request(request(question.clone()))
}

/// An answer on its way.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) message: Message,
    most: usize,
}

impl Reply {
    /// An answer of the authority itself, still without records.
    pub(crate) fn to(request: &Request) -> Reply {
        let mut message = Message::query();
        message.metadata = Metadata::response_from_request(&request.metadata);
        message.metadata.message_type = MessageType::Response;
        message.metadata.authoritative = true;
        message.metadata.recursion_available = true;
        message.add_query(request.question.clone());
        if request.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(u16::try_from(UDP_MOST).unwrap_or(u16::MAX)).set_version(0);
            message.set_edns(edns);
        }
        Reply { message, most: request.most }
    }

    /// An answer that says only that there is none.
    pub(crate) fn failed(request: &Request, code: ResponseCode) -> Reply {
        let mut reply = Reply::to(request);
        reply.message.metadata.authoritative = false;
        reply.message.metadata.response_code = code;
        reply
    }

    /// The bytes, no more than the asker takes. What does not fit is left out: additional records
    /// without a word, answers with the bit that sends the asker to TCP.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        let first = self.encoded();
        if first.len() <= self.most {
            return first;
        }
        self.message.additionals.clear();
        let bytes = self.encoded();
        if bytes.len() <= self.most {
            return bytes;
        }
        self.message.metadata.truncation = true;
        let answers = std::mem::take(&mut self.message.answers);
        let mut bytes = self.encoded();
        // Names are written short for the first records only, so sizes say little about counts:
        // halve the range between what fits and what does not.
        let (mut fits, mut beyond) = (0, answers.len());
        while beyond - fits > 1 {
            let middle = fits + (beyond - fits) / 2;
            self.message.answers = answers[..middle].to_vec();
            let tried = self.encoded();
            if tried.len() <= self.most {
                (fits, bytes) = (middle, tried);
            } else {
                beyond = middle;
            }
        }
        bytes
    }

    fn encoded(&self) -> Vec<u8> {
        self.message.to_vec().unwrap_or_else(|error| {
            tracing::warn!("encoding a DNS answer: {error}");
            let (id, code) = (self.message.metadata.id, ResponseCode::ServFail);
            let error = Message::error_msg(id, OpCode::Query, code);
            error.to_vec().expect("a header encodes")
        })
    }
}

/// Whether these bytes answer that question: same identifier, an answer, the same name and type.
pub(crate) fn answers(bytes: &[u8], id: u16, question: &Query) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let fits = message.metadata.id == id
        && message.metadata.message_type == MessageType::Response
        && (message.queries.is_empty() || message.queries == [question.clone()]);
    fits.then_some(message)
}

/// A question of our own, for `id` to be told apart.
pub(crate) fn ask(question: &Query, id: u16) -> Option<Vec<u8>> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    message.add_query(question.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(u16::try_from(UDP_MOST).unwrap_or(u16::MAX)).set_version(0);
    message.set_edns(edns);
    message.to_vec().ok()
}

/// Changes the identifier of a message.
pub(crate) fn set_id(bytes: &mut [u8], id: u16) {
    bytes[..2].copy_from_slice(&id.to_be_bytes());
}
