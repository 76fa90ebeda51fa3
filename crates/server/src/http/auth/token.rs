//! The tokens of the two roles, from the configuration and the files it names, as digests.
//!
//! Files are read again as certificates are (`reload.rs`). What cannot be used then leaves the tokens
//! that were; a role that asks for a token never stops asking for one.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::Config;
use crate::config::value::Secret;

/// A token that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read {key} {path}: {reason}")]
    Unreadable {
        /// Knob that names the file.
        key: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// A header could not carry it.
    #[error("the token of {0} is empty or has spaces or unprintable characters")]
    Unusable(&'static str),
    /// Given twice.
    #[error("{0} and {0}_file are both set; keep one")]
    Twice(&'static str),
}

/// SHA-256 of a token or of a session's name.
#[derive(Clone, Copy)]
pub(super) struct Hash(pub(super) [u8; 32]);

impl Hash {
    pub(super) fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Takes the same time wherever the difference is.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// What each role is known by, if it asks for a token.
#[derive(Clone, Copy)]
pub(super) struct Tokens {
    pub(super) read: Option<Hash>,
    pub(super) admin: Option<Hash>,
}

impl Tokens {
    /// Those that were given, or are in the files now.
    pub(super) fn load(config: &Config) -> Result<Self, TokenError> {
        Ok(Self {
            read: token("read_token", &config.read_token, &config.read_token_file)?,
            admin: token("admin_token", &config.admin_token, &config.admin_token_file)?,
        })
    }

    /// Whether nothing changes with `other`; both are ours, so time tells nothing.
    pub(super) fn is(&self, other: &Self) -> bool {
        let bytes = |hash: &Option<Hash>| hash.as_ref().map(|hash| hash.0);
        bytes(&self.read) == bytes(&other.read) && bytes(&self.admin) == bytes(&other.admin)
    }
}

fn token(
    key: &'static str,
    text: &Option<Secret>,
    file: &Option<String>,
) -> Result<Option<Hash>, TokenError> {
    let read;
    let token = match (text, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(TokenError::Twice(key)),
        (Some(Secret(text)), None) => text.as_str(),
        (None, Some(path)) => {
            let unreadable = |error: std::io::Error| TokenError::Unreadable {
                key,
                path: path.clone(),
                reason: error.to_string(),
            };
            read = std::fs::read_to_string(path).map_err(unreadable)?;
            read.trim()
        }
    };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Unusable(key));
    }
    Ok(Some(Hash::of(token)))
}
