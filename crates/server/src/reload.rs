//! Files that are read again while the process runs: certificates (`tls/front.rs`) and tokens
//! (`http/auth/token.rs`). Every [`INTERVAL`] and at SIGHUP; what is refused is logged once, and what was
//! goes on.
//!
//! Does not read the configuration again: other settings need a restart.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::app::Shared;
use crate::http::auth::TokenReload;
use crate::tls::front::Reload;

/// Time between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(2);

/// Whether any file can change.
pub(crate) fn is_needed(shared: &Shared) -> bool {
    shared.tls.is_some() || shared.access.has_files()
}

/// Looks at the files again and again; ends when it is dropped.
pub(crate) async fn keep_fresh(shared: Arc<Shared>) {
    let mut hangup = signal(SignalKind::hangup()).ok();
    loop {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        // Either way: look.
        let _ = tokio::time::timeout(INTERVAL, hung_up).await;
        let looking = Arc::clone(&shared);
        // A bug in one look costs the look.
        let _ = tokio::task::spawn_blocking(move || look(&looking)).await;
    }
}

fn look(shared: &Shared) {
    if let Some(tls) = &shared.tls {
        match tls.reload(shared.clock.now()) {
            Reload::Applied => tracing::info!("new TLS certificate in use"),
            Reload::Refused(error) => {
                tracing::error!(%error, "new TLS certificate refused, the old one goes on");
            }
            Reload::Unchanged => {}
        }
    }
    match shared.access.reload(&shared.config) {
        TokenReload::Applied => {
            tracing::info!("new tokens in use, sessions of the page ask for them again");
        }
        TokenReload::Refused(error) => {
            tracing::error!(%error, "new tokens refused, the old ones go on");
        }
        TokenReload::Unchanged => {}
    }
}
