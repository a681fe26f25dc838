//! Whether the kernel zeroes pages when they are given out and when they are given back (`init_on_alloc`, `init_on_free`;
//! Linux, Documentation/admin-guide/kernel-parameters.txt). Pure but for [`observe`].

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::super::ClassError;
use super::super::text;

/// Longest record of the kernel's log with its prefix (`CONSOLE_EXT_LOG_MAX`).
const RECORD: usize = 8192;
/// Records that are read at most: more than any log holds.
const MOST_RECORDS: usize = 1 << 17;

/// What is known, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zeroing {
    /// Pages are zeroed when they are given out; absent where that is not said.
    pub(crate) on_alloc: Option<bool>,
    /// Pages are zeroed when they are given back.
    pub(crate) on_free: bool,
    /// Who says so.
    pub(crate) said_by: &'static str,
}

/// The line in which the kernel says at boot what holds (`mm/mm_init.c`, `report_meminit`).
pub(crate) fn logged(line: &str) -> Option<Zeroing> {
    let (_, told) = line.split_once("mem auto-init: stack:")?;
    let on = |key: &str| {
        let (_, rest) = told.split_once(key)?;
        match rest.split([',', '\n']).next()?.trim() {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        }
    };
    let (on_alloc, on_free) = (on("heap alloc:")?, on("heap free:")?);
    Some(Zeroing { on_alloc: Some(on_alloc), on_free, said_by: "the kernel's log" })
}

/// What a kernel without defaults of its own does with that command line.
pub(crate) fn asked(cmdline: &str) -> Zeroing {
    // The last one counts.
    let on = |key: &str| {
        let word = |word: &str| word.strip_prefix(key)?.strip_prefix('=').map(truth);
        cmdline.split_whitespace().filter_map(word).next_back()
    };
    Zeroing {
        on_alloc: on("init_on_alloc"),
        // Not on by default in any kernel that Bulkhead's images have.
        on_free: on("init_on_free").unwrap_or(false),
        said_by: "the kernel's command line",
    }
}

/// As `kstrtobool` reads it.
fn truth(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    lower.starts_with(['1', 'y', 't']) || lower.starts_with("on")
}

/// Asks the kernel's log, and where that no longer has the line or may not be read, the command line.
///
/// # Errors
/// Neither can be read.
pub(crate) fn observe(root: &Path) -> Result<Zeroing, ClassError> {
    if let Some(zeroing) = log(&root.join("dev/kmsg")) {
        return Ok(zeroing);
    }
    Ok(asked(&text::read(&root.join("proc/cmdline"))?))
}

fn log(path: &Path) -> Option<Zeroing> {
    let mut options = OpenOptions::new();
    // Without it the read after the newest record waits for the next one.
    let mut log = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let mut record = vec![0; RECORD];
    for _ in 0..MOST_RECORDS {
        match log.read(&mut record) {
            Ok(0) => return None,
            Ok(length) => {
                let read = record.get(..length).unwrap_or_default();
                if let Some(zeroing) = String::from_utf8_lossy(read).lines().find_map(logged) {
                    return Some(zeroing);
                }
            }
            // Overwritten before it was read: the next read goes on from the oldest that is left (dev-kmsg ABI).
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const LINE: &str =
        "6,412,197595,-;mem auto-init: stack:all(zero), heap alloc:on, heap free:off\n";

    #[test]
    fn the_log_says_both() {
        let zeroing = logged(LINE).unwrap();
        assert!(zeroing.on_alloc == Some(true) && !zeroing.on_free);
        assert!(logged(&LINE.replace("free:off", "free:on")).unwrap().on_free);
        assert_eq!(logged("mem auto-init: clearing system memory may take some time..."), None);
        assert_eq!(logged("mem auto-init: stack:off, heap alloc:perhaps, heap free:on"), None);
    }

    #[test]
    fn the_last_word_of_the_command_line_counts() {
        let both = |cmdline: &str| (asked(cmdline).on_alloc, asked(cmdline).on_free);
        assert_eq!(both("quiet init_on_free=1 init_on_alloc=1"), (Some(true), true));
        assert_eq!(both("init_on_alloc=0"), (Some(false), false));
        assert_eq!(
            both("init_on_free=1 init_on_free=0 init_on_alloc=off init_on_alloc=on"),
            (Some(true), false)
        );
        assert_eq!(
            both("xinit_on_free=1 init_on_freeze=1 init_on_free init_on_alloc="),
            (Some(false), false)
        );
        assert_eq!(both("quiet"), (None, false));
    }

    #[test]
    fn the_log_goes_before_the_command_line_and_one_of_them_must_be_there() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["dev", "proc"] {
            fs::create_dir(root.path().join(dir)).unwrap();
        }
        assert!(observe(root.path()).is_err());
        fs::write(root.path().join("proc/cmdline"), "init_on_free=1\n").unwrap();
        let zeroing = observe(root.path()).unwrap();
        assert_eq!((zeroing.on_free, zeroing.said_by), (true, "the kernel's command line"));
        fs::write(root.path().join("dev/kmsg"), LINE).unwrap();
        let zeroing = observe(root.path()).unwrap();
        assert_eq!((zeroing.on_free, zeroing.said_by), (false, "the kernel's log"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(mem auto-init: stack:)?(heap (alloc|free):)?[\\s\\S]{0,60}") {
            let _ = (logged(&text), asked(&text));
        }
    }
}
