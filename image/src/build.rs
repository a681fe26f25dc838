//! The whole build, in order; each part decides for itself whether it has anything to do.

use std::path::{Path, PathBuf};

use bulkhead_api::boot::{ImageManifest, StageOneConfig, VerityImage};

use crate::cache::sha256_hex;
use crate::files::{self, FileError, Naming as _};
use crate::guest;
use crate::initrd::{self, InitrdError};
use crate::keys::{self, KeyError};
use crate::layers::{self, LayerError};
use crate::layout::Layout;
use crate::lock::{LOCK_FILE, LockError};
use crate::machine::{self, MachineError};
use crate::manifest::{self, ManifestError};
use crate::oci::{self, OciError};
use crate::packages::{Archive, PackagesError};
use crate::root::{self, Own, RootError};
use crate::toolbox::{self, ToolboxError};
use crate::uki::{self, UkiError};

const SETS: [&str; 4] = ["demo", "kernel", "root", "vm"];

/// What a build is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What is ours in the root tree.
    pub own: Own,
    /// Folder with the trust anchors of a fleet.
    pub trust: Option<PathBuf>,
    /// Where initrd, UKI and manifest go; the rest is linked there.
    pub boot: PathBuf,
    /// With the layer `test`, which holds this `bulkhead`.
    pub test_layer: Option<PathBuf>,
    /// Stage 1 accepts any kernel command line.
    pub any_cmdline: bool,
    /// What to do about packages that differ from the lock file.
    pub lock: LockRule,
}

/// What to do about packages that differ from the lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockRule {
    /// Name them and go on.
    Warn,
    /// Refuse.
    Refuse,
    /// Write the lock file anew.
    Update,
}

/// The image could not be built.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is the error of the part that it is named after")]
pub enum BuildError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Toolbox(#[from] ToolboxError),
    #[error(transparent)]
    Packages(#[from] PackagesError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Initrd(#[from] InitrdError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Uki(#[from] UkiError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Oci(#[from] OciError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Builds everything that is not up to date.
///
/// # Errors
/// The first part that could not be built.
pub fn build(layout: &Layout, wish: &Wish) -> Result<ImageManifest, BuildError> {
    files::create_folder(&layout.out)?;
    let guard = layout.out.join("lock");
    let guard = std::fs::File::create(&guard).named("create", &guard)?;
    // two builds in one folder: the second waits
    guard.lock().named("lock", &layout.out)?;

    machine::set_up()?;
    toolbox::build(layout)?;
    toolbox::build_qemu(layout)?;
    let system = system(layout, wish)?;
    let manifest = boot(layout, wish, &system)?;
    println!(
        "image: ready {} root {:.1} MB, UKI {:.1} MB in {}",
        manifest.image_version,
        megabytes(manifest.root.size),
        megabytes(manifest.uki_size),
        wish.boot.display()
    );
    Ok(manifest)
}

/// What does not depend on the trust folder.
#[derive(Debug)]
struct System {
    root: VerityImage,
    extensions: Vec<VerityImage>,
    kernel_key: String,
    modules_key: String,
}

fn system(layout: &Layout, wish: &Wish) -> Result<System, BuildError> {
    let archive = Archive::open(layout, wish.lock == LockRule::Update)?;
    let base_key = archive.base()?;
    let kernel_key = archive.kernel()?;
    let tree_key = root::tree(layout, &base_key, &kernel_key)?;
    let root = root::image(layout, &tree_key, &wish.own)?;
    let mut extensions = vec![layers::vm(layout, &archive, &tree_key)?];
    if let Some(bulkhead) = &wish.test_layer {
        extensions.push(layers::test(layout, &tree_key, bulkhead)?);
    }
    oci::demo(layout, &archive)?;
    guest::demo(layout, &archive, &kernel_key)?;
    check_lock(layout, &archive, wish.lock)?;
    let modules_key = initrd::modules(layout, &tree_key)?;
    Ok(System { root, extensions, kernel_key, modules_key })
}

fn check_lock(layout: &Layout, archive: &Archive<'_>, rule: LockRule) -> Result<(), BuildError> {
    let recorded = archive.recorded(&SETS)?;
    if rule == LockRule::Update {
        println!("image: {LOCK_FILE} written");
        return Ok(files::write(&layout.data(LOCK_FILE), recorded.render())?);
    }
    let drift = archive.drift(&recorded)?;
    for difference in &drift {
        println!("image: WARNING package {difference}");
    }
    if drift.is_empty() {
        return Ok(());
    }
    if rule == LockRule::Refuse {
        return Err(LockError::Drift(drift).into());
    }
    println!(
        "image: WARNING {} packages differ from image/{LOCK_FILE} (the archive moved): this image is not the locked one; --update-lock accepts it, --locked refuses it",
        drift.len()
    );
    Ok(())
}

fn boot(layout: &Layout, wish: &Wish, system: &System) -> Result<ImageManifest, BuildError> {
    let cmdline = files::read_text(&layout.data("cmdline"))?.trim().to_owned();
    let version = env!("CARGO_PKG_VERSION");
    let hash = system.root.root_hash.get(..12).unwrap_or_default();
    let config = StageOneConfig {
        image_version: format!("{version}+{hash}"),
        root: system.root.clone(),
        extensions: system.extensions.clone(),
        expected_cmdline: (!wish.any_cmdline).then(|| cmdline.clone()),
    };
    let program = initrd::stage_one(layout)?;
    files::create_folder(&wish.boot)?;
    let contents = initrd::Contents {
        program: &program,
        config: &config,
        trust: wish.trust.as_deref(),
        modules: &system.modules_key,
    };
    if wish.trust.is_none() {
        println!("image: WARNING no trust folder: a host booted from this image cannot enrol");
    }
    let initrd_key = initrd::pack(layout, &contents, &wish.boot.join("stage1.initrd"))?;
    keys::secure_boot(layout)?;
    uki::build(layout, &wish.boot, &initrd_key, &system.kernel_key, &cmdline)?;
    if wish.boot != layout.out {
        link_system(layout, &wish.boot, &system.extensions)?;
    }
    files::write(&wish.boot.join("cmdline"), &cmdline)?;
    let manifest = ImageManifest {
        image_version: config.image_version,
        kernel: files::read_text(&layout.work().join("kernel.release"))?,
        root: config.root,
        extensions: config.extensions,
        uki_sha256: sha256_hex(&files::read(&wish.boot.join("uki-unsigned.efi"))?),
        uki_size: files::size(&wish.boot.join("uki.efi"))?,
    };
    manifest::write(&wish.boot, &manifest, &keys::manifest(layout)?)?;
    Ok(manifest)
}

/// Makes `boot` whole: hard links, so that a later build leaves it as it is.
fn link_system(layout: &Layout, boot: &Path, extensions: &[VerityImage]) -> Result<(), FileError> {
    let layers = extensions.iter().map(|layer| format!("sysext/{}.img", layer.name));
    for name in ["root.img", "vmlinuz", "vars-sb.fd"].map(str::to_owned).into_iter().chain(layers) {
        let (from, to) = (layout.out.join(&name), boot.join(&name));
        files::remove(&to)?;
        files::create_folder(to.parent().unwrap_or(boot))?;
        if std::fs::hard_link(&from, &to).is_err() {
            // another file system
            files::copy(&from, &to)?;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
