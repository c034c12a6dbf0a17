//! The signals that `STOPSIGNAL` may name.

/// Linux signals, by number from 1, under the first of their names.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD",
    "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("RTMIN", RTMIN)];

/// The first and the last real-time signal, as glibc counts them.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Whether `STOPSIGNAL` takes `signal`: the name of a signal (with or without `SIG`, in any case), or any number but 0. Whether a kernel has a signal of that
/// number is not asked, as in BuildKit.
pub fn is_valid(signal: &str) -> bool {
    match signal.parse::<i64>() {
        Ok(number) => number != 0,
        Err(_) => number(signal).is_some(),
    }
}

/// The number of a signal that Linux has, by name or number.
pub fn number(signal: &str) -> Option<i32> {
    if let Ok(number) = signal.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let name = signal.to_uppercase();
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
    if let Some(above) = name.strip_prefix("RTMIN+") {
        return offset(above).filter(|above| (1..=15).contains(above)).map(|above| RTMIN + above);
    }
    offset(name.strip_prefix("RTMAX-")?).filter(|below| (1..=14).contains(below)).map(|below| RTMAX - below)
}

/// The name of a signal without `SIG`; `None` for a real-time signal, and for what is none.
pub fn name(number: i32) -> Option<&'static str> {
    NAMES.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

/// A number of one or two digits, without zeros before it.
fn offset(text: &str) -> Option<i32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}
