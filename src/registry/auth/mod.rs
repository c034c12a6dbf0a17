//! Who we are to a registry: challenges, tokens, and when to fetch them again.
//!
//! Nothing is sent until the registry asks. From then on its scheme is known: tokens are fetched ahead, kept by scope until they expire, and one
//! token serves every request that its scopes cover. A request that is refused once gets one new token and one more try, whenever that happens.

mod challenge;
mod scope;
mod token;

use std::time::Instant;

use url::Url;

use crate::diag::{SafeUrl, Secret};

pub(super) use challenge::{Challenge, parse_challenges};
pub(super) use scope::{Scope, covers, merge};
pub(super) use token::{Granted, TokenRequest, basic, bearer, pair_of, parse_token};

/// What is known about the authentication of one registry.
#[derive(Debug, Default)]
pub(super) struct AuthState {
    pub(super) scheme: AuthScheme,
    tokens: Vec<Token>,
    next_id: u64,
    refresh_token: Option<Secret<String>>,
}

/// What a registry asks for.
#[derive(Clone, Debug, Default)]
pub(super) enum AuthScheme {
    /// It has not asked.
    #[default]
    None,
    Basic,
    Bearer {
        realm: Url,
        service: Option<String>,
    },
}

/// A bearer token.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) id: u64,
    pub(super) value: Secret<String>,
    scopes: Vec<Scope>,
    expires: Instant,
}

impl AuthState {
    /// A token that is good for `scopes` now.
    pub(super) fn token(&mut self, scopes: &[Scope]) -> Option<Token> {
        let now = Instant::now();
        self.tokens.retain(|token| token.expires > now);
        self.tokens.iter().find(|token| covers(&token.scopes, scopes)).cloned()
    }

    /// Keeps a token.
    pub(super) fn keep(&mut self, scopes: Vec<Scope>, granted: Granted) -> Token {
        self.next_id += 1;
        self.refresh_token = granted.refresh_token.or(self.refresh_token.take());
        let token = Token { id: self.next_id, value: granted.value, scopes, expires: Instant::now() + granted.lifetime };
        self.tokens.push(token.clone());
        token
    }

    /// The last refresh token that was given.
    pub(super) fn refresh_token(&self) -> Option<&Secret<String>> {
        self.refresh_token.as_ref()
    }

    /// Drops a token that was refused.
    pub(super) fn refuse(&mut self, id: u64) {
        self.tokens.retain(|token| token.id != id);
    }

    /// Takes over what a registry asks for: bearer tokens if it offers them. Gives back the scopes that it named.
    pub(super) fn learn(
        &mut self,
        challenges: &[Challenge],
        from: &Url,
        plain_ok: impl Fn(&Url) -> bool,
    ) -> Result<Vec<Scope>, super::Error> {
        for challenge in challenges {
            let Challenge::Bearer { realm, service, scopes } = challenge else { continue };
            let bad = || super::Error::BadAnswer {
                url: SafeUrl::new(from.as_str()),
                what: "a token server's address",
                value: SafeUrl::new(&super::error::tame(realm, 200)).to_string(),
            };
            let url = from.join(realm).map_err(|_| bad())?;
            if url.host_str().is_none() || !matches!(url.scheme(), "http" | "https") {
                return Err(bad());
            }
            if url.scheme() == "http" && !plain_ok(&url) {
                return Err(super::Error::Downgrade { from: SafeUrl::new(from.as_str()), to: SafeUrl::new(url.as_str()) });
            }
            self.scheme = AuthScheme::Bearer { realm: url, service: service.clone() };
            return Ok(scopes.clone());
        }
        if challenges.contains(&Challenge::Basic) {
            self.scheme = AuthScheme::Basic;
        }
        Ok(Vec::new())
    }
}
