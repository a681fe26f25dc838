//! Ordinary memory: the kernel zeroes pages when they are given back, and that it does is seen by content.
//!
//! ```text
//!  a random marker ──► some hundred pages of each node ──► their frames (pagemap)
//!                                    │                          │
//!                       read through /proc/kcore: it is there ──┤ so that the reading itself is proved
//!                                    ▼ given back               ▼
//!                       read through /proc/kcore: it is not there any more
//! ```
//!
//! The tenant's own pages went the same way when its processes ended: through the kernel's one function that frees.

mod kcore;
mod pagemap;
pub(crate) mod zeroing;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bulkhead_api::receipt::Evidence;
use bulkhead_api::resource::Resource;
use ring::rand::{SecureRandom as _, SystemRandom};

use self::zeroing::Zeroing;
use super::sys::Region;
use super::text;
use super::{Attached, Class, ClassError, Erased, Order};

/// Bytes of a page.
const PAGE: usize = 4096;
/// Pages of each node that carry the marker.
const PAGES: usize = 256;
/// Bytes of the marker: nothing else in memory is the same.
const MARKER: usize = 32;
/// Looks at frames that still carry the marker; the kernel frees some pages a moment later than it is told.
const LOOKS: u32 = 20;
/// From one of these looks to the next.
const BETWEEN: Duration = Duration::from_millis(100);

/// The class.
#[derive(Debug, Clone)]
pub struct Memory {
    root: PathBuf,
}

impl Memory {
    /// On the host below that root.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

impl Class for Memory {
    fn observe(&self, _: &Order) -> Result<Attached, ClassError> {
        // The engine writes the bounds of the control group and reads them back.
        Ok(Attached::Yes)
    }

    fn attach(&self, _: &Order) -> Result<(), ClassError> {
        Ok(())
    }

    fn erase(&self, order: &Order) -> Result<Erased, ClassError> {
        let Resource::Memory { nodes, .. } = &order.resource else {
            return Err(super::other(&order.resource));
        };
        let mut erased = Erased::default();
        let zeroing = zeroing::observe(&self.root)?;
        if !zeroing.on_free {
            weaker(order, &mut erased, &zeroing_is_off(&zeroing))?;
        }
        let told = [("init_on_alloc", zeroing.on_alloc), ("init_on_free", Some(zeroing.on_free))];
        for (what, on) in told {
            let what = format!("{what}, as {} says", zeroing.said_by);
            erased.evidence.extend(on.map(|on| Evidence { what, found: on_or_off(on).to_owned() }));
        }
        if erased.weaker.is_some() {
            if zeroing.on_alloc != Some(true) {
                return Err(zeroing_is_off(&zeroing));
            }
            erased.methods.push("zeroOnAlloc".to_owned());
            return Ok(erased);
        }
        erased.methods.push("zeroOnFree".to_owned());
        for &node in nodes {
            match probe(&self.root, node) {
                Ok(evidence) => erased.evidence.extend(evidence),
                Err(error @ ClassError::ReadBack { .. }) => return Err(error),
                Err(error) => {
                    let what = format!("frames of node {node} after free, by content");
                    let found = format!("not read: {}", bulkhead_api::chain::Chain(&error));
                    weaker(order, &mut erased, &error)?;
                    erased.evidence.push(Evidence { what, found });
                }
            }
        }
        Ok(erased)
    }
}

const fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn zeroing_is_off(zeroing: &Zeroing) -> ClassError {
    ClassError::Refused {
        doing: "see that the kernel zeroes freed memory".to_owned(),
        why: format!(
            "{} has init_on_free {} and init_on_alloc {}: boot an image with init_on_free=1 init_on_alloc=1",
            zeroing.said_by,
            on_or_off(zeroing.on_free),
            zeroing.on_alloc.map_or("not told", on_or_off)
        ),
    }
}

/// Lets a failure pass where the site's policy does; its way out is told otherwise.
fn weaker(order: &Order, erased: &mut Erased, error: &ClassError) -> Result<(), ClassError> {
    let why = bulkhead_api::chain::Chain(error).to_string();
    if !order.weaker_erase {
        let way_out = format!("{why}; or let the site's policy accept a weaker erase of memory");
        let doing = "sanitise memory".to_owned();
        return Err(ClassError::Refused { doing, why: way_out });
    }
    erased.weaker =
        Some(erased.weaker.take().map_or(why.clone(), |before| format!("{before}; {why}")));
    Ok(())
}

/// Marks pages of a node, gives them back, and looks for the marker in their frames.
fn probe(root: &Path, node: u32) -> Result<[Evidence; 2], ClassError> {
    let mut marker = [0; MARKER];
    SystemRandom::new().fill(&mut marker).map_err(|_| ClassError::Refused {
        doing: "make a marker".to_owned(),
        why: "the kernel gives no random bytes".to_owned(),
    })?;
    // Whatever holds the marker besides is there before the pages are given back: it could lie in one of them else.
    let mut region = Region::on_node(PAGES * PAGE, node, None).map_err(|error| {
        let doing = format!("take {} bytes of node {node}", PAGES * PAGE);
        ClassError::Refused { doing, why: error.to_string() }
    })?;
    for part in region.bytes().chunks_exact_mut(MARKER) {
        part.copy_from_slice(&marker);
    }
    let frames = frames(root, &region)?;
    let mut reader = Reader::open(root)?;
    let before = reader.with_marker(&frames, &marker)?;
    if before != frames {
        return Err(ClassError::Refused {
            doing: format!("read {} frames of node {node} that carry a marker", frames.len()),
            why: format!("it was read in {}", before.len()),
        });
    }
    drop(region);
    let mut after = before.clone();
    for _ in 0..LOOKS {
        after = reader.with_marker(&after, &marker)?;
        if after.is_empty() {
            break;
        }
        thread::sleep(BETWEEN);
    }
    let what = format!("marker in {} frames of node {node}", frames.len());
    if !after.is_empty() {
        return Err(ClassError::ReadBack {
            what: format!("{what} after free"),
            expected: "not found".to_owned(),
            found: format!("found in {}", after.len()),
        });
    }
    let evidence =
        |when: &str, found: String| Evidence { what: format!("{what} {when} free"), found };
    Ok([
        evidence("before", format!("found in {}", before.len())),
        evidence("after", "not found".to_owned()),
    ])
}

/// The frames behind memory of ours.
fn frames(root: &Path, region: &Region) -> Result<Vec<u64>, ClassError> {
    let path = root.join("proc/self/pagemap");
    let mut entries = vec![0; PAGES * pagemap::ENTRY];
    let first = region.address() / PAGE * pagemap::ENTRY;
    let mut read = || -> io::Result<()> {
        let first = u64::try_from(first).map_err(io::Error::other)?;
        File::open(&path)?.read_exact_at(&mut entries, first)
    };
    read().map_err(text::failed("read", &path))?;
    pagemap::frames(&entries).ok_or_else(|| ClassError::Refused {
        doing: format!("read frames from {}", path.display()),
        why: "the kernel shows none: the supervisor needs CAP_SYS_ADMIN".to_owned(),
    })
}

/// Frames of physical memory in which a marker is, of those that are asked for. Reads only.
///
/// # Errors
/// [`ClassError::Files`] where `/proc/kcore` cannot be read (`CAP_SYS_RAWIO`, and no lockdown of confidentiality),
/// [`ClassError::Refused`] where a frame is not in it.
pub fn scan(root: &Path, frames: &[u64], marker: &[u8]) -> Result<Vec<u64>, ClassError> {
    Reader::open(root)?.with_marker(frames, marker)
}

/// Reads physical memory through `/proc/kcore`.
struct Reader {
    path: PathBuf,
    file: File,
    segments: Vec<kcore::Segment>,
    page: Vec<u8>,
}

impl Reader {
    fn open(root: &Path) -> Result<Self, ClassError> {
        let path = root.join("proc/kcore");
        let file = File::open(&path).map_err(text::failed("open", &path))?;
        let mut header = [0; kcore::FILE_HEADER];
        file.read_exact_at(&mut header, 0).map_err(text::failed("read", &path))?;
        let headers = kcore::headers(&header).map_err(|why| ClassError::Refused {
            doing: format!("read {}", path.display()),
            why: why.to_owned(),
        })?;
        let mut table = vec![0; headers.length];
        file.read_exact_at(&mut table, headers.offset).map_err(text::failed("read", &path))?;
        Ok(Self { segments: kcore::segments(&table), file, page: vec![0; PAGE], path })
    }

    fn with_marker(&mut self, frames: &[u64], marker: &[u8]) -> Result<Vec<u64>, ClassError> {
        let length = u64::try_from(PAGE).unwrap_or(u64::MAX);
        let mut found = Vec::with_capacity(frames.len());
        for &frame in frames {
            let offset = frame.checked_mul(length);
            let offset = offset.and_then(|at| kcore::locate(&self.segments, at, length));
            let offset = offset.ok_or_else(|| ClassError::Refused {
                doing: format!("find frame {frame:#x} in {}", self.path.display()),
                why: "it is in no part of it".to_owned(),
            })?;
            self.file
                .read_exact_at(&mut self.page, offset)
                .map_err(text::failed("read", &self.path))?;
            let here = marker.len().max(1);
            if !marker.is_empty() && self.page.windows(here).any(|window| window == marker) {
                found.push(frame);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
