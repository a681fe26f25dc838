//! One-line messages on the machine's console, for people at it and for programs that watch its boot.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use tracing::warn;

/// Says `bulkhead: {text}` on the console, or in the kernel log where there is no console.
///
/// A console may be slow or gone: the write does not wait and its failure is logged only.
pub fn say(root: &Path, text: &str) {
    let line = format!("bulkhead: {text}\n");
    let write = |name: &str| {
        let mut options = OpenOptions::new();
        options.append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
        options.open(root.join(name))?.write_all(line.as_bytes())
    };
    if let Err(error) = write("dev/console").or_else(|_| write("dev/kmsg")) {
        warn!(%error, text, "console line lost");
    }
}
