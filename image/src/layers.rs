//! Extension layers: trees with nothing but `/usr` in the form of systemd-sysext, each an image of its own, laid over the
//! root's `/usr` by stage 1 when the site asks for them.
//!
//! * `vm`: QEMU and firmware, for leases that run a virtual machine.
//! * `test`: a root shell on a virtio-serial port, and `bulkhead` to ask the supervisor with. Only in builds with `--test-layer`; a product's initrd does not list it,
//!   so no site can ask for it.

use std::path::Path;

use bulkhead_api::boot::VerityImage;

use crate::cache::{Inputs, Part};
use crate::command::CommandError;
use crate::files::{self, FileError};
use crate::layout::Layout;
use crate::packages::{Archive, PackagesError};
use crate::toolbox;
use crate::verity::{self, PackError};

const RECIPE: &str = include_str!("layers.rs");

const VM: &str = r#"umask 022; rm -rf work/vm-layer.d; mkdir work/vm-layer.d; cp -a work/vm.d/usr work/vm-layer.d/
sed 's/#.*//; /^[[:space:]]*$/d' /src/prune-vm.list | while read -r path; do rm -rf work/vm-layer.d/$path; done"#;

const TEST: &str = "umask 022; rm -rf work/test-layer.d; mkdir work/test-layer.d; cp -a --no-preserve=ownership,timestamps /src/test-layer/usr work/test-layer.d/; chmod -R go=u-w work/test-layer.d; install -Dm755 work/bulkhead work/test-layer.d/usr/bin/bulkhead; strip work/test-layer.d/usr/bin/bulkhead";

// A layer says which system it extends, as systemd-sysext wants it.
const RELEASE: &str = r#"name=$1; umask 022; folder=work/$name-layer.d/usr/lib/extension-release.d; mkdir -p "$folder"
sed -n '/^ID=/p; /^VERSION_ID=/p' work/root.d/usr/lib/os-release > "$folder/extension-release.$name""#;

/// A layer could not be built.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its packages.
    #[error(transparent)]
    Packages(#[from] PackagesError),
    /// A program.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The image.
    #[error(transparent)]
    Pack(#[from] PackError),
}

/// `sysext/vm.img`.
///
/// # Errors
/// Its packages cannot be had, a program's, a file's.
pub fn vm(layout: &Layout, archive: &Archive<'_>, tree: &str) -> Result<VerityImage, LayerError> {
    let list = files::read_text(&layout.data("packages-vm.list"))?;
    let packages: Vec<_> = files::entries(&list).collect();
    let unpacked = archive.unpacked("vm", &packages)?;
    let inputs = Inputs::of_recipe(RECIPE)
        .text("packages", &unpacked)
        .text("tree", tree)
        .file(&layout.data("prune-vm.list"))?;
    make(layout, "vm", inputs, VM, || Ok(()))
}

/// `sysext/test.img`, with the command line `bulkhead`.
///
/// # Errors
/// A program's, a file's.
pub fn test(layout: &Layout, tree: &str, bulkhead: &Path) -> Result<VerityImage, LayerError> {
    let inputs = Inputs::of_recipe(RECIPE)
        .text("tree", tree)
        .file(bulkhead)?
        .folder(&layout.data("test-layer"))?;
    // Where the toolbox sees it.
    let bring = || files::copy(bulkhead, &layout.work().join("bulkhead"));
    make(layout, "test", inputs, TEST, bring)
}

fn make(
    layout: &Layout,
    name: &str,
    inputs: Inputs,
    fill: &str,
    bring: impl FnOnce() -> Result<(), FileError>,
) -> Result<VerityImage, LayerError> {
    let relative = format!("sysext/{name}.img");
    let image = layout.out.join(&relative);
    let inputs = inputs.text("verity", include_str!("verity.rs"));
    let (stamps, outputs) = (layout.stamps(), [image.clone(), verity::description(&image)]);
    let part = format!("{name} layer");
    Part { name: &part, stamps: &stamps, outputs: &outputs }.make(&inputs, || {
        bring()?;
        toolbox::run::<&str>(layout, fill, &[])?;
        toolbox::run(layout, RELEASE, &[name])?;
        let tree = format!("work/{name}-layer.d");
        verity::pack(layout, name, &tree, &relative)?;
        Ok::<_, LayerError>(())
    })?;
    Ok(verity::described(&image)?)
}
