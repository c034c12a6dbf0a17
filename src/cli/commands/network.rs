//! `strake network`: networks on which containers find each other by name.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::cli::confirm::confirmed;
use crate::cli::format::{Format, format, given};
use crate::cli::table::{Table, tame};
use crate::cli::{Global, report};
use crate::engine::{Engine, Error, NetworkInfo, NetworkRequestOptions, endpoint_id, mac_text};
use crate::runtime::network::EndpointRequest;

use super::container_flags::labels;
use super::containers::open;
use super::exit;
use super::network_flags::{AddressFlags, link_name};
use super::prune::until;
use super::several::{Failures, show};

// Flags of `strake network`.
#[derive(Debug, Args)]
pub(in crate::cli) struct NetworkArgs {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(Debug, Subcommand)]
enum NetworkCommand {
    /// Make a network
    Create(CreateArgs),
    /// List the networks
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all that is known of networks
    Inspect(InspectArgs),
    /// Put a container on a network, at once if it runs
    Connect(ConnectArgs),
    /// Take a container off a network, at once if it runs
    Disconnect(DisconnectArgs),
    /// Remove networks that no container runs on
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove all networks that no container is to run on
    Prune(PruneArgs),
}

// Flags of `strake network create`.
#[derive(Debug, Args)]
struct CreateArgs {
    /// Its name
    name: String,
    /// The driver: `bridge`
    #[arg(short, long, default_value = "bridge", value_parser = driver)]
    driver: String,
    /// A subnet, such as 10.5.0.0/16; one of each family (may be given several times) [default: one that is free]
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<String>,
    /// This machine's address in the subnet [default: its first]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// The part of the subnet that addresses are given out of
    #[arg(long, value_name = "SUBNET")]
    ip_range: Vec<String>,
    /// An address of the subnet that is never given out (may be given several times)
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = aux_address)]
    aux_address: Vec<(String, IpAddr)>,
    /// Nothing leads out of it
    #[arg(long)]
    internal: bool,
    /// With an IPv4 subnet, as every network
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = ["true"])]
    ipv4: Option<String>,
    /// With an IPv6 subnet as well
    #[arg(long)]
    ipv6: bool,
    /// Accepted for compatibility: addresses are given out by Strake
    #[arg(long, hide = true, value_parser = ["default"])]
    ipam_driver: Option<String>,
    /// Accepted for compatibility: networks are those of this machine
    #[arg(long, hide = true, value_parser = ["local"])]
    scope: Option<String>,
    /// A label (may be given several times)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// An option, such as `com.docker.network.driver.mtu=1400` (may be given several times)
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Accepted for compatibility
    #[arg(long)]
    attachable: bool,
}

// Flags of `strake network ls`.
#[derive(Debug, Args)]
struct LsArgs {
    /// Only the IDs
    #[arg(short, long)]
    quiet: bool,
    /// Cut nothing off
    #[arg(long)]
    no_trunc: bool,
    /// `json`, or a template such as `{{.ID}} {{.Name}}`
    #[arg(long, value_parser = format)]
    format: Option<Format>,
    /// `name=`, `id=`, `driver=`, `label=`, `scope=`, `type=builtin|custom` or `dangling=true|false` (may be given several times)
    #[arg(short, long, value_name = "FILTER", value_parser = filter)]
    filter: Vec<(String, String)>,
}

// Flags of `strake network inspect`.
#[derive(Debug, Args)]
struct InspectArgs {
    /// The networks
    #[arg(required = true)]
    networks: Vec<String>,
    /// `json`, or a template such as `{{.Driver}}`
    #[arg(short, long, value_parser = format)]
    format: Option<Format>,
    /// Accepted for compatibility
    #[arg(short, long, hide = true)]
    verbose: bool,
}

// Flags of `strake network connect`.
#[derive(Debug, Args)]
struct ConnectArgs {
    /// The network
    network: String,
    /// The container
    container: String,
    /// A name by which others on the network find it (may be given several times)
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    #[command(flatten)]
    addresses: AddressFlags,
    /// How much this network's way out is preferred to that of the container's others
    #[arg(long, value_name = "NUMBER", default_value_t, allow_negative_numbers = true)]
    gw_priority: i32,
    /// The name of its link in the container: `com.docker.network.endpoint.ifname=NAME`
    #[arg(long, value_name = "KEY=VALUE", value_parser = link_name)]
    driver_opt: Option<String>,
}

// Flags of `strake network disconnect`.
#[derive(Debug, Args)]
struct DisconnectArgs {
    /// The network
    network: String,
    /// The container
    container: String,
    /// Accepted for compatibility
    #[arg(short, long)]
    force: bool,
}

// Flags of `strake network rm`.
#[derive(Debug, Args)]
struct RmArgs {
    /// The networks
    #[arg(required = true)]
    networks: Vec<String>,
    /// Say nothing of those that are not there
    #[arg(short, long)]
    force: bool,
}

// Flags of `strake network prune`.
#[derive(Debug, Args)]
struct PruneArgs {
    /// `until=AGE` (`24h`, or a time), `label=KEY[=VALUE]` or `label!=KEY[=VALUE]` (may be given several times; all must hold)
    #[arg(long, value_name = "FILTER", value_parser = prune_filter)]
    filter: Vec<PruneFilter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// One `--filter` of `prune`.
#[derive(Clone, Debug)]
pub(super) enum PruneFilter {
    Older(Duration),
    Label(String),
    NotLabel(String),
}

fn driver(text: &str) -> Result<String, String> {
    match text {
        "bridge" => Ok(text.to_owned()),
        "host" | "null" | "none" => Err("there is one such network, and no other can be made".to_owned()),
        _ => Err("this driver of networks is not supported: expected bridge".to_owned()),
    }
}

fn filter(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    match (key, value) {
        ("name" | "id" | "driver" | "label" | "scope", _) => Ok((key.to_owned(), value.to_owned())),
        ("dangling", "true" | "false" | "1" | "0") | ("type", "builtin" | "custom") => Ok((key.to_owned(), value.to_owned())),
        ("dangling", _) => Err(format!("`{value}` is neither true nor false")),
        ("type", _) => Err(format!("`{value}` is neither builtin nor custom")),
        _ => Err(format!("the filter `{key}` is not supported: expected name, id, driver, label, scope, type or dangling")),
    }
}

fn prune_filter(text: &str) -> Result<PruneFilter, String> {
    if let Some(label) = text.strip_prefix("label!=") {
        return Ok(PruneFilter::NotLabel(label.to_owned()));
    }
    match text.split_once('=') {
        Some(("label", label)) => Ok(PruneFilter::Label(label.to_owned())),
        Some(("until", age)) => until(age).map(PruneFilter::Older),
        _ => Err("expected until=AGE, label=KEY[=VALUE] or label!=KEY[=VALUE]".to_owned()),
    }
}

fn has_label(network: &NetworkInfo, label: &str) -> bool {
    let (key, wanted) = label.split_once('=').map_or((label, None), |(key, wanted)| (key, Some(wanted)));
    network.config.labels.get(key).is_some_and(|value| wanted.is_none_or(|wanted| wanted == value))
}

/// Filters of one key are alternatives, except labels; different keys must all hold.
fn matches(network: &NetworkInfo, filters: &[(String, String)]) -> bool {
    let holds = |key: &str, value: &str| match key {
        "name" => network.config.plan.name.contains(value),
        "id" => network.config.plan.id.starts_with(value),
        "driver" => network.config.driver == value,
        "scope" => value == "local",
        "type" => network.builtin == (value == "builtin"),
        "dangling" => (!network.builtin && network.members.is_empty()) == matches!(value, "true" | "1"),
        _ => has_label(network, value),
    };
    filters.iter().all(|(key, value)| match key.as_str() {
        "label" => holds(key, value),
        _ => filters.iter().any(|(other, value)| other == key && holds(key, value)),
    })
}

/// Runs `strake network`.
pub(in crate::cli) fn run(global: &Global, args: NetworkArgs) -> ExitCode {
    if let NetworkCommand::Prune(PruneArgs { force: false, .. }) = &args.command
        && !confirmed("This will remove all custom networks not used by at least one container.\n")
    {
        return ExitCode::SUCCESS;
    }
    exit(open(global).and_then(|engine| match args.command {
        NetworkCommand::Create(args) => create(&engine, args),
        NetworkCommand::Ls(args) => list(&engine, &args),
        NetworkCommand::Inspect(args) => inspect(&engine, &args),
        NetworkCommand::Connect(args) => {
            let (aliases, priority, link) = (args.alias, args.gw_priority, args.driver_opt);
            let mut request = EndpointRequest { aliases, priority, link, ..EndpointRequest::default() };
            args.addresses.add_to(&mut request);
            engine.connect_network(&args.network, &args.container, &request)
        }
        NetworkCommand::Disconnect(args) => engine.disconnect_network(&args.network, &args.container),
        NetworkCommand::Rm(args) => remove(&engine, &args),
        NetworkCommand::Prune(args) => prune(&engine, &args.filter),
    }))
}

/// Reads `--aux-address`.
fn aux_address(text: &str) -> Result<(String, IpAddr), String> {
    let (name, address) = text.split_once('=').unwrap_or(("", text));
    let address = address.parse().ok().filter(|_| !name.is_empty());
    address.map(|address| (name.to_owned(), address)).ok_or_else(|| "expected NAME=ADDRESS".to_owned())
}

fn create(engine: &Engine, args: CreateArgs) -> Result<(), Error> {
    let option = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    let request = NetworkRequestOptions {
        name: args.name,
        subnets: args.subnet,
        gateways: args.gateway,
        ranges: args.ip_range,
        auxiliary: args.aux_address.into_iter().collect(),
        internal: args.internal,
        ipv6: args.ipv6,
        labels: labels(&Vec::<PathBuf>::new(), &args.label)?,
        options: args.opt.iter().map(option).collect(),
        attachable: args.attachable,
    };
    report::result(&engine.create_network(&request)?);
    Ok(())
}

fn list(engine: &Engine, args: &LsArgs) -> Result<(), Error> {
    let mut table = Table::new(&["NETWORK ID", "NAME", "DRIVER", "SCOPE"]);
    let mut rows = Vec::new();
    for network in engine.networks()?.into_iter().filter(|network| matches(network, &args.filter)) {
        let id = if args.no_trunc { network.config.plan.id.as_str() } else { network.short_id() };
        match given(&args.format) {
            _ if args.quiet => report::result(id),
            Some(_) => rows.push(row(&network, id)),
            None => table.row(vec![id.to_owned(), network.config.plan.name.clone(), network.config.driver.clone(), "local".to_owned()]),
        }
    }
    match given(&args.format) {
        _ if args.quiet => {}
        Some(format) => format.show(&rows, &[("ID", "NETWORK ID")])?,
        None => report::result(&table.render()),
    }
    Ok(())
}

fn row(network: &NetworkInfo, id: &str) -> Value {
    let labels: Vec<String> = network.config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let plan = &network.config.plan;
    json!({
        "CreatedAt": network.config.created, "Driver": network.config.driver, "ID": id, "IPv4": "true", "IPv6": plan.v6.is_some().to_string(),
        "Internal": plan.internal.to_string(), "Labels": tame(&labels.join(",")), "Name": plan.name, "Scope": "local",
    })
}

/// A network in the shape that Docker gives it.
pub(super) fn value(network: &NetworkInfo) -> Value {
    let (config, plan) = (&network.config, &network.config.plan);
    let mut pools = Vec::new();
    let pool = |subnet: String, range: Option<String>, gateway: String, is_ipv4: bool| {
        let mut pool = Map::new();
        pool.insert("Subnet".to_owned(), json!(subnet));
        if let Some(range) = range {
            pool.insert("IPRange".to_owned(), json!(range));
        }
        pool.insert("Gateway".to_owned(), json!(gateway));
        let others: Map<String, Value> = plan
            .auxiliary
            .iter()
            .filter(|(_, address)| address.is_ipv4() == is_ipv4)
            .map(|(name, address)| (name.clone(), json!(address)))
            .collect();
        if !others.is_empty() {
            pool.insert("AuxiliaryAddresses".to_owned(), Value::Object(others));
        }
        Value::Object(pool)
    };
    if let Some((net, gateway, range)) = network.ipv4() {
        pools.push(pool(net.to_string(), range.map(|range| range.to_string()), gateway.to_string(), true));
    }
    if let Some(subnet) = plan.v6 {
        pools.push(pool(subnet.net.to_string(), subnet.range.map(|range| range.to_string()), subnet.gateway.to_string(), false));
    }
    let members: Map<String, Value> = network.members.iter().map(|member| (member.id.clone(), member_value(network, member))).collect();
    json!({
        "Name": plan.name, "Id": plan.id, "Created": config.created, "Scope": "local", "Driver": config.driver,
        "EnableIPv4": true, "EnableIPv6": plan.v6.is_some(),
        "IPAM": { "Driver": "default", "Options": if network.builtin { Value::Null } else { json!({}) }, "Config": pools },
        "Internal": plan.internal, "Attachable": config.attachable, "Ingress": false, "ConfigFrom": { "Network": "" }, "ConfigOnly": false,
        "Containers": members, "Options": config.options, "Labels": config.labels,
    })
}

fn member_value(network: &NetworkInfo, member: &crate::engine::NetworkMember) -> Value {
    let state = member.state.as_ref();
    json!({
        "Name": member.name,
        "EndpointID": endpoint_id(&member.id, &network.config.plan.id),
        "MacAddress": state.map_or_else(String::new, |state| mac_text(state.mac)),
        "IPv4Address": state.map_or_else(String::new, |state| state.address.to_string()),
        "IPv6Address": state.and_then(|state| state.ipv6).map_or_else(String::new, |net| net.to_string()),
    })
}

fn inspect(engine: &Engine, args: &InspectArgs) -> Result<(), Error> {
    let (mut found, mut failures) = (Vec::new(), Failures::default());
    for name in &args.networks {
        match engine.network(name) {
            Ok(network) => found.push(value(&network)),
            Err(error) => failures.add(error),
        }
    }
    show(found, args.format.as_ref())?;
    failures.end()
}

fn remove(engine: &Engine, args: &RmArgs) -> Result<(), Error> {
    let mut failures = Failures::default();
    for name in &args.networks {
        let removed = match engine.network(name) {
            Ok(network) => engine.remove_network(&network).map(|()| true),
            Err(Error::Usage { .. }) if args.force => Ok(false),
            Err(error) => Err(error),
        };
        match removed {
            Ok(true) => report::result(name),
            Ok(false) => {}
            Err(error) => failures.add(error),
        }
    }
    failures.end()
}

/// The filters of `strake system prune`, as they are for networks.
pub(super) fn prune_filters(texts: &[(String, String)]) -> Result<Vec<PruneFilter>, Error> {
    let of = |(key, value): &(String, String)| prune_filter(&format!("{key}={value}"));
    texts.iter().map(of).collect::<Result<_, _>>().map_err(|message| Error::Usage { message, hint: None })
}

/// Removes networks that no container is to run on, and says which.
pub(super) fn prune(engine: &Engine, filters: &[PruneFilter]) -> Result<(), Error> {
    let age = |network: &NetworkInfo| {
        let made = network.config.created.parse::<jiff::Timestamp>().map_or(SystemTime::UNIX_EPOCH, SystemTime::from);
        SystemTime::now().duration_since(made).unwrap_or_default()
    };
    let wanted = |network: &NetworkInfo| {
        let fits = filters.iter().all(|filter| match filter {
            PruneFilter::Older(than) => age(network) >= *than,
            PruneFilter::Label(label) => has_label(network, label),
            PruneFilter::NotLabel(label) => !has_label(network, label),
        });
        !network.builtin && network.users.is_empty() && network.members.is_empty() && fits
    };
    let mut names = Vec::new();
    for network in engine.networks()?.into_iter().filter(wanted) {
        engine.remove_network(&network)?;
        names.push(network.config.plan.name);
    }
    engine.pruned("network", 0);
    if !names.is_empty() {
        report::result(&format!("Deleted Networks:\n{}\n", names.join("\n")));
    }
    Ok(())
}
