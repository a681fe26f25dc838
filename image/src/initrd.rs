//! The initrd: stage 1, its modules, what it trusts.
//!
//! Everything that needs the trust folder is here and in [`crate::uki`]; a new fleet rebuilds only these, in a second.

use std::path::{Path, PathBuf};

use bulkhead_api::boot::{STAGE_ONE_CONFIG, STAGE_ONE_MODULES, STAGE_ONE_TRUST, StageOneConfig};

use crate::cache::{Inputs, Part};
use crate::command::{CommandError, Program};
use crate::cpio;
use crate::files::{self, FileError};
use crate::layout::Layout;
use crate::modules::{ModulesError, Tables};
use crate::toolbox;

const RECIPE: &str = include_str!("initrd.rs");
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
    let registry = home("CARGO_HOME").or_else(|| home("HOME").map(|h| h + "/.cargo")).unwrap_or_default();
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

/// `work/initrd-modules`: the modules, uncompressed, and `modules.json`. Returns the part's key.
///
/// # Errors
/// A module that the kernel does not have, a program's, a file's.
pub fn modules(layout: &Layout, tree: &str) -> Result<String, InitrdError> {
    let list = files::read_text(&layout.data("modules-initrd.list"))?;
    let folder = layout.work().join("initrd-modules");
    let inputs = Inputs::of_recipe(RECIPE)
        .text("select", include_str!("modules.rs"))
        .text("tree", tree)
        .text("list", &list);
    let (stamps, outputs) = (layout.stamps(), [folder.clone()]);
    Part { name: "initrd modules", stamps: &stamps, outputs: &outputs }.make(&inputs, || {
        let release = files::read_text(&layout.work().join("kernel.release"))?;
        let below = format!("work/root.d/usr/lib/modules/{release}");
        let table = |name: &str| files::read_text(&layout.out.join(&below).join(name));
        let tables =
            Tables::parse(&table("modules.dep")?, &table("modules.builtin")?, &table("modules.alias")?);
        let selection = tables.select(&list)?;
        files::remove(&folder)?;
        files::create_folder(&folder)?;
        let mut script = String::new();
        for (name, path) in &selection.files {
            let expand = if path.ends_with(".xz") { "xz -dc" } else { "cat" };
            script += &format!("{expand} '{below}/{path}' > 'work/initrd-modules/{name}.ko'\n");
        }
        toolbox::run::<&str>(layout, &script, &[])?;
        let plan = serde_json::to_vec(&selection.plan)?;
        Ok::<_, InitrdError>(files::write(&folder.join("modules.json"), plan)?)
    })
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
pub fn pack(layout: &Layout, contents: &Contents<'_>, target: &Path) -> Result<String, InitrdError> {
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
        let archive = archive(layout, contents, &config)?;
        let plain = layout.work().join(format!("initrd.{}.cpio", std::process::id()));
        files::write(&plain, archive)?;
        let packed = plain.with_extension("zst");
        let names = [&plain, &packed].map(|p| format!("work/{}", p.file_name().unwrap_or_default().display()));
        toolbox::run(layout, r#"zstd -q -19 -f -o "$2" "$1""#, &names)?;
        files::remove(&plain)?;
        files::copy(&packed, target)?;
        Ok::<_, InitrdError>(files::remove(&packed)?)
    })
}

fn archive(
    layout: &Layout,
    contents: &Contents<'_>,
    config: &[u8],
) -> Result<Vec<u8>, InitrdError> {
    let inside = |path: &str| path.trim_start_matches('/').to_owned();
    let mut archive = cpio::Archive::default();
    for folder in ["bulkhead", "bulkhead/modules", "bulkhead/trust", "dev", "proc", "run", "sys", "sysroot"] {
        archive.folder(folder)?;
    }
    archive.file("init", 0o755, &files::read(contents.program)?)?;
    archive.file(&inside(STAGE_ONE_CONFIG), 0o644, config)?;
    let modules = layout.work().join("initrd-modules");
    archive.file(&inside(STAGE_ONE_MODULES), 0o644, &files::read(&modules.join("modules.json"))?)?;
    for name in files::walk(&modules)? {
        if name.extension().is_some_and(|e| e == "ko") {
            let path = format!("bulkhead/modules/{}", name.display());
            archive.file(&path, 0o644, &files::read(&modules.join(&name))?)?;
        }
    }
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
    Ok(archive.finish()?)
}
