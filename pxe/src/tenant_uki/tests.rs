use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

/// The smallest thing that is a PE program at first sight.
fn pe(text: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x40];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes.extend_from_slice(b"PE\0\0");
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn layer(dir: &Path, gzip: bool, files: &[(&str, &[u8])]) -> Layer {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    let mut bytes = tar.into_inner().unwrap();
    if gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&bytes).unwrap();
        bytes = encoder.finish().unwrap();
    }
    let hex = crate::store::sha256_hex(&bytes);
    let path = dir.join(&hex);
    fs::write(&path, bytes).unwrap();
    let media_type = if gzip { "x.layer.v1.tar+gzip" } else { "x.layer.v1.tar" }.to_owned();
    Layer { path, digest: format!("sha256:{hex}"), media_type }
}

fn ukis(dir: &Path) -> TenantUkis {
    TenantUkis::open(&dir.join("kept")).unwrap()
}

#[test]
fn the_topmost_layer_decides_and_the_digest_names_what_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let ukis = ukis(dir.path());
    let (old, new) = (pe("old"), pe("new"));
    let low = layer(dir.path(), true, &[("boot/uki.efi", &old), ("EFI/BOOT/BOOTX64.EFI", &old)]);
    let high = layer(dir.path(), false, &[("./boot/uki.efi", &new), ("etc/x", b"x")]);
    let sha256 = ukis.take(&[low.clone(), high]).unwrap();
    assert_eq!(sha256, crate::store::sha256_hex(&new));
    let mut blob = ukis.blob(&sha256).unwrap();
    let mut read = Vec::new();
    blob.file.read_to_end(&mut read).unwrap();
    assert_eq!((read, blob.size), (new.clone(), new.len() as u64));
    // Hidden by a whiteout, by one of the folder, and by an opaque folder: the other name is left.
    for hidden in ["boot/.wh.uki.efi", ".wh.boot", "boot/.wh..wh..opq"] {
        let top = layer(dir.path(), false, &[(hidden, b"")]);
        assert_eq!(ukis.take(&[low.clone(), top]).unwrap(), crate::store::sha256_hex(&old));
    }
    ukis.forget_others(std::iter::once(sha256.clone()));
    assert!(ukis.blob(&sha256).is_ok());
    assert!(ukis.blob(&crate::store::sha256_hex(&old)).is_err());
}

#[test]
fn what_cannot_be_booted_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let ukis = ukis(dir.path());
    let none = layer(dir.path(), false, &[("etc/x", b"x")]);
    assert!(matches!(ukis.take(std::slice::from_ref(&none)), Err(UkiError::Absent)));
    let script = layer(dir.path(), false, &[("boot/uki.efi", b"#!/bin/sh")]);
    assert!(matches!(ukis.take(&[script]), Err(UkiError::NotPe { .. })));
    let zstd = Layer { media_type: "x.layer.v1.tar+zstd".to_owned(), ..none.clone() };
    assert!(matches!(ukis.take(&[zstd]), Err(UkiError::MediaType(_))));
    let other = Layer { digest: format!("sha256:{}", "0".repeat(64)), ..none.clone() };
    assert!(matches!(ukis.take(&[other]), Err(UkiError::Digest { .. })));
    let away = Layer { path: dir.path().join("away"), ..none };
    assert!(matches!(ukis.take(&[away]), Err(UkiError::Read { .. })));
}

proptest! {
    #[test]
    fn any_bytes_of_a_layer_are_an_error_or_no_uki(bytes in proptest::collection::vec(any::<u8>(), 0..2000), gzip: bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        fs::write(&path, &bytes).unwrap();
        let digest = format!("sha256:{}", crate::store::sha256_hex(&bytes));
        let media_type = if gzip { "a.tar+gzip" } else { "a.tar" }.to_owned();
        let taken = ukis(dir.path()).take(&[Layer { path, digest, media_type }]);
        prop_assert!(taken.is_err());
        prop_assert!(!is_pe(&bytes) || bytes.starts_with(b"MZ"));
    }
}
