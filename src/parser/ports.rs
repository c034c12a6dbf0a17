//! The ports of `EXPOSE`, after expansion: `[[ADDRESS:]HOST:]PORT[-PORT][/PROTOCOL]`.
//!
//! Addresses and ports of the host mean nothing in an image; they are checked as BuildKit checks them, and dropped.

use std::net::IpAddr;

use nom::character::complete::{char, digit1};
use nom::combinator::{all_consuming, map_res, opt};
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// The keys that a word of `EXPOSE` adds to an image's config: ranges in full, each with its protocol, sorted by number.
///
/// Words that also name a host's port (`8080:80`) are understood, and the host's part is dropped: see [`has_host_part`].
pub fn parse_exposed(word: &str) -> Result<Vec<String>, String> {
    let (host, container) = word.rsplit_once(':').map_or((None, word), |(host, container)| (Some(host), container));
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    if container.is_empty() {
        return Err(format!("no port in `{word}`"));
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        other => return Err(format!("`{other}` is no protocol that a port can have: it is one of `tcp`, `udp`, `sctp`")),
    };
    let (address, host_ports) = host.map_or(("", ""), |host| host.rsplit_once(':').unwrap_or(("", host)));
    check_address(address)?;
    let (first, last) = range(container)?;
    if !host_ports.is_empty() {
        let (first_host, last_host) = range(host_ports)?;
        if first != last && last - first != last_host - first_host {
            return Err(format!("the ranges `{host_ports}` and `{container}` are not of the same length"));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Whether a word names a port or address of the host, which `EXPOSE` cannot set.
pub fn has_host_part(word: &str) -> bool {
    word.contains(':')
}

/// Checks an address of the host: none, one of IPv4, or one of IPv6, which may stand in brackets.
fn check_address(address: &str) -> Result<(), String> {
    let inner = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|inner| !inner.contains(['[', ']'])),
        None => Some(address),
    };
    match inner {
        Some("") => Ok(()),
        Some(inner) if inner.parse::<IpAddr>().is_ok() => Ok(()),
        _ => Err(format!("`{address}` is no IP address")),
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let parsed = all_consuming((port, opt(preceded(char('-'), port)))).parse(text);
    let (_, (first, last)) = parsed.map_err(|_: nom::Err<nom::error::Error<&str>>| not_a_port(text))?;
    let last = last.unwrap_or(first);
    if first > last {
        return Err(format!("the range `{text}` ends before it begins"));
    }
    Ok((first, last))
}

fn port(input: &str) -> IResult<&str, u16> {
    map_res(digit1, str::parse).parse(input)
}

fn not_a_port(text: &str) -> String {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.split('-').all(number) && text.matches('-').count() <= 1 {
        true => format!("`{text}` is no port: the highest is 65535"),
        false => format!("`{text}` is no port"),
    }
}
