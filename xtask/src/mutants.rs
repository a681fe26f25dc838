//! Hand-made mutants: each breaks one law on purpose, and the tests of its crate must notice.
//!
//! ```text
//!  CRATE/mutants/NAME.mutant ──► a copy of the workspace with one change ──► cargo test --lib
//!  tests fail: killed       tests pass: a survivor, and the task fails
//! ```
//!
//! A mutant is a text file:
//!
//! ```text
//! breaks: the law in one line
//! in: lease/src/place/ground.rs
//! --- find
//! lines that occur once in that file
//! --- put
//! lines in their place, or none
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::phase::{Phase, command};

/// The copy.
const TREE: &str = "target/mutants/tree";

/// Where it is built, seen from there: whoever builds the workspace meanwhile need not wait.
const BUILT: &str = "../built";

/// Tests that take so much longer than without the mutant do not end: that too is noticed.
const PATIENCE: u32 = 20;

/// Of a large crate, which is compiled in haste, the tests that are to notice: parts of their names. Of all others
/// every test is run.
const TESTS: [(&str, &[&str]); 1] = [(
    "bulkhead-supervisor",
    &[
        "ledger::",
        "tenant::beside::",
        "tenant::cdi::",
        "tenant::converge::",
        "tenant::look::",
        "tenant::plan::",
        "tenant::repair::",
        "tenant::tests::",
    ],
)];

/// One change.
#[derive(Debug)]
struct Mutant {
    name: String,
    breaks: String,
    file: PathBuf,
    find: String,
    put: String,
}

/// Tries every mutant, or those whose crate or name contains one of `parts`.
pub(crate) fn run(parts: &[String]) -> Result<()> {
    let mut mutants = read_all()?;
    let named = |mutant: &Mutant, part: &String| {
        mutant.name.contains(part) || mutant.package().is_ok_and(|package| package.contains(part))
    };
    mutants.retain(|mutant| parts.is_empty() || parts.iter().any(|part| named(mutant, part)));
    if mutants.is_empty() {
        bail!("no mutant is called {}", parts.join(" or "));
    }
    let _alone = alone()?;
    copy_workspace()?;
    let crates: BTreeSet<String> = mutants.iter().map(Mutant::package).collect::<Result<_>>()?;
    let mut bound = BTreeMap::new();
    for package in crates {
        let started = Instant::now();
        Phase::new(&format!("tests of {package} without a mutant"))
            .run(&mut cargo_test(&package, &[]))?;
        bound.insert(package, started.elapsed() * PATIENCE + Duration::from_secs(60));
    }
    let (count, mut left) = (mutants.len(), Vec::new());
    for mutant in mutants {
        let bound = bound.get(&mutant.package()?).copied().unwrap_or_default();
        let (name, breaks) = (&mutant.name, &mutant.breaks);
        match mutant.test(bound) {
            Ok(Some(killer)) => println!("{name}: killed by {killer} ({breaks})"),
            Ok(None) => {
                println!("{name}: SURVIVES ({breaks})");
                left.push(mutant.name);
            }
            Err(error) => {
                println!("{name}: NOT TRIED ({breaks}): {error:#}");
                left.push(mutant.name);
            }
        }
    }
    if !left.is_empty() {
        bail!("{} of {count} mutants survive or were not tried: {}", left.len(), left.join(", "));
    }
    println!("mutants: all {count} killed");
    Ok(())
}

impl Mutant {
    /// Its crate, `bulkhead-FOLDER`.
    fn package(&self) -> Result<String> {
        let folder = self.file.iter().next().and_then(|folder| folder.to_str());
        let folder = folder.with_context(|| format!("{}: in no crate", self.name))?;
        Ok(format!("bulkhead-{folder}"))
    }

    /// Who noticed it, or nobody.
    fn test(&self, bound: Duration) -> Result<Option<String>> {
        let target = Path::new(TREE).join(&self.file);
        let good = fs::read_to_string(&target)
            .with_context(|| format!("read {} of mutant {}", self.file.display(), self.name))?;
        let occurs = good.matches(&self.find).count();
        if occurs != 1 {
            let file = self.file.display();
            bail!("its text occurs {occurs} times in {file}");
        }
        let bad = good.replacen(&self.find, &self.put, 1);
        fs::write(&target, &bad)?;
        let killer = self.killer(bound);
        let untouched = fs::read_to_string(&target).is_ok_and(|there| there == bad);
        fs::write(&target, good)?;
        if !untouched {
            bail!("somebody else wrote {} meanwhile", target.display());
        }
        killer
    }

    fn killer(&self, bound: Duration) -> Result<Option<String>> {
        let package = self.package()?;
        let mut build = cargo_test(&package, &["--quiet", "--no-run"]);
        let built = build.stderr(Stdio::piped()).output()?;
        if !built.status.success() {
            let text = String::from_utf8_lossy(&built.stderr).into_owned();
            bail!("it does not compile, which proves nothing:\n{text}");
        }
        let said = Path::new(TREE).join("said.txt");
        let mut tests = cargo_test(&package, &[]).stdout(fs::File::create(&said)?).spawn()?;
        let started = Instant::now();
        let status = loop {
            if let Some(status) = tests.try_wait()? {
                break status;
            }
            if started.elapsed() > bound {
                tests.kill()?;
                tests.wait()?;
                return Ok(Some(format!("not ending within {} s", bound.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        if status.success() {
            return Ok(None);
        }
        let said = fs::read_to_string(&said)?;
        let mut failed: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
            .collect();
        failed.sort_unstable();
        Ok(Some(match &failed[..] {
            [] => format!("the end of the tests: {status}"),
            [one] => (*one).to_owned(),
            [first, others @ ..] => format!("{first} and {} more", others.len()),
        }))
    }
}

/// The crate's own tests, in the copy. What a failure was is not kept for the next mutant, nor sought long.
fn cargo_test(package: &str, options: &[&str]) -> Command {
    let mut cargo = command("cargo");
    let large = TESTS.iter().find(|(name, _)| *name == package);
    cargo
        .current_dir(TREE)
        .args(["test", "--lib", "--package", package])
        .args(large.map(|_| format!("--config=profile.dev.package.{package}.opt-level=0")))
        .args(options)
        .arg("--")
        .args(large.into_iter().flat_map(|(_, tests)| *tests))
        .env("CARGO_TARGET_DIR", BUILT)
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
        .env("PROPTEST_MAX_SHRINK_ITERS", "16")
        .env("RUST_BACKTRACE", "0")
        .stderr(Stdio::null());
    cargo
}

fn read_all() -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for entry in fs::read_dir(".").context("list the workspace")? {
        let folder = entry?.path().join("mutants");
        if !folder.is_dir() || folder.starts_with("./target") {
            continue;
        }
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "mutant") {
                mutants.push(parse(&path)?);
            }
        }
    }
    mutants.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(mutants)
}

fn parse(path: &Path) -> Result<Mutant> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let parts = || -> Option<Mutant> {
        let (head, rest) = text.split_once("--- find\n")?;
        let (find, put) = rest.split_once("--- put\n")?;
        let field = |name| head.lines().find_map(|line| line.strip_prefix(name));
        Some(Mutant {
            name: path.file_stem()?.to_str()?.to_owned(),
            breaks: field("breaks: ")?.to_owned(),
            file: field("in: ")?.into(),
            find: find.to_owned(),
            put: put.to_owned(),
        })
    };
    let mutant = parts().filter(|mutant| !mutant.find.trim().is_empty());
    mutant.with_context(|| format!("{}: expected breaks, in, find and put", path.display()))
}

/// Two runs at once would change each other's copy: the second one waits.
fn alone() -> Result<fs::File> {
    fs::create_dir_all(TREE).with_context(|| format!("make {TREE}"))?;
    let path = Path::new(TREE).with_extension("lock");
    let file = fs::File::create(&path).with_context(|| format!("make {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// Copies what git knows or would take; unchanged files keep their time, so that cargo builds little.
fn copy_workspace() -> Result<()> {
    let list = command("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("start git ls-files")?;
    if !list.status.success() {
        bail!("git ls-files: {}", list.status);
    }
    let names = String::from_utf8(list.stdout).context("names of files")?;
    let names: BTreeSet<&Path> =
        names.split_terminator('\0').map(Path::new).filter(|name| name.is_file()).collect();
    for &name in &names {
        let to = Path::new(TREE).join(name);
        let bytes = fs::read(name).with_context(|| format!("read {}", name.display()))?;
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&to, bytes).with_context(|| format!("write {}", to.display()))?;
    }
    remove_others(Path::new(TREE), &names)
}

/// Files that are gone from the workspace would still be compiled.
fn remove_others(folder: &Path, names: &BTreeSet<&Path>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(&path, names)?;
        } else if !path.strip_prefix(TREE).is_ok_and(|name| names.contains(name)) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}
