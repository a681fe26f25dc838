//! Every reason that a program of ours can give for a condition has a way out.
//!
//! The words are read out of the sources: each literal of one CamelCase word in the code (not the tests) of the
//! files that make conditions is a reason, or stands in [`NO_REASONS`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_cli::way_out::is_known;

/// Where conditions are made, below the root of the sources.
const SOURCES: [&str; 12] = [
    "api/src/spec.rs",
    "registry/src/documents",
    "registry/src/signing.rs",
    "supervisor/src/ledger.rs",
    "supervisor/src/metal",
    "supervisor/src/node",
    "supervisor/src/oci/pull.rs",
    "supervisor/src/receipts/mod.rs",
    "supervisor/src/storage",
    "supervisor/src/tenant",
    "supervisor/src/uplink",
    "supervisor/src/class",
];

/// Words that are no reasons there: kinds of conditions and events, names of other programs' things.
const NO_REASONS: [&str; 54] = [
    // Kinds of conditions.
    "CacheParted",
    "CertificateCurrent",
    "ClockPlausible",
    "Connected",
    "Granted",
    "HandedOver",
    "HardwareReadable",
    "HostReporting",
    "Isolated",
    "Ready",
    "Released",
    "Reporting",
    "Settled",
    "SiteConnected",
    "SpecAccepted",
    "SpecSigned",
    "StatePersistent",
    // Events.
    "Change",
    "Drift",
    // Calls between our programs, and types that print themselves.
    "Acme",
    "Attach",
    "Enrol",
    "Identity",
    "Node",
    "SiteAccess",
    "String",
    // Words of the kernel and of QEMU.
    "CommandNotFound",
    "Gid",
    "Groups",
    "ShdPnd",
    "SigPnd",
    "State",
    "Uid",
    // Properties of systemd's units.
    "Description",
    "DeviceAllow",
    "DevicePolicy",
    "ExecMainCode",
    "ExecMainStatus",
    "ExecStart",
    "ExecStartPre",
    "ExecStop",
    "ExecStopPost",
    "KillMode",
    "MemoryMax",
    "MemorySwapMax",
    "RemainAfterExit",
    "Restart",
    "RestartSteps",
    "Slice",
    "StandardErrorFileToAppend",
    "StandardInputFile",
    "StandardOutputFileToAppend",
    "TasksMax",
    "Type",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let of_tests = |path: &PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        name == "tests" || name.ends_with("_tests") || name == "testing"
    };
    let code = entries.filter(|path| !of_tests(path));
    let rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    code.flat_map(|path| files(&path)).filter(rust).collect()
}

/// The literals of one CamelCase word, with a small letter in it and of more than one letter.
fn words(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let literals = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    let word = |text: &&str| {
        text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.chars().nth(1).is_some_and(|c| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_alphanumeric())
            // systemd's times and limits.
            && !["USec", "CPUs", "Nodes", "CORE"].iter().any(|end| text.ends_with(end))
    };
    literals.filter(word).map(str::to_owned).collect()
}

#[test]
fn every_reason_of_every_program_has_a_way_out() {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for source in SOURCES {
        for file in files(&root().join(source)) {
            let text = fs::read_to_string(&file).unwrap();
            found.extend(words(&text).into_iter().map(|word| (word, file.clone())));
        }
    }
    assert!(found.len() > 100, "the sources are not where they were: {found:?}");
    let no_reasons = BTreeSet::from(NO_REASONS);
    let missing: Vec<String> = found
        .iter()
        .filter(|(word, _)| !is_known(word) && !no_reasons.contains(word.as_str()))
        .map(|(word, file)| format!("{word} of {}", file.display()))
        .collect();
    assert!(missing.is_empty(), "reasons without a way out in cli/src/way_out.rs: {missing:#?}");
}

#[test]
fn words_are_found_in_code_and_not_in_comments_or_tests() {
    let text = "//! \"Not\"\nfn label() { Self::A => \"LedgerGone\", x(\"two words\", \"UPPER\", \"A\") }\n\
                #[cfg(test)]\nmod tests { \"Neither\" }";
    assert_eq!(words(text), BTreeSet::from(["LedgerGone".to_owned()]));
}
