//! From what a worker registered to an address that can be connected to.
//!
//! Names are resolved here, beside the runtime, because libzmq would do it in the one thread that
//! serves all links; so nothing a worker sent ever reaches ZeroMQ as text.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kvatlas_controller::controller::WorkerAddress;
use kvatlas_controller::plan::StepError;

/// The address of a worker's command socket.
pub(super) async fn resolve(
    address: &WorkerAddress,
    timeout: Duration,
) -> Result<SocketAddr, StepError> {
    let WorkerAddress { ip, port, .. } = address;
    let bad = |reason: &dyn std::fmt::Display| StepError::bad_address(ip, *port, reason);
    let Some(number) = u16::try_from(*port).ok().filter(|port| *port != 0) else {
        return Err(bad(&"the port is outside 1 to 65535"));
    };
    let host = ip.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, number));
    }
    // The longest name DNS knows.
    if host.is_empty() || host.len() > 253 {
        return Err(bad(&"the host is neither an ip nor a name"));
    }
    match tokio::time::timeout(timeout, tokio::net::lookup_host((host, number))).await {
        Ok(Ok(mut found)) => found.next().ok_or_else(|| bad(&"the name has no address")),
        Ok(Err(error)) => Err(bad(&error)),
        Err(_) => Err(bad(&"the name could not be resolved in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolved(ip: &str, port: i64) -> Result<SocketAddr, StepError> {
        let address = WorkerAddress {
            ip: ip.into(),
            port,
            peer_url: None,
        };
        resolve(&address, Duration::from_secs(30)).await
    }

    #[tokio::test]
    async fn ips_and_names_become_addresses() {
        for (ip, expected) in [
            ("127.0.0.1", "127.0.0.1:7"),
            ("::1", "[::1]:7"),
            ("[::1]", "[::1]:7"),
        ] {
            assert_eq!(resolved(ip, 7).await, Ok(expected.parse().unwrap()));
        }
        assert!(resolved("localhost", 7).await.unwrap().ip().is_loopback());
    }

    #[tokio::test]
    async fn nonsense_is_the_workers_fault_and_short() {
        let long = "x".repeat(100_000);
        for (ip, port) in [
            ("127.0.0.1", 0),
            ("127.0.0.1", 65_536),
            ("127.0.0.1", i64::MIN),
            ("", 7),
            ("a\0b", 7),
            ("ipc:///tmp/x", 7),
            (&long, 7),
        ] {
            let error = resolved(ip, port).await.unwrap_err();
            assert!(matches!(error, StepError::BadAddress { .. }), "{error}");
            assert!(error.to_string().len() < 2_000);
        }
    }
}
