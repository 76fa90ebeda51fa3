//! What the HTTP front presents, and how it is exchanged while connections go on.
//!
//! The files are read again now and then (`reload.rs`); contents count, not times, because a
//! mounted secret changes by its directory. A set of files that differs from the last one tried is
//! checked as a whole (certificate and key fit, not expired) and then serves every handshake from
//! there on; a set that is refused is logged once and the old one goes on. Connections keep what
//! they began with.
//!
//! **Invariants.** A handshake uses one consistent set of files. Sessions of TLS are remembered per
//! set: a client whose authority was taken away cannot resume.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use kvatlas_protocol::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use super::{TlsError, authorities, certificates, expiry, key, provider, read};
use crate::config::Config;
use crate::config::value::ClientAuth;

/// What is spoken inside TLS, as ALPN names it.
pub const HTTP_1: &[u8] = b"http/1.1";

/// The front's certificates.
pub struct FrontTls {
    files: Files,
    serving: ArcSwap<Serving>,
    /// Digest of the files last tried, or of why they could not be read. Locked while files are read.
    tried: Mutex<[u8; 32]>,
    applied: AtomicU64,
    refused: AtomicU64,
}

/// What one look at the files brought.
#[derive(Debug)]
pub enum Reload {
    /// The files are those last tried.
    Unchanged,
    /// New handshakes get what is new.
    Applied,
    /// The old goes on.
    Refused(TlsError),
}

/// For the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// When the certificate served expires, in seconds since 1970; 0 without TLS.
    pub expires: u64,
    /// Files exchanged since the start.
    pub applied: u64,
    /// Files refused since the start.
    pub refused: u64,
}

struct Files {
    cert: String,
    key: String,
    client_ca: Option<String>,
    client_auth: ClientAuth,
}

struct Serving {
    config: Arc<ServerConfig>,
    expires: Option<u64>,
}

impl FrontTls {
    /// What `config` names; `None` for plain HTTP.
    pub fn load(config: &Config) -> Result<Option<Self>, TlsError> {
        let incomplete = |set, missing| Err(TlsError::Incomplete { set, missing });
        let (cert, key) = match (&config.tls_cert, &config.tls_key) {
            (None, None) if config.tls_client_ca.is_some() => {
                return incomplete("tls_client_ca", "tls_cert");
            }
            (None, None) => return Ok(None),
            (Some(_), None) => return incomplete("tls_cert", "tls_key"),
            (None, Some(_)) => return incomplete("tls_key", "tls_cert"),
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        };
        let files = Files {
            cert,
            key,
            client_ca: config.tls_client_ca.clone(),
            client_auth: config.tls_client_auth,
        };
        let contents = files.read()?;
        let serving = files.parse(&contents)?;
        Ok(Some(Self {
            tried: Mutex::new(contents.digest()),
            serving: ArcSwap::from_pointee(serving),
            files,
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// For one handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.serving.load().config))
    }

    /// Looks at the files; blocks while it does.
    pub fn reload(&self, now: Timestamp) -> Reload {
        let mut tried = self.tried.lock();
        let read = self.files.read();
        let digest = match &read {
            Ok(contents) => contents.digest(),
            Err(error) => Sha256::digest(error.to_string()).into(),
        };
        if *tried == digest {
            return Reload::Unchanged;
        }
        *tried = digest;
        let parsed = read.and_then(|contents| {
            let serving = self.files.parse(&contents)?;
            match serving.expired_for(now) {
                Some(seconds) => Err(TlsError::Expired {
                    path: self.files.cert.clone(),
                    seconds,
                }),
                None => Ok(serving),
            }
        });
        match parsed {
            Ok(serving) => {
                self.serving.store(Arc::new(serving));
                self.applied.fetch_add(1, Ordering::Relaxed);
                Reload::Applied
            }
            Err(error) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Reload::Refused(error)
            }
        }
    }

    /// For how many seconds the certificate served has been expired.
    pub fn expired_for(&self, now: Timestamp) -> Option<u64> {
        self.serving.load().expired_for(now)
    }

    /// For the metrics.
    pub fn status(&self) -> Status {
        Status {
            expires: self.serving.load().expires.unwrap_or(0),
            applied: self.applied.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()] {
            let part = part.map_or(&[][..], Vec::as_slice);
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

impl Files {
    fn read(&self) -> Result<Contents, TlsError> {
        Ok(Contents {
            cert: read(&self.cert)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn parse(&self, contents: &Contents) -> Result<Serving, TlsError> {
        let unusable = |source| TlsError::Unusable {
            path: self.cert.clone(),
            source,
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match self.client_ca.as_ref().zip(contents.client_ca.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((path, pem)) => {
                let roots = Arc::new(authorities(path, pem)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = match self.client_auth {
                    ClientAuth::Required => verifier,
                    ClientAuth::ExceptOpen | ClientAuth::Optional => {
                        verifier.allow_unauthenticated()
                    }
                };
                let verifier = verifier.build().map_err(|source| TlsError::Authority {
                    path: path.clone(),
                    source,
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = certificates(&self.cert, &contents.cert)?;
        let expires = chain
            .iter()
            .filter_map(|certificate| expiry::expiry(certificate))
            .min();
        let key = key(&self.key, &contents.key)?;
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        Ok(Serving {
            config: Arc::new(config),
            expires,
        })
    }
}

impl Serving {
    fn expired_for(&self, now: Timestamp) -> Option<u64> {
        let now = now.as_secs_f64() as u64;
        self.expires
            .and_then(|expires| now.checked_sub(expires))
            .filter(|seconds| *seconds > 0)
    }
}
