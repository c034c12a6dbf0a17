//! Durations such as `1m30s` and `0.5h`, in nanoseconds.

use nom::branch::alt;
use nom::bytes::complete::tag;
use nom::character::complete::{char, digit0, digit1};
use nom::combinator::{all_consuming, map, opt, recognize, value};
use nom::multi::fold_many1;
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// Reads a duration: numbers with the units `ns`, `us`, `ms`, `s`, `m`, `h`, one after another; or `0`.
pub fn parse(text: &str) -> Result<i64, String> {
    if text == "0" {
        return Ok(0);
    }
    let (_, (sign, total)) = all_consuming((opt(alt((char('-'), char('+')))), parts)).parse(text).map_err(|_| {
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            format!("duration `{text}` has no unit")
        } else {
            format!("`{text}` is no duration")
        }
    })?;
    let total = total.and_then(|total| i64::try_from(total).ok()).ok_or_else(|| format!("duration `{text}` is too long"))?;
    Ok(if sign == Some('-') { -total } else { total })
}

/// The sum of all parts; `None` where it is too long.
fn parts(input: &str) -> IResult<&str, Option<u128>> {
    fold_many1(part, || Some(0u128), |sum, part| sum?.checked_add(part?)).parse(input)
}

fn part(input: &str) -> IResult<&str, Option<u128>> {
    let fraction = preceded(char('.'), digit0);
    let number = alt((
        map((digit1, opt(fraction)), |(whole, part)| (whole, part.unwrap_or(""))),
        map(preceded(char('.'), digit1), |part| ("0", part)),
    ));
    map((number, unit), |((whole, part), unit): ((&str, &str), u64)| {
        let whole: u64 = whole.parse().ok()?;
        Some(u128::from(whole) * u128::from(unit) + fraction_of(part, unit))
    })
    .parse(input)
}

/// `0.digits` of a unit, rounded down.
fn fraction_of(digits: &str, unit: u64) -> u128 {
    // 18 digits are more than a nanosecond can tell apart.
    let digits = &digits[..digits.len().min(18)];
    let scale = 10u128.pow(digits.len() as u32);
    digits.parse::<u128>().map_or(0, |digits| digits * u128::from(unit) / scale)
}

fn unit(input: &str) -> IResult<&str, u64> {
    alt((
        value(1, tag("ns")),
        value(1_000, recognize(alt((tag("us"), tag("µs"), tag("μs"))))),
        value(1_000_000, tag("ms")),
        value(1_000_000_000, tag("s")),
        value(60_000_000_000, tag("m")),
        value(3_600_000_000_000, tag("h")),
    ))
    .parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_numbers_with_units() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("1ns", 1),
            ("2us", 2_000),
            ("2µs", 2_000),
            ("5ms", 5_000_000),
            ("30s", 30_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("-1s", -1_000_000_000),
            ("+1s", 1_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "1", "s", "1x", "1 s", "1d", "--1s", ".s", "999999999999h", "99999999999999999999s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
