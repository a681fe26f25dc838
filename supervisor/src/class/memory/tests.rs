//! The class on directories in the kernel's formats. Real pages of a real kernel are looked at in a virtual server.

use std::collections::BTreeSet;
use std::fs;

use bulkhead_api::units::Bytes;

use super::kcore::tests::core;
use super::*;
use crate::class::testing::order;

fn root(cmdline: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("proc/self")).unwrap();
    fs::write(root.path().join("proc/cmdline"), cmdline).unwrap();
    root
}

fn wanted(weaker_erase: bool) -> Order {
    let nodes = BTreeSet::from([0]);
    Order { weaker_erase, ..order(Resource::Memory { nodes, bytes: Bytes::new(1 << 30) }) }
}

#[test]
fn a_marker_is_found_in_the_frames_that_have_it_and_in_no_other() {
    let root = root("");
    let mut memory = vec![0; 4 * PAGE];
    let marker = [0xa5; MARKER];
    // In the second page at an odd place, in the fourth at its very end.
    memory[PAGE + 77..PAGE + 77 + MARKER].copy_from_slice(&marker);
    memory[4 * PAGE - MARKER..].copy_from_slice(&marker);
    fs::write(root.path().join("proc/kcore"), core(0x10_0000, &memory)).unwrap();
    let first = 0x10_0000 / 4096;
    let frames: Vec<u64> = (first..first + 4).collect();
    assert_eq!(scan(root.path(), &frames, &marker).unwrap(), [first + 1, first + 3]);
    assert_eq!(scan(root.path(), &frames, &[0x5a; MARKER]).unwrap(), Vec::<u64>::new());
    assert_eq!(scan(root.path(), &frames, &[]).unwrap(), Vec::<u64>::new());
    let error = scan(root.path(), &[first + 4], &marker).unwrap_err().to_string();
    assert!(error.starts_with("find frame 0x104 in "), "{error}");
}

#[test]
fn a_core_file_that_is_cut_off_is_an_error_and_no_absence() {
    let root = root("");
    let whole = core(0, &[0; PAGE]);
    for length in 0..whole.len() {
        fs::write(root.path().join("proc/kcore"), &whole[..length]).unwrap();
        assert!(scan(root.path(), &[0], &[1; MARKER]).is_err(), "{length}");
    }
    fs::write(root.path().join("proc/kcore"), &whole).unwrap();
    assert_eq!(scan(root.path(), &[0], &[1; MARKER]).unwrap(), Vec::<u64>::new());
}

#[test]
fn a_kernel_that_does_not_zero_freed_pages_is_refused_with_the_way_out() {
    let class = |root: &tempfile::TempDir| Memory::new(root.path().to_owned());
    let off = root("init_on_alloc=1");
    let error = class(&off).erase(&wanted(false)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "sanitise memory: see that the kernel zeroes freed memory: the kernel's command line has init_on_free off \
         and init_on_alloc on: boot an image with init_on_free=1 init_on_alloc=1; or let the site's policy accept \
         a weaker erase of memory"
    );
    assert!(matches!(error, ClassError::Refused { .. }), "it is tried again");
    let erased = class(&off).erase(&wanted(true)).unwrap();
    assert_eq!(erased.methods, ["zeroOnAlloc"]);
    assert!(erased.weaker.unwrap().contains("init_on_free off"));
    // Not even policy lets pass a kernel that never zeroes.
    let never = root("");
    class(&never).erase(&wanted(true)).unwrap_err();
}

#[test]
fn frames_that_cannot_be_read_are_told_and_pass_by_policy_alone() {
    let root = root("init_on_alloc=1 init_on_free=1");
    let class = Memory::new(root.path().to_owned());
    let error = class.erase(&wanted(false)).unwrap_err().to_string();
    assert!(
        error.contains("/proc/self/pagemap") && error.ends_with("weaker erase of memory"),
        "{error}"
    );
    let erased = class.erase(&wanted(true)).unwrap();
    assert_eq!(erased.methods, ["zeroOnFree"]);
    let told = erased.evidence.last().unwrap();
    assert_eq!(told.what, "frames of node 0 after free, by content");
    assert!(told.found.starts_with("not read: read "), "{}", told.found);
    assert!(erased.weaker.is_some());
}

#[test]
fn our_own_pages_have_frames() {
    let mut region = Region::on_node(PAGES * PAGE, 0, None).unwrap();
    region.bytes().fill(1);
    let found = frames(Path::new("/"), &region).unwrap();
    let different: BTreeSet<u64> = found.iter().copied().collect();
    assert_eq!((found.len(), different.len()), (PAGES, PAGES));
}

#[test]
fn a_core_file_in_which_the_marker_never_shows_proves_nothing() {
    let root = root("init_on_alloc=1 init_on_free=1");
    std::os::unix::fs::symlink("/proc/self/pagemap", root.path().join("proc/self/pagemap"))
        .unwrap();
    // All of physical memory, and empty: a file that is as long as it says and has nothing in it.
    let file = fs::File::create(root.path().join("proc/kcore")).unwrap();
    let mut head = core(0, &[]);
    let length = (1_u64 << 44).to_le_bytes();
    let third = 64 + 2 * 56;
    head[third + 40..third + 48].copy_from_slice(&length);
    file.write_all_at(&head, 0).unwrap();
    // As long as a file can be on any file system here, sparse.
    file.set_len(1 << 43).or_else(|_| file.set_len(1 << 40)).unwrap();
    let error = Memory::new(root.path().to_owned()).erase(&wanted(false)).unwrap_err().to_string();
    assert!(error.contains("frames of node 0 that carry a marker: it was read in 0"), "{error}");
}
