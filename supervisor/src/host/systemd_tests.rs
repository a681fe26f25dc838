//! The client against a systemd that checks the shape of every call, over a private connection.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;

use bulkhead_api::lease::RestartPolicy;
use expect_test::expect;
use tokio::task::JoinSet;
use zbus::{Guid, Message};

use super::*;
use crate::tenant::files::LeaseDir;
use crate::tenant::model::Limits;
use crate::tenant::units;

/// Method and signature of each call.
type Calls = Arc<Mutex<Vec<(String, String)>>>;

struct Fake {
    client: Systemd,
    server: Connection,
    calls: Calls,
    serving: JoinSet<()>,
}

impl Fake {
    async fn new() -> Self {
        let (near, far) = UnixStream::pair().unwrap();
        for end in [&near, &far] {
            end.set_nonblocking(true).unwrap();
        }
        let server =
            zbus::connection::Builder::unix_stream(far).server(Guid::generate()).p2p().build();
        let client = zbus::connection::Builder::unix_stream(near).p2p().build();
        let (server, client) = tokio::join!(server, client);
        let (server, client) = (server.unwrap(), Systemd::over(client.unwrap()));
        let calls = Calls::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(server.clone(), Arc::clone(&calls)));
        Self { client, server, calls, serving }
    }

    fn last(&self) -> (String, String) {
        self.calls.lock().unwrap().last().unwrap().clone()
    }
}

fn object() -> OwnedObjectPath {
    OwnedObjectPath::try_from("/org/freedesktop/systemd1/unit/tenant_2da_2eb_2eslice").unwrap()
}

fn row(name: &str, load: &str) -> RawRow {
    let text = ToOwned::to_owned;
    let (job, none) = (OwnedObjectPath::try_from("/").unwrap(), String::new());
    (
        text(name),
        none.clone(),
        text(load),
        text("active"),
        text("exited"),
        none.clone(),
        object(),
        0,
        none,
        job,
    )
}

async fn serve(server: Connection, calls: Calls) {
    let mut messages = MessageStream::from(&server);
    while let Some(Ok(call)) = messages.next().await {
        let header = call.header();
        let Some(member) = header.member().map(ToString::to_string) else { continue };
        let body = call.body();
        calls.lock().unwrap().push((member.clone(), body.signature().to_string()));
        answer(&server, &call, &member).await.unwrap();
    }
}

async fn answer(server: &Connection, call: &Message, member: &str) -> zbus::Result<()> {
    let header = call.header();
    match member {
        "ListUnitsByPatterns" => {
            let rows =
                vec![row("tenant-a.b.slice", "loaded"), row("tenant-x.y.slice", "not-found")];
            server.reply(&header, &rows).await
        }
        "Get" => server.reply(&header, &Variant::from(7_u32)).await,
        "StartTransientUnit" => server.reply(&header, &object()).await,
        "StopUnit" | "ResetFailedUnit" => {
            let gone = "org.freedesktop.systemd1.NoSuchUnit";
            server.reply_error(&header, gone, &"Unit is not loaded.").await
        }
        "KillUnit" => {
            let denied = "org.freedesktop.DBus.Error.AccessDenied";
            server.reply_error(&header, denied, &"no").await
        }
        _ => server.reply(&header, &()).await,
    }
}

#[tokio::test]
async fn units_are_listed_without_those_that_are_not_there() {
    let fake = Fake::new().await;
    let rows = fake.client.units(&["tenant-*"]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].name.as_str(), rows[0].sub.as_str()), ("tenant-a.b.slice", "exited"));
    assert_eq!(fake.last().1, "(asas)");
    let restarts: u32 = fake.client.property(&rows[0], "iface.Service", "NRestarts").await.unwrap();
    assert_eq!((restarts, fake.last().1.as_str()), (7, "(ss)"));
    let wrong: Result<i32, _> = fake.client.property(&rows[0], "iface.Service", "NRestarts").await;
    assert!(wrong.is_err(), "a property of another type");
}

#[tokio::test]
async fn transient_units_are_asked_for_in_systemds_form() {
    let fake = Fake::new().await;
    let unit = "tenant-a.b.slice";
    let properties = units::limits(&Limits::default());
    fake.client.start_transient(unit, &properties).await.unwrap();
    assert_eq!(
        (fake.last().0.as_str(), fake.last().1.as_str()),
        ("StartTransientUnit", "(ssa(sv)a(sa(sv)))")
    );
    fake.client.set_properties(unit, &properties).await.unwrap();
    assert_eq!(
        (fake.last().0.as_str(), fake.last().1.as_str()),
        ("SetUnitProperties", "(sba(sv))")
    );
}

#[tokio::test]
async fn stopping_what_is_not_there_is_done_and_other_refusals_are_errors() {
    let fake = Fake::new().await;
    fake.client.stop("tenant-a.b.slice").await.unwrap();
    fake.client.reset_failed("tenant-a.b.slice").await.unwrap();
    assert_eq!(fake.last().1, "s");
    let error = fake.client.kill("tenant-a.b.slice", 9).await.unwrap_err();
    assert_eq!(fake.last().1, "(ssi)");
    assert_eq!(error.to_string(), "KillUnit of tenant-a.b.slice by systemd");
    assert!(!error.is_disconnected());
}

#[tokio::test]
async fn a_tenants_unit_wakes_and_another_does_not() {
    let fake = Fake::new().await;
    let mut listening = JoinSet::new();
    listening.spawn(fake.client.clone().listen());
    let wake = fake.client.wakeups();
    // Listening begins with one.
    wake.notified().await;
    let signal = |path: &'static str, member: &'static str, name: &'static str| {
        let server = fake.server.clone();
        async move {
            let body = (name, object());
            server.emit_signal(None::<&str>, path, MANAGER, member, &body).await.unwrap();
        }
    };
    signal(ROOT, "UnitNew", "sshd.service").await;
    signal(ROOT, "JobNew", "tenant-a.b.slice").await;
    signal("/org/freedesktop/systemd1/unit/sshd_2eservice", "PropertiesChanged", "").await;
    // The next one comes after those three: what woke was it alone.
    signal(ROOT, "UnitRemoved", "tenant-a.b.slice").await;
    wake.notified().await;
    signal("/org/freedesktop/systemd1/unit/tenant_2da_2eb_2eservice", "PropertiesChanged", "")
        .await;
    wake.notified().await;
    let Fake { server, serving, .. } = fake;
    drop(serving);
    server.close().await.unwrap();
    let ended = listening.join_next().await.unwrap().unwrap();
    assert!(ended.unwrap_err().is_disconnected());
}

#[test]
fn properties_have_the_types_that_systemd_documents() {
    let paths = crate::paths::Paths::below(Path::new("/"));
    let id = bulkhead_api::id::LeaseId { tenant: "a".parse().unwrap(), name: "b".parse().unwrap() };
    let dir = LeaseDir::new(&paths, &id);
    let crun = Path::new("/run/crun");
    let service = units::service(&id, RestartPolicy::Always, &dir, crun, None, &[]);
    let slice = units::slice(&id, &Limits::default());
    let types: BTreeMap<&str, String> = slice
        .iter()
        .chain(&service)
        .map(|(name, value)| (*name, value.value_signature().to_string()))
        .collect();
    let text: String = types.iter().map(|(name, kind)| format!("{name} {kind}\n")).collect();
    expect![[r#"
        AllowedCPUs ay
        AllowedMemoryNodes ay
        Description s
        DevicePolicy s
        ExecStart a(sasb)
        ExecStartPre a(sasb)
        ExecStopPost a(sasb)
        KillMode s
        LimitCORE t
        MemoryMax t
        MemorySwapMax t
        RemainAfterExit b
        Restart s
        RestartMaxDelayUSec t
        RestartSteps u
        RestartUSec t
        Slice s
        StandardErrorFileToAppend s
        StandardInputFile s
        StandardOutputFileToAppend s
        StartLimitIntervalUSec t
        TasksMax t
        TimeoutStopUSec t
        Type s
    "#]]
    .assert_eq(&text);
}
