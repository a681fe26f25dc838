//! Moments of a boot that happen once, though the supervisor may start several times in it.
//!
//! Each is told on the console as `bulkhead: mark NAME MS`, milliseconds since the kernel started.

use std::time::Duration;

use bulkhead_api::chain::Chain;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::files;
use crate::host::{console, load};
use crate::paths::Paths;

/// The moments passed so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Milestones {
    /// The supervisor was ready.
    pub ready_ms: Option<u64>,
    /// The first stream to the site was open.
    pub joined_ms: Option<u64>,
    /// CPU time of user space when the supervisor was ready.
    pub userspace_start_ms: u64,
}

impl Milestones {
    /// Those that an earlier run of the supervisor in this boot left. Unreadable ones are passed again,
    /// which only repeats a line on the console.
    #[must_use]
    pub fn load(paths: &Paths) -> Self {
        let bytes = files::read_if_there(&paths.milestones()).unwrap_or_default();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Passes `ready` unless it was passed in this boot.
    pub fn ready(&mut self, paths: &Paths) {
        if self.ready_ms.is_none() {
            self.userspace_start_ms = load::user_space_ms(&paths.root);
            self.ready_ms = Some(mark(paths, "ready"));
            self.keep(paths);
        }
    }

    /// Passes `joined` unless it was passed in this boot.
    pub fn joined(&mut self, paths: &Paths, line: &str) {
        if self.joined_ms.is_none() {
            self.joined_ms = Some(mark(paths, "joined"));
            console::say(&paths.root, line);
            self.keep(paths);
        }
    }

    fn keep(&self, paths: &Paths) {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        if let Err(error) = files::replace(&paths.milestones(), &bytes, 0o644) {
            warn!(error = %Chain(&error), "milestones of this boot not kept");
        }
    }
}

fn mark(paths: &Paths, name: &str) -> u64 {
    let ms = millis(load::since_kernel_start());
    console::say(&paths.root, &format!("mark {name} {ms}"));
    ms
}

/// Whole milliseconds.
#[must_use]
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_passed_and_told_once_a_boot() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        std::fs::create_dir_all(&paths.run).unwrap();
        let console = dir.path().join("dev/console");
        std::fs::create_dir_all(dir.path().join("dev")).unwrap();
        std::fs::write(&console, "").unwrap();
        for _ in 0..2 {
            let mut milestones = Milestones::load(&paths);
            milestones.ready(&paths);
            milestones.joined(&paths, "joined as s-1 at site s");
        }
        let text = std::fs::read_to_string(console).unwrap();
        let kept = Milestones::load(&paths);
        let (ready, joined) = (kept.ready_ms.unwrap(), kept.joined_ms.unwrap());
        assert_eq!(
            text,
            format!(
                "bulkhead: mark ready {ready}\nbulkhead: mark joined {joined}\n\
                 bulkhead: joined as s-1 at site s\n"
            )
        );
    }

    #[test]
    fn garbled_milestones_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        std::fs::create_dir_all(&paths.run).unwrap();
        std::fs::write(paths.milestones(), [0xff, 0x00]).unwrap();
        assert_eq!(Milestones::load(&paths), Milestones::default());
    }
}
