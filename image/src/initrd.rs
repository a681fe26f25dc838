//! The initrd: stage 1, its modules, what it trusts.
//!
//! ```text
//!  folders, modules ─► zstd ─┐                       slow to pack, the same for every fleet
//!  stage 1, settings, trust ─► zstd ─┴► stage1.initrd
//! ```
//!
//! The kernel unpacks packed archives one after the other (`Documentation/driver-api/early-userspace/buffer-format.rst`).
//! Everything that needs the trust folder is here and in [`crate::uki`]; a new fleet rebuilds only these, in a second.

use std::path::{Path, PathBuf};

use bulkhead_api::boot::{
    STAGE_ONE_CONFIG, STAGE_ONE_MODULE_DIR, STAGE_ONE_MODULES, STAGE_ONE_TRUST, StageOneConfig,
};

use crate::cache::{Inputs, Part};
use crate::command::{CommandError, Program};
use crate::cpio;
use crate::files::{self, FileError};
use crate::layout::Layout;
use crate::modules::{ModulesError, Tables};
use crate::toolbox;

const RECIPE: &str = include_str!("initrd.rs");
/// Folders of the initrd; the first archive makes them.
const FOLDERS: [&str; 8] =
    ["bulkhead", "bulkhead/modules", "bulkhead/trust", "dev", "proc", "run", "sys", "sysroot"];
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The initrd could not be built.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// The trust folder holds nothing.
    #[error("trust folder {} has no files: a host booted from it could trust nobody", .0.display())]
    NoTrust(PathBuf),
    /// The modules.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// A program.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The archive.
    #[error(transparent)]
    TooLarge(#[from] cpio::TooLarge),
    /// Stage 1's settings.
    #[error("settings of stage 1")]
    Settings(#[from] serde_json::Error),
}

/// Compiles stage 1 (cargo decides whether anything is to do) in a target folder of its own; returns the program.
///
/// # Errors
/// cargo's.
pub fn stage_one(layout: &Layout) -> Result<PathBuf, InitrdError> {
    let start = std::time::Instant::now();
    let target = layout.out.join("stage1-target");
    let program = target.join(TARGET).join("stage1/bulkhead-init");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let home = |key: &str| std::env::var(key).ok();
    let registry =
        home("CARGO_HOME").or_else(|| home("HOME").map(|h| h + "/.cargo")).unwrap_or_default();
    // no path of this machine in the program
    let flags = format!(
        "-C target-feature=+crt-static --remap-path-prefix={registry}=/cargo --remap-path-prefix={}=/bulkhead",
        layout.repo.display()
    );
    Program::new(cargo)
        .args(["build", "--quiet", "--package", "bulkhead-init", "--bin", "bulkhead-init"])
        .args(["--profile", "stage1", "--target", TARGET])
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", &target)
        .without_env("RUSTFLAGS")
        .without_env("CARGO_ENCODED_RUSTFLAGS")
        .folder(&layout.repo)
        .run()?;
    println!("image: stage 1 {:.1} s", start.elapsed().as_secs_f64());
    Ok(program)
}

const MODULES_PART: &str = "initrd-modules.zst";

/// `work/initrd-modules.zst`: the first archive of the initrd. Returns the part's key.
///
/// # Errors
/// A module that the kernel does not have, a program's, a file's.
pub fn modules(layout: &Layout, tree: &str) -> Result<String, InitrdError> {
    let list = files::read_text(&layout.data("modules-initrd.list"))?;
    let (folder, part) = (layout.work().join("initrd-modules"), layout.work().join(MODULES_PART));
    let inputs = Inputs::of_recipe(RECIPE)
        .text("select", include_str!("modules.rs"))
        .text("cpio", include_str!("cpio.rs"))
        .text("tree", tree)
        .text("list", &list);
    let (stamps, outputs) = (layout.stamps(), [part.clone()]);
    Part { name: "initrd modules", stamps: &stamps, outputs: &outputs }.make(&inputs, || {
        let release = files::read_text(&layout.work().join("kernel.release"))?;
        let below = format!("work/root.d/usr/lib/modules/{release}");
        let table = |name: &str| files::read_text(&layout.out.join(&below).join(name));
        let tables = Tables::parse(
            &table("modules.dep")?,
            &table("modules.builtin")?,
            &table("modules.alias")?,
        );
        let selection = tables.select(&list)?;
        files::remove(&folder)?;
        files::create_folder(&folder)?;
        let mut script = String::new();
        for (name, path) in &selection.files {
            let expand = if path.ends_with(".xz") { "xz -dc" } else { "cat" };
            script += &format!("{expand} '{below}/{path}' > 'work/initrd-modules/{name}.ko'\n");
        }
        toolbox::run::<&str>(layout, &script, &[])?;
        let mut archive = cpio::Archive::default();
        for folder in FOLDERS {
            archive.folder(folder)?;
        }
        archive.file(&inside(STAGE_ONE_MODULES), 0o644, &serde_json::to_vec(&selection.plan)?)?;
        for name in selection.files.keys() {
            let content = files::read(&folder.join(format!("{name}.ko")))?;
            archive.file(
                &format!("{}/{name}.ko", inside(STAGE_ONE_MODULE_DIR)),
                0o644,
                &content,
            )?;
        }
        files::remove(&folder)?;
        packed(layout, archive, &part)
    })
}

/// Writes `archive` packed to `target`. Both archives end on four bytes, where the kernel looks for the next.
fn packed(layout: &Layout, archive: cpio::Archive, target: &Path) -> Result<(), InitrdError> {
    let plain = layout.work().join(format!("initrd.{}.cpio", std::process::id()));
    files::write(&plain, archive.finish()?)?;
    let zst = plain.with_extension("zst");
    let names =
        [&plain, &zst].map(|p| format!("work/{}", p.file_name().unwrap_or_default().display()));
    toolbox::run(layout, r#"zstd -q -19 -f -o "$2" "$1""#, &names)?;
    let mut bytes = files::read(&zst)?;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    files::write(target, bytes)?;
    files::remove(&plain)?;
    Ok(files::remove(&zst)?)
}

fn inside(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// What goes into an initrd.
#[derive(Debug)]
pub struct Contents<'a> {
    /// Stage 1.
    pub program: &'a Path,
    /// Its settings.
    pub config: &'a StageOneConfig,
    /// Folder of the trust anchors; `None` builds an initrd that no host can enrol with.
    pub trust: Option<&'a Path>,
    /// Key of [`modules`].
    pub modules: &'a str,
}

/// Packs `target` (below the build folder).
///
/// # Errors
/// An empty trust folder, a file's.
pub fn pack(
    layout: &Layout,
    contents: &Contents<'_>,
    target: &Path,
) -> Result<String, InitrdError> {
    let config = serde_json::to_vec(contents.config)?;
    let mut inputs = Inputs::of_recipe(RECIPE)
        .text("cpio", include_str!("cpio.rs"))
        .text("modules", contents.modules)
        .bytes("config", &config)
        .file(contents.program)?;
    if let Some(trust) = contents.trust {
        inputs = inputs.folder(trust)?;
    }
    let stamps = target.with_extension("stamps");
    let outputs = [target.to_owned()];
    Part { name: "initrd", stamps: &stamps, outputs: &outputs }.make(&inputs, || {
        let own = layout.work().join(format!("initrd-own.{}.zst", std::process::id()));
        packed(layout, archive(contents, &config)?, &own)?;
        let modules = files::read(&layout.work().join(MODULES_PART))?;
        files::write(target, [modules, files::read(&own)?].concat())?;
        Ok::<_, InitrdError>(files::remove(&own)?)
    })
}

fn archive(contents: &Contents<'_>, config: &[u8]) -> Result<cpio::Archive, InitrdError> {
    let mut archive = cpio::Archive::default();
    archive.file("init", 0o755, &files::read(contents.program)?)?;
    archive.file(&inside(STAGE_ONE_CONFIG), 0o644, config)?;
    if let Some(trust) = contents.trust {
        let files: Vec<_> =
            files::walk(trust)?.into_iter().filter(|name| trust.join(name).is_file()).collect();
        if files.is_empty() {
            return Err(InitrdError::NoTrust(trust.to_owned()));
        }
        for name in files {
            let path = format!("{}/{}", inside(STAGE_ONE_TRUST), name.display());
            archive.file(&path, 0o644, &files::read(&trust.join(&name))?)?;
        }
    }
    Ok(archive)
}
