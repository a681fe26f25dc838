//! The program itself.
#![expect(
    clippy::disallowed_methods,
    reason = "the program under test is started here and only here"
)]

use std::process::{Command, Stdio};

fn bulkhead() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.env_clear();
    command
}

#[test]
fn a_reader_who_leaves_ends_it_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut run = bulkhead();
    run.args(["completion", "bash"]).stdout(writer).stderr(Stdio::piped());
    let done = run.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(String::from_utf8(done.stderr).unwrap(), "");
    assert_eq!(done.status.code(), Some(0));
}

#[test]
fn without_a_home_the_way_out_is_named() {
    let done = bulkhead().args(["get", "hosts"]).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(done.stderr).unwrap(),
        "error: no folder for the configuration: neither XDG_CONFIG_HOME nor HOME is set\n  \
         help: name the file with --config FILE\n"
    );
}

#[test]
fn the_usual_place_of_the_configuration_follows_the_environment() {
    let place = |set: &[(&str, &str)]| {
        let done = bulkhead().args(["get", "hosts"]).envs(set.iter().copied()).output().unwrap();
        String::from_utf8(done.stderr).unwrap()
    };
    let home = ("HOME", "/nowhere/me");
    assert!(place(&[home]).contains(" /nowhere/me/.config/bulkhead/config.json is not there"));
    let xdg = ("XDG_CONFIG_HOME", "/nowhere/xdg");
    assert!(place(&[home, xdg]).contains(" /nowhere/xdg/bulkhead/config.json is not there"));
    // A relative one would depend on where the program is started.
    let relative = ("XDG_CONFIG_HOME", "xdg");
    assert!(place(&[home, relative]).contains(" /nowhere/me/.config/"));
}

#[test]
fn a_wrong_command_line_has_its_own_exit_status() {
    assert_eq!(bulkhead().arg("frobnicate").output().unwrap().status.code(), Some(2));
}
