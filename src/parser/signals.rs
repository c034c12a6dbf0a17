//! The signals that `STOPSIGNAL` may name.

/// Linux signals, by number from 1, under the first of their names.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD",
    "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

const ALIASES: [(&str, i32); 5] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31), ("RTMIN", 34)];

/// The highest signal.
const RTMAX: i32 = 64;

/// Whether `signal` is the name (with or without `SIG`, in any case) or number of a signal.
pub fn is_valid(signal: &str) -> bool {
    number(signal).is_some()
}

/// The number of a signal, by name or number.
pub fn number(signal: &str) -> Option<i32> {
    if let Ok(number) = signal.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let name = signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(index + 1).ok();
    }
    if let Some((_, number)) = ALIASES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    if name == "RTMAX" {
        return Some(RTMAX);
    }
    let (base, offset) = if let Some(above) = name.strip_prefix("RTMIN+") {
        (34, above.parse::<i32>().ok().filter(|above| (1..=15).contains(above))?)
    } else {
        (RTMAX, -name.strip_prefix("RTMAX-")?.parse::<i32>().ok().filter(|below| (1..=14).contains(below))?)
    };
    Some(base + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("sigkill", Some(9)),
            ("9", Some(9)),
            ("SIGSYS", Some(31)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMAX", Some(64)),
            ("0", None),
            ("65", None),
            ("-1", None),
            ("SIGFOO", None),
            ("SIGRTMIN+99", None),
            ("RTMIN+0", None),
            ("", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
