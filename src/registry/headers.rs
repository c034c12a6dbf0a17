//! The small languages of headers, read without a mistake being fatal: what makes no sense is nothing.

/// The target of `rel="next"` in a `Link` header (RFC 8288). Registries send one link; some leave `rel` out.
pub(super) fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let rel = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("rel="));
        rel.is_none_or(|rel| rel.trim_matches('"').eq_ignore_ascii_case("next")).then_some(target)
    })
}

/// Reads `bytes START-END/TOTAL`: the start, and the total where it is known.
pub(super) fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

/// The number of bytes that `Range: 0-END` or `bytes=0-END` of an upload stands for.
pub(super) fn upload_range(value: &str) -> Option<u64> {
    let range = value.trim();
    let range = range.strip_prefix("bytes=").or_else(|| range.strip_prefix("bytes ")).unwrap_or(range);
    let (start, end) = range.split_once('-')?;
    (start.trim() == "0").then_some(())?;
    end.trim().parse::<u64>().ok()?.checked_add(1)
}

/// The text of `Warning: 299 AGENT "TEXT"` (distribution-spec 1.1, "Warnings").
pub(super) fn warning(value: &str) -> Option<String> {
    let (_, quoted) = value.trim().strip_prefix("299 ")?.split_once('"')?;
    Some(quoted.strip_suffix('"').unwrap_or(quoted).replace("\\\"", "\"").replace("\\\\", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_next_page_are_found() {
        assert_eq!(next_link(r#"</v2/a/tags/list?last=b&n=2>; rel="next""#), Some("/v2/a/tags/list?last=b&n=2"));
        assert_eq!(next_link("<x>; rel=prev, <y>; rel=next"), Some("y"));
        assert_eq!(next_link("<x>"), Some("x"));
        assert_eq!(next_link("x; rel=next"), None);
    }

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes", "bytes */10", "items 1-2/3", "bytes -5/10"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_of_uploads_are_read() {
        assert_eq!(upload_range("0-1023"), Some(1024));
        assert_eq!(upload_range("bytes=0-9"), Some(10));
        for bad in ["", "5-9", "0-", "0-x", "0-18446744073709551615"] {
            assert_eq!(upload_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn warnings_lose_their_quotes() {
        assert_eq!(warning(r#"299 - "say \"no\"""#).as_deref(), Some("say \"no\""));
        assert_eq!(warning("199 - \"x\""), None);
    }
}
