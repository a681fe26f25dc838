//! OCI layouts (image-spec v1.1) of one layer, and the demo tenant's image: busybox and a script that says where it runs and that
//! it still does.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::cache::{Inputs, Part, sha256_hex};
use crate::command::CommandError;
use crate::cpio;
use crate::files::{self, FileError, Naming as _};
use crate::layout::{EPOCH, Layout};
use crate::packages::{Archive, PackagesError};

/// The source text of this recipe, for parts that use it.
pub const RECIPE: &str = include_str!("oci.rs");
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A demo image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// Its packages.
    #[error(transparent)]
    Packages(#[from] PackagesError),
    /// A program.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Its initrd.
    #[error(transparent)]
    TooLarge(#[from] cpio::TooLarge),
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
        let layer = demo_layer(&busybox, &script).named("pack layer of", &folder)?;
        Ok::<_, OciError>(write(&folder, &layer, Some("/bin/demo-tenant"))?)
    })?;
    Ok(())
}

/// What a layer holds. Paths have no leading slash, folders end on one.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// Path and mode.
    Folder(&'a str, u32),
    /// Path, mode, content.
    File(&'a str, u32, &'a [u8]),
    /// Path and target of a symbolic link.
    Link(&'a str, &'a str),
}

/// An uncompressed tar in the order given: fixed owner and time.
///
/// # Errors
/// A path that the format cannot hold.
pub fn layer(entries: &[Entry<'_>]) -> std::io::Result<Vec<u8>> {
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
    for entry in entries {
        match *entry {
            Entry::Folder(path, mode) => {
                let mut header = header(tar::EntryType::Directory, mode, 0);
                tar.append_data(&mut header, path, std::io::empty())?;
            }
            Entry::File(path, mode, content) => {
                let mut header = header(tar::EntryType::Regular, mode, content.len());
                tar.append_data(&mut header, path, content)?;
            }
            Entry::Link(path, target) => {
                let mut header = header(tar::EntryType::Symlink, 0o777, 0);
                tar.append_link(&mut header, path, target)?;
            }
        }
    }
    tar.into_inner()
}

fn demo_layer(busybox: &[u8], script: &[u8]) -> std::io::Result<Vec<u8>> {
    const TOOLS: [&str; 16] = [
        "cat", "date", "dd", "df", "echo", "free", "hostname", "id", "ip", "ls", "mount", "nproc",
        "ps", "sh", "sleep", "wget",
    ];
    let mut entries: Vec<Entry<'_>> = ["bin/", "dev/", "etc/", "proc/", "sys/"]
        .map(|folder| Entry::Folder(folder, 0o755))
        .into_iter()
        .chain([
            Entry::Folder("tmp/", 0o1777),
            Entry::File("bin/busybox", 0o755, busybox),
            Entry::File("bin/demo-tenant", 0o755, script),
            Entry::File("etc/group", 0o644, b"root:x:0:\ntenant:x:1000:\n"),
            Entry::File(
                "etc/passwd",
                0o644,
                b"root:x:0:0:root:/:/bin/sh\ntenant:x:1000:1000:tenant:/:/bin/sh\n",
            ),
        ])
        .collect();
    let links = TOOLS.map(|tool| format!("bin/{tool}"));
    entries.extend(links.iter().map(|path| Entry::Link(path, "busybox")));
    layer(&entries)
}

/// Writes the layout with one layer, and what it starts unless it is a virtual machine's.
///
/// # Errors
/// A file's.
pub fn write(folder: &Path, layer: &[u8], entrypoint: Option<&str>) -> Result<(), FileError> {
    let mut gzip = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    let packed =
        gzip.write_all(layer).and_then(|()| gzip.finish()).named("pack layer of", folder)?;
    let created = "2025-10-09T08:53:20Z";
    let program = entrypoint.map(|entrypoint| {
        json!({
            "Entrypoint": [entrypoint],
            "Env": ["PATH=/bin"],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
        })
    });
    let config = json!({
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": program.unwrap_or_else(|| json!({})),
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
        let layer = demo_layer(b"busybox", b"#!/bin/sh\n").unwrap();
        write(folder.path(), &layer, Some("/bin/demo-tenant")).unwrap();
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
        assert_eq!(demo_layer(b"b", b"s").unwrap(), demo_layer(b"b", b"s").unwrap());
    }
}
