//! Keeps what was sent in confidence out of messages: a server may repeat a header or a form in its error, and errors show the server's own words.

use std::sync::{Mutex, PoisonError};

use crate::diag::Secret;

/// Shorter texts occur by themselves, so they are not looked for.
const SHORTEST: usize = 4;

/// How many are remembered: the latest tokens, and all passwords of one command.
const KEPT: usize = 256;

/// Secrets that were sent.
#[derive(Debug, Default)]
pub(super) struct Sent(Mutex<Vec<Secret<String>>>);

impl Sent {
    /// Remembers a secret, in the forms in which it is sent.
    pub(super) fn add(&self, secret: &Secret<String>) {
        let encoded: String = url::form_urlencoded::byte_serialize(secret.expose().as_bytes()).collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for form in [secret.clone(), Secret::new(encoded)] {
            if form.expose().len() < SHORTEST || known.contains(&form) {
                continue;
            }
            if known.len() >= KEPT {
                known.remove(0);
            }
            known.push(form);
        }
        // A longer one may hold a shorter one.
        known.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
    }

    /// `text` without them.
    pub(super) fn scrub(&self, text: &str) -> String {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().fold(
            text.to_owned(),
            |text, secret| {
                if text.contains(secret.expose()) { text.replace(secret.expose(), "[redacted]") } else { text }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_does_not_come_back() {
        let sent = Sent::default();
        sent.add(&Secret::new("pa ss/word".to_owned()));
        sent.add(&Secret::new("abc".to_owned()));
        assert_eq!(sent.scrub("x=pa ss/word&y=pa+ss%2Fword abc"), "x=[redacted]&y=[redacted] abc");
    }
}
