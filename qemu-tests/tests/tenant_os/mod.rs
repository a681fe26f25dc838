//! Systems of tenants, for leases that boot one.

use std::fs;

use anyhow::{Context as _, Result};
use bulkhead_image::layout::Layout;
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
