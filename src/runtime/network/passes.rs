//! What lets packets of our networks through the chains of other programs that would drop them.
//!
//! A packet has to be accepted by every chain at the hook, so where Docker or ufw has made the policy of `ip filter FORWARD` to drop, no table of our own helps. Two rules of ours are added there
//! for each network (and nothing that others wrote is changed or removed), in a form that iptables lists, saves and deletes as if it were its own:
//!
//! ```text
//! iifname "strake0" counter accept comment "made and removed by strake"
//! oifname "strake0" counter accept comment "made and removed by strake"
//! ```
//!
//! They stand as late as they can: at the end, or before the first rule that drops all. So whatever the owner drops by a rule of his own stays dropped, as does what Docker keeps from its networks. Who
//! may speak with whom our own table decides as ever; beside it there is then a chain `bridges` that keeps what comes from our bridge off the bridges of others, since older Dockers guard theirs by
//! that policy alone, but for ports that they publish.
//!
//! A rule is known as ours by its comment, never by a handle from memory. Everything is done in transactions that the kernel refuses where somebody has changed something since we looked.
//!
//! Only chains where others' rules for forwarding are expected are written to ([`Chain::may_write`]): a chain in a table that somebody made for a purpose of his own may be what keeps packets off a way on
//! purpose, as that of a VPN. Such a one is named to the user.

use std::collections::BTreeSet;
use std::io;

use super::links::{Link, nested};
use super::nat::is_ours;
use super::rules::{
    CT_STATE, CT_STATUS, EXPRESSION_DATA, EXPRESSION_NAME, Expression, Family, GETCHAIN, GETRULE, GETTABLE, HOOK_FORWARD, NFPROTO_INET,
    NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC, RULE_CHAIN, RULE_EXPRESSIONS, RULE_HANDLE, RULE_TABLE, RULE_USERDATA, STATE_ESTABLISHED,
    STATE_RELATED, STATUS_DNAT, TABLE_FLAGS, TABLE_NAME, TABLE_OWNED, Table, VERDICT_ACCEPT, VERDICT_DROP, body, commit, commit_at,
    conntrack_has, counter, delete_rule, delete_rules, elements, equals, foreign_rule, generation, input_link, link_name, output_kind,
    output_link, verdict,
};
use super::{NetworkPlan, links};
use crate::sys::netlink::{Attributes, Message, Netlink, Reply};

/// How the comment of each of our rules begins; the name of the network's table follows.
const COMMENT: &str = "made and removed by ";
/// The chain of our own table that keeps a network off the bridges of others.
const BRIDGES: &str = "bridges";
/// How often somebody may change the packet filter between our look and our change of it.
const ATTEMPTS: u32 = 20;
/// After so many of them the change is made all the same: somebody changes something all the time, which need not concern it.
const CAREFUL: u32 = 5;
/// How deep chains lead to others, as the kernel allows it.
const MAX_DEPTH: u32 = 16;

/// What there is at the hook of forwarded packets.
struct Chain {
    family: u8,
    table: String,
    name: String,
    /// Whether it drops what none of its rules decides.
    drops: bool,
    /// Whether a process has the table for itself alone.
    is_owned: bool,
    /// The rules of the whole table.
    rules: Vec<Rule>,
}

/// A rule, as far as we look at one.
struct Rule {
    chain: String,
    handle: u64,
    comment: Option<String>,
    /// Whether it is about all packets.
    is_for_all: bool,
    /// Whether it writes a line to the log and does nothing else.
    is_log: bool,
    outcome: Outcome,
    /// The links of which it says that packets come from or go to them.
    links: Vec<String>,
    /// Those of them that packets go to.
    outputs: Vec<String>,
    /// Whether it asks for nothing but links and the state of connections, one by one.
    is_simple: bool,
    /// Whether it asks for the state of connections, or for their kind.
    has_state: bool,
    /// Whether it asks for nothing but links and that.
    is_of_connections: bool,
}

/// What a rule does with the packets that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Nothing,
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// What a chain does with packets that only its rules for all are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Through,
    Accepted,
    Dropped,
}

/// How a base chain treats the packets of a network.
enum Way {
    /// It lets them through.
    Open,
    /// It drops them; rules of ours belong before that rule, or at the end.
    Closed(Option<u64>),
}

impl Chain {
    fn place(&self) -> (u8, &str, &str) {
        (self.family, &self.table, &self.name)
    }

    fn title(&self) -> String {
        let family = match self.family {
            NFPROTO_IPV4 => "ip",
            NFPROTO_IPV6 => "ip6",
            _ => "inet",
        };
        format!("{family} {} {}", self.table, self.name)
    }

    fn rules_of<'a>(&'a self, chain: &'a str) -> impl DoubleEndedIterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| rule.chain == chain)
    }

    fn fate(&self, chain: &str, depth: u32) -> Fate {
        if depth == MAX_DEPTH {
            return Fate::Through;
        }
        for rule in self.rules_of(chain).filter(|rule| rule.is_for_all) {
            let fate = match &rule.outcome {
                Outcome::Return => return Fate::Through,
                Outcome::Goto(next) => return self.fate(next, depth + 1),
                outcome => self.fate_by(outcome, depth),
            };
            if fate != Fate::Through {
                return fate;
            }
        }
        Fate::Through
    }

    fn fate_by(&self, outcome: &Outcome, depth: u32) -> Fate {
        match outcome {
            Outcome::Accept => Fate::Accepted,
            Outcome::Drop => Fate::Dropped,
            Outcome::Jump(next) | Outcome::Goto(next) => self.fate(next, depth + 1),
            Outcome::Nothing | Outcome::Return => Fate::Through,
        }
    }

    /// Whether a rule does no more than to write into a log, wherever it leads.
    fn only_logs(&self, rule: &Rule, depth: u32) -> bool {
        match &rule.outcome {
            Outcome::Nothing => rule.is_log,
            Outcome::Return => depth > 0,
            Outcome::Jump(next) if depth < MAX_DEPTH => self.rules_of(next).all(|rule| self.only_logs(rule, depth + 1)),
            _ => false,
        }
    }

    /// How it treats the packets of a network. They leave the host by the link `way_out`.
    fn way(&self, plan: &NetworkPlan, way_out: Option<&str>) -> Way {
        let comment = comment(plan);
        let (mut own, mut end) = (0, None);
        for rule in self.rules_of(&self.name) {
            if rule.comment.as_deref() == Some(&comment) {
                own += 1;
                continue;
            }
            if !rule.is_for_all {
                continue;
            }
            match (self.fate_by(&rule.outcome, 0), &rule.outcome) {
                (Fate::Accepted, _) => return Way::Open,
                // The rest is its policy's.
                (Fate::Through, Outcome::Return | Outcome::Goto(_)) if !self.drops => return Way::Open,
                (Fate::Dropped, _) | (Fate::Through, Outcome::Return | Outcome::Goto(_)) => {
                    end = Some(rule.handle);
                    break;
                }
                (Fate::Through, _) => {}
            }
        }
        let before: Vec<&Rule> = self.rules_of(&self.name).take_while(|rule| Some(rule.handle) != end).collect();
        // Somebody may have told it of us. Where nothing of ours can be added, less is enough: it may let some through that is wanted, and keeps the rest off on purpose.
        let lets_in = |rule: &&Rule| match self.may_write() {
            true => rule.is_simple && rule.is_about(&plan.bridge) && self.fate_by(&rule.outcome, 0) == Fate::Accepted,
            false => rule.outcome == Outcome::Accept && !(rule.is_of_connections && rule.has_state && rule.links.is_empty()),
        };
        // Where nothing of ours can come before what drops the rest, that may lead to what lets them in.
        let last = self.rules_of(&self.name).find(|rule| Some(rule.handle) == end && !self.may_write());
        let first: Vec<&Rule> = before.iter().copied().chain(last).collect();
        let is_told = || self.reached(&first, &plan.bridge, way_out).iter().any(lets_in);
        if (end.is_none() && !self.drops) || own == rules(plan).len() || is_told() {
            return Way::Open;
        }
        // What is let through is not to be logged as dropped.
        let first_log = before.iter().rev().take_while(|rule| self.only_logs(rule, 0)).last();
        Way::Closed(first_log.map(|rule| rule.handle).or(end))
    }

    /// Others' rules that packets of `bridge`, which leave by `way_out`, can come to by the rules `first`.
    fn reached<'a>(&'a self, first: &[&'a Rule], bridge: &str, way_out: Option<&str>) -> Vec<&'a Rule> {
        let mut seen = BTreeSet::from([self.name.as_str()]);
        let mut reached: Vec<&Rule> = Vec::new();
        // All that leaves by that link, and not only some packets.
        let leads_out = |rule: &Rule| {
            let links = &rule.links;
            rule.is_of_connections && !links.is_empty() && *links == rule.outputs && links.iter().all(|link| Some(link.as_str()) == way_out)
        };
        let concerns = |rule: &&Rule| !rule.is_ours() && (rule.links.is_empty() || rule.is_about(bridge) || leads_out(rule));
        let mut next: Vec<&Rule> = first.iter().copied().filter(concerns).collect();
        while let Some(rule) = next.pop() {
            reached.push(rule);
            if let Outcome::Jump(chain) | Outcome::Goto(chain) = &rule.outcome
                && seen.insert(chain)
            {
                next.extend(self.rules_of(chain).filter(concerns));
            }
        }
        reached
    }

    /// Whether it is one to which rules of ours may be added.
    fn may_write(&self) -> bool {
        !self.is_owned
            && match self.family {
                NFPROTO_INET => self.table == "firewalld",
                _ => self.table == "filter" && self.name == "FORWARD",
            }
    }
}

impl Rule {
    fn of(reply: &Reply) -> Option<Rule> {
        let attributes = reply.attributes(4);
        let mut rule = Rule {
            chain: attributes.text(RULE_CHAIN)?.to_owned(),
            handle: attributes.long_be(RULE_HANDLE)?,
            comment: attributes.value(RULE_USERDATA).and_then(userdata_comment),
            is_for_all: true,
            is_log: false,
            outcome: Outcome::Nothing,
            links: Vec::new(),
            outputs: Vec::new(),
            is_simple: true,
            has_state: false,
            is_of_connections: true,
        };
        let (mut does_more, mut loaded) = (false, Loaded::Other);
        for expression in elements(attributes.value(RULE_EXPRESSIONS)) {
            let data = nested(expression.value(EXPRESSION_DATA));
            match expression.text(EXPRESSION_NAME).unwrap_or_default() {
                "counter" => {}
                "log" => rule.is_log = true,
                "reject" => rule.outcome = Outcome::Drop,
                "immediate" => rule.outcome = immediate(&data).unwrap_or(Outcome::Nothing),
                "target" => match data.text(TARGET_NAME).unwrap_or_default() {
                    "REJECT" => rule.outcome = Outcome::Drop,
                    "LOG" | "NFLOG" => rule.is_log = true,
                    _ => does_more = true,
                },
                "match" if data.text(TARGET_NAME) == Some("comment") => rule.comment = data.value(MATCH_DATA).and_then(text_before_zero),
                "match" => {
                    rule.is_for_all = false;
                    let is_state = matches!(data.text(TARGET_NAME), Some("conntrack" | "state"));
                    rule.has_state |= is_state;
                    rule.is_simple &= is_state;
                    rule.is_of_connections &= is_state;
                }
                "meta" => {
                    rule.is_for_all = false;
                    loaded = match data.number_be(META_KEY) {
                        Some(INPUT_NAME) => Loaded::Input,
                        Some(OUTPUT_NAME) => Loaded::Output,
                        _ => Loaded::Other,
                    };
                }
                "ct" => {
                    (rule.is_for_all, rule.has_state) = (false, true);
                    loaded = match data.number_be(CT_KEY) {
                        Some(CT_STATE) => Loaded::State,
                        Some(CT_STATUS) => Loaded::Status,
                        _ => Loaded::Other,
                    };
                }
                "bitwise" => {
                    rule.is_simple &= loaded == Loaded::State;
                    rule.is_of_connections &= loaded.is_of_connections();
                }
                "cmp" => {
                    rule.is_for_all = false;
                    let value = nested(data.value(COMPARED)).value(DATA_VALUE);
                    // The whole name: without the zero at its end it is the beginning of names.
                    let name = value.filter(|value| value.ends_with(&[0])).and_then(text_before_zero);
                    match (loaded, name) {
                        (Loaded::Input | Loaded::Output, Some(name)) if data.number_be(COMPARISON) == Some(EQUAL) => {
                            rule.outputs.extend((loaded == Loaded::Output).then(|| name.clone()));
                            rule.links.push(name);
                        }
                        (Loaded::State, _) => {}
                        _ => {
                            rule.is_simple = false;
                            rule.is_of_connections &= loaded.is_of_connections();
                        }
                    }
                }
                other => {
                    (rule.is_for_all, rule.is_simple) = (false, false);
                    // One of several states is looked up in a set.
                    rule.is_of_connections &= other == "lookup" && loaded.is_of_connections();
                }
            }
        }
        rule.is_log &= !does_more;
        Some(rule)
    }

    /// Whether we have made it, for whichever network.
    fn is_ours(&self) -> bool {
        self.comment.as_deref().and_then(|comment| comment.strip_prefix(COMMENT)).is_some_and(is_ours)
    }

    fn is_about(&self, link: &str) -> bool {
        self.links.iter().any(|name| name == link)
    }
}

/// What a rule has at hand to compare.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    /// The name of the link that a packet comes from.
    Input,
    /// That of the link that it goes to.
    Output,
    /// The state of its connection.
    State,
    /// What kind of connection that is.
    Status,
    Other,
}

impl Loaded {
    fn is_of_connections(self) -> bool {
        matches!(self, Loaded::State | Loaded::Status)
    }
}

const META_KEY: u16 = 2;
const INPUT_NAME: u32 = 6;
const OUTPUT_NAME: u32 = 7;
const CT_KEY: u16 = 2;
const COMPARISON: u16 = 2;
const EQUAL: u32 = 0;
const TARGET_NAME: u16 = 1;
const MATCH_DATA: u16 = 3;
const COMPARED: u16 = 3;
const DATA_VALUE: u16 = 1;

fn immediate(data: &Attributes<'_>) -> Option<Outcome> {
    const IMMEDIATE_DATA: u16 = 2;
    const DATA_VERDICT: u16 = 2;
    const VERDICT_CODE: u16 = 1;
    const VERDICT_CHAIN: u16 = 2;
    const JUMP: u32 = (-3i32).cast_unsigned();
    const GOTO: u32 = (-4i32).cast_unsigned();
    const RETURN: u32 = (-5i32).cast_unsigned();
    let verdict = nested(nested(data.value(IMMEDIATE_DATA)).value(DATA_VERDICT));
    let chain = || verdict.text(VERDICT_CHAIN).unwrap_or_default().to_owned();
    Some(match verdict.number_be(VERDICT_CODE)? {
        VERDICT_ACCEPT => Outcome::Accept,
        VERDICT_DROP => Outcome::Drop,
        JUMP => Outcome::Jump(chain()),
        GOTO => Outcome::Goto(chain()),
        RETURN => Outcome::Return,
        _ => return None,
    })
}

/// The comment among what a rule's maker has written beside it: a list of kinds, lengths and values.
fn userdata_comment(mut data: &[u8]) -> Option<String> {
    const COMMENT: u8 = 0;
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return text_before_zero(value);
        }
        data = &rest[value.len()..];
    }
    None
}

fn text_before_zero(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok().map(str::to_owned)
}

fn comment(plan: &NetworkPlan) -> String {
    format!("{COMMENT}{}", plan.table())
}

/// What lets a network's packets through.
fn rules(plan: &NetworkPlan) -> Vec<Vec<Expression>> {
    // As iptables writes it: with the zero at its end, so that no longer name is meant.
    let name = equals(&[plan.bridge.as_bytes(), &[0]].concat());
    let accept = || [counter(), verdict(VERDICT_ACCEPT)];
    let (from, to) = (vec![input_link(), name.clone()], vec![output_link(), name]);
    match plan.internal {
        // What stays on the bridge comes here as well where the kernel shows it to iptables (`br_netfilter`).
        true => vec![[from, to].concat().into_iter().chain(accept()).collect()],
        false => [from, to].into_iter().map(|side| side.into_iter().chain(accept()).collect()).collect(),
    }
}

/// All base chains of others that forwarded packets come through, and the families in which our table has the chain [`BRIDGES`].
fn chains(netlink: &mut Netlink, plan: &NetworkPlan) -> io::Result<(Vec<Chain>, Vec<u8>)> {
    const CHAIN_TABLE: u16 = 1;
    const CHAIN_NAME: u16 = 3;
    const CHAIN_HOOK: u16 = 4;
    const CHAIN_POLICY: u16 = 5;
    const CHAIN_USE: u16 = 6;
    const HOOK_NUMBER: u16 = 1;
    let (mut found, mut guarded) = (Vec::new(), Vec::new());
    for chain in netlink.dump(Message::new(GETCHAIN, 0, &body(NFPROTO_UNSPEC)))? {
        let Some([family @ (NFPROTO_IPV4 | NFPROTO_IPV6 | NFPROTO_INET), ..]) = chain.body::<4>() else { continue };
        let attributes = chain.attributes(4);
        let (table, name) = (attributes.text(CHAIN_TABLE).unwrap_or_default(), attributes.text(CHAIN_NAME).unwrap_or_default());
        if is_ours(table) {
            let has_rules = attributes.number_be(CHAIN_USE) != Some(0);
            guarded.extend((table == plan.table() && name == BRIDGES && has_rules).then_some(family));
            continue;
        }
        let is_forward = nested(attributes.value(CHAIN_HOOK)).number_be(HOOK_NUMBER) == Some(HOOK_FORWARD);
        let drops = attributes.number_be(CHAIN_POLICY) == Some(VERDICT_DROP);
        // One without rules is common: whatever lists the rules of iptables makes it.
        if is_forward && (drops || attributes.number_be(CHAIN_USE) != Some(0)) {
            let (table, name) = (table.to_owned(), name.to_owned());
            found.push(Chain { family, table, name, drops, is_owned: false, rules: Vec::new() });
        }
    }
    for chain in &mut found {
        let table = netlink.ask(Message::new(GETTABLE, 0, &body(chain.family)).text(TABLE_NAME, &chain.table))?;
        chain.is_owned = table.attributes(4).number_be(TABLE_FLAGS).is_some_and(|flags| flags & TABLE_OWNED != 0);
        chain.rules = rules_of_table(netlink, chain.family, &chain.table)?;
    }
    Ok((found, guarded))
}

fn rules_of_table(netlink: &mut Netlink, family: u8, table: &str) -> io::Result<Vec<Rule>> {
    let mut rules = Vec::new();
    netlink.dump_each(Message::new(GETRULE, 0, &body(family)).text(RULE_TABLE, table), |rule| {
        // Older kernels do not choose.
        if rule.attributes(4).text(RULE_TABLE) == Some(table) && rule.body::<4>().is_some_and(|body| body[0] == family) {
            rules.extend(Rule::of(&rule));
        }
    })?;
    Ok(rules)
}

/// Whether a chain sees packets that a network has.
fn concerns(chain: &Chain, plan: &NetworkPlan) -> bool {
    chain.family == NFPROTO_INET || plan.families().any(|family| family.number() == chain.family)
}

/// The chains of others that drop what a network would forward.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Closed {
    /// Those that [`open`] opens, or has opened.
    pub(super) by_us: Vec<String>,
    /// Those that are left alone.
    pub(super) for_good: Vec<String>,
}

/// Looks for chains that drop what the network would forward, without changing anything.
pub(super) fn closed(netlink: &mut Netlink, plan: &NetworkPlan) -> io::Result<Closed> {
    let mut closed = Closed::default();
    for chain in once_more(netlink, |netlink| chains(netlink, plan))?.0.iter().filter(|chain| concerns(chain, plan)) {
        let is_opened = || chain.rules.iter().any(|rule| rule.comment.as_deref() == Some(&comment(plan)));
        let mut way = chain.way(plan, None);
        if matches!(way, Way::Closed(_)) && !chain.may_write() {
            way = chain.way(plan, way_out()?.as_deref());
        }
        if matches!(way, Way::Closed(_)) || is_opened() {
            let list = if chain.may_write() { &mut closed.by_us } else { &mut closed.for_good };
            list.push(chain.title());
        }
    }
    Ok(closed)
}

/// The link of the host's default route.
fn way_out() -> io::Result<Option<String>> {
    let mut route = Netlink::route()?;
    let (links, routes) = (links::links(&mut route)?, links::routes(&mut route)?);
    let index = links::default_link(&routes);
    Ok(links.into_iter().find(|link| Some(link.index) == index).map(|link| link.name))
}

/// A table that is gone by the time that it is asked for is none.
fn once_more<T>(netlink: &mut Netlink, mut look: impl FnMut(&mut Netlink) -> io::Result<T>) -> io::Result<T> {
    for _ in 1..ATTEMPTS {
        match look(netlink) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    look(netlink)
}

/// Lets the network's packets through the chains that would drop them; where all is as it should be, nothing is changed. Only under the set-up lock, with the network's table and
/// bridge made. `route` is a socket for links.
pub(super) fn open(netlink: &mut Netlink, route: &mut Netlink, plan: &NetworkPlan) -> io::Result<()> {
    change(netlink, |netlink| {
        let (chains, guarded) = chains(netlink, plan)?;
        let is_own = |rule: &Rule| rule.comment.as_deref() == Some(&comment(plan));
        let is_well =
            |chain: &Chain| !chain.rules.iter().any(Rule::is_ours) && (!chain.may_write() || matches!(chain.way(plan, None), Way::Open));
        if chains.iter().all(is_well) {
            return Ok(Vec::new());
        }
        // After the rules: the bridge of one that is there was made before it.
        let (links, routes) = (links::links(route)?, links::routes(route)?);
        let (mut messages, mut opened) = (without(&chains, |rule| !is_own(rule) && is_stale(rule, &links)), Vec::new());
        for chain in chains.iter().filter(|chain| concerns(chain, plan) && chain.may_write()) {
            match chain.way(plan, None) {
                Way::Open if !chain.rules.iter().any(is_own) => continue,
                Way::Open => {}
                Way::Closed(before) => {
                    messages.extend(without(std::slice::from_ref(chain), is_own));
                    let add = |rule: Vec<Expression>| foreign_rule(chain.place(), before, &comment(plan), &rule);
                    messages.extend(rules(plan).into_iter().map(add));
                }
            }
            opened.push(chain.family);
        }
        let is_opened = |family: &Family| opened.iter().any(|opened| *opened == NFPROTO_INET || *opened == family.number());
        let bridges_out = links::bridges_out(&links, &routes);
        for family in plan.families().filter(|family| !plan.internal && is_opened(family)) {
            let table = plan.table();
            if guarded.contains(&family.number()) {
                let rules = rules_of_table(netlink, family.number(), &table)?;
                let now: BTreeSet<&str> =
                    rules.iter().filter(|rule| rule.chain == BRIDGES).flat_map(|rule| &rule.links).map(String::as_str).collect();
                if now == bridges_out.iter().copied().chain([plan.bridge.as_str()]).collect() {
                    continue;
                }
                // The link that leads out has moved into a bridge, say.
                messages.push(delete_rules((family.number(), &table, BRIDGES)));
            }
            messages.extend(guard(plan, family, &bridges_out));
        }
        Ok(messages)
    })
}

/// Removes what [`open`] has added for the network, and for others whose bridge is not there any more.
pub(super) fn close(netlink: &mut Netlink, route: &mut Netlink, plan: &NetworkPlan) -> io::Result<()> {
    change(netlink, |netlink| {
        let chains = chains(netlink, plan)?.0;
        let links = links::links(route)?;
        Ok(without(&chains, |rule| rule.comment.as_deref() == Some(&comment(plan)) || is_stale(rule, &links)))
    })
}

/// Commits what `plan` says on what there is, again if that changes meanwhile.
fn change(netlink: &mut Netlink, mut plan: impl FnMut(&mut Netlink) -> io::Result<Vec<Message>>) -> io::Result<()> {
    for attempt in 0..ATTEMPTS {
        let now = generation(netlink)?;
        let messages = once_more(netlink, &mut plan)?;
        if messages.is_empty() {
            return Ok(());
        }
        let is_done = match attempt < CAREFUL {
            true => commit_at(netlink, now, messages)?,
            // Handles are not given out twice: at worst a rule is gone that was to be removed, or one that ours was to stand before.
            false => match commit(netlink, messages) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                other => other.map(|()| true)?,
            },
        };
        if is_done {
            return Ok(());
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// A bridge goes before its rules: one of ours about a bridge that is not there was left by somebody who was killed, or was kept by whoever saves and restores the rules of iptables.
fn is_stale(rule: &Rule, links: &[Link]) -> bool {
    let is_gone = |name: &String| !links.iter().any(|link| link.name == *name);
    rule.is_ours() && rule.is_simple && rule.outcome == Outcome::Accept && rule.links.iter().any(is_gone)
}

/// Removes the rules of which that is true.
fn without(chains: &[Chain], unwanted: impl Fn(&Rule) -> bool) -> Vec<Message> {
    let of = |chain: &Chain| -> Vec<Message> {
        let rules = chain.rules_of(&chain.name).filter(|rule| unwanted(rule));
        rules.map(|rule| delete_rule(chain.place(), rule.handle)).collect()
    };
    chains.iter().filter(|chain| !chain.is_owned).flat_map(of).collect()
}

/// The chain that keeps what comes from the network off the bridges of others, but for what is an answer or goes to a port that is published.
fn guard(plan: &NetworkPlan, family: Family, bridges_out: &[&str]) -> Vec<Message> {
    const PRIORITY_FILTER: i32 = 0;
    let name = plan.table();
    let (table, bridge) = (Table::new(family, &name), link_name(&plan.bridge));
    let from_us = || vec![input_link(), equals(&bridge)];
    let mut messages = vec![table.chain_or_that_there(BRIDGES, "filter", HOOK_FORWARD, PRIORITY_FILTER)];
    let mut rule = |matches: Vec<Expression>, code| messages.push(table.rule(BRIDGES, [from_us(), matches, vec![verdict(code)]].concat()));
    for link in bridges_out.iter().copied().chain([plan.bridge.as_str()]) {
        rule(vec![output_link(), equals(&link_name(link))], VERDICT_ACCEPT);
    }
    for (key, bits) in [(CT_STATE, STATE_ESTABLISHED | STATE_RELATED), (CT_STATUS, STATUS_DNAT)] {
        rule(conntrack_has(key, bits), VERDICT_ACCEPT);
    }
    rule(vec![output_kind(), equals(&link_name("bridge"))], VERDICT_DROP);
    messages
}
