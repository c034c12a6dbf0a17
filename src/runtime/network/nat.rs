//! The packet filter: one nf_tables table of our own for each network and family.
//!
//! A table is replaced whole, in one transaction, and removed whole; what others' tables need so that packets get through is in `passes.rs`. In the words of `nft(8)` that of the default
//! bridge is:
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
//! The last rule matters because forwarding makes the host a router: without it any neighbour of the host could reach the containers, and so could the containers of
//! other networks. A network that is internal has only two rules: what comes from its bridge or goes to it without staying there is dropped. Where containers of one network
//! are not to reach each other (`isolated`), their ports of the bridge see to that, and a first rule drops what they send each other by way of the host. `rules.rs` has the messages,
//! `publish.rs` the tables of published ports.

use std::io;

use super::rules::{
    CT_STATE, CT_STATUS, Family, HOOK_FORWARD, HOOK_POSTROUTING, STATE_ESTABLISHED, STATE_RELATED, STATUS_DNAT, Table, VERDICT_ACCEPT,
    VERDICT_DROP, commit, conntrack_has, differs, equals, input_link, link_name, masquerade, output_link, source_in, verdict,
};
use super::{Ipv4Net, Ipv6Net, NetworkPlan};
use crate::sys::netlink::{Message, Netlink};

/// The name of the default bridge's table, and how those of all others begin.
pub(super) const TABLE: &str = "strake";

/// The chain of a network's table that decides who may speak with whom.
const FORWARD: &str = "forward";

/// Whether the network's tables are there, and nobody has emptied them.
pub(super) fn tables_exist(netlink: &mut Netlink, plan: &NetworkPlan) -> io::Result<bool> {
    for family in plan.families() {
        if !Table::new(family, &plan.table()).has_rules(netlink, FORWARD)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the tables of a network, in place of what was there under their name.
pub(super) fn make_tables(netlink: &mut Netlink, plan: &NetworkPlan, v4: Ipv4Net, v6: Option<Ipv6Net>) -> io::Result<()> {
    let mut messages = table_for(plan, Family::V4, &v4.mask().to_be_bytes(), &v4.network().address.octets());
    if let Some(v6) = v6 {
        messages.extend(table_for(plan, Family::V6, &v6.mask().to_be_bytes(), &v6.network().address.octets()));
    }
    commit(netlink, messages)
}

fn table_for(plan: &NetworkPlan, family: Family, mask: &[u8], network: &[u8]) -> Vec<Message> {
    const PRIORITY_SRCNAT: i32 = 100;
    const PRIORITY_FILTER: i32 = 0;
    let (name, bridge) = (plan.table(), link_name(&plan.bridge));
    let table = Table::new(family, &name);
    let mut messages = table.replace(0);
    messages.push(table.chain(FORWARD, "filter", HOOK_FORWARD, PRIORITY_FILTER));
    let mut forward = |expressions| messages.push(table.rule(FORWARD, expressions));
    if plan.isolated {
        forward(vec![input_link(), equals(&bridge), output_link(), equals(&bridge), verdict(VERDICT_DROP)]);
    }
    if plan.internal {
        forward(vec![input_link(), equals(&bridge), output_link(), differs(&bridge), verdict(VERDICT_DROP)]);
        forward(vec![output_link(), equals(&bridge), input_link(), differs(&bridge), verdict(VERDICT_DROP)]);
        return messages;
    }
    forward(vec![input_link(), equals(&bridge), verdict(VERDICT_ACCEPT)]);
    for (key, bits) in [(CT_STATE, STATE_ESTABLISHED | STATE_RELATED), (CT_STATUS, STATUS_DNAT)] {
        let to_bridge = vec![output_link(), equals(&bridge)];
        forward([to_bridge, conntrack_has(key, bits), vec![verdict(VERDICT_ACCEPT)]].concat());
    }
    forward(vec![output_link(), equals(&bridge), verdict(VERDICT_DROP)]);
    if plan.masquerade {
        messages.push(table.chain("postrouting", "nat", HOOK_POSTROUTING, PRIORITY_SRCNAT));
        let leaves = [source_in(family, mask, network), vec![output_link(), differs(&bridge), masquerade()]].concat();
        messages.push(table.rule("postrouting", leaves));
    }
    messages
}

/// Removes the tables of a network. One that is not there is fine.
pub(super) fn delete_tables(netlink: &mut Netlink, plan: &NetworkPlan) -> io::Result<()> {
    for family in [Family::V4, Family::V6] {
        Table::new(family, &plan.table()).remove(netlink)?;
    }
    Ok(())
}

/// Whether a table is one of ours.
pub(super) fn is_ours(table: &str) -> bool {
    table == TABLE || table.strip_prefix(TABLE).is_some_and(|rest| rest.starts_with('-'))
}
