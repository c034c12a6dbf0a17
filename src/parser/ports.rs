//! The ports of `EXPOSE`, after expansion.

use nom::character::complete::{char, digit1};
use nom::combinator::{all_consuming, map_res, opt};
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// The keys that a word of `EXPOSE` adds to an image's config: ranges in full, each with its protocol, sorted by number.
///
/// Words that also name a host's port (`8080:80`) are understood, and the host's part is dropped: see [`has_host_part`].
pub fn parse_exposed(word: &str) -> Result<Vec<String>, String> {
    let (address, protocol) = word.rsplit_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("`{protocol}` is no protocol that a port can have"));
    }
    let container = address.rsplit_once(':').map_or(address, |(_, container)| container);
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    let host_ports = host.rsplit_once(':').map_or(host, |(_, port)| port);
    if container.is_empty() {
        return Err(format!("no port in `{word}`"));
    }
    let (first, last) = range(container).ok_or_else(|| format!("`{container}` is no port"))?;
    if !host_ports.is_empty() && range(host_ports).is_none() {
        return Err(format!("`{host_ports}` is no port"));
    }
    if first > last {
        return Err(format!("the range `{container}` ends before it begins"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Whether a word names a port or address of the host, which `EXPOSE` cannot set.
pub fn has_host_part(word: &str) -> bool {
    word.contains(':')
}

fn range(text: &str) -> Option<(u16, u16)> {
    all_consuming((port, opt(preceded(char('-'), port)))).parse(text).ok().map(|(_, (first, last))| (first, last.unwrap_or(first)))
}

fn port(input: &str) -> IResult<&str, u16> {
    map_res(digit1, str::parse).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_get_a_protocol_and_ranges_are_spelled_out() {
        for (word, ports) in [
            ("80", vec!["80/tcp"]),
            ("80/TCP", vec!["80/tcp"]),
            ("53/udp", vec!["53/udp"]),
            ("9-11/sctp", vec!["9/sctp", "10/sctp", "11/sctp"]),
            ("8080:80", vec!["80/tcp"]),
            ("127.0.0.1:8080:80/udp", vec!["80/udp"]),
            ("127.0.0.1::80", vec!["80/tcp"]),
            ("65535", vec!["65535/tcp"]),
        ] {
            assert_eq!(parse_exposed(word), Ok(ports.into_iter().map(str::to_owned).collect()), "{word}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for word in ["", "/tcp", "http", "80/http", "65536", "-1", "80-", "82-80", "8080:", "x:80", "8 0", "80/"] {
            assert!(parse_exposed(word).is_err(), "{word}");
        }
    }

    #[test]
    fn words_with_a_host_part_are_known() {
        assert!(has_host_part("8080:80"));
        assert!(!has_host_part("80-90/udp"));
    }
}
