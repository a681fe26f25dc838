use bulkhead_api::condition::{self, Truth};
use bulkhead_api::link::Hello;
use bulkhead_api::link::rpc::{Up, down, up};
use bulkhead_api::spec::Base64;
use bulkhead_api::status::HostStatus;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::testing::{
    Attached, Authority, DayRange, LONG, Site, Verdict, boot_files, json, signed, spec,
};

struct Running {
    stop: Option<oneshot::Sender<()>>,
    task: JoinSet<Result<(), DaemonError>>,
}

impl Running {
    fn start(paths: &Paths) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let mut task = JoinSet::new();
        let paths = paths.clone();
        task.spawn(run(paths, async move {
            let _ = stopped.await;
        }));
        Self { stop: Some(stop), task }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        let ended = tokio::time::timeout(LONG, self.task.join_next());
        ended.await.expect("an end in time").unwrap().unwrap().unwrap();
    }

    /// As a kill does: nothing is finished.
    fn kill(mut self) {
        self.task.abort_all();
    }
}

fn scene() -> (TempDir, Site, Paths) {
    let authority = Arc::new(Authority::new());
    let site = Site::start(&authority, Verdict::Certify(DayRange::FRESH));
    let dir = tempfile::tempdir().unwrap();
    let paths = boot_files(dir.path(), &authority, &site.link());
    (dir, site, paths)
}

fn hello(message: Up) -> Hello {
    match message.body {
        Some(up::Body::HelloJson(json)) => serde_json::from_slice(&json).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The first report of which `holds` is true; checks that reports count up.
async fn report_where(
    stream: &mut Attached,
    last: &mut u64,
    holds: impl Fn(&HostStatus) -> bool,
) -> HostStatus {
    loop {
        if let Some(up::Body::StatusJson(json)) = stream.next().await.body {
            let status: HostStatus = serde_json::from_slice(&json).unwrap();
            assert!(status.seq > *last, "{} after {last}", status.seq);
            *last = status.seq;
            if holds(&status) {
                return status;
            }
        }
    }
}

fn spec_is(status: &HostStatus, truth: Truth, reason: &str) -> bool {
    condition::find(&status.conditions, "SpecAccepted")
        .is_some_and(|c| c.status == truth && c.reason == reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_joins_takes_a_spec_refuses_the_next_and_says_so_upwards() {
    let (_dir, mut site, paths) = scene();
    let running = Running::start(&paths);
    let (mut stream, mut last) = (site.attached().await, 0);
    assert_eq!(hello(stream.next().await).boot, 3);
    report_where(&mut stream, &mut last, |s| spec_is(s, Truth::Unknown, "NoSpec")).await;
    stream.send(down::Body::SignedSpecJson(json(&spec(1)).into())).await;
    let taken = report_where(&mut stream, &mut last, |s| s.accepted_generation == 1).await;
    assert!(spec_is(&taken, Truth::True, "Accepted"));
    assert!(condition::holds(&taken.conditions, "Connected"));
    let mut damaged = signed(&spec(2));
    damaged.signature = Base64(vec![0; 64]);
    let damaged = serde_json::to_vec(&damaged).unwrap();
    stream.send(down::Body::SignedSpecJson(damaged.into())).await;
    let refused = |s: &HostStatus| spec_is(s, Truth::False, "BadSignature");
    let refused = report_where(&mut stream, &mut last, refused).await;
    assert_eq!(refused.accepted_generation, 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_supervisor_goes_on_where_it_was() {
    let (dir, mut site, paths) = scene();
    let first = Running::start(&paths);
    let (mut stream, mut last) = (site.attached().await, 0);
    stream.send(down::Body::SignedSpecJson(json(&spec(7)).into())).await;
    report_where(&mut stream, &mut last, |s| s.accepted_generation == 7).await;
    first.kill();
    drop(stream);
    let second = Running::start(&paths);
    let mut stream = site.attached().await;
    assert_eq!(hello(stream.next().await).accepted_generation, 7);
    let again = report_where(&mut stream, &mut last, |_| true).await;
    assert_eq!(again.accepted_generation, 7);
    second.stop().await;
    assert_eq!(site.enrolments().len(), 1);
    let console = std::fs::read_to_string(dir.path().join("dev/console")).unwrap();
    let words: Vec<_> = console.lines().map(|l| l.split(' ').take(3).collect::<Vec<_>>()).collect();
    let (ready, joined) = (["bulkhead:", "mark", "ready"], ["bulkhead:", "mark", "joined"]);
    assert_eq!(words, [ready.to_vec(), joined.to_vec(), vec!["bulkhead:", "joined", "as"]]);
}

#[tokio::test]
async fn a_socket_that_cannot_be_bound_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::below(dir.path());
    std::fs::create_dir_all(paths.socket()).unwrap();
    let error = run(paths, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().ends_with("run/bulkhead/supervisor.sock"), "{error}");
}
