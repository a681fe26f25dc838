//! Systems of tenants, for leases that boot one: made in the toolbox, put among the site's images.

use std::fs;

use anyhow::{Context as _, Result};
use bulkhead_image::layout::Layout;
use bulkhead_image::oci::{self, Entry};
use bulkhead_image::toolbox;

/// A panic ends a machine, so that what is wrong is seen on its console.
const UKI: &str = r#"ukify build --linux=vmlinuz --initrd="$1/initrd" --cmdline="console=ttyS0 quiet panic=30" \
  --os-release="ID=tenant" --uname="$(cat work/kernel.release)" --output="$1/uki.efi" > /dev/null"#;

/// A UKI of the host's kernel and an initrd. `work` is a folder that exists below the build folder.
pub(crate) fn uki(layout: &Layout, work: &str, initrd: &[u8]) -> Result<Vec<u8>> {
    let inside = layout.out.join(work);
    fs::write(inside.join("initrd"), initrd).context("write the tenant's initrd")?;
    toolbox::run(layout, UKI, &[work])?;
    fs::read(inside.join("uki.efi")).context("read the tenant's UKI")
}

/// Puts an image of one layer among those that sites of the lab serve, in place of one of the same name.
pub(crate) fn publish(layout: &Layout, name: &str, entries: &[Entry<'_>]) -> Result<()> {
    let layer = oci::layer(entries)?;
    let folder = layout.out.join("oci").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    oci::write(&folder, &layer, None)?;
    Ok(())
}
