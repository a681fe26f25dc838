//! The root tree: Debian's packages and kernel modules, pruned, with our files, and the image made of it.

use std::path::{Path, PathBuf};

use bulkhead_api::boot::VerityImage;

use crate::cache::{Inputs, Part};
use crate::command::CommandError;
use crate::files::{self, FileError};
use crate::layout::Layout;
use crate::toolbox;
use crate::verity::{self, PackError};

const RECIPE: &str = include_str!("root.rs");

/// Data files that shape the tree.
const DATA: [&str; 4] =
    ["prune-root.list", "prune-modules.list", "modules-kept.list", "mask-units.list"];

const TREE: &str = r#"umask 022; tree=work/root.d; release=$(cat work/kernel.release)
rm -rf "$tree"; mkdir "$tree"; tar -C "$tree" --numeric-owner -xf work/base.tar
modules=$tree/usr/lib/modules/$release; mkdir -p "$tree/usr/lib/modules"; cp -a "work/kernel/usr/lib/modules/$release" "$modules"
entries() { sed 's/#.*//; /^[[:space:]]*$/d' "/src/$1"; }
prune() { entries "$1" | while read -r path; do rm -rf "$2"/$path; done; }
prune prune-modules.list "$modules/kernel"; prune prune-root.list "$tree"
depmod -b "$tree" "$release"
entries modules-kept.list | while read -r module; do
  modinfo -b "$tree" -k "$release" -n "$module" > /dev/null || { echo "module $module of modules-kept.list was pruned" >&2; exit 1; }
done
entries mask-units.list | while read -r unit; do ln -sfn /dev/null "$tree/etc/systemd/system/$unit"; done
ln -sfn /usr/lib/systemd/system/multi-user.target "$tree/etc/systemd/system/default.target"
cp -r --no-preserve=all /src/files/. "$tree/"
mkdir -p "$tree/var/lib/bulkhead" "$tree/var/log" "$tree/var/cache""#;

// Hard links: the tree itself stays as it is. What is replaced is written anew, never through a link.
const STAGE: &str = r#"umask 022; rm -rf work/stage.d; cp -al work/root.d work/stage.d
if [ -e work/own/bulkheadd ]; then strip -o work/own/stripped work/own/bulkheadd; install -m755 work/own/stripped work/stage.d/usr/bin/bulkheadd; fi
cp -r --no-preserve=all --remove-destination work/own/units/. work/stage.d/usr/lib/systemd/system/"#;

/// The root image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A unit starts a program that the image lacks.
    #[error("unit {unit} starts {program}, which is not in the image")]
    NoProgram {
        /// The unit's file name.
        unit: String,
        /// The program.
        program: String,
    },
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

/// What is ours in the root tree.
#[derive(Debug, Clone)]
pub struct Own {
    /// The supervisor; `None` builds an image without one.
    pub bulkheadd: Option<PathBuf>,
    /// Folder of its systemd units; may be missing.
    pub units: PathBuf,
}

/// `work/root.d`: the tree without what changes often. Returns the part's key.
///
/// # Errors
/// A program's or a file's.
pub fn tree(layout: &Layout, base: &str, kernel: &str) -> Result<String, RootError> {
    let mut inputs = Inputs::of_recipe(RECIPE).text("base", base).text("kernel", kernel);
    for name in DATA {
        inputs = inputs.file(&layout.data(name))?;
    }
    inputs = inputs.folder(&layout.data("files"))?;
    let (stamps, outputs) = (layout.stamps(), [layout.work().join("root.d")]);
    Part { name: "root tree", stamps: &stamps, outputs: &outputs }
        .make(&inputs, || Ok(toolbox::run::<&str>(layout, TREE, &[]).map(|_| ())?))
}

/// `root.img`: the tree with the supervisor and its units.
///
/// # Errors
/// A program's or a file's, or a unit that starts what is not there.
pub fn image(layout: &Layout, tree: &str, own: &Own) -> Result<VerityImage, RootError> {
    let image = layout.out.join("root.img");
    let mut inputs = Inputs::of_recipe(RECIPE)
        .text("verity", include_str!("verity.rs"))
        .text("tree", tree)
        .folder(&own.units)?;
    if let Some(bulkheadd) = &own.bulkheadd {
        inputs = inputs.file(bulkheadd)?;
    }
    let (stamps, outputs) = (layout.stamps(), [image.clone(), verity::description(&image)]);
    Part { name: "root image", stamps: &stamps, outputs: &outputs }.make(&inputs, || {
        let folder = layout.work().join("own");
        files::remove(&folder)?;
        files::create_folder(&folder.join("units"))?;
        if let Some(bulkheadd) = &own.bulkheadd {
            files::copy(bulkheadd, &folder.join("bulkheadd"))?;
        }
        let units = unit_files(&own.units)?;
        for unit in &units {
            files::copy(&own.units.join(unit), &folder.join("units").join(unit))?;
        }
        toolbox::run::<&str>(layout, STAGE, &[])?;
        let stage = layout.work().join("stage.d");
        for unit in &units {
            enable(&stage, unit)?;
        }
        verity::pack(layout, "root", "work/stage.d", "root.img")?;
        Ok::<_, RootError>(files::remove(&stage)?)
    })?;
    Ok(verity::described(&image)?)
}

fn unit_files(folder: &Path) -> Result<Vec<String>, FileError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let kinds = ["service", "socket", "slice", "target", "mount", "path", "timer"];
    let is_unit = |path: &PathBuf| {
        path.components().count() == 1
            && path.extension().is_some_and(|e| kinds.iter().any(|kind| e == *kind))
    };
    let found = files::walk(folder)?.into_iter().filter(is_unit);
    Ok(found.map(|path| path.to_string_lossy().into_owned()).collect())
}

/// Does what `systemctl enable` would, below `/usr`, and checks that what the unit starts is there.
fn enable(stage: &Path, unit: &str) -> Result<(), RootError> {
    let folder = stage.join("usr/lib/systemd/system");
    let text = files::read_text(&folder.join(unit))?;
    for program in started(&text) {
        if !stage.join(program.trim_start_matches('/')).exists() {
            return Err(RootError::NoProgram {
                unit: unit.to_owned(),
                program: program.to_owned(),
            });
        }
    }
    for (kind, target) in wanted_by(&text) {
        files::link(&format!("../{unit}"), &folder.join(format!("{target}.{kind}/{unit}")))?;
    }
    Ok(())
}

/// Programs named by `ExecStart=` and its like, without systemd's prefixes.
fn started(unit: &str) -> impl Iterator<Item = &str> {
    let commands = unit.lines().filter_map(|line| {
        let (key, value) = line.trim().split_once('=')?;
        key.trim()
            .starts_with("Exec")
            .then(|| value.trim().trim_start_matches(['@', '-', ':', '+', '!']))
    });
    commands.filter_map(|c| c.split_whitespace().next()).filter(|program| program.starts_with('/'))
}

/// (`wants` or `requires`, target) of the `[Install]` section.
fn wanted_by(unit: &str) -> Vec<(&'static str, &str)> {
    let mut links = Vec::new();
    for line in unit.lines() {
        let (kind, targets) = match line.trim().split_once('=') {
            Some(("WantedBy", targets)) => ("wants", targets),
            Some(("RequiredBy", targets)) => ("requires", targets),
            _ => continue,
        };
        links.extend(targets.split_whitespace().map(|target| (kind, target)));
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "[Service]\nExecStartPre=-/usr/sbin/modprobe tun\nExecStart=@/usr/bin/bulkheadd bulkheadd\n\
                        [Install]\nWantedBy=multi-user.target other.target\n";

    fn stage() -> tempfile::TempDir {
        let stage = tempfile::tempdir().unwrap();
        files::write(&stage.path().join("usr/lib/systemd/system/b.service"), UNIT).unwrap();
        files::write(&stage.path().join("usr/sbin/modprobe"), "").unwrap();
        stage
    }

    #[test]
    fn a_unit_is_linked_into_each_target_that_wants_it() {
        let stage = stage();
        files::write(&stage.path().join("usr/bin/bulkheadd"), "").unwrap();
        enable(stage.path(), "b.service").unwrap();
        for target in ["multi-user", "other"] {
            let link = stage
                .path()
                .join(format!("usr/lib/systemd/system/{target}.target.wants/b.service"));
            assert_eq!(files::read_text(&link).unwrap(), UNIT);
        }
    }

    #[test]
    fn a_unit_that_starts_a_missing_program_is_refused() {
        let error = enable(stage().path(), "b.service").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unit b.service starts /usr/bin/bulkheadd, which is not in the image"
        );
    }
}
