//! `bulkhead-image`: builds the host image and checks that it is reproducible. Run as root from the source tree.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bulkhead_image::build::{self, LockRule, Wish};
use bulkhead_image::layout::Layout;
use bulkhead_image::repro;
use bulkhead_image::root::Own;
use clap::{Args, Parser, Subcommand};

/// Builds the Bulkhead host image.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build what is not up to date
    Build(Options),
    /// Build the unsigned parts twice from the same packages and compare their bytes
    CheckReproducible(Options),
}

#[derive(Debug, Args)]
struct Options {
    /// Root of the source tree
    #[arg(long, default_value = ".")]
    repo: PathBuf,
    /// Folder of everything built
    #[arg(long, default_value = "target/image")]
    out: PathBuf,
    /// Folder for initrd, UKI and manifest (with links to the rest), for one of several fleets [default: --out]
    #[arg(long)]
    boot: Option<PathBuf>,
    /// Folder of trust anchors that goes into the initrd
    #[arg(long)]
    trust: Option<PathBuf>,
    /// The supervisor [default: target/debug/bulkheadd, with --release target/release/bulkheadd]
    #[arg(long)]
    bulkheadd: Option<PathBuf>,
    /// Take the supervisor's release build
    #[arg(long)]
    release: bool,
    /// Build an image without supervisor
    #[arg(long, conflicts_with = "bulkheadd")]
    no_supervisor: bool,
    /// Folder of the supervisor's systemd units
    #[arg(long, default_value = "supervisor/units")]
    units: PathBuf,
    /// List the layer `test` (root shell for tests) in the initrd; never for a product
    #[arg(long)]
    test_layer: bool,
    /// Stage 1 accepts any kernel command line; never for a product
    #[arg(long)]
    any_cmdline: bool,
    /// Refuse packages that differ from the lock file
    #[arg(long)]
    locked: bool,
    /// Accept the archive's packages and write the lock file
    #[arg(long, conflicts_with = "locked")]
    update_lock: bool,
}

impl Options {
    fn resolve(self) -> anyhow::Result<(Layout, Wish)> {
        let absolute = |path: &Path| std::path::absolute(path).context("resolve paths");
        let repo = absolute(&self.repo)?;
        let below = |path: &Path| absolute(&repo.join(path));
        let out = below(&self.out)?;
        let built =
            if self.release { "target/release/bulkheadd" } else { "target/debug/bulkheadd" };
        let bulkheadd = below(self.bulkheadd.as_deref().unwrap_or(Path::new(built)))?;
        anyhow::ensure!(
            self.no_supervisor || bulkheadd.is_file(),
            "{} is missing: `cargo build -p bulkhead-supervisor` makes it, --no-supervisor builds without",
            bulkheadd.display()
        );
        let own = if self.no_supervisor {
            Own { bulkheadd: None, units: repo.join("none") }
        } else {
            Own { bulkheadd: Some(bulkheadd), units: below(&self.units)? }
        };
        let lock = match (self.locked, self.update_lock) {
            (_, true) => LockRule::Update,
            (true, false) => LockRule::Refuse,
            (false, false) => LockRule::Warn,
        };
        let wish = Wish {
            own,
            trust: self.trust.as_deref().map(below).transpose()?,
            boot: self.boot.as_deref().map_or_else(|| Ok(out.clone()), below)?,
            test_layer: self
                .test_layer
                .then(|| below(Path::new("target/debug/bulkhead")))
                .transpose()?,
            any_cmdline: self.any_cmdline,
            lock,
        };
        Ok((Layout::new(&repo, &out), wish))
    }
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Build(options) => {
            let (layout, wish) = options.resolve()?;
            build::build(&layout, &wish)?;
        }
        Command::CheckReproducible(options) => {
            let (layout, wish) = options.resolve()?;
            repro::check(&layout, &wish)?;
        }
    }
    Ok(())
}
