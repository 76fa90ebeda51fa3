//! TLS by rustls: what the HTTP front presents ([`front`]) and what client commands trust
//! ([`client`]).
//!
//! Certificates and keys are PEM files. Only `ring` computes; TLS 1.2 and 1.3 are spoken. The worker
//! ports have no TLS: LMCache's workers could not speak it.
//!
//! Does not: make or renew certificates, ask whether one was revoked.

pub mod client;
mod expiry;
pub mod front;

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::VerifierBuilderError;
use tokio_rustls::rustls::{self, RootCertStore};

/// Largest PEM file, in bytes: a bundle of all public authorities is a fifth of it.
const MAX_FILE: u64 = 1 << 20;

/// A certificate, key or authority that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of two settings that need each other.
    #[error("{set} is set and {missing} is not")]
    Incomplete {
        /// What is there.
        set: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not what it should be.
    #[error("{path}: expected {expected} as PEM of at most {MAX_FILE} bytes")]
    NotPem {
        /// The file.
        path: String,
        /// What should be in it.
        expected: &'static str,
    },
    /// Past its time.
    #[error("{path}: the certificate expired {seconds} s ago")]
    Expired {
        /// The file.
        path: String,
        /// For how long.
        seconds: u64,
    },
    /// Certificate and key do not fit, or are of a kind that is not spoken.
    #[error("{path}: {source}")]
    Unusable {
        /// The certificate's file.
        path: String,
        /// What rustls says.
        source: rustls::Error,
    },
    /// Authorities that cannot vouch for clients.
    #[error("{path}: {source}")]
    Authority {
        /// The file.
        path: String,
        /// What rustls says.
        source: VerifierBuilderError,
    },
    /// Nothing to trust.
    #[error("the system trusts no authority; name one")]
    NoRoots,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(path: &str) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

fn certificates(path: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| TlsError::NotPem {
            path: path.to_owned(),
            expected: "certificates",
        })
}

fn key(path: &str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::NotPem {
        path: path.to_owned(),
        expected: "a private key without a password",
    })
}

fn authorities(path: &str, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Unusable {
                path: path.to_owned(),
                source,
            })?;
    }
    Ok(roots)
}
