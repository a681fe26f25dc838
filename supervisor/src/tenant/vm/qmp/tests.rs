use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::*;

const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";
const SOON: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + SOON
}

/// A monitor that says these lines, each after it was asked something; the first at once.
fn scripted(lines: Vec<String>) -> (tempfile::TempDir, PathBuf, std::thread::JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for line in lines {
            if stream.write_all(line.as_bytes()).is_err() {
                return;
            }
            // Whatever the client says; its end is the end.
            if stream.read(&mut [0; 4096]).unwrap_or(0) == 0 {
                return;
            }
        }
    });
    (dir, path, server)
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(ToString::to_string).collect()
}

#[test]
fn events_between_an_answer_are_kept() {
    let (_dir, path, server) = scripted(lines(&[
        GREETING,
        "{\"return\": {}, \"id\": 1}\n",
        "{\"event\": \"POWERDOWN\"}\n{\"return\": {}, \"id\": 2}\n",
    ]));
    let mut monitor = Monitor::connect(&path, soon()).unwrap();
    monitor.press_power(soon()).unwrap();
    let event = monitor.event(soon()).unwrap().unwrap();
    assert_eq!(event, Event { name: "POWERDOWN".to_owned(), data: Value::Null });
    drop(monitor);
    server.join().unwrap();
}

#[test]
fn a_refusal_names_the_command_and_an_end_is_an_end() {
    let (_dir, path, server) = scripted(lines(&[
        GREETING,
        "{\"return\": {}, \"id\": 1}\n",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}, \"id\": 2}\n",
    ]));
    let mut monitor = Monitor::connect(&path, soon()).unwrap();
    let refused = monitor.press_power(soon()).unwrap_err();
    assert_eq!(refused.to_string(), "QEMU refuses system_powerdown: not now");
    assert!(!refused.is_gone());
    let ended = monitor.status(soon()).unwrap_err();
    assert!(ended.is_gone(), "{ended}");
    server.join().unwrap();
}

#[test]
fn what_never_ends_what_never_comes_and_what_is_no_qmp_are_errors() {
    for (first, expected) in [
        ("x".repeat(MOST_LINE + 5000), "more than"),
        ("HTTP/1.1 200 OK\n".to_owned(), "none of QMP"),
        ("{\"return\": {}, \"id\": 9}\n".to_owned(), "not asked for"),
    ] {
        let (_dir, path, server) = scripted(vec![first]);
        let error = Monitor::connect(&path, soon()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        server.join().unwrap();
    }
    // A listener that says nothing.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let error = Monitor::connect(&path, Instant::now() + Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, QmpError::Late(_)) && !error.is_gone(), "{error}");
}

#[test]
fn a_link_or_a_file_in_the_sockets_place_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    let _listener = UnixListener::bind(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    for path in [link, file] {
        let error = Monitor::connect(&path, soon()).unwrap_err();
        assert!(matches!(error, QmpError::Connect { .. }), "{error}");
        assert!(!error.is_gone());
    }
}

/// QEMU of the lab's toolbox, by its own starter. The image build makes it: the test is in profile `machine`.
fn qemu(dir: &Path, script: &[&str]) -> std::process::Child {
    let program =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image/qemu/qemu-system-x86_64");
    let monitor = format!("unix:{},server=on,wait=off", dir.join("sock").display());
    #[expect(clippy::disallowed_methods, reason = "a test starts the emulator it speaks to")]
    std::process::Command::new(&program)
        .args(["-machine", "q35", "-accel", "tcg", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-m", "32", "-qmp", &monitor])
        .args(script)
        .spawn()
        .unwrap_or_else(|error| panic!("start {}: {error}", program.display()))
}

fn connected(dir: &Path) -> Monitor {
    let end = soon();
    loop {
        match Monitor::connect(&dir.join("sock"), end) {
            Ok(monitor) => return monitor,
            Err(error) if error.is_gone() && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_real_qemu_answers_and_its_button_is_pressed() {
    let dir = tempfile::tempdir().unwrap();
    let mut qemu = qemu(dir.path(), &["-S"]);
    let mut monitor = connected(dir.path());
    assert_eq!(monitor.status(soon()).unwrap(), "prelaunch");
    monitor.execute("cont", soon()).unwrap();
    assert_eq!(monitor.status(soon()).unwrap(), "running");
    monitor.press_power(soon()).unwrap();
    let mut names = Vec::new();
    while !names.contains(&"POWERDOWN".to_owned()) {
        names.push(monitor.event(soon()).unwrap().expect("POWERDOWN").name);
    }
    let unknown = monitor.execute("no-such-command", soon()).unwrap_err();
    assert!(unknown.to_string().contains("no-such-command"), "{unknown}");
    // A machine without a guest does not heed its button.
    let still =
        crate::tenant::vm::power::power_down(&dir.path().join("sock"), Duration::from_secs(1));
    assert!(matches!(still, Err(QmpError::Late(_))), "the first connection is served: {still:?}");
    monitor.execute("quit", soon()).unwrap();
    assert_eq!(monitor.event(soon()).unwrap().map(|event| event.name), Some("SHUTDOWN".to_owned()));
    assert!(monitor.event(soon()).unwrap_err().is_gone());
    qemu.wait().unwrap();
}
