//! DNS messages, as far as a server needs them that answers a few questions itself and passes all others on (RFC 1035, and RFC 6891 for the size of an answer).
//!
//! Everything that comes in is foreign bytes: lengths are checked before they are used, compression is not followed (a question has no reason for it), and what is not
//! understood is no question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The length of a message's header.
const HEADER: usize = 12;
/// The longest name.
const MAX_NAME: usize = 255;
/// The longest answer that a client takes that names no length.
const PLAIN_SIZE: usize = 512;
/// The longest answer that is sent as one datagram.
const MAX_DATAGRAM: usize = 4096;

/// Types of records.
pub(super) const A: u16 = 1;
pub(super) const PTR: u16 = 12;
pub(super) const AAAA: u16 = 28;
const OPT: u16 = 41;
const INTERNET: u16 = 1;

/// Outcomes.
pub(super) const FORMAT_ERROR: u8 = 1;
pub(super) const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;
/// The bits that have it.
const OUTCOME: u8 = 0x0f;

const FLAG_RESPONSE: u8 = 0x80;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION_WANTED: u8 = 0x01;
const FLAG_RECURSION_OFFERED: u8 = 0x80;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The number by which the answer is known.
    pub(super) id: u16,
    /// The name without the last dot; `None` where it has bytes that no name of ours has.
    pub(super) name: Option<String>,
    /// The type of the records that are wanted.
    pub(super) kind: u16,
    /// The bytes of the question in the message, for the answer.
    bytes: Vec<u8>,
    wants_recursion: bool,
    is_internet: bool,
    /// The longest answer in one datagram.
    room: usize,
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Walks over a name without compression that begins at `at`; gives its labels and where it ends.
fn labels(bytes: &[u8], mut at: usize) -> Option<(Vec<&[u8]>, usize)> {
    let (begin, mut labels) = (at, Vec::new());
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 => return Some((labels, at)),
            1..=63 => {
                labels.push(bytes.get(at..at + length)?);
                at += length;
            }
            _ => return None,
        }
        if at - begin >= MAX_NAME {
            return None;
        }
    }
}

/// Reads a standard query with one question.
pub(super) fn question(message: &[u8]) -> Option<Question> {
    let id = number(message, 0)?;
    let flags = *message.get(2)?;
    let is_standard_query = flags & (FLAG_RESPONSE | 0x78) == 0;
    if !is_standard_query || number(message, 4)? != 1 {
        return None;
    }
    let (labels, end) = labels(message, HEADER)?;
    let (kind, class) = (number(message, end)?, number(message, end + 2)?);
    let end = end + 4;
    let plain = |label: &&[u8]| label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
    let texts: Option<Vec<&str>> = match labels.iter().all(plain) {
        true => labels.iter().map(|label| std::str::from_utf8(label).ok()).collect(),
        false => None,
    };
    Some(Question {
        id,
        name: texts.map(|texts| texts.join(".")),
        kind,
        bytes: message.get(HEADER..end)?.to_vec(),
        wants_recursion: flags & FLAG_RECURSION_WANTED != 0,
        is_internet: class == INTERNET,
        room: room(message, end),
    })
}

/// How long an answer may be: an OPT record that comes first among the additional ones says it.
fn room(message: &[u8], at: usize) -> usize {
    let only_additional = number(message, 6) == Some(0) && number(message, 8) == Some(0) && number(message, 10) != Some(0);
    let is_opt = message.get(at) == Some(&0) && number(message, at + 1) == Some(OPT);
    match number(message, at + 3) {
        Some(size) if only_additional && is_opt => usize::from(size).clamp(PLAIN_SIZE, MAX_DATAGRAM),
        _ => PLAIN_SIZE,
    }
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Name(String),
}

impl Question {
    /// Whether it asks what can be answered from names: anything else of such a name has no answer.
    pub(super) fn is_internet(&self) -> bool {
        self.is_internet
    }

    /// The address that a PTR question asks about.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let name = self.name.as_ref().filter(|_| self.kind == PTR)?.to_ascii_lowercase();
        if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
            let octets: Option<Vec<u8>> = rest.split('.').rev().map(|part| part.parse().ok()).collect();
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets?).ok()?).into());
        }
        let rest = name.strip_suffix(".ip6.arpa")?;
        let digits: Option<Vec<u8>> =
            rest.split('.').rev().map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 1)).collect();
        let digits = digits.filter(|digits| digits.len() == 32)?;
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
    }

    /// The answer with these records, which may be none. For a datagram it is cut where it is too long, and says so.
    pub(super) fn answer(&self, records: &[Record], ttl: u32, is_datagram: bool) -> Vec<u8> {
        let mut message = self.head(0);
        let (mut count, mut cut) = (0u16, false);
        for record in records {
            let (kind, data) = match record {
                Record::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
                Record::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
                Record::Name(name) => (PTR, encoded(name)),
            };
            let length = 12 + data.len();
            if message.len() + length > if is_datagram { self.room } else { usize::from(u16::MAX) } {
                cut = true;
                break;
            }
            // The name is that of the question.
            message.extend([0xc0, HEADER as u8]);
            message.extend(kind.to_be_bytes());
            message.extend(INTERNET.to_be_bytes());
            message.extend(ttl.to_be_bytes());
            message.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
            message.extend(data);
            count += 1;
        }
        message[6..8].copy_from_slice(&count.to_be_bytes());
        if cut {
            message[2] |= FLAG_TRUNCATED;
        }
        message
    }

    /// The answer that there is none, with its reason.
    pub(super) fn failure(&self, outcome: u8) -> Vec<u8> {
        self.head(outcome)
    }

    fn head(&self, outcome: u8) -> Vec<u8> {
        let mut message = Vec::with_capacity(PLAIN_SIZE);
        message.extend(self.id.to_be_bytes());
        message.push(FLAG_RESPONSE | if self.wants_recursion { FLAG_RECURSION_WANTED } else { 0 });
        message.push(FLAG_RECURSION_OFFERED | outcome);
        message.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend(&self.bytes);
        message
    }

    /// Whether `message` answers this question, asked under the number `id`.
    pub(super) fn is_answered_by(&self, message: &[u8], id: u16) -> bool {
        let is_response = message.get(2).is_some_and(|flags| flags & FLAG_RESPONSE != 0);
        let same = message.get(HEADER..HEADER + self.bytes.len()).is_some_and(|bytes| bytes.eq_ignore_ascii_case(&self.bytes));
        // A server that could not read the question need not repeat it.
        let without = number(message, 4) == Some(0);
        number(message, 0) == Some(id) && is_response && (same || without)
    }
}

/// Whether a server says that it cannot, or will not, answer: another might.
pub(super) fn is_given_up(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| matches!(flags & OUTCOME, SERVER_FAILURE | REFUSED))
}

/// The answer to what is no question that can be read.
pub(super) fn refusal(message: &[u8]) -> Option<Vec<u8>> {
    let id = message.get(..2)?;
    let flags = *message.get(2)?;
    // An answer is answered by nobody: two servers would go on for ever.
    if flags & FLAG_RESPONSE != 0 || message.len() < HEADER {
        return None;
    }
    Some([id, &[FLAG_RESPONSE | (flags & 0x79), FLAG_RECURSION_OFFERED | FORMAT_ERROR, 0, 0, 0, 0, 0, 0, 0, 0]].concat())
}

/// A name as labels; what does not fit is left out.
fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| (1..=63).contains(&label.len())) {
        if bytes.len() + label.len() + 2 <= MAX_NAME {
            bytes.push(u8::try_from(label.len()).unwrap_or(0));
            bytes.extend(label.as_bytes());
        }
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(name: &str, kind: u16, more: &[u8]) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!more.is_empty())];
        message.extend(encoded(name));
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(more);
        message
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let message = query("Web.front", A, &[]);
        let read = question(&message).unwrap();
        assert_eq!((read.id, read.name.as_deref(), read.kind), (0x1234, Some("Web.front"), A));
        let answer = read.answer(&[Record::Address("10.0.0.2".parse().unwrap())], 1, true);
        assert_eq!(answer[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[12..message.len()], message[12..]);
        assert_eq!(answer[message.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 0, 0, 2]);
        assert!(read.is_answered_by(&answer, 0x1234) && !read.is_answered_by(&answer, 7) && !read.is_answered_by(&message, 0x1234));
        assert_eq!(read.failure(SERVER_FAILURE)[3] & 15, SERVER_FAILURE);
    }

    #[test]
    fn addresses_are_asked_for_backwards() {
        let of = |name: &str| question(&query(name, PTR, &[])).unwrap().address();
        assert_eq!(of("4.3.2.10.in-addr.arpa"), Some("10.2.3.4".parse().unwrap()));
        let six = format!("2.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        assert_eq!(of(&six), Some("fd00::2".parse().unwrap()));
        for name in ["3.2.10.in-addr.arpa", "x.3.2.10.in-addr.arpa", "web", "0.ip6.arpa", "5.4.3.2.10.in-addr.arpa"] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn a_long_answer_is_cut_to_what_the_client_takes() {
        let records: Vec<Record> = (0..200).map(|last| Record::Address(Ipv4Addr::new(10, 0, 0, last).into())).collect();
        let plain = question(&query("all", A, &[])).unwrap();
        let cut = plain.answer(&records, 1, true);
        assert!(cut.len() <= 512 && cut[2] & FLAG_TRUNCATED != 0);
        assert!(plain.answer(&records, 1, false)[2] & FLAG_TRUNCATED == 0);
        let opt = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
        let roomy = question(&query("all", A, &opt)).unwrap().answer(&records, 1, true);
        assert!(roomy.len() > 3000 && roomy[2] & FLAG_TRUNCATED == 0);
    }

    #[test]
    fn hostile_messages_are_no_questions() {
        let good = query("web", A, &[]);
        for cut in 0..good.len() {
            assert_eq!(question(&good[..cut]), None, "{cut}");
        }
        let with = |at: usize, value: u8| {
            let mut message = good.clone();
            message[at] = value;
            question(&message)
        };
        assert_eq!(with(2, 0x80), None, "a response");
        assert_eq!(with(2, 0x28), None, "an update");
        assert_eq!(with(5, 2), None, "two questions");
        assert_eq!(with(12, 0xc0), None, "compression");
        assert_eq!(with(12, 64), None, "a label that is too long");
        assert_eq!(with(13, b'.').unwrap().name, None);
        assert_eq!(with(13, 0).unwrap().name, None);
        let mut endless = good[..12].to_vec();
        endless.extend(std::iter::repeat_n([1, b'a'], 400).flatten());
        assert_eq!(question(&endless), None);
        assert_eq!(refusal(&with_flags(&good, 0x80)), None);
        assert_eq!(refusal(&good[..11]), None);
        assert_eq!(refusal(&good).unwrap()[3] & 15, FORMAT_ERROR);
    }

    fn with_flags(message: &[u8], flags: u8) -> Vec<u8> {
        let mut message = message.to_vec();
        message[2] = flags;
        message
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..600), header in any::<bool>()) {
            let bytes = if header { [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1][..], &bytes].concat() } else { bytes };
            if let Some(read) = question(&bytes) {
                let _ = read.address();
                prop_assert!(read.answer(&[Record::Name("a.b".to_owned())], 1, true).len() <= MAX_DATAGRAM);
                let _ = read.is_answered_by(&bytes, read.id);
            }
            let _ = refusal(&bytes);
        }
    }
}
