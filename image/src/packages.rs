//! Debian packages of the image: the root tree's archive, the kernel, and the .debs of layers and of the demo image.

use std::cell::Cell;
use std::path::PathBuf;

use crate::cache::{Inputs, Part, sha256_hex};
use crate::command::CommandError;
use crate::files::{self, FileError};
use crate::layout::{Layout, SUITE};
use crate::lock::{self, Drift, LOCK_FILE, Lock, LockError, Package, Set};
use crate::machine::{self, MachineError};
use crate::toolbox::{self, UNWANTED};

const RECIPE: &str = include_str!("packages.rs");

// Two runs with the same .debs give the same bytes: what maintainer scripts make up at random or copy from this machine goes.
const BASE: &str = r#"mmdebstrap --variant=essential --mode=root --format=tar --quiet \
  --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' $2 --skip=essential/unlink,download/empty \
  --setup-hook='mkdir -p "$1/var/cache/apt/archives"; cp -n /debs/*.deb "$1/var/cache/apt/archives/" 2>/dev/null || :' \
  --setup-hook='cp /out/work/root.pins "$1/etc/apt/preferences.d/lock"' \
  --customize-hook='cp -n "$1"/var/cache/apt/archives/*.deb /debs/ || :; rm -f "$1"/var/cache/apt/archives/*.deb "$1"/etc/apt/preferences.d/lock' \
  --customize-hook='rm -f "$1"/etc/nvme/hostid "$1"/etc/nvme/hostnqn "$1"/etc/resolv.conf; echo bulkhead > "$1/etc/hostname"; : > "$1/etc/machine-id"' \
  --include="$1" "$3" work/base.tar work/sources
mkdir -p sbom; tar -xOf work/base.tar ./var/lib/dpkg/status > sbom/root.status"#;

const KERNEL: &str = r#"name=$1 version=$2
if [ -z "$name" ] || ! apt-cache show "$name=$version" > /dev/null 2>&1; then
  name=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*-amd64\)$/\1/p' | head -n1)
  version=$(apt-cache show "$name" | sed -n 's/^Version: //p' | head -n1)
fi
(cd /debs; apt-get -qq -o APT::Sandbox::User=root download "$name=$version")
rm -rf work/kernel; dpkg-deb -x "/debs/${name}_${version//:/%3a}_amd64.deb" work/kernel
cp "work/kernel/boot/vmlinuz-${name#linux-image-}" vmlinuz; printf %s "${name#linux-image-}" > work/kernel.release
echo "$name $version amd64""#;

// What the root tree lacks of these packages and all that they depend on: names and versions by a simulation on the root
// tree's package status, then the files.
const LAYER: &str = r#"status=$1 pins=$2 tree=$3; shift 3
apt() { apt-get -qq -y -o "Dir::State::status=$status" -o "Dir::Etc::Preferences=/out/$pins" -o Dir::Cache::archives=/debs \
  -o APT::Sandbox::User=root -o APT::Install-Recommends=false --no-remove "$@"; }
apt -s install "$@" | sed -n 's/^Inst \([^ ]*\) \(\[[^]]*\] \)\?(\([^ ]*\) .*\[\([a-z0-9]*\)\]).*/\1 \3 \4/p' > work/inst
apt --download-only install "$@" > /dev/null
rm -rf "$tree"; mkdir -p "$tree"
while read -r name version arch; do dpkg-deb -x "/debs/${name}_${version//:/%3a}_${arch}.deb" "$tree"; done < work/inst
cat work/inst"#;

/// Packages could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// A layer would replace packages of the root tree.
    #[error(
        "layer {layer} needs another {package} than the root tree has: the archive moved between them, build with --update-lock"
    )]
    LayerChangesRoot {
        /// The layer.
        layer: String,
        /// The package that would be replaced.
        package: String,
    },
    /// apt's answer was not understood.
    #[error("apt names no package in `{0}`")]
    Answer(String),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A program.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The package archive as one build sees it.
#[derive(Debug)]
pub struct Archive<'a> {
    layout: &'a Layout,
    lock: Lock,
    /// Source lines and the toolbox's package lists are fresh.
    fresh: Cell<bool>,
}

impl<'a> Archive<'a> {
    /// Reads the lock file; `update` builds as if there were none.
    ///
    /// # Errors
    /// The lock file is broken.
    pub fn open(layout: &'a Layout, update: bool) -> Result<Self, LockError> {
        let lock = if update { Lock::default() } else { Lock::read(&layout.data(LOCK_FILE))? };
        Ok(Self { layout, lock, fresh: Cell::new(false) })
    }

    fn refresh(&self) -> Result<(), PackagesError> {
        if !self.fresh.replace(true) {
            let sources = machine::sources(false)?;
            files::write(&self.layout.work().join("sources"), &sources)?;
            files::write(&self.layout.toolbox().join("etc/apt/sources.list"), &sources)?;
            toolbox::run::<&str>(self.layout, "apt-get update -qq", &[])?;
        }
        Ok(())
    }

    /// `work/base.tar`: the root tree's packages, installed; `sbom/root.status`: their status. Returns the part's key.
    ///
    /// # Errors
    /// Packages cannot be had or installed.
    pub fn base(&self) -> Result<String, PackagesError> {
        let list = files::read_text(&self.layout.data("packages.list"))?;
        let packages: Vec<_> = files::entries(&list).collect();
        let locked = self.lock.set("root");
        let outputs = ["work/base.tar", "sbom/root.status", "sbom/root.packages"];
        self.make("root packages", "root", &outputs, &packages, || {
            self.refresh()?;
            files::write(&self.layout.work().join("root.pins"), lock::preferences(&locked))?;
            let excludes = UNWANTED.map(|d| format!("--dpkgopt=path-exclude=/usr/share/{d}/*"));
            let arguments = [packages.join(","), excludes.join(" "), SUITE.to_owned()];
            toolbox::run(self.layout, BASE, &arguments)?;
            let status = files::read_text(&self.layout.sbom().join("root.status"))?;
            self.record("root", &lock::installed(&status, &self.layout.debs())?)
        })
    }

    /// `vmlinuz`, `work/kernel` and `work/kernel.release`: Debian's kernel, unpacked. Returns the part's key.
    ///
    /// # Errors
    /// The package cannot be had.
    pub fn kernel(&self) -> Result<String, PackagesError> {
        let outputs = ["vmlinuz", "work/kernel", "work/kernel.release", "sbom/kernel.packages"];
        self.make("kernel", "kernel", &outputs, &["linux-image-amd64"], || {
            self.refresh()?;
            let locked = self.lock.set("kernel").into_iter().next();
            let (name, version) = locked.map(|(n, p)| (n, p.version)).unwrap_or_default();
            let answer = toolbox::run(self.layout, KERNEL, &[name, version])?;
            self.record("kernel", &self.downloaded(&answer)?)
        })
    }

    /// `work/<set>.d`: the files of `packages` and of what they need beyond the root tree's packages. Returns the part's key.
    ///
    /// # Errors
    /// Packages cannot be had, or they would change packages of the root tree.
    pub fn unpacked(&self, set: &str, packages: &[&str]) -> Result<String, PackagesError> {
        let tree = format!("work/{set}.d");
        let record = format!("sbom/{set}.packages");
        let root = files::read_text(&self.layout.sbom().join("root.packages"))?;
        self.make(&format!("{set} packages"), set, &[&tree, &record], packages, || {
            self.refresh()?;
            let pins = format!("work/{set}.pins");
            let locked = lock::preferences(&self.lock.set(set));
            files::write(&self.layout.out.join(&pins), locked)?;
            let mut arguments = vec!["/out/sbom/root.status", &pins, &tree];
            arguments.extend(packages);
            let found = self.downloaded(&toolbox::run(self.layout, LAYER, &arguments)?)?;
            let base = Lock::parse(&root)?.set("root");
            match found.keys().find(|name| base.contains_key(*name)) {
                None => self.record(set, &found),
                Some(package) => Err(PackagesError::LayerChangesRoot {
                    layer: set.to_owned(),
                    package: package.clone(),
                }),
            }
        })
    }

    fn make(
        &self,
        name: &str,
        set: &str,
        outputs: &[&str],
        packages: &[&str],
        build: impl FnOnce() -> Result<(), PackagesError>,
    ) -> Result<String, PackagesError> {
        let inputs = Inputs::of_recipe(RECIPE)
            .text("packages", &packages.join(" "))
            .text("lock", &lock::render_set(set, &self.lock.set(set)));
        let outputs: Vec<PathBuf> = outputs.iter().map(|o| self.layout.out.join(o)).collect();
        let stamps = self.layout.stamps();
        Part { name, stamps: &stamps, outputs: &outputs }.make(&inputs, build)
    }

    /// Reads lines `name version architecture` of packages whose .debs were fetched.
    fn downloaded(&self, answer: &str) -> Result<Set, PackagesError> {
        let mut set = Set::new();
        for line in answer.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let [name, version, architecture] = *words.as_slice() else {
                return Err(PackagesError::Answer(line.to_owned()));
            };
            let file = format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a"));
            let sha256 = sha256_hex(&files::read(&self.layout.debs().join(file))?);
            set.insert(name.to_owned(), Package { version: version.to_owned(), sha256 });
        }
        if set.is_empty() {
            return Err(PackagesError::Answer(answer.to_owned()));
        }
        Ok(set)
    }

    /// Keeps the list of a set's packages, checked against the lock.
    fn record(&self, set: &str, found: &Set) -> Result<(), PackagesError> {
        lock::compare(set, &self.lock.set(set), found)?;
        let path = self.layout.sbom().join(format!("{set}.packages"));
        Ok(files::write(&path, lock::render_set(set, found))?)
    }

    /// What is in the image now: the sets recorded by the package parts.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn recorded(&self, sets: &[&str]) -> Result<Lock, LockError> {
        let mut text = String::new();
        for set in sets {
            text += &files::read_text(&self.layout.sbom().join(format!("{set}.packages")))?;
        }
        Lock::parse(&text)
    }

    /// How the image's packages differ from the lock file.
    ///
    /// # Errors
    /// A locked version with other content.
    pub fn drift(&self, recorded: &Lock) -> Result<Vec<Drift>, LockError> {
        let mut drift = Vec::new();
        for (set, found) in &recorded.0 {
            drift.extend(lock::compare(set, &self.lock.set(set), found)?);
        }
        Ok(drift)
    }
}
