use proptest::prelude::*;

use super::*;

/// A file in the place of a disk: the kernel's calls are the same.
fn disk(dir: &Path, size: u64) -> PathBuf {
    let path = dir.join("disk");
    let file = File::create(&path).unwrap();
    file.set_len(size).unwrap();
    let mut at = 0;
    while at < size {
        file.write_all_at(b"secret of a tenant", at).unwrap();
        at += 100_000;
    }
    path
}

#[test]
fn nothing_is_left_of_a_disk_and_the_evidence_says_what_was_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let size = 3 << 20;
    let path = disk(dir.path(), size);
    let erased = erase(&path, 7, || Ok(None)).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() as u64 == size && bytes.iter().all(|byte| *byte == 0));
    assert_eq!(erased.methods.first().unwrap(), "marked");
    assert!(erased.methods.get(1).unwrap().starts_with("zero"), "{:?}", erased.methods);
    let found: Vec<_> =
        erased.evidence.iter().map(|e| format!("{}: {}", e.what, e.found)).collect();
    assert!(found[0].contains("held data"), "{found:?}");
    assert_eq!(found[2], format!("all {size} bytes: zero"));
    // Again: of a disk that is clean, and of one that was cut in the middle.
    assert!(erase(&path, 8, || Ok(None)).unwrap().evidence[0].found.starts_with("0 held data"));
}

#[test]
fn an_erase_that_a_controller_only_pretends_is_seen_and_a_real_one_is_in_the_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), 3 << 20);
    let error = erase(&path, 7, || Ok(Some("nvmeFormatUser"))).unwrap_err();
    assert!(error.to_string().contains("after nvmeFormatUser: expected anything else"), "{error}");
    let format = || {
        std::fs::write(&path, vec![0xff; 3 << 20]).unwrap();
        Ok(Some("nvmeFormatUser"))
    };
    let methods = erase(&path, 8, format).unwrap().methods;
    assert_eq!(methods[..2], ["marked", "nvmeFormatUser"]);
    let refused = || Err(ClassError::Unsupported("no".to_owned()));
    assert_eq!(erase(&path, 9, refused).unwrap_err().to_string(), "no");
}

#[test]
fn a_disk_that_is_not_there_or_cannot_be_written_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let error = erase(&dir.path().join("sdx"), 1, || Ok(None)).unwrap_err();
    assert!(matches!(&error, ClassError::Files { doing: "open alone", .. }), "{error}");
    assert!(error.to_string().ends_with("sdx"), "{error}");
    let error = erase(Path::new("/dev/full"), 1, || Ok(None)).unwrap_err();
    assert!(matches!(&error, ClassError::Files { .. }), "{error}");
}

#[test]
fn what_is_not_zero_is_found_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, vec![0; 3 << 20]).unwrap();
    let disk = Disk::open(&path).unwrap();
    assert_eq!(disk.zero(0, disk.size).unwrap(), Ok(()));
    disk.file.write_all_at(&[1], 2_000_001).unwrap();
    assert_eq!(disk.zero(0, disk.size).unwrap(), Err(2_000_001));
    assert_eq!(disk.zero(2_000_002, disk.size).unwrap(), Ok(()));
}

proptest! {
    #[test]
    fn marks_are_within_the_disk_at_both_ends_and_each_is_its_own(size in 0_u64..1 << 50, seed: u64) {
        let all = places(size, seed);
        prop_assert_eq!(all.is_empty(), size < BLOCK);
        prop_assert!(all.iter().all(|at| at % BLOCK == 0 && at + BLOCK <= size));
        prop_assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        if let (Some(first), Some(last)) = (all.first(), all.last()) {
            prop_assert_eq!((*first, *last), (0, (size / BLOCK - 1) * BLOCK));
            prop_assert_eq!(mark(seed, *last).len() as u64, BLOCK);
            prop_assert!(first == last || mark(seed, *first) != mark(seed, *last));
        }
    }
}
