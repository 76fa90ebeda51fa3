//! Which hash schemes the configuration names: one, or the candidates among which the controller
//! finds out what the fleet uses. The finding out is `kvatlas_controller::scheme`.

use kvatlas_controller::scheme::SchemeChoice;
use kvatlas_protocol::{HashAlgorithm, HashScheme, Root};

use crate::config::Config;

/// Candidates that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// A part of a scheme that nobody uses.
    #[error("{key}: {reason}")]
    Part {
        /// Key of the configuration.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Nothing is left to try.
    #[error("hash_algorithms, hash_roots and chunk_sizes leave no hash scheme to try")]
    None,
}

/// The candidates of `config`, or its one fixed scheme.
pub fn choice(config: &Config) -> Result<SchemeChoice, SchemeError> {
    if let Some(text) = &config.hash_scheme {
        return Ok(SchemeChoice::Fixed(parse(&text.0)?));
    }
    let algorithms: Vec<HashAlgorithm> = parts("hash_algorithms", &config.hash_algorithms)?;
    let roots: Vec<Root> = parts("hash_roots", &config.hash_roots)?;
    match SchemeChoice::among(&algorithms, &roots, &config.chunk_sizes) {
        SchemeChoice::Discover(schemes) if schemes.is_empty() => Err(SchemeError::None),
        choice => Ok(choice),
    }
}

fn parts<T: std::str::FromStr<Err: std::fmt::Display>>(
    key: &'static str,
    texts: &[String],
) -> Result<Vec<T>, SchemeError> {
    texts.iter().map(|text| part(key, text)).collect()
}

fn part<T: std::str::FromStr<Err: std::fmt::Display>>(
    key: &'static str,
    text: &str,
) -> Result<T, SchemeError> {
    text.parse().map_err(|error: T::Err| SchemeError::Part {
        key,
        reason: error.to_string(),
    })
}

/// A scheme from `algorithm/root/chunk size`.
fn parse(text: &str) -> Result<HashScheme, SchemeError> {
    const KEY: &str = "hash_scheme";
    let mut words = text.split('/');
    let mut word = || words.next().unwrap_or_default();
    let algorithm = part(KEY, word())?;
    let root = part(KEY, word())?;
    let chunk_size = part(KEY, word())?;
    HashScheme::new(algorithm, root, chunk_size).map_err(|error| SchemeError::Part {
        key: KEY,
        reason: error.to_string(),
    })
}
