//! `WWW-Authenticate` (RFC 9110, section 11.6.1): several challenges in one header, several headers, quoted values with commas in them.

use super::Scope;

/// What a registry asks for. Schemes that we do not speak are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::registry) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scopes: Vec<Scope> },
}

/// Reads the values of all `WWW-Authenticate` headers.
pub(in crate::registry) fn parse_challenges<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    headers.flat_map(parse_header).collect()
}

fn parse_header(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            // A comma, or a byte that belongs nowhere.
            rest = rest.get(1..).unwrap_or("").trim_start();
            continue;
        }
        let trimmed = after.trim_start();
        match (trimmed.strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = parameter_value(value.trim_start());
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after.trim_start();
            }
            (Some(_), None) => return Vec::new(),
            (None, _) => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = trimmed;
            }
        }
        if !rest.is_char_boundary(0) {
            break;
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, &parameters)).collect()
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: get("realm")?,
            service: get("service").filter(|service| !service.is_empty()),
            scopes: get("scope").unwrap_or_default().split(' ').filter_map(Scope::parse).collect(),
        }),
        _ => None,
    }
}

/// Splits a token off (RFC 9110, section 5.6.2).
fn token(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !(b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))).unwrap_or(text.len());
    text.split_at(end)
}

fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some registries forget the quotes, so that the value may hold more than a token's characters.
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> Vec<Challenge> {
        parse_challenges(std::iter::once(header))
    }

    #[test]
    fn bearer_challenges_keep_commas_within_quotes() {
        let header = r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push repository:c:pull""#;
        let scopes = vec![Scope::repository("a/b", &["pull", "push"]), Scope::repository("c", &["pull"])];
        assert_eq!(parse(header), [Challenge::Bearer { realm: "https://auth.example/token".into(), service: Some("reg".into()), scopes }]);
    }

    #[test]
    fn several_challenges_share_a_header() {
        let found = parse(r#"Negotiate, basic realm="a \"b\", c", BEARER realm=https://x/t"#);
        assert_eq!(found, [Challenge::Basic, Challenge::Bearer { realm: "https://x/t".into(), service: None, scopes: vec![] }]);
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for text in ["", ",,,", "=", "\"", "Bearer", "Bearer scope=\"a", "realm=x", "Bearer realm", "é=\"ü", "Bearer é"] {
            assert_eq!(parse(text), [], "{text}");
        }
    }
}
