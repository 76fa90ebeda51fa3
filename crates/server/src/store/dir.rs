//! The state directory: where it is, whose it is, which files are in it.
//!
//! ```text
//! lock                              held while a process uses the directory
//! snapshot-<position>.kvs           written as snapshot.tmp, synced, renamed
//! journal-<position>.kvj            position of its first record, 16 hexadecimal digits
//! snapshot-<position>.kvs.damaged   set aside at a start, removed after the next snapshot
//! ```
//! Directory and files are the owner's alone: a snapshot contains the seed of the index's hash.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const SNAPSHOT: (&str, &str) = ("snapshot-", ".kvs");
const JOURNAL: (&str, &str) = ("journal-", ".kvj");
const DAMAGED: &str = ".damaged";
const UNFINISHED: &str = "snapshot.tmp";
/// A journal until it begins as one.
const UNBEGUN: &str = "journal.tmp";

/// Snapshots kept while there is room: the older one is for the case that the newer is damaged.
pub const KEPT_SNAPSHOTS: usize = 2;

/// A state directory that is ours.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The lock ends with this.
    _lock: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Another process has it.
    #[error(
        "state directory {0} is in use by another process; give this one its own --state-dir, or --no-state"
    )]
    InUse(PathBuf),
    /// It cannot be made, or not be written to.
    #[error("cannot use state directory {path}: {source}")]
    Unusable {
        /// Directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Where state is kept unless somebody says otherwise. `env` reads an environment variable.
pub fn default_path(env: impl Fn(&str) -> Option<String>) -> PathBuf {
    let absolute = |name: &str| {
        let path = env(name).map(PathBuf::from)?;
        path.is_absolute().then_some(path)
    };
    // systemd's StateDirectory=.
    if let Some(path) = absolute("STATE_DIRECTORY") {
        return path;
    }
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    state.unwrap_or_else(|| "/var/lib".into()).join("kvatlas")
}

impl StateDir {
    /// Makes the directory if need be and takes it.
    pub fn open(path: &Path) -> Result<Self, DirError> {
        let unusable = |source| DirError::Unusable {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(0o600);
        let lock = options.open(path.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Positions of the snapshots, ascending.
    pub fn snapshots(&self) -> io::Result<Vec<u64>> {
        self.list(SNAPSHOT)
    }

    /// First positions of the journals, ascending.
    pub fn journals(&self) -> io::Result<Vec<u64>> {
        self.list(JOURNAL)
    }

    /// The snapshot of a position.
    pub fn snapshot(&self, position: u64) -> PathBuf {
        self.file(SNAPSHOT, position)
    }

    /// The journal that begins at a position.
    pub fn journal(&self, position: u64) -> PathBuf {
        self.file(JOURNAL, position)
    }

    /// A new, empty file in place of any old one.
    pub fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(path)
    }

    /// Where a snapshot is written until it is whole.
    pub fn unfinished(&self) -> PathBuf {
        self.path.join(UNFINISHED)
    }

    /// Where a journal is begun: killed meanwhile, nothing stands that is no journal.
    pub fn unbegun(&self) -> PathBuf {
        self.path.join(UNBEGUN)
    }

    /// Makes creations, renames and removals last.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Takes a damaged snapshot out of the way, for people to look at.
    pub fn set_aside(&self, position: u64) -> io::Result<()> {
        let mut damaged = self.snapshot(position).into_os_string();
        let path = PathBuf::from(&damaged);
        damaged.push(DAMAGED);
        std::fs::rename(path, damaged)
    }

    /// Removes all but the last `n_kept` snapshots, the journals before them, and what was set aside.
    pub fn prune(&self, n_kept: usize) -> io::Result<()> {
        let snapshots = self.snapshots()?;
        let (old, kept) = snapshots.split_at(snapshots.len().saturating_sub(n_kept));
        for position in old {
            std::fs::remove_file(self.snapshot(*position))?;
        }
        let oldest = kept.first().copied().unwrap_or(0);
        for position in self.journals()? {
            // With fewer snapshots, what led to them stays too.
            if position < oldest && kept.len() == n_kept {
                std::fs::remove_file(self.journal(position))?;
            }
        }
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(DAMAGED) {
                std::fs::remove_file(entry.path())?;
            }
        }
        self.sync()
    }

    fn file(&self, (prefix, suffix): (&str, &str), position: u64) -> PathBuf {
        self.path.join(format!("{prefix}{position:016x}{suffix}"))
    }

    fn list(&self, (prefix, suffix): (&str, &str)) -> io::Result<Vec<u64>> {
        let mut positions = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let position = name
                .to_str()
                .and_then(|name| name.strip_prefix(prefix)?.strip_suffix(suffix))
                .filter(|digits| digits.len() == 16)
                .and_then(|digits| u64::from_str_radix(digits, 16).ok());
            positions.extend(position);
        }
        positions.sort_unstable();
        Ok(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_is_set_counts() {
        let path = |vars: &[(&str, &str)]| {
            default_path(|name| {
                let found = vars.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let home = ("HOME", "/home/u");
        assert_eq!(path(&[]), Path::new("/var/lib/kvatlas"));
        assert_eq!(path(&[home]), Path::new("/home/u/.local/state/kvatlas"));
        assert_eq!(
            path(&[home, ("XDG_STATE_HOME", "/s")]),
            Path::new("/s/kvatlas")
        );
        assert_eq!(
            path(&[home, ("XDG_STATE_HOME", "s")]),
            Path::new("/home/u/.local/state/kvatlas")
        );
        assert_eq!(
            path(&[home, ("STATE_DIRECTORY", "/var/lib/k")]),
            Path::new("/var/lib/k")
        );
    }
}
