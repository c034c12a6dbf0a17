//! Ranges of bytes: of a blob that is read (RFC 9110, "Range Requests") and of a chunk that is uploaded (distribution-spec 1.1, "Pushing a blob in chunks").

/// Which part of a blob to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it: no range was asked for, or one in a form that may be ignored.
    Whole,
    /// The bytes from the first up to, but not including, the second.
    Bytes(u64, u64),
    /// The range has no byte of the blob.
    Unsatisfiable,
}

/// Reads the header `Range` for a blob of `size` bytes. Several ranges at once are answered by the whole blob.
pub(super) fn requested(header: Option<&str>, size: u64) -> Part {
    let Some(range) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else { return Part::Whole };
    let Some((first, last)) = range.trim().split_once('-').filter(|_| !range.contains(',')) else { return Part::Whole };
    let (first, last) = (first.trim(), last.trim());
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => match suffix.min(size) {
            0 => Part::Unsatisfiable,
            suffix => Part::Bytes(size - suffix, size),
        },
        (Some(first), None) if last.is_empty() && first < size => Part::Bytes(first, size),
        (Some(first), Some(last)) if first < size && first <= last => Part::Bytes(first, last.saturating_add(1).min(size)),
        (Some(_), Some(_)) => Part::Unsatisfiable,
        (Some(_), None) if last.is_empty() => Part::Unsatisfiable,
        _ => Part::Whole,
    }
}

/// Reads the header `Content-Range` of a chunk: the position of its first byte and its length. Docker writes `0-99`, others `bytes 0-99/*`.
pub(super) fn of_chunk(header: &str) -> Option<(u64, u64)> {
    let range = header.trim();
    let range = range.strip_prefix("bytes").map_or(range, |rest| rest.trim_start_matches([' ', '=']));
    let range = range.split('/').next().unwrap_or(range);
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        for (header, part) in [
            ("bytes=0-0", Part::Bytes(0, 1)),
            ("bytes=10-19", Part::Bytes(10, 20)),
            ("bytes=90-", Part::Bytes(90, 100)),
            ("bytes=-5", Part::Bytes(95, 100)),
            ("bytes=-500", Part::Bytes(0, 100)),
            ("bytes=99-5000", Part::Bytes(99, 100)),
            ("bytes=0-18446744073709551615", Part::Bytes(0, 100)),
            ("bytes=100-", Part::Unsatisfiable),
            ("bytes=100-200", Part::Unsatisfiable),
            ("bytes=50-0", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=5", Part::Whole),
            ("lines=0-1", Part::Whole),
        ] {
            assert_eq!(requested(Some(header), 100), part, "{header}");
        }
        assert_eq!(requested(None, 100), Part::Whole);
        assert_eq!(requested(Some("bytes=0-"), 0), Part::Unsatisfiable);
    }

    #[test]
    fn chunks_say_where_they_belong() {
        for (header, range) in [
            ("0-99", Some((0, 100))),
            ("100-100", Some((100, 1))),
            ("bytes 5-9/10", Some((5, 5))),
            ("bytes=5-9", Some((5, 5))),
            ("9-5", None),
            ("-5", None),
            ("5-", None),
            ("0-18446744073709551615", None),
            ("+1-2", None),
            ("", None),
        ] {
            assert_eq!(of_chunk(header), range, "{header}");
        }
    }
}
