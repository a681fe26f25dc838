use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

fn descriptor(media_type: &str, digit: char, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest(digit), "size": size })
}

fn manifest_of(layers: &[Value]) -> Vec<u8> {
    let config = descriptor(CONFIG, 'c', 100);
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers })
        .to_string()
        .into_bytes()
}

fn index_of(platforms: &[(&str, &str, char)]) -> Vec<u8> {
    let row = |(os, architecture, digit): &(&str, &str, char)| {
        let mut row = descriptor(MANIFEST, *digit, 300);
        row["platform"] = json!({ "os": os, "architecture": architecture });
        row
    };
    let manifests: Vec<Value> = platforms.iter().map(row).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
        .to_string()
        .into_bytes()
}

fn config_of(os: &str, architecture: &str, diff_ids: &[String]) -> Vec<u8> {
    json!({
        "os": os, "architecture": architecture,
        "config": { "Entrypoint": ["/bin/app"], "Cmd": ["run"], "Env": ["A=1"], "User": "app" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
    .into_bytes()
}

#[test]
fn the_manifest_for_this_machine_is_chosen_from_an_index() {
    let index = index_of(&[("linux", "arm64", 'a'), ("linux", "amd64", 'b')]);
    let Document::Index(blob) = document(&index, &Limits::default()).unwrap() else { panic!() };
    assert_eq!(blob, Blob { digest: digest('b').parse().unwrap(), size: 300 });
    let other = document(&index_of(&[("windows", "amd64", 'a')]), &Limits::default());
    assert!(matches!(other, Err(ManifestError::NoPlatform)));
}

#[test]
fn layers_are_listed_in_order_with_their_compression() {
    let plain = "application/vnd.oci.image.layer.v1.tar";
    let bytes = manifest_of(&[descriptor(LAYER, '1', 10), descriptor(plain, '2', 20)]);
    let Document::Manifest(manifest) = document(&bytes, &Limits::default()).unwrap() else {
        panic!()
    };
    let gzip: Vec<bool> = manifest.layers.iter().map(|layer| layer.gzip).collect();
    assert_eq!(gzip, [true, false]);
    assert_eq!(manifest.config.size, 100);
}

#[test]
fn what_cannot_be_unpacked_or_is_too_much_is_refused_with_numbers() {
    let limits = Limits { layers: 1, layer_bytes: 50, ..Limits::default() };
    let refusal =
        |layers: &[Value]| manifest(&manifest_of(layers), &limits).unwrap_err().to_string();
    assert_eq!(
        refusal(&[descriptor("application/vnd.oci.image.layer.v1.tar+zstd", '1', 1)]),
        "layer 1 has media type application/vnd.oci.image.layer.v1.tar+zstd: expected a tar, plain \
         or gzip"
    );
    let together = Limits { layers: 2, ..limits };
    let two = manifest_of(&[descriptor(LAYER, '1', 25), descriptor(LAYER, '2', 26)]);
    let error = manifest(&two, &together).unwrap_err();
    assert_eq!(error.to_string(), "the size of the layers in bytes is 51, the limit is 50");
    let two = [descriptor(LAYER, '1', 1), descriptor(LAYER, '2', 1)];
    assert_eq!(refusal(&two), "the number of layers is 2, the limit is 1");
}

#[test]
fn a_digest_of_another_algorithm_is_refused() {
    let mut layer = descriptor(LAYER, '1', 1);
    layer["digest"] = json!(format!("sha512:{}", "1".repeat(128)));
    assert!(matches!(
        manifest(&manifest_of(&[layer]), &Limits::default()),
        Err(ManifestError::Digest(_))
    ));
}

#[test]
fn a_configuration_says_what_to_run() {
    let ids = [digest('1')];
    let (program, diff_ids) = configuration(&config_of("linux", "amd64", &ids), 1).unwrap();
    assert_eq!(diff_ids.len(), 1);
    assert_eq!(program.command(&[]).unwrap(), ["/bin/app", "run"]);
    assert_eq!(program.command(&["x".to_owned()]).unwrap(), ["/bin/app", "x"]);
    assert!(matches!(Program::default().command(&[]), Err(ManifestError::NoProgram)));
    assert!(matches!(
        configuration(&config_of("linux", "arm64", &ids), 1),
        Err(ManifestError::OtherPlatform { .. })
    ));
    assert!(matches!(
        configuration(&config_of("linux", "amd64", &ids), 2),
        Err(ManifestError::LayerCount { layers: 2, diff_ids: 1 })
    ));
}

/// A document with one value replaced by another of any type.
fn damaged(bytes: &[u8], at: usize, with: &Value) -> Vec<u8> {
    fn replace(value: &mut Value, left: &mut usize, with: &Value) {
        if *left == 0 {
            *value = with.clone();
        }
        *left = left.wrapping_sub(1);
        if let Value::Array(items) = value {
            items.iter_mut().for_each(|item| replace(item, left, with));
        } else if let Value::Object(map) = value {
            map.values_mut().for_each(|item| replace(item, left, with));
        }
    }
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    let mut left = at;
    replace(&mut value, &mut left, with);
    value.to_string().into_bytes()
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = document(&bytes, &Limits::default());
        let _ = manifest(&bytes, &Limits::default());
        let _ = configuration(&bytes, 1);
    }

    #[test]
    fn documents_with_anything_in_any_place_are_read_or_refused(
        at in 0_usize..30,
        with in prop_oneof![
            Just(Value::Null), Just(json!([])), Just(json!({})), Just(json!(-1)),
            Just(json!(u64::MAX)), Just(json!(1.5)), ".{0,12}".prop_map(Value::String),
        ],
    ) {
        let limits = Limits::default();
        let layers = [descriptor(LAYER, '1', 10)];
        let _ = document(&damaged(&index_of(&[("linux", "amd64", 'b')]), at, &with), &limits);
        if let Ok(Document::Manifest(manifest)) =
            document(&damaged(&manifest_of(&layers), at, &with), &limits)
        {
            let sum: u64 = manifest.layers.iter().map(|layer| layer.blob.size).sum();
            prop_assert!(sum <= limits.layer_bytes);
        }
        let _ = configuration(&damaged(&config_of("linux", "amd64", &[digest('1')]), at, &with), 1);
    }
}
