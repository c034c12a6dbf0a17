//! The packet filter: one nf_tables table of our own, `ip strake`, and a look at those of others.
//!
//! The table is replaced whole, in one transaction, and removed whole; tables of other programs are read (does one drop what we would forward?)
//! and never written. In the words of `nft(8)` it is:
//!
//! ```text
//! table ip strake {
//!     chain postrouting { type nat hook postrouting priority srcnat; policy accept;
//!         ip saddr SUBNET oifname != "strake0" masquerade }
//!     chain forward { type filter hook forward priority filter; policy accept;
//!         iifname "strake0" accept
//!         oifname "strake0" ct state established,related accept
//!         oifname "strake0" ct status dnat accept
//!         oifname "strake0" drop }
//! }
//! ```
//!
//! The last rule matters because forwarding makes the host a router: without it any neighbour of the host could reach the containers.

use std::io;

use super::Ipv4Net;
use super::links::nested;
use crate::sys::netlink::{Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Netlink};

/// The name of our table.
pub(super) const TABLE: &str = "strake";

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const GETTABLE: u16 = (SUBSYSTEM << 8) | 1;
const DELTABLE: u16 = (SUBSYSTEM << 8) | 2;
const NEWCHAIN: u16 = (SUBSYSTEM << 8) | 3;
const GETCHAIN: u16 = (SUBSYSTEM << 8) | 4;
const NEWRULE: u16 = (SUBSYSTEM << 8) | 6;

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;
const VERDICT_DROP: u32 = 0;
const VERDICT_ACCEPT: u32 = 1;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

/// `struct nfgenmsg`.
fn body(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

fn batch(kind: u16) -> Message {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    Message::new(kind, 0, &[0, 0, high, low])
}

/// Whether our table is there.
pub(super) fn table_exists(netlink: &mut Netlink) -> io::Result<bool> {
    let tables = netlink.dump(Message::new(GETTABLE, 0, &body(NFPROTO_IPV4)))?;
    Ok(tables.iter().any(|table| table.attributes(4).text(TABLE_NAME) == Some(TABLE)))
}

/// Makes the table for `subnet` behind the bridge `bridge`, in place of what was there under its name.
pub(super) fn make_table(netlink: &mut Netlink, subnet: Ipv4Net, bridge: &str) -> io::Result<()> {
    const PRIORITY_SRCNAT: u32 = 100;
    const PRIORITY_FILTER: u32 = 0;
    let table = || Message::new(NEWTABLE, NLM_F_CREATE, &body(NFPROTO_IPV4)).text(TABLE_NAME, TABLE);
    let mut messages = vec![
        // Deleting fails where nothing is there, making does not where something is.
        table(),
        delete(),
        table(),
        chain("postrouting", "nat", HOOK_POSTROUTING, PRIORITY_SRCNAT),
        chain("forward", "filter", HOOK_FORWARD, PRIORITY_FILTER),
        rule("postrouting", [source_in(subnet), vec![output_link(), differs(&link_name(bridge)), masquerade()]].concat()),
        rule("forward", vec![input_link(), equals(&link_name(bridge)), verdict(VERDICT_ACCEPT)]),
    ];
    for (key, bits) in [(CT_STATE, STATE_ESTABLISHED | STATE_RELATED), (CT_STATUS, STATUS_DNAT)] {
        let to_bridge = vec![output_link(), equals(&link_name(bridge))];
        messages.push(rule("forward", [to_bridge, conntrack_has(key, bits), vec![verdict(VERDICT_ACCEPT)]].concat()));
    }
    messages.push(rule("forward", vec![output_link(), equals(&link_name(bridge)), verdict(VERDICT_DROP)]));
    netlink.transaction(batch(BATCH_BEGIN), messages, batch(BATCH_END))
}

/// Removes the table. One that is not there is fine.
pub(super) fn delete_table(netlink: &mut Netlink) -> io::Result<()> {
    match netlink.transaction(batch(BATCH_BEGIN), vec![delete()], batch(BATCH_END)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The first chain of another program that drops what it does not know on its way through the host, as `ip filter FORWARD`.
pub(super) fn dropping_chain(netlink: &mut Netlink) -> io::Result<Option<String>> {
    let chains = netlink.dump(Message::new(GETCHAIN, 0, &body(NFPROTO_UNSPEC)))?;
    for chain in &chains {
        let family = match chain.body::<4>() {
            Some([NFPROTO_IPV4, ..]) => "ip",
            Some([NFPROTO_INET, ..]) => "inet",
            _ => continue,
        };
        let attributes = chain.attributes(4);
        let hook = nested(attributes.value(CHAIN_HOOK)).number_be(HOOK_NUMBER);
        let (table, name) = (attributes.text(CHAIN_TABLE).unwrap_or_default(), attributes.text(CHAIN_NAME).unwrap_or_default());
        if hook == Some(HOOK_FORWARD) && attributes.number_be(CHAIN_POLICY) == Some(VERDICT_DROP) && table != TABLE {
            return Ok(Some(format!("{family} {table} {name}")));
        }
    }
    Ok(None)
}

fn delete() -> Message {
    Message::new(DELTABLE, 0, &body(NFPROTO_IPV4)).text(TABLE_NAME, TABLE)
}

fn chain(name: &str, kind: &str, hook: u32, priority: u32) -> Message {
    Message::new(NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, &body(NFPROTO_IPV4))
        .text(CHAIN_TABLE, TABLE)
        .text(CHAIN_NAME, name)
        .nest(CHAIN_HOOK, |m| m.number_be(HOOK_NUMBER, hook).number_be(HOOK_PRIORITY, priority))
        .number_be(CHAIN_POLICY, VERDICT_ACCEPT)
        .text(CHAIN_TYPE, kind)
}

/// An expression of a rule: its name and how its attributes are added.
#[derive(Clone)]
struct Expression {
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

fn rule(chain: &str, expressions: Vec<Expression>) -> Message {
    let element = |m: Message, expression: &Expression| {
        m.nest(LIST_ELEMENT, |m| {
            m.text(EXPRESSION_NAME, expression.name).nest(EXPRESSION_DATA, |m| expression.data.iter().fold(m, Attribute::add))
        })
    };
    Message::new(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &body(NFPROTO_IPV4))
        .text(RULE_TABLE, TABLE)
        .text(RULE_CHAIN, chain)
        .nest(RULE_EXPRESSIONS, |m| expressions.iter().fold(m, element))
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
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const STATE_ESTABLISHED: u32 = 2;
const STATE_RELATED: u32 = 4;
const STATUS_DNAT: u32 = 1 << 5;

fn source_in(subnet: Ipv4Net) -> Vec<Expression> {
    const NETWORK_HEADER: u32 = 1;
    const SOURCE_OFFSET: u32 = 12;
    let load = Expression {
        name: "payload",
        data: vec![
            Attribute::Number(1, REGISTER),
            Attribute::Number(2, NETWORK_HEADER),
            Attribute::Number(3, SOURCE_OFFSET),
            Attribute::Number(4, 4),
        ],
    };
    vec![load, masked(&subnet.mask().to_be_bytes()), equals(&subnet.network().address.octets())]
}

/// Keeps the bits of `mask` in the register.
fn masked(mask: &[u8; 4]) -> Expression {
    let data = vec![
        Attribute::Number(1, REGISTER),
        Attribute::Number(2, REGISTER),
        Attribute::Number(3, 4),
        Attribute::Value(4, mask.to_vec()),
        Attribute::Value(5, vec![0; 4]),
    ];
    Expression { name: "bitwise", data }
}

/// Whether the connection has one of `bits`.
fn conntrack_has(key: u32, bits: u32) -> Vec<Expression> {
    let load = Expression { name: "ct", data: vec![Attribute::Number(1, REGISTER), Attribute::Number(2, key)] };
    // The bits are in the host's order.
    vec![load, masked(&bits.to_ne_bytes()), differs(&[0; 4])]
}

fn input_link() -> Expression {
    const META_IIFNAME: u32 = 6;
    Expression { name: "meta", data: vec![Attribute::Number(1, REGISTER), Attribute::Number(2, META_IIFNAME)] }
}

fn output_link() -> Expression {
    const META_OIFNAME: u32 = 7;
    Expression { name: "meta", data: vec![Attribute::Number(1, REGISTER), Attribute::Number(2, META_OIFNAME)] }
}

fn equals(value: &[u8]) -> Expression {
    compare(0, value)
}

fn differs(value: &[u8]) -> Expression {
    compare(1, value)
}

fn compare(operation: u32, value: &[u8]) -> Expression {
    let data = vec![Attribute::Number(1, REGISTER), Attribute::Number(2, operation), Attribute::Value(3, value.to_vec())];
    Expression { name: "cmp", data }
}

/// A link's name as the register holds it: `IFNAMSIZ` bytes.
fn link_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

fn verdict(code: u32) -> Expression {
    const REGISTER_VERDICT: u32 = 0;
    Expression { name: "immediate", data: vec![Attribute::Number(1, REGISTER_VERDICT), Attribute::Verdict(2, code)] }
}

fn masquerade() -> Expression {
    Expression { name: "masq", data: Vec::new() }
}
