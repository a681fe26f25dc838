//! Phases of a boot, read from the console. Pure.
//!
//! ```text
//!  power-on ─► firmware ─► kernel ─► stage 1 ─► modules, link, dhcp, image, root, systemd ─► ready ─► joined
//!              └────────── not ours: the floor ──────────┘
//! ```

use std::time::Duration;

use crate::vm::Line;

/// A phase ends with the first line that begins with, or holds, its sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sign {
    phase: &'static str,
    text: &'static str,
}

/// The phase that ends the floor: stage 1 runs, and nothing of ours did before.
pub const FLOOR: &str = "stage 1";
/// The phase at which stage 1 gives way to systemd.
pub const SYSTEMD: &str = "systemd";
/// The phase at which the supervisor has observed its host.
pub const READY: &str = "ready";
/// The phase at which the host has its stream to the site.
pub const JOINED: &str = "joined";

const SIGNS: [Sign; 11] = [
    Sign { phase: "firmware", text: ">>Start " },
    Sign { phase: "kernel", text: "EFI stub: " },
    Sign { phase: FLOOR, text: "bulkhead: mark init " },
    Sign { phase: "modules", text: "bulkhead: mark modules " },
    Sign { phase: "link", text: "bulkhead: mark link " },
    Sign { phase: "dhcp", text: "bulkhead: mark dhcp " },
    Sign { phase: "image", text: "bulkhead: mark image " },
    Sign { phase: "root", text: "bulkhead: mark root " },
    Sign { phase: SYSTEMD, text: "bulkhead: mark switch " },
    Sign { phase: READY, text: READY_SIGN },
    Sign { phase: JOINED, text: JOINED_SIGN },
];

/// What the console shows at [`READY`].
pub const READY_SIGN: &str = "bulkhead: mark ready ";
/// What the console shows at [`JOINED`].
pub const JOINED_SIGN: &str = "bulkhead: mark joined ";

/// When a phase ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mark {
    /// Which phase.
    pub phase: &'static str,
    /// Since power-on.
    pub at: Duration,
    /// Processor seconds of the emulator by then.
    pub cpu_seconds: f64,
}

/// The phases that the console shows to have ended, in order; each the first time.
///
/// A lane without firmware has no `firmware`, and a kernel that says nothing has no `kernel`.
#[must_use]
pub fn marks(lines: &[Line]) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    let mut next = 0;
    for line in lines {
        let rest = SIGNS.iter().enumerate().skip(next);
        let hit = rest.clone().find(|(_, sign)| line.text.contains(sign.text));
        if let Some((index, sign)) = hit {
            marks.push(Mark { phase: sign.phase, at: line.at, cpu_seconds: line.cpu_seconds });
            next = index + 1;
        }
    }
    marks
}

/// The mark of a phase.
#[must_use]
pub fn find(marks: &[Mark], phase: &str) -> Option<Mark> {
    marks.iter().find(|mark| mark.phase == phase).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seconds: u64, text: &str) -> Line {
        Line { at: Duration::from_secs(seconds), cpu_seconds: 0.0, text: text.to_owned() }
    }

    #[test]
    fn phases_come_in_order_and_each_once() {
        let lines = [
            line(1, "UEFI Interactive Shell"),
            line(2, ">>Start HTTP Boot over IPv4"),
            line(3, "bulkhead: mark init 1200 stage 1 runs"),
            line(4, "bulkhead: mark modules 1300 kernel modules loaded"),
            line(5, "bulkhead: mark image 1400 all images are here"),
            line(6, "bulkhead: mark ready 8000"),
            line(7, "bulkhead: mark modules 9000 kernel modules loaded"),
            line(8, "bulkhead: mark joined 9000"),
        ];
        let marks = marks(&lines);
        let found: Vec<_> = marks.iter().map(|mark| (mark.phase, mark.at.as_secs())).collect();
        let wanted =
            [("firmware", 2), (FLOOR, 3), ("modules", 4), ("image", 5), (READY, 6), (JOINED, 8)];
        assert_eq!(found, wanted);
        assert_eq!(find(&marks, "image").map(|mark| mark.at.as_secs()), Some(5));
        assert_eq!(find(&marks, "dhcp"), None);
    }
}
