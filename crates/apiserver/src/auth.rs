//! Who sends a request: bearer tokens (RFC 6750), and nobody without one.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::random;

/// A bearer token and the user that it stands for.
#[derive(Clone)]
pub struct Token {
    /// The secret.
    pub secret: String,
    /// The user's name, for logs.
    pub user: String,
}

impl Token {
    /// A new token of `user` that nobody can guess.
    pub fn generate(user: &str) -> Self {
        Self {
            secret: random::token(),
            user: user.to_owned(),
        }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The user whose token a request carries.
pub fn user<'a>(tokens: &'a [Token], headers: &HeaderMap) -> Option<&'a str> {
    let (scheme, secret) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let secret = secret.trim().as_bytes();
    tokens
        .iter()
        .find(|t| same(t.secret.as_bytes(), secret))
        .map(|t| t.user.as_str())
}

/// Compares in a time that does not tell where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    !a.is_empty() && a.len() == b.len() && a.iter().zip(b).fold(0, |rest, (a, b)| rest | (a ^ b)) == 0
}
