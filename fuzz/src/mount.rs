//! The small languages of single values: `RUN --mount`, ports, durations, modes, signals.
//!
//! ```text
//! m type=cache,target=/x    the first letter says which: m, p, d, c or s
//! ```

use std::time::Duration;

use strake::diag::{SourceFile, Span};
use strake::parser::chmod::Mode;
use strake::parser::{RunMount, Word, duration, ports, signals};

use crate::cost;
use crate::fingerprint::{self, Keep};

/// Panics where something does not hold for this value.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some((kind, value)) = text.split_once(' ') else { return };
    cost::within(Duration::from_secs(1), "reading a value", || match kind {
        "m" => mount(value),
        "p" => exposed(value),
        "d" => length(value),
        "c" => mode(value),
        "s" => signal(value),
        _ => {}
    });
}

fn mount(value: &str) {
    let file = SourceFile::new("Dockerfile", format!("RUN --mount={value} true"));
    let word = Word { text: value.into(), span: Span::new(12, 12 + value.len()) };
    let resolve = |word: &Word| RunMount::resolve(word, &file, &mut |value| Ok(value.to_owned()));
    match (resolve(&word), resolve(&word)) {
        (Ok(first), Ok(second)) => {
            assert_eq!(fingerprint::of(&first, Keep::Everything), fingerprint::of(&second, Keep::Everything));
            assert_eq!(first.span, word.span);
            // The order of the fields behind the type does not matter where no key is given twice.
            let mut fields: Vec<&str> = value.split(',').collect();
            if value.contains(['"', '\'', '\\']) || fields.len() > 20 {
                return;
            }
            fields.reverse();
            fields.sort_by_key(|field| canonical(field) != "type");
            let mut keys: Vec<String> = fields.iter().map(|field| canonical(field)).collect();
            keys.sort_unstable();
            keys.dedup();
            let reversed = Word { text: fields.join(",").into(), span: word.span };
            if keys.len() == fields.len() {
                let reversed = resolve(&reversed).expect("the order of the other fields does not matter");
                assert_eq!(fingerprint::of(&first, Keep::NoDigits), fingerprint::of(&reversed, Keep::NoDigits));
            }
        }
        (Err(diagnostic), Err(_)) => {
            assert!(file.text().get(diagnostic.span.range()).is_some(), "{:?} is outside of the file", diagnostic.span);
            assert!(!diagnostic.message.is_empty());
        }
        _ => panic!("the same mount gave two outcomes"),
    }
}

/// The key of a field, under one name.
fn canonical(field: &str) -> String {
    let key = field.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
    match key.as_str() {
        "src" => "source",
        "dst" | "destination" => "target",
        "readonly" | "readwrite" | "rw" => "ro",
        key => key,
    }
    .to_owned()
}

fn exposed(value: &str) {
    let _ = ports::has_host_part(value);
    let Ok(keys) = ports::parse_exposed(value) else { return };
    assert!(!keys.is_empty() && keys.len() <= 65_536);
    let mut before = None;
    for key in &keys {
        let (port, protocol) = key.split_once('/').expect("a key has a protocol");
        let port: u16 = port.parse().expect("a key has a port");
        assert!(matches!(protocol, "tcp" | "udp" | "sctp"), "{key}");
        assert!(before < Some(port), "ports are not sorted");
        before = Some(port);
    }
    let first = keys.first().map(String::as_str).unwrap_or_default();
    assert_eq!(ports::parse_exposed(first).as_deref(), Ok(&[first.to_owned()][..]), "a key is a port that can be exposed");
}

fn length(value: &str) {
    let Ok(length) = duration::parse(value) else { return };
    assert!(value.trim_start_matches(['+', '-']) == "0" || value.ends_with(['s', 'm', 'h']), "{value} has no unit");
    assert!(length >= 0 || value.starts_with('-'));
    // Nanoseconds spell any length.
    if length != i64::MIN {
        assert_eq!(duration::parse(&format!("{length}ns")), Ok(length));
    }
}

fn mode(value: &str) {
    let Ok(mode) = Mode::parse(value) else { return };
    for current in [0, 0o644, 0o755, 0o7777] {
        for is_dir in [false, true] {
            let changed = mode.apply(current, is_dir);
            assert_eq!(changed & !0o7777, 0, "{value} made {changed:o} of {current:o}");
            if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
                assert_eq!(Ok(changed), u32::from_str_radix(value, 8));
            }
        }
    }
}

fn signal(value: &str) {
    let number = signals::number(value);
    let Some(number) = number else { return };
    assert!(signals::is_valid(value), "a signal that Linux has is refused");
    assert!((1..=64).contains(&number));
    assert_eq!(signals::number(&number.to_string()), Some(number));
    assert_eq!(signals::number(&value.to_ascii_lowercase()), Some(number));
}
