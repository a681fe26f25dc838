//! `bulkheadd` as systemd runs it: signals, notifications, exit status.
#![expect(clippy::unwrap_used, reason = "a test says what it wants by failing")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Nothing here takes so long unless it is broken.
const LONG: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "the program under test is a process")]
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkheadd"));
    command.args(args).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A supervisor below a directory, with the socket that systemd would listen on.
struct Supervisor {
    dir: TempDir,
    notify: UnixDatagram,
    child: Child,
}

impl Supervisor {
    fn start(watchdog: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let notify = UnixDatagram::bind(&path).unwrap();
        notify.set_read_timeout(Some(LONG)).unwrap();
        let child = command(&["--root", dir.path().to_str().unwrap()])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .spawn()
            .unwrap();
        Self { dir, notify, child }
    }

    /// Waits until systemd would have been told so.
    fn tells(&self, wanted: &str) {
        let mut buffer = [0; 256];
        loop {
            let length = self.notify.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap());
            if text.lines().any(|line| line == wanted) {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Exit status and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < LONG, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // It is gone already in the tests that pass.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(root: &Path, target: &str) -> String {
    let mut stream = UnixStream::connect(root.join("run/bulkhead/supervisor.sock")).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn it_is_ready_without_a_network_shows_progress_and_ends_when_told() {
    let supervisor = Supervisor::start(Duration::from_millis(400));
    supervisor.tells("READY=1");
    supervisor.tells("WATCHDOG=1");
    supervisor.tells("WATCHDOG=1");
    let begun = Instant::now();
    loop {
        let reply = get(supervisor.dir.path(), "/v1/host");
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        // Its state cannot be looked for here, which is known at once; why it has no site, a moment later.
        if reply.contains("NoBootFacts") {
            break;
        }
        assert!(begun.elapsed() < LONG, "{reply}");
        supervisor.tells("WATCHDOG=1");
    }
    supervisor.signal(Signal::SIGTERM);
    supervisor.tells("STOPPING=1");
    let (status, said) = supervisor.end();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("tenants go on"), "{said}");
}

#[test]
fn a_second_start_in_the_same_boot_takes_over_the_socket() {
    let first = Supervisor::start(LONG);
    first.tells("READY=1");
    first.signal(Signal::SIGKILL);
    let root = first.dir.path().to_owned();
    let child = command(&["--root", root.to_str().unwrap()])
        .env("NOTIFY_SOCKET", root.join("notify"))
        .spawn()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let second = Supervisor { dir, notify: first.notify.try_clone().unwrap(), child };
    second.tells("READY=1");
    assert!(get(&root, "/v1/events").starts_with("HTTP/1.1 200"));
}

#[test]
fn what_it_does_not_know_is_answered_with_its_usage() {
    let output = command(&["--rot", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("usage: bulkheadd [--root DIR]"), "{said}");
}
