//! The unified kernel image: kernel, initrd and command line in one program for the firmware, unsigned and signed.

use std::path::Path;

use crate::cache::{Inputs, Part};
use crate::command::CommandError;
use crate::files::{self, FileError};
use crate::layout::Layout;
use crate::toolbox;

const RECIPE: &str = include_str!("uki.rs");

const BUILD: &str = r#"ukify build --linux=vmlinuz --initrd="$1" --cmdline="$2" --os-release=@work/root.d/usr/lib/os-release \
  --uname="$(cat work/kernel.release)" --output="$1.unsigned.efi" > /dev/null
sbsign --key /keys/db.key --cert /keys/db.crt --output "$1.signed.efi" "$1.unsigned.efi" 2>&1"#;

/// The UKI could not be built.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// A program.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Writes `uki-unsigned.efi` and `uki.efi` to `folder` from the initrd there.
///
/// # Errors
/// A program's or a file's.
pub fn build(
    layout: &Layout,
    folder: &Path,
    initrd: &str,
    kernel: &str,
    cmdline: &str,
) -> Result<(), UkiError> {
    let [unsigned, signed] = ["uki-unsigned.efi", "uki.efi"].map(|name| folder.join(name));
    let inputs = Inputs::of_recipe(RECIPE)
        .text("initrd", initrd)
        .text("kernel", kernel)
        .text("cmdline", cmdline)
        .file(&layout.keys().join("db.crt"))?;
    let (stamps, outputs) = (folder.join("stage1.stamps"), [unsigned.clone(), signed.clone()]);
    Part { name: "uki", stamps: &stamps, outputs: &outputs }.make(&inputs, || {
        // the folder may be outside of what the toolbox sees
        let name = format!("work/uki.{}", std::process::id());
        let inside = |ending: &str| layout.out.join(format!("{name}{ending}"));
        files::copy(&folder.join("stage1.initrd"), &inside(""))?;
        toolbox::run(layout, BUILD, &[&name, cmdline])?;
        files::copy(&inside(".unsigned.efi"), &unsigned)?;
        files::copy(&inside(".signed.efi"), &signed)?;
        for ending in ["", ".unsigned.efi", ".signed.efi"] {
            files::remove(&inside(ending))?;
        }
        Ok::<_, UkiError>(())
    })?;
    Ok(())
}
