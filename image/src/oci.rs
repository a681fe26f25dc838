//! The demo tenant's image: an OCI layout (image-spec v1.1) with busybox and a script that says where it runs and that it still does.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::cache::{Inputs, Part, sha256_hex};
use crate::files::{self, FileError, Naming as _};
use crate::layout::{EPOCH, Layout};
use crate::packages::{Archive, PackagesError};

const RECIPE: &str = include_str!("oci.rs");
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The demo image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// Its packages.
    #[error(transparent)]
    Packages(#[from] PackagesError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// `oci/demo`, tag `latest`.
///
/// # Errors
/// Its packages cannot be had, a file's.
pub fn demo(layout: &Layout, archive: &Archive<'_>) -> Result<(), OciError> {
    let unpacked = archive.unpacked("demo", &["busybox-static"])?;
    let script = files::read(&layout.data("demo-tenant.sh"))?;
    let inputs = Inputs::of_recipe(RECIPE).text("packages", &unpacked).bytes("script", &script);
    let folder = layout.out.join("oci/demo");
    let (stamps, outputs) = (layout.stamps(), [folder.join("index.json")]);
    Part { name: "demo tenant", stamps: &stamps, outputs: &outputs }.make(&inputs, || {
        let busybox = files::read(&layout.work().join("demo.d/usr/bin/busybox"))?;
        files::remove(&folder)?;
        let layer = layer(&busybox, &script).named("pack layer of", &folder)?;
        Ok::<_, OciError>(write(&folder, &layer)?)
    })?;
    Ok(())
}

/// An uncompressed tar: fixed owner, time and order.
fn layer(busybox: &[u8], script: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, mode: u32, size: usize| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_mtime(EPOCH);
        // Without them the fields are empty, which readers may refuse.
        header.set_uid(0);
        header.set_gid(0);
        header
    };
    for folder in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"] {
        let mode = if folder == "tmp/" { 0o1777 } else { 0o755 };
        tar.append_data(&mut header(tar::EntryType::Directory, mode, 0), folder, std::io::empty())?;
    }
    let files: [(&str, u32, &[u8]); 4] = [
        ("bin/busybox", 0o755, busybox),
        ("bin/demo-tenant", 0o755, script),
        ("etc/group", 0o644, b"root:x:0:\ntenant:x:1000:\n"),
        ("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\ntenant:x:1000:1000:tenant:/:/bin/sh\n"),
    ];
    for (path, mode, content) in files {
        tar.append_data(&mut header(tar::EntryType::Regular, mode, content.len()), path, content)?;
    }
    for tool in [
        "cat", "date", "dd", "df", "echo", "free", "hostname", "id", "ip", "ls", "mount", "nproc",
        "ps", "sh", "sleep", "wget",
    ] {
        tar.append_link(
            &mut header(tar::EntryType::Symlink, 0o777, 0),
            format!("bin/{tool}"),
            "busybox",
        )?;
    }
    tar.into_inner()
}

/// Writes the layout with one layer.
fn write(folder: &Path, layer: &[u8]) -> Result<(), FileError> {
    let mut gzip = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    let packed =
        gzip.write_all(layer).and_then(|()| gzip.finish()).named("pack layer of", folder)?;
    let created = "2025-10-09T08:53:20Z";
    let config = json!({
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/bin/demo-tenant"],
            "Env": ["PATH=/bin"],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256_hex(layer))] },
        "history": [{ "created": created, "created_by": "bulkhead-image" }],
    });
    let layer = blob(folder, LAYER, &packed)?;
    let config = blob(folder, CONFIG, config.to_string().as_bytes())?;
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let mut manifest = blob(folder, MANIFEST, manifest.to_string().as_bytes())?;
    if let Some(entry) = manifest.as_object_mut() {
        entry.insert("platform".into(), json!({ "architecture": "amd64", "os": "linux" }));
        entry
            .insert("annotations".into(), json!({ "org.opencontainers.image.ref.name": "latest" }));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    files::write(&folder.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    files::write(&folder.join("index.json"), index.to_string())
}

/// Stores a blob; returns its descriptor.
fn blob(folder: &Path, media_type: &str, content: &[u8]) -> Result<Value, FileError> {
    let digest = sha256_hex(content);
    files::write(&folder.join("blobs/sha256").join(&digest), content)?;
    Ok(
        json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len() }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_descriptor_of_the_layout_leads_to_a_blob_of_its_digest_and_size() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &layer(b"busybox", b"#!/bin/sh\n").unwrap()).unwrap();
        let json = |path: &str| -> Value {
            serde_json::from_slice(&files::read(&folder.path().join(path)).unwrap()).unwrap()
        };
        let check = |descriptor: &Value| -> String {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let path = format!("blobs/sha256/{digest}");
            let content = files::read(&folder.path().join(&path)).unwrap();
            assert_eq!(sha256_hex(&content), digest);
            assert_eq!(descriptor["size"].as_u64().unwrap(), content.len() as u64);
            path
        };
        let index = json("index.json");
        assert_eq!(
            index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"],
            "latest"
        );
        let manifest = json(&check(&index["manifests"][0]));
        let config = json(&check(&manifest["config"]));
        let packed = files::read(&folder.path().join(check(&manifest["layers"][0]))).unwrap();
        let mut plain = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(packed.as_slice()),
            &mut plain,
        )
        .unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256_hex(&plain)));
    }

    #[test]
    fn the_layer_is_the_same_bytes_each_time() {
        assert_eq!(layer(b"b", b"s").unwrap(), layer(b"b", b"s").unwrap());
    }
}
