use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use bulkhead_api::link::rpc::{Question, down, up};
use bulkhead_api::link::{HandOver, Hello};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Status;

use super::*;
use crate::events::Events;
use crate::node::starting;
use crate::socket::View;
use crate::testing::{
    Authority, DayRange, Enrolment, LONG, Site, TICKET, Verdict, boot_files, host_id, json, spec,
};

const QUICK: Backoff =
    Backoff { first: Duration::from_millis(10), most: Duration::from_millis(100) };

/// The node's side of an uplink that runs.
struct Host {
    paths: Paths,
    status: watch::Sender<Arc<HostStatus>>,
    hand_overs: mpsc::Sender<LeaseId>,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Host {
    fn start(paths: &Paths) -> Self {
        let status = watch::Sender::new(Arc::new(starting(paths)));
        let (hand_overs, departures) = mpsc::channel(4);
        let (sender, events) = mpsc::channel(16);
        let interface = Interface::new(View {
            status: status.subscribe(),
            events: Events::new(4),
            paths: paths.clone(),
            asks: mpsc::channel(1).0,
            user: 0,
        });
        let task = run(paths.clone(), QUICK, status.subscribe(), interface, departures, sender);
        #[expect(clippy::disallowed_methods, reason = "the test ends it, as a kill would")]
        let task = tokio::spawn(task);
        Self { paths: paths.clone(), status, hand_overs, events, task }
    }

    async fn event(&mut self) -> Event {
        let event = tokio::time::timeout(LONG, self.events.recv());
        event.await.expect("an event in time").expect("an uplink that runs")
    }

    /// Waits for an identity and reports as the host that it names.
    async fn enrolled(&mut self) -> Identity {
        loop {
            if let Event::Enrolled(identity) = self.event().await {
                self.report(1);
                return *identity;
            }
        }
    }

    fn report(&self, seq: u64) {
        let status = HostStatus { host: host_id(), seq, ..starting(&self.paths) };
        self.status.send_replace(Arc::new(status));
    }

    async fn lost(&mut self) -> (&'static str, String, &'static str) {
        loop {
            if let Event::Lost { label, message, owner, .. } = self.event().await {
                return (label, message, owner);
            }
        }
    }

    async fn connected(&mut self) {
        while !matches!(self.event().await, Event::Connected) {}
    }

    fn ticket(&self) -> String {
        enrol::boot_facts(&self.paths.boot_facts()).unwrap().site.ticket.expose().to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A machine that was booted by a site.
struct Scene {
    _dir: TempDir,
    site: Site,
    paths: Paths,
    root: PathBuf,
}

fn scene(verdict: Verdict) -> Scene {
    let authority = Arc::new(Authority::new());
    let site = Site::start(&authority, verdict);
    let dir = tempfile::tempdir().unwrap();
    let paths = boot_files(dir.path(), &authority, &site.link());
    Scene { root: dir.path().to_owned(), _dir: dir, site, paths }
}

fn by_ticket() -> Enrolment {
    Enrolment { ticket: TICKET.to_owned(), with_certificate: false }
}

fn mode(path: PathBuf) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn seq_of(body: Option<up::Body>) -> Option<u64> {
    match body {
        Some(up::Body::StatusJson(json)) => {
            Some(serde_json::from_slice::<HostStatus>(&json).unwrap().seq)
        }
        _ => None,
    }
}

#[tokio::test]
async fn a_host_trades_its_ticket_once_and_says_who_it_is_before_it_reports() {
    let mut scene = scene(Verdict::Certify(DayRange::FRESH));
    let mut host = Host::start(&scene.paths);
    let identity = host.enrolled().await;
    assert_eq!(identity.named.host, host_id());
    host.connected().await;
    let mut stream = scene.site.attached().await;
    let hello = stream.next().await;
    assert_eq!(hello.host, "s1-000001");
    let Some(up::Body::HelloJson(hello)) = hello.body else { panic!("{hello:?}") };
    assert_eq!(serde_json::from_slice::<Hello>(&hello).unwrap().boot, 3);
    assert_eq!(seq_of(stream.next().await.body), Some(1));
    assert_eq!(scene.site.enrolments(), [by_ticket()]);
    assert_eq!(host.ticket(), "");
    assert_eq!(mode(scene.paths.boot_facts()), 0o600);
    assert_eq!(mode(scene.paths.identity()), 0o700);
    for file in ["key.pem", "certificate.pem", "host.json"] {
        assert_eq!(mode(scene.paths.identity().join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn specs_and_questions_come_down_and_answers_and_later_reports_go_up() {
    let mut scene = scene(Verdict::Certify(DayRange::FRESH));
    let mut host = Host::start(&scene.paths);
    host.enrolled().await;
    let mut stream = scene.site.attached().await;
    host.connected().await;
    stream.send(down::Body::SiteSpecJson(b"{}".to_vec().into())).await;
    stream.send(down::Body::SignedSpecJson(json(&spec(1)).into())).await;
    let Event::Spec(offered) = host.event().await else { panic!("a spec first") };
    assert!(!offered.is_empty());
    for (id, path) in [(9, "/v1/leases/acme/a/log?lines=2"), (10, "/v1/receipts")] {
        let question = Question { id, path: path.to_owned(), ..Question::default() };
        stream.send(down::Body::Question(question)).await;
    }
    host.report(2);
    let (mut answers, mut reported) = (BTreeMap::new(), false);
    while answers.len() < 2 || !reported {
        match stream.next().await.body {
            Some(up::Body::Answer(answer)) => {
                let text = String::from_utf8(answer.body.to_vec()).unwrap();
                answers.insert(answer.id, (answer.status, text));
            }
            body => reported |= seq_of(body) == Some(2),
        }
    }
    assert_eq!(answers[&10], (200, "[]".to_owned()));
    let (status, said) = &answers[&9];
    assert!(*status == 404 && said.contains("acme/a"), "{status} {said}");
}

#[tokio::test]
async fn a_hand_over_is_asked_of_the_site_and_its_answer_comes_back() {
    let mut scene = scene(Verdict::Certify(DayRange::FRESH));
    let mut host = Host::start(&scene.paths);
    host.enrolled().await;
    let mut stream = scene.site.attached().await;
    host.connected().await;
    let lease = LeaseId { tenant: "acme".parse().unwrap(), name: "metal".parse().unwrap() };
    host.hand_overs.send(lease.clone()).await.unwrap();
    let asked = loop {
        if let Some(up::Body::HandOverJson(json)) = stream.next().await.body {
            break serde_json::from_slice::<HandOver>(&json).unwrap();
        }
    };
    assert_eq!(asked, HandOver { lease: lease.clone() });
    stream.send(down::Body::HandOverJson(b"{".to_vec().into())).await;
    let answer = HandOverAnswer { lease, refusal: None };
    stream.send(down::Body::HandOverJson(serde_json::to_vec(&answer).unwrap().into())).await;
    let Event::HandOver(heard) = host.event().await else { panic!("the answer") };
    assert_eq!(heard, answer);
}

#[tokio::test]
async fn a_killed_supervisor_finds_its_identity_again() {
    let mut scene = scene(Verdict::Certify(DayRange::FRESH));
    let mut first = Host::start(&scene.paths);
    let before = first.enrolled().await;
    first.connected().await;
    drop(first);
    let mut second = Host::start(&scene.paths);
    let after = second.enrolled().await;
    second.connected().await;
    assert_eq!(after.chain_pem, before.chain_pem);
    assert_eq!(scene.site.enrolments(), [by_ticket()]);
    scene.site.attached().await;
}

#[tokio::test]
async fn a_supervisor_killed_before_it_wiped_its_ticket_wipes_it_and_does_not_use_it_again() {
    let scene = scene(Verdict::Certify(DayRange::FRESH));
    let facts = std::fs::read(scene.paths.boot_facts()).unwrap();
    let mut first = Host::start(&scene.paths);
    first.enrolled().await;
    drop(first);
    std::fs::write(scene.paths.boot_facts(), facts).unwrap();
    let mut second = Host::start(&scene.paths);
    second.enrolled().await;
    assert_eq!(second.ticket(), "");
    assert_eq!(scene.site.enrolments(), [by_ticket()]);
}

#[tokio::test]
async fn a_host_comes_back_to_a_site_that_died() {
    let mut scene = scene(Verdict::Certify(DayRange::FRESH));
    let mut host = Host::start(&scene.paths);
    host.enrolled().await;
    host.connected().await;
    let _first = scene.site.attached().await;
    scene.site.die();
    let (label, _, owner) = host.lost().await;
    assert_eq!((label, owner), ("StreamEnded", "site"));
    let (label, message, _) = host.lost().await;
    assert_eq!(label, "SiteUnreachable");
    assert!(message.starts_with(&format!("connect to site {}", scene.site.link())), "{message}");
    scene.site.revive();
    host.connected().await;
    assert_eq!(scene.site.enrolments(), [by_ticket()]);
}

#[tokio::test]
async fn a_refused_ticket_is_said_and_kept_for_the_operator_to_see() {
    let scene = scene(Verdict::Refuse(Status::permission_denied("the ticket was used")));
    let mut host = Host::start(&scene.paths);
    let (label, message, owner) = host.lost().await;
    assert_eq!((label, owner), ("EnrolmentRefused", "registry"));
    assert_eq!(message, "Enrol refused: the ticket was used");
    assert_eq!(host.ticket(), TICKET);
    assert!(identity::load(&scene.paths.identity()).unwrap().is_none());
}

#[tokio::test]
async fn a_registry_that_is_away_is_asked_again_with_the_same_key() {
    let scene = scene(Verdict::Refuse(Status::unavailable("the registry is away")));
    let mut host = Host::start(&scene.paths);
    assert_eq!(host.lost().await.0, "NoAnswer");
    let key = std::fs::read(scene.paths.identity().join("key.pem")).unwrap();
    scene.site.decide(Verdict::Certify(DayRange::FRESH));
    let identity = host.enrolled().await;
    assert_eq!(identity.key_pem.as_bytes(), key);
}

#[tokio::test]
async fn a_site_of_another_fleet_is_not_told_the_ticket() {
    let scene = scene(Verdict::Certify(DayRange::FRESH));
    std::fs::write(scene.paths.fleet_ca(), Authority::new().ca_pem()).unwrap();
    let mut host = Host::start(&scene.paths);
    assert_eq!(host.lost().await.0, "SiteUnreachable");
    assert_eq!(scene.site.enrolments(), []);
    assert_eq!(host.ticket(), TICKET);
}

#[tokio::test]
async fn a_certificate_for_another_key_is_not_taken() {
    let scene = scene(Verdict::CertifyAnotherKey);
    let mut host = Host::start(&scene.paths);
    let (label, message, _) = host.lost().await;
    assert_eq!(label, "IdentityUnusable");
    assert_eq!(message, "the certificate given is not for this host's key");
    assert!(identity::load(&scene.paths.identity()).unwrap().is_none());
    assert_eq!(host.ticket(), TICKET);
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_its_life_by_itself_alone() {
    let mut scene = scene(Verdict::Certify(DayRange::DUE));
    let mut host = Host::start(&scene.paths);
    let old = host.enrolled().await;
    scene.site.decide(Verdict::Certify(DayRange::FRESH));
    let new = host.enrolled().await;
    assert!(new.expires > old.expires);
    assert_eq!(new.key_pem, old.key_pem);
    assert_eq!(identity::load(&scene.paths.identity()).unwrap().unwrap().chain_pem, new.chain_pem);
    scene.site.attached().await;
    scene.site.attached().await;
    let renewal = Enrolment { ticket: String::new(), with_certificate: true };
    // Two renewals where the first was answered before the verdict changed.
    let asked = scene.site.enrolments();
    assert_eq!(asked.first(), Some(&by_ticket()));
    assert!(asked.len() > 1 && asked.iter().skip(1).all(|one| *one == renewal), "{asked:?}");
}

#[tokio::test]
async fn a_refused_renewal_is_said_and_the_stream_stays() {
    let mut scene = scene(Verdict::Certify(DayRange::DUE));
    let mut host = Host::start(&scene.paths);
    while !matches!(host.event().await, Event::Enrolled(_)) {}
    // Before the stream, so that the renewal meets it.
    scene.site.decide(Verdict::Refuse(Status::unavailable("the registry is away")));
    host.report(1);
    let mut stream = scene.site.attached().await;
    loop {
        if let Event::NotRenewed { label, next, .. } = host.event().await {
            assert_eq!(label, "NoAnswer");
            assert!(next > Timestamp::now());
            break;
        }
    }
    host.report(5);
    while seq_of(stream.next().await.body) != Some(5) {}
}

#[tokio::test]
async fn a_renewal_that_names_another_host_is_not_taken() {
    let scene = scene(Verdict::Certify(DayRange::DUE));
    let mut host = Host::start(&scene.paths);
    let Event::Enrolled(old) = host.event().await else { panic!("enrolled first") };
    scene.site.decide(Verdict::CertifyAs("s1-000002"));
    host.report(1);
    loop {
        if let Event::NotRenewed { label, message, .. } = host.event().await {
            assert_eq!(label, "IdentityUnusable");
            assert_eq!(message, "the registry named this host s1-000002, it is s1-000001");
            break;
        }
    }
    let kept = identity::load(&scene.paths.identity()).unwrap().unwrap();
    assert_eq!(kept.chain_pem, old.chain_pem);
}

#[tokio::test]
async fn a_machine_without_boot_facts_says_so() {
    let scene = scene(Verdict::Certify(DayRange::FRESH));
    std::fs::remove_file(scene.paths.boot_facts()).unwrap();
    let (label, message, owner) = Host::start(&scene.paths).lost().await;
    assert_eq!((label, owner), ("NoBootFacts", "operator"));
    assert!(message.contains("boot.json"), "{message}");
}

#[tokio::test]
async fn a_spent_ticket_without_a_certificate_asks_for_a_reboot() {
    let scene = scene(Verdict::Certify(DayRange::FRESH));
    let mut first = Host::start(&scene.paths);
    first.enrolled().await;
    drop(first);
    std::fs::remove_dir_all(scene.paths.identity()).unwrap();
    let (label, message, owner) = Host::start(&scene.paths).lost().await;
    assert_eq!((label, owner), ("TicketSpent", "operator"));
    assert!(message.contains("reboot this host"), "{message}");
    assert!(scene.root.exists());
}
