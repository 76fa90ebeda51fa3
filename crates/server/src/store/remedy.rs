//! What an operator can do about a state directory that cannot be used or written to.

use std::io::{self, ErrorKind};
use std::time::Duration;

/// Pause before persistence is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(10);

/// Whether room would help.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

/// In words. Whatever is done, persistence is tried again every [`RETRY`] without a restart.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if is_full(error) => {
            "make room there, lower journal_max_bytes, or give more room with --state-dir"
        }
        ErrorKind::PermissionDenied => {
            "let the user that kvatlas runs as write there, or name another directory with --state-dir"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "mount it writable, or name another directory with --state-dir"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "move away what is there and is no directory, or name another with --state-dir"
        }
        _ => "name a directory that can be written to with --state-dir, or say --no-state",
    }
}
