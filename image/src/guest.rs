//! The demo virtual machine's image: an OCI layout with `/boot/vmlinuz`, `/boot/initrd` and `/boot/cmdline`.
//!
//! Its kernel is the host's; the initrd holds busybox, a script as `/init` and the few modules that a virtual machine needs.

use std::io::Write as _;

use crate::cache::{Inputs, Part};
use crate::cpio;
use crate::files::{self, Naming as _};
use crate::layout::Layout;
use crate::oci::{self, Entry, OciError};
use crate::packages::Archive;
use crate::toolbox;

const RECIPE: &str = include_str!("guest.rs");

/// The kernel's command line: the console is the lease's log; a panic ends the machine, and the lease starts it again.
const CMDLINE: &[u8] = b"console=ttyS0 quiet panic=-1\n";

const UNPACK: &str = r#"below=work/kernel/usr/lib/modules/$(cat work/kernel.release)/kernel
for path; do
  if [ -e "$below/$path.ko.xz" ]; then xz -dc "$below/$path.ko.xz"; else cat "$below/$path.ko"; fi > "work/guest-modules/${path##*/}.ko"
done"#;

/// Folder of the unpacked modules, below the build folder.
const MODULES: &str = "work/guest-modules";

/// `oci/demo-vm`, tag `latest`. `kernel` is the key of the kernel's package.
///
/// # Errors
/// Its packages cannot be had, a module that the kernel does not have, a file's.
pub fn demo(layout: &Layout, archive: &Archive<'_>, kernel: &str) -> Result<(), OciError> {
    let unpacked = archive.unpacked("demo", &["busybox-static"])?;
    let script = files::read(&layout.data("demo-guest.sh"))?;
    let list = files::read_text(&layout.data("modules-guest.list"))?;
    let inputs = Inputs::of_recipe(RECIPE)
        .text("oci", oci::RECIPE)
        .text("cpio", include_str!("cpio.rs"))
        .text("packages", &unpacked)
        .text("kernel", kernel)
        .text("modules", &list)
        .bytes("script", &script);
    let folder = layout.out.join("oci/demo-vm");
    let (stamps, outputs) = (layout.stamps(), [folder.join("index.json")]);
    Part { name: "demo guest", stamps: &stamps, outputs: &outputs }.make(&inputs, || {
        let names = unpack_modules(layout, &list)?;
        let mut modules = Vec::new();
        for name in names {
            let content = files::read(&layout.out.join(MODULES).join(format!("{name}.ko")))?;
            modules.push((name, content));
        }
        files::remove(&layout.out.join(MODULES))?;
        let busybox = files::read(&layout.work().join("demo.d/usr/bin/busybox"))?;
        let initrd =
            packed(&initrd(&busybox, &script, &modules)?).named("pack initrd of", &folder)?;
        let vmlinuz = files::read(&layout.out.join("vmlinuz"))?;
        let layer = oci::layer(&[
            Entry::Folder("boot/", 0o755),
            Entry::File("boot/cmdline", 0o644, CMDLINE),
            Entry::File("boot/initrd", 0o644, &initrd),
            Entry::File("boot/vmlinuz", 0o644, &vmlinuz),
        ])
        .named("pack layer of", &folder)?;
        files::remove(&folder)?;
        Ok::<_, OciError>(oci::write(&folder, &layer, None)?)
    })?;
    Ok(())
}

/// Unpacks the modules of a list from the kernel's package; returns their names in load order.
fn unpack_modules(layout: &Layout, list: &str) -> Result<Vec<String>, OciError> {
    let paths: Vec<_> = files::entries(list).collect();
    files::create_folder(&layout.out.join(MODULES))?;
    toolbox::run(layout, UNPACK, &paths)?;
    let name = |path: &&str| path.rsplit('/').next().unwrap_or(path).to_owned();
    Ok(paths.iter().map(name).collect())
}

/// The initrd, not packed yet: modules in the order of `/modules/order`.
fn initrd(
    busybox: &[u8],
    script: &[u8],
    modules: &[(String, Vec<u8>)],
) -> Result<Vec<u8>, cpio::TooLarge> {
    let mut archive = cpio::Archive::default();
    for folder in ["bin", "dev", "modules", "proc", "sys"] {
        archive.folder(folder)?;
    }
    archive.file("bin/busybox", 0o755, busybox)?;
    archive.file("init", 0o755, script)?;
    let order: String = modules.iter().map(|(name, _)| format!("{name}\n")).collect();
    archive.file("modules/order", 0o644, order.as_bytes())?;
    for (name, content) in modules {
        archive.file(&format!("modules/{name}.ko"), 0o644, content)?;
    }
    archive.finish()
}

/// gzip without name and time.
fn packed(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    gzip.write_all(plain)?;
    gzip.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initrd_lists_its_modules_in_load_order_and_is_the_same_bytes_each_time() {
        let modules = [("evdev".to_owned(), vec![1]), ("button".to_owned(), vec![2])];
        let make =
            || packed(&initrd(b"busybox", b"#!/bin/busybox sh\n", &modules).unwrap()).unwrap();
        let plain = initrd(b"busybox", b"#!/bin/busybox sh\n", &modules).unwrap();
        let text = String::from_utf8_lossy(&plain).into_owned();
        assert!(text.contains("evdev\nbutton\n"), "{text}");
        assert_eq!(make(), make());
    }
}
