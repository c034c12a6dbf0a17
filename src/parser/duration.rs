//! Durations such as `1m30s` and `0.5h`, in nanoseconds.
//!
//! The grammar, the limits and the rounding are those of Go, in which BuildKit reads them: a fraction is a floating-point number of its unit, rounded down.

use nom::bytes::complete::take_while1;
use nom::character::complete::{char, digit0, digit1, one_of};
use nom::combinator::{opt, recognize};
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// Units, and how many nanoseconds each has. The micro sign and the Greek letter mean the same.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The longest duration with a sign, in nanoseconds.
const MAX: u64 = 1 << 63;

/// Reads a duration: numbers with the units `ns`, `us`, `ms`, `s`, `m`, `h`, one after another; or `0`.
pub fn parse(text: &str) -> Result<i64, String> {
    let (mut rest, sign) = opt(one_of("+-")).parse(text).map_err(|_: nom::Err<()>| not_a_duration(text))?;
    if rest == "0" {
        return Ok(0);
    }
    let mut total = 0u64;
    loop {
        let (after, nanoseconds) = part(text, rest)?;
        total = total.checked_add(nanoseconds).filter(|total| *total <= MAX).ok_or_else(|| too_long(text))?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    match sign {
        Some('-') => Ok((total as i64).wrapping_neg()),
        _ => i64::try_from(total).map_err(|_| too_long(text)),
    }
}

/// A number and its unit at the start of `rest`.
fn part<'a>(text: &str, rest: &'a str) -> Result<(&'a str, u64), String> {
    let number: IResult<&str, (&str, Option<&str>)> = (digit0, opt(preceded(char('.'), digit0))).parse(rest);
    let (rest, (whole, fraction)) = number.map_err(|_| not_a_duration(text))?;
    if whole.is_empty() && fraction.is_none_or(str::is_empty) {
        return Err(not_a_duration(text));
    }
    let unit: IResult<&str, &str> = take_while1(|c: char| c != '.' && !c.is_ascii_digit()).parse(rest);
    let (rest, unit) = unit.map_err(|_| format!("duration `{text}` has no unit"))?;
    let Some((_, unit)) = UNITS.iter().find(|(name, _)| *name == unit) else { return Err(unknown_unit(text, unit)) };
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_| too_long(text))? };
    let whole = whole.checked_mul(*unit).filter(|whole| *whole <= MAX).ok_or_else(|| too_long(text))?;
    let nanoseconds = whole + fraction_of(fraction.unwrap_or_default(), *unit);
    if nanoseconds > MAX {
        return Err(too_long(text));
    }
    Ok((rest, nanoseconds))
}

/// `0.digits` of a unit, rounded down. Digits that no longer fit are dropped.
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0u64, 1f64);
    for digit in digits.bytes() {
        if value > (MAX - 1) / 10 {
            break;
        }
        let next = value * 10 + u64::from(digit - b'0');
        if next > MAX {
            break;
        }
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

fn not_a_duration(text: &str) -> String {
    format!("`{text}` is no duration")
}

fn too_long(text: &str) -> String {
    format!("duration `{text}` is too long")
}

fn unknown_unit(text: &str, unit: &str) -> String {
    let number: IResult<&str, &str> = recognize((digit1, opt((char('.'), digit0)))).parse(text.trim_start_matches(['+', '-']));
    match (number, unit.trim()) {
        (Ok(_), "") => not_a_duration(text),
        (Ok(_), unit) => format!("duration `{text}` has the unknown unit `{unit}`: it is one of `h`, `m`, `s`, `ms`, `us`, `ns`"),
        (Err(_), _) => not_a_duration(text),
    }
}
