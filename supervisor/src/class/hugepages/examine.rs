//! Free huge pages by content: taken, looked at, marked, given back and taken again.

use bulkhead_api::receipt::Evidence;
use bulkhead_api::resource::PageSize;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::super::sys::Region;
use super::super::{ClassError, Progress};

/// Bytes that are looked at in each [`STEP`].
const SAMPLE: usize = 64;
/// From one sample to the next: the size of an ordinary page.
const STEP: usize = 4096;
/// Bytes of the marker.
const MARKER: usize = 32;

/// Takes so many pages of a node and shows that the kernel zeroed them: what was in them before is gone, and so is a
/// marker that was written into all of them.
///
/// As many as the lease had are free, as it is gone, so that nobody else goes short meanwhile.
///
/// # Errors
/// [`ClassError::Refused`] where the pages cannot be had, [`ClassError::ReadBack`] where one is not zero.
pub(super) fn examine(
    node: u32,
    size: PageSize,
    pages: u64,
    progress: &Progress,
) -> Result<Vec<Evidence>, ClassError> {
    let refused = |why: String| ClassError::Refused {
        doing: format!("look at {pages} huge pages of {size} of node {node}"),
        why,
    };
    let length =
        pages.checked_mul(size.bytes().get()).and_then(|bytes| usize::try_from(bytes).ok());
    let length = length.ok_or_else(|| refused("more than an address space".to_owned()))?;
    if length == 0 {
        return Ok(Vec::new());
    }
    let take =
        || Region::on_node(length, node, Some(size)).map_err(|error| refused(error.to_string()));
    let mut marker = [0; MARKER];
    let random = SystemRandom::new().fill(&mut marker);
    random.map_err(|_| refused("the kernel gives no random bytes".to_owned()))?;
    let mut evidence = Vec::new();
    let bytes = pages.saturating_mul(size.bytes().get());
    progress.expect(bytes.saturating_mul(2));
    for round in ["after the lease", "after a marker in each"] {
        let mut region = take()?;
        let what = format!(
            "{pages} huge pages of {size} of node {node} {round}, {SAMPLE} bytes in {STEP}"
        );
        if let Some(at) = first_not_zero(region.bytes()) {
            return Err(ClassError::ReadBack {
                what,
                expected: "all zero".to_owned(),
                found: format!("something else at byte {at}"),
            });
        }
        mark(region.bytes(), &marker);
        progress.advance(bytes);
        evidence.push(Evidence { what, found: "all zero".to_owned() });
    }
    // The marker of the second round is no tenant's: the kernel zeroes it as it did the first.
    Ok(evidence)
}

/// First sample that is not zero, as a byte of the whole.
fn first_not_zero(memory: &[u8]) -> Option<usize> {
    let sample = |part: &[u8]| part.iter().take(SAMPLE).any(|&byte| byte != 0);
    memory.chunks(STEP).position(sample).map(|index| index * STEP)
}

/// Writes the marker where the samples are.
fn mark(memory: &mut [u8], marker: &[u8; MARKER]) {
    for part in memory.chunks_mut(STEP) {
        if let Some(start) = part.get_mut(..MARKER) {
            start.copy_from_slice(marker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_is_left_in_any_sample_is_found() {
        let mut memory = vec![0; 8 * STEP];
        assert_eq!(first_not_zero(&memory), None);
        memory[5 * STEP + SAMPLE - 1] = 1;
        assert_eq!(first_not_zero(&memory), Some(5 * STEP));
        let mut memory = vec![0; 3 * STEP];
        mark(&mut memory, &[9; MARKER]);
        assert!((0..3).all(|page| memory[page * STEP] == 9));
        assert_eq!(first_not_zero(&memory), Some(0));
    }
}
