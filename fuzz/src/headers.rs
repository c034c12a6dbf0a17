//! What registries write into headers.
//!
//! ```text
//! a Bearer realm="…"     WWW-Authenticate
//! l </v2/…>; rel="next"  Link
//! c bytes 0-1/2          Content-Range
//! u 0-1                  Range of an upload
//! w 299 - "text"         Warning
//! ```

use std::time::Duration;

use strake::registry::{challenges, content_range, next_link, upload_range, warning};

use crate::cost;

/// Panics where something does not hold for this header.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some((kind, value)) = text.split_once(' ') else { return };
    cost::within(Duration::from_secs(1), "reading a header", || match kind {
        "a" => {
            for challenge in challenges(value) {
                assert!(challenge.len() <= 64 * value.len() + 200, "a challenge is made of the header");
            }
            // What comes before does not change what a quoted realm is.
            let found = challenges(&format!("Bearer realm=\"https://x/t\", {value}"));
            assert!(!found.is_empty() || !value.is_empty());
        }
        "l" => assert!(next_link(value).is_none_or(|link| value.contains(link))),
        "c" => {
            if let Some((start, total)) = content_range(value) {
                assert_eq!(
                    content_range(&format!("bytes {start}-{start}/{}", total.map_or("*".to_owned(), |total| total.to_string()))),
                    Some((start, total))
                );
            }
        }
        "u" => {
            if let Some(end) = upload_range(value) {
                assert!(end > 0);
                assert_eq!(upload_range(&format!("0-{}", end - 1)), Some(end));
            }
        }
        "w" => assert!(warning(value).is_none_or(|text| text.len() <= value.len())),
        _ => {}
    });
}
