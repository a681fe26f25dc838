//! `docs/cli.md` shows what the program prints: its `console` blocks are run.

use std::fmt::Write as _;

use expect_test::expect_file;
use serde_json::json;

use crate::isolation::Fleet;
use crate::receipts;
use crate::scene::{LEASE, SITE, Scene, TENANT, run};
use crate::supervisor;

/// The registry's name on the page.
const SERVER: &str = "https://registry.example:8443";

#[test]
fn the_manual_shows_what_is_printed() {
    let page = include_str!("../../../docs/cli.md");
    let scene = Scene::stranger();
    scene.registry.fleet().put(crate::scene::host());
    let log = "hello from demo/hello\ntick 1\ntick 2\n".to_owned();
    scene.registry.fleet().logs.insert("/v1/tenants/demo/leases/hello".to_owned(), [log].into());
    std::fs::create_dir(scene.dir.path().join("examples")).unwrap();
    scene.file("examples/site.yaml", SITE);
    scene.file("examples/tenant.yaml", TENANT);
    scene.file("examples/lease.yaml", LEASE);
    scene.file("big.yaml", &LEASE.replace("cpus: 1 ", "cpus: 64"));
    scene.file("typo.yaml", &LEASE.replace("cpus: 1 ", "cpu: 1  "));
    let socket = scene.dir.path().join("supervisor.sock");
    let fleet = Fleet::new();
    let statements = fleet.chain(3, &[]);
    scene.file("fleet-ca.pem", &fleet.ca);
    scene.file("statement.json", &serde_json::to_string(&statements[2]).unwrap());
    scene.file("chain.json", &serde_json::to_string(&statements).unwrap());
    let gap = [&statements[0], &statements[2]];
    scene.file("gap.json", &serde_json::to_string(&gap).unwrap());
    let receipts = receipts::chain(&fleet);
    scene.file("receipts.json", &serde_json::to_string(&receipts).unwrap());
    let _supervisor = supervisor::start(&socket, &statements, &receipts);
    let of_host = |host: &str| format!("GET /v1/hosts/{host}/supervisor/receipts");
    let receipts = serde_json::to_vec(&receipts[3..]).unwrap();
    scene.registry.fleet().answer(&of_host("lab-01-000001"), 200, receipts);
    let away = json!({ "reason": "Unavailable",
        "message": "host lab-02-000007 is out of reach: site lab-02 is not connected; try again" });
    scene.registry.fleet().answer(&of_host("lab-02-000007"), 503, away.to_string());
    let _other = crate::ledger::start(&scene.dir.path().join("other.sock"));
    expect_file!["../../../docs/cli.md"].assert_eq(&rerun(page, &scene));
}

/// The page with what each command of its `console` blocks prints now.
fn rerun(page: &str, scene: &Scene) -> String {
    let (mut out, mut inside) = (String::new(), false);
    for line in page.lines() {
        match (inside, line) {
            (false, "```console") => inside = true,
            (true, "```") => inside = false,
            (true, _) if !line.starts_with("$ ") => continue,
            _ => {}
        }
        writeln!(out, "{line}").unwrap();
        if inside && let Some(command) = line.strip_prefix("$ bulkhead ") {
            out.push_str(&output(command, scene));
        }
    }
    out
}

/// What a command prints, with the registry and the folder under the names of the page.
fn output(command: &str, scene: &Scene) -> String {
    let folder = scene.path("");
    let arguments = command.split(' ').map(|word| match word {
        SERVER => scene.registry.url.clone(),
        // Files stand on the page as they are named from the folder.
        _ if scene.dir.path().join(word).is_file() => scene.path(word),
        _ => word.to_owned(),
    });
    let mut arguments: Vec<String> = arguments.collect();
    if command.starts_with("host ") && !command.contains("--host") {
        // The page tells of the ledger by a host that has something in quarantine.
        let kept = ["host ledger", "host quarantine"].iter().any(|verb| command.starts_with(verb));
        let socket = if kept { "other.sock" } else { "supervisor.sock" };
        arguments.extend(["--socket".to_owned(), scene.path(socket)]);
    }
    if command.starts_with("explain ") {
        // The page tells of a lease that waits only here.
        scene.registry.fleet().put(crate::explain::stuck());
        scene.registry.fleet().put(crate::explain::troubled_host());
    }
    let quoted = arguments.iter().position(|word| word.starts_with('"'));
    if let Some(at) = quoted {
        let words = arguments.split_off(at);
        let end = words.iter().position(|word| word.ends_with('"')).unwrap();
        arguments.push(words[..=end].join(" ").trim_matches('"').to_owned());
        arguments.extend_from_slice(&words[end + 1..]);
    }
    if command.starts_with("join-ticket") && command.contains(" -o ") {
        let file = arguments.pop().unwrap();
        arguments.push(scene.path(&file));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = run(scene.dir.path().to_owned(), "", &arguments, |_| Ok(()));
    let home = format!("{folder}bulkhead/");
    said.all
        .replace(&home, "~/.config/bulkhead/")
        .replace(&folder, "")
        .replace(&scene.registry.url, SERVER)
}
