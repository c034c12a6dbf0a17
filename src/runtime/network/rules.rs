//! The messages of nf_tables, as far as they are needed here: tables, chains, and the expressions that rules are made of. Numbers are those of
//! `linux/netfilter/nf_tables.h`.

use std::io;
use std::net::IpAddr;

use crate::sys::netlink::{Attributes, Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Netlink};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM << 8;
pub(super) const GETTABLE: u16 = (SUBSYSTEM << 8) | 1;
const DELTABLE: u16 = (SUBSYSTEM << 8) | 2;
const NEWCHAIN: u16 = (SUBSYSTEM << 8) | 3;
pub(super) const GETCHAIN: u16 = (SUBSYSTEM << 8) | 4;
const NEWRULE: u16 = (SUBSYSTEM << 8) | 6;
pub(super) const GETRULE: u16 = (SUBSYSTEM << 8) | 7;
const DELRULE: u16 = (SUBSYSTEM << 8) | 8;
const GETGENERATION: u16 = (SUBSYSTEM << 8) | 16;

pub(super) const NFPROTO_UNSPEC: u8 = 0;
pub(super) const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;
pub(super) const HOOK_PREROUTING: u32 = 0;
pub(super) const HOOK_FORWARD: u32 = 2;
pub(super) const HOOK_OUTPUT: u32 = 3;
pub(super) const HOOK_POSTROUTING: u32 = 4;
pub(super) const VERDICT_DROP: u32 = 0;
pub(super) const VERDICT_ACCEPT: u32 = 1;

pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
const RULE_POSITION: u16 = 6;
pub(super) const RULE_USERDATA: u16 = 7;
const LIST_ELEMENT: u16 = 1;
pub(super) const EXPRESSION_NAME: u16 = 1;
pub(super) const EXPRESSION_DATA: u16 = 2;

/// A table's flag: it belongs to the socket that makes it, and goes with that (Linux 5.12).
pub(super) const TABLE_OWNED: u32 = 2;

/// The protocol of a table's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn number(self) -> u8 {
        match self {
            Family::V4 => NFPROTO_IPV4,
            Family::V6 => NFPROTO_IPV6,
        }
    }
}

/// `struct nfgenmsg`.
pub(super) fn body(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

fn batch(kind: u16) -> Message {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    Message::new(kind, 0, &[0, 0, high, low])
}

/// Does all of it or nothing.
pub(super) fn commit(netlink: &mut Netlink, messages: Vec<Message>) -> io::Result<()> {
    netlink.transaction(batch(BATCH_BEGIN), messages, batch(BATCH_END))
}

/// A number that changes with every change that anybody makes to the packet filter.
pub(super) fn generation(netlink: &mut Netlink) -> io::Result<u32> {
    const GENERATION_ID: u16 = 1;
    let reply = netlink.ask(Message::new(GETGENERATION, 0, &body(NFPROTO_UNSPEC)))?;
    reply.attributes(4).number_be(GENERATION_ID).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The same as [`commit`], where nobody has changed anything since `generation`; says whether that was so.
pub(super) fn commit_at(netlink: &mut Netlink, generation: u32, messages: Vec<Message>) -> io::Result<bool> {
    const BATCH_GENERATION: u16 = 1;
    // Not for user space, says the kernel, which answers with it all the same.
    const ERESTART: i32 = 85;
    match netlink.transaction(batch(BATCH_BEGIN).number_be(BATCH_GENERATION, generation), messages, batch(BATCH_END)) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(ERESTART) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Adds a rule to a chain of somebody else: before the rule with the handle `before`, or at the end. `comment` is what `nft(8)` and iptables list it with.
pub(super) fn foreign_rule(
    (family, table, chain): (u8, &str, &str),
    before: Option<u64>,
    comment: &str,
    expressions: &[Expression],
) -> Message {
    const COMMENT: u8 = 0;
    let append = if before.is_none() { NLM_F_APPEND } else { 0 };
    let message = Message::new(NEWRULE, NLM_F_CREATE | append, &body(family)).text(RULE_TABLE, table).text(RULE_CHAIN, chain);
    let message = message.nest(RULE_EXPRESSIONS, |m| expressions.iter().fold(m, element));
    let message = before.into_iter().fold(message, |m, handle| m.attribute(RULE_POSITION, &handle.to_be_bytes()));
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    message.attribute(RULE_USERDATA, &[&[COMMENT, length], comment.as_bytes(), &[0]].concat())
}

/// Removes a rule.
pub(super) fn delete_rule((family, table, chain): (u8, &str, &str), handle: u64) -> Message {
    let message = Message::new(DELRULE, 0, &body(family)).text(RULE_TABLE, table).text(RULE_CHAIN, chain);
    message.attribute(RULE_HANDLE, &handle.to_be_bytes())
}

/// Removes all rules of a chain.
pub(super) fn delete_rules((family, table, chain): (u8, &str, &str)) -> Message {
    Message::new(DELRULE, 0, &body(family)).text(RULE_TABLE, table).text(RULE_CHAIN, chain)
}

/// The attributes of a list, as that of a rule's expressions.
pub(super) fn elements(list: Option<&[u8]>) -> impl Iterator<Item = Attributes<'_>> {
    Attributes::new(list.unwrap_or_default()).filter(|(kind, _)| *kind == LIST_ELEMENT).map(|(_, value)| Attributes::new(value))
}

fn element(message: Message, expression: &Expression) -> Message {
    message.nest(LIST_ELEMENT, |m| {
        m.text(EXPRESSION_NAME, expression.name).nest(EXPRESSION_DATA, |m| expression.data.iter().fold(m, Attribute::add))
    })
}

/// A table of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    family: Family,
    name: &'a str,
}

impl<'a> Table<'a> {
    pub(super) fn new(family: Family, name: &'a str) -> Table<'a> {
        Table { family, name }
    }

    /// Whether it is there, and its chain has rules.
    pub(super) fn has_rules(self, netlink: &mut Netlink, chain: &str) -> io::Result<bool> {
        let mut found = false;
        let asked = Message::new(GETRULE, 0, &body(self.family.number())).text(RULE_TABLE, self.name).text(RULE_CHAIN, chain);
        let outcome = netlink.dump_each(asked, |rule| {
            let attributes = rule.attributes(4);
            found |= attributes.text(RULE_TABLE) == Some(self.name)
                && attributes.text(RULE_CHAIN) == Some(chain)
                && rule.body::<4>().is_some_and(|body| body[0] == self.family.number());
        });
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| found),
        }
    }

    /// Makes it, empty.
    pub(super) fn make(self, flags: u32) -> Message {
        let message = Message::new(NEWTABLE, NLM_F_CREATE, &body(self.family.number())).text(TABLE_NAME, self.name);
        if flags == 0 { message } else { message.number_be(TABLE_FLAGS, flags) }
    }

    /// Makes it, empty, in place of what was there under its name.
    pub(super) fn replace(self, flags: u32) -> Vec<Message> {
        // Deleting fails where nothing is there, making does not where something is.
        vec![self.make(flags), self.delete(), self.make(flags)]
    }

    fn delete(self) -> Message {
        Message::new(DELTABLE, 0, &body(self.family.number())).text(TABLE_NAME, self.name)
    }

    /// Removes it. One that is not there is fine.
    pub(super) fn remove(self, netlink: &mut Netlink) -> io::Result<()> {
        match commit(netlink, vec![self.delete()]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // A kernel without this family has no table of it.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => Ok(()),
            other => other,
        }
    }

    /// Makes a chain of it that packets come through.
    pub(super) fn chain(self, name: &str, kind: &str, hook: u32, priority: i32) -> Message {
        self.make_chain(NLM_F_EXCL, name, kind, hook, priority)
    }

    /// The same, unless it is there.
    pub(super) fn chain_or_that_there(self, name: &str, kind: &str, hook: u32, priority: i32) -> Message {
        self.make_chain(0, name, kind, hook, priority)
    }

    fn make_chain(self, flags: u16, name: &str, kind: &str, hook: u32, priority: i32) -> Message {
        Message::new(NEWCHAIN, NLM_F_CREATE | flags, &body(self.family.number()))
            .text(CHAIN_TABLE, self.name)
            .text(CHAIN_NAME, name)
            .nest(CHAIN_HOOK, |m| m.number_be(HOOK_NUMBER, hook).number_be(HOOK_PRIORITY, priority.cast_unsigned()))
            .number_be(CHAIN_POLICY, VERDICT_ACCEPT)
            .text(CHAIN_TYPE, kind)
    }

    /// Adds a rule at the end of a chain.
    pub(super) fn rule(self, chain: &str, expressions: Vec<Expression>) -> Message {
        Message::new(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &body(self.family.number()))
            .text(RULE_TABLE, self.name)
            .text(RULE_CHAIN, chain)
            .nest(RULE_EXPRESSIONS, |m| expressions.iter().fold(m, element))
    }
}

/// An expression of a rule: its name and how its attributes are added.
#[derive(Clone)]
pub(super) struct Expression {
    name: &'static str,
    data: Vec<Attribute>,
}

#[derive(Clone)]
enum Attribute {
    Number(u16, u32),
    /// A value wrapped in `NFTA_DATA_VALUE`.
    Value(u16, Vec<u8>),
    Verdict(u16, u32),
}

impl Attribute {
    fn add(message: Message, attribute: &Attribute) -> Message {
        const DATA_VALUE: u16 = 1;
        const DATA_VERDICT: u16 = 2;
        const VERDICT_CODE: u16 = 1;
        match attribute {
            Attribute::Number(kind, value) => message.number_be(*kind, *value),
            Attribute::Value(kind, bytes) => message.nest(*kind, |m| m.attribute(DATA_VALUE, bytes)),
            Attribute::Verdict(kind, code) => message.nest(*kind, |m| m.nest(DATA_VERDICT, |m| m.number_be(VERDICT_CODE, *code))),
        }
    }
}

/// The register that our expressions pass values in.
const REGISTER: u32 = 1;
/// A second one, for rules that need two values at once.
const SECOND: u32 = 2;
pub(super) const CT_STATE: u32 = 0;
pub(super) const CT_STATUS: u32 = 2;
pub(super) const STATE_ESTABLISHED: u32 = 2;
pub(super) const STATE_RELATED: u32 = 4;
pub(super) const STATUS_DNAT: u32 = 1 << 5;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

fn payload(base: u32, offset: u32, length: u32) -> Expression {
    let data = vec![Attribute::Number(1, REGISTER), Attribute::Number(2, base), Attribute::Number(3, offset), Attribute::Number(4, length)];
    Expression { name: "payload", data }
}

/// Whether the sender is in the network.
pub(super) fn source_in(family: Family, mask: &[u8], network: &[u8]) -> Vec<Expression> {
    let load = match family {
        Family::V4 => payload(NETWORK_HEADER, 12, 4),
        Family::V6 => payload(NETWORK_HEADER, 8, 16),
    };
    vec![load, masked(mask), equals(network)]
}

/// Whether it goes to that address.
pub(super) fn destined_for(address: IpAddr) -> Vec<Expression> {
    match address {
        IpAddr::V4(address) => vec![payload(NETWORK_HEADER, 16, 4), equals(&address.octets())],
        IpAddr::V6(address) => vec![payload(NETWORK_HEADER, 24, 16), equals(&address.octets())],
    }
}

/// Whether it goes to any address of this host.
pub(super) fn destined_for_host() -> Vec<Expression> {
    const RESULT_ADDRESS_TYPE: u32 = 3;
    const BY_DESTINATION: u32 = 2;
    const LOCAL: u32 = 2;
    let data = vec![Attribute::Number(1, REGISTER), Attribute::Number(2, RESULT_ADDRESS_TYPE), Attribute::Number(3, BY_DESTINATION)];
    vec![Expression { name: "fib", data }, equals(&LOCAL.to_ne_bytes())]
}

/// Whether it is of that protocol (6 is TCP, 17 UDP) and goes to that port.
pub(super) fn to_port(protocol: u8, port: u16) -> Vec<Expression> {
    const META_L4PROTO: u32 = 16;
    vec![meta(META_L4PROTO), equals(&[protocol]), payload(TRANSPORT_HEADER, 2, 2), equals(&port.to_be_bytes())]
}

/// Sends it elsewhere.
pub(super) fn redirect_to(address: IpAddr, port: u16) -> Vec<Expression> {
    const NAT_DESTINATION: u32 = 1;
    let (family, octets) = match address {
        IpAddr::V4(address) => (NFPROTO_IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (NFPROTO_IPV6, address.octets().to_vec()),
    };
    let load =
        |register, value: Vec<u8>| Expression { name: "immediate", data: vec![Attribute::Number(1, register), Attribute::Value(2, value)] };
    let data = vec![
        Attribute::Number(1, NAT_DESTINATION),
        Attribute::Number(2, family.into()),
        Attribute::Number(3, REGISTER),
        Attribute::Number(5, SECOND),
    ];
    vec![load(REGISTER, octets), load(SECOND, port.to_be_bytes().to_vec()), Expression { name: "nat", data }]
}

/// Keeps the bits of `mask` in the register.
fn masked(mask: &[u8]) -> Expression {
    let data = vec![
        Attribute::Number(1, REGISTER),
        Attribute::Number(2, REGISTER),
        Attribute::Number(3, u32::try_from(mask.len()).unwrap_or(0)),
        Attribute::Value(4, mask.to_vec()),
        Attribute::Value(5, vec![0; mask.len()]),
    ];
    Expression { name: "bitwise", data }
}

/// Whether the connection has one of `bits`.
pub(super) fn conntrack_has(key: u32, bits: u32) -> Vec<Expression> {
    let load = Expression { name: "ct", data: vec![Attribute::Number(1, REGISTER), Attribute::Number(2, key)] };
    // The bits are in the host's order.
    vec![load, masked(&bits.to_ne_bytes()), differs(&[0; 4])]
}

fn meta(key: u32) -> Expression {
    Expression { name: "meta", data: vec![Attribute::Number(1, REGISTER), Attribute::Number(2, key)] }
}

pub(super) fn input_link() -> Expression {
    const META_IIFNAME: u32 = 6;
    meta(META_IIFNAME)
}

pub(super) fn output_link() -> Expression {
    const META_OIFNAME: u32 = 7;
    meta(META_OIFNAME)
}

/// What kind of link it leaves by, as [`link_name`] has names.
pub(super) fn output_kind() -> Expression {
    const META_OIFKIND: u32 = 27;
    meta(META_OIFKIND)
}

pub(super) fn counter() -> Expression {
    Expression { name: "counter", data: Vec::new() }
}

pub(super) fn equals(value: &[u8]) -> Expression {
    compare(0, value)
}

pub(super) fn differs(value: &[u8]) -> Expression {
    compare(1, value)
}

fn compare(operation: u32, value: &[u8]) -> Expression {
    let data = vec![Attribute::Number(1, REGISTER), Attribute::Number(2, operation), Attribute::Value(3, value.to_vec())];
    Expression { name: "cmp", data }
}

/// A link's name as the register holds it: `IFNAMSIZ` bytes.
pub(super) fn link_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

pub(super) fn verdict(code: u32) -> Expression {
    const REGISTER_VERDICT: u32 = 0;
    Expression { name: "immediate", data: vec![Attribute::Number(1, REGISTER_VERDICT), Attribute::Verdict(2, code)] }
}

pub(super) fn masquerade() -> Expression {
    Expression { name: "masq", data: Vec::new() }
}
