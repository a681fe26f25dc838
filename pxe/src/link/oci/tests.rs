use proptest::prelude::*;

use super::*;

fn digest(number: u8) -> String {
    format!("sha256:{}", format!("{number:02x}").repeat(32))
}

/// A layout with a tagged manifest, and an index that lists another.
fn layout(dir: &Path) -> PathBuf {
    let layout = dir.join("demo");
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(1), "size": 2,
          "annotations": { REF_NAME: "latest" } },
        { "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(2), "size": 2 },
    ]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let nested = serde_json::json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(3), "size": 2 },
    ]});
    std::fs::write(blob_path(&layout, &digest(2)).unwrap(), nested.to_string()).unwrap();
    layout
}

#[tokio::test]
async fn manifests_are_found_by_tag_and_by_digest() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path());
    let found = async |reference: &str| find_manifest(&layout, reference).await.map(|d| d.digest);
    assert_eq!(found("latest").await, Ok(digest(1)));
    assert_eq!(found(&digest(1)).await, Ok(digest(1)));
    assert_eq!(found(&digest(3)).await, Ok(digest(3)), "listed by an index that is listed");
    assert_eq!(found("v2").await, Err(OciError::ManifestUnknown("v2".into())));
    assert_eq!(found(&digest(9)).await, Err(OciError::ManifestUnknown(digest(9))));
    for bad in ["", ".x", "../../etc/passwd", "sha256:00", "a b", "sha512:00"] {
        assert_eq!(found(bad).await, Err(OciError::ManifestInvalid(bad.into())), "{bad:?}");
    }
}

#[test]
fn names_are_components_and_never_paths() {
    for good in ["demo", "a", "demo-tenant", "a.b", "a_b", "a__b", "a--b", "0"] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", ".", "..", "a..b", "a/b", "../x", "A", "-a", "a-", "a___b", "a.-b", "é", "a b"]
    {
        assert!(!is_name(bad), "{bad}");
    }
    let nowhere = Path::new("/nowhere");
    assert_eq!(super::layout(nowhere, ".."), Err(OciError::NameInvalid("..".into())));
    assert_eq!(super::layout(nowhere, "demo"), Err(OciError::NameUnknown("demo".into())));
}

proptest! {
    #[test]
    fn any_name_and_digest_stays_inside_its_folder(name in ".{0,20}", digest in "(sha256:)?.{0,66}") {
        if is_name(&name) {
            prop_assert!(!name.contains(['/', '\\', '\0']) && !name.contains(".."));
        }
        if let Ok(path) = blob_path(Path::new("root"), &digest) {
            prop_assert_eq!(path.parent(), Some(Path::new("root/blobs/sha256")));
        }
    }

    #[test]
    fn any_tag_that_is_taken_is_one_word(tag in ".{0,20}") {
        if is_tag(&tag) {
            prop_assert!(tag.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c)));
            prop_assert!(!tag.starts_with('.') && !tag.contains(':'));
        }
    }
}
