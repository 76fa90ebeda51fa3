//! A small file system of its own: it can be full, and read-only.
//!
//! A tmpfs in a mount namespace, which needs no rights beyond making a user namespace, held by a
//! shell; everybody else reaches it through `/proc/<shell>/root`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::process::Scratch;

/// Mounts, says `0`, then runs what comes line by line and says how each ended.
const HOLDER: &str = r#"mount -t tmpfs -o "size=$1" kvatlas "$2" || exit 1
echo 0
while read -r line; do sh -c "$line" "$2"; echo "$?"; done"#;

/// Gone, with what is on it, when dropped.
pub(crate) struct Disk {
    holder: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    path: PathBuf,
    _mounted_at: Scratch,
}

impl Disk {
    /// `None`, with the reason on standard error, where no file system may be mounted.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let at = Scratch::new();
        let holder = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", HOLDER, "sh", size])
            .arg(&at.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut holder) = holder else {
            eprintln!("SKIPPED: there is no unshare(1) to mount a small file system with");
            return None;
        };
        let (orders, answers) = (holder.stdin.take().unwrap(), holder.stdout.take().unwrap());
        let path = Path::new("/proc")
            .join(holder.id().to_string())
            .join("root")
            .join(at.0.strip_prefix("/").unwrap());
        let mut disk = Self {
            holder,
            orders,
            answers: BufReader::new(answers),
            path,
            _mounted_at: at,
        };
        if disk.answer() != "0" {
            eprintln!("SKIPPED: mounting a small file system is not allowed here");
            return None;
        }
        Some(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// `ro` or `rw`.
    pub(crate) fn remount(&mut self, how: &str) {
        writeln!(self.orders, "mount -o remount,{how} \"$0\"").unwrap();
        assert_eq!(self.answer(), "0", "remount {how}");
    }

    /// A file that takes all the room that is left.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
        path
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
