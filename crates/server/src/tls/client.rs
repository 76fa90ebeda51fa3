//! TLS towards a controller: whom a client command trusts and as whom it appears.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{TlsError, authorities, certificates, key, provider, read};

/// Files of a client; all may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Authorities that may vouch for the controller; those of the system if absent.
    pub ca_cert: Option<String>,
    /// Certificate shown to the controller.
    pub client_cert: Option<String>,
    /// Its key.
    pub client_key: Option<String>,
}

/// Ready to shake hands.
#[derive(Clone)]
pub struct Trust {
    connector: TlsConnector,
}

impl Trust {
    /// Reads the files.
    pub fn load(files: &Files) -> Result<Self, TlsError> {
        let roots = match &files.ca_cert {
            Some(path) => authorities(path, &read(path)?)?,
            None => system()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Unusable {
                path: "this program".into(),
                source,
            })?
            .with_root_certificates(roots);
        let mut config = match (&files.client_cert, &files.client_key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key_path)) => {
                let chain = certificates(cert, &read(cert)?)?;
                let key = key(key_path, &read(key_path)?)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|source| TlsError::Unusable {
                        path: cert.clone(),
                        source,
                    })?
            }
            (Some(_), None) => {
                return Err(TlsError::Incomplete {
                    set: "--client-cert",
                    missing: "--client-key",
                });
            }
            (None, Some(_)) => {
                return Err(TlsError::Incomplete {
                    set: "--client-key",
                    missing: "--client-cert",
                });
            }
        };
        config.alpn_protocols = vec![super::front::HTTP_1.to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Shakes hands over `stream` with whoever must be `host`.
    pub async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        self.connector.connect(name, stream).await
    }
}

fn system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // What cannot be read or parsed vouches for nobody.
    let (trusted, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if trusted == 0 {
        return Err(TlsError::NoRoots);
    }
    Ok(roots)
}
