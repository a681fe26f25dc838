//! What the tests share: the built library, the control tool, and a process of one's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) const STATE: &str = "NVML_SIM_STATE";

/// The library, which cargo has put beside the test programs because they link its crate.
pub(crate) fn library() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let library = folder.join("libnvidia_ml.so");
    assert!(library.exists(), "{} was not built", library.display());
    library
}

#[expect(clippy::disallowed_methods, reason = "tests start programs on their own machine")]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

pub(crate) fn simctl(state: &Path) -> Command {
    let mut simctl = command(env!("CARGO_BIN_EXE_nvml-simctl"));
    simctl.env(STATE, state);
    simctl
}

/// Runs the control tool and demands that it succeeds; returns what it printed.
pub(crate) fn control(state: &Path, arguments: &[&str]) -> String {
    let output = simctl(state).args(arguments).output().unwrap();
    demand(&format!("nvml-simctl {arguments:?}"), &output)
}

pub(crate) fn demand(what: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        panic!("{what}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    text(&output.stdout)
}

/// Runs a test's body in a process of its own whose environment names a fresh state: the library
/// asks the environment, which a threaded program must not change.
pub(crate) fn alone(test: &str, body: impl FnOnce(&Path)) {
    if let Some(state) = std::env::var_os(STATE) {
        return body(Path::new(&state));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut own = command(std::env::current_exe().unwrap());
    own.args(["--exact", test, "--nocapture"]).env(STATE, folder.path().join("state.json"));
    let printed = demand(test, &own.output().unwrap());
    assert!(printed.contains("1 passed"), "no test is called {test}: {printed}");
}
