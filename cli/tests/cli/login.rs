use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::registry::TOKEN;
use crate::scene::Scene;

#[test]
fn a_login_is_remembered_for_its_owner_only_and_forgotten_by_logout() {
    let scene = Scene::stranger();
    let said = scene.login().ok();
    let config = scene.path("bulkhead/config.json");
    assert_eq!(said, format!("logged in to {}, kept in {config}\n", scene.registry.url));
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    let folder = fs::metadata(scene.path("bulkhead")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    assert_eq!(scene.run(&["get", "hosts"]).nothing(), "no hosts\n");
    assert_eq!(scene.run(&["logout"]).ok(), format!("logged out, removed {config}\n"));
    assert!(scene.run(&["get", "hosts"]).failed(1).contains("not logged in"));
    assert!(scene.run(&["logout"]).ok().starts_with("not logged in"));
}

#[test]
fn a_token_is_read_from_standard_input() {
    let scene = Scene::stranger();
    let (url, ca) = (scene.registry.url.clone(), scene.path("ca.pem"));
    let login = ["login", "--server", &url, "--ca", &ca];
    scene.run_with(&format!("  {TOKEN}\n"), &login).ok();
    scene.run(&["get", "hosts"]);
    assert_eq!(scene.registry.fleet().requests, ["GET /v1/sites", "GET /v1/hosts"]);
}

#[test]
fn a_wrong_token_is_refused_and_nothing_is_kept() {
    let scene = Scene::stranger();
    scene.file("token", "wrong");
    let said = scene.login().failed(1);
    let url = &scene.registry.url;
    assert_eq!(
        said,
        format!(
            "error: registry {url} does not accept the token\n  help: bulkhead login --server {url} \
             --ca FILE --token-file FILE, with a valid token\n"
        )
    );
    assert!(!fs::exists(scene.path("bulkhead/config.json")).unwrap());
}

#[test]
fn a_text_of_two_lines_is_no_token() {
    let scene = Scene::stranger();
    let token = scene.file("token", "two\nlines");
    let said = scene.login().failed(1);
    assert!(said.starts_with(&format!("error: token from {token}: not a token: ")), "{said}");
    assert!(!said.contains("two"), "a token is not shown: {said}");
}

#[test]
fn a_registry_of_another_ca_is_refused_before_the_token_is_sent() {
    let (scene, other) = (Scene::stranger(), Scene::stranger());
    scene.file("ca.pem", &other.registry.ca);
    let said = scene.login().failed(1);
    let url = &scene.registry.url;
    let start =
        format!("error: registry {url} does not prove itself with a certificate of the fleet CA: ");
    assert!(said.starts_with(&start), "{said}");
    assert!(said.contains("invalid peer certificate"), "{said}");
    assert!(said.contains("help: nothing was sent to it"), "{said}");
    assert!(scene.registry.fleet().requests.is_empty());
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let scene = Scene::stranger();
    let (ca, token) = (scene.path("ca.pem"), scene.path("token"));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let said =
        scene.run(&["login", "--server", &url, "--ca", &ca, "--token-file", &token]).failed(1);
    let start = format!("error: registry {url} cannot be reached: ");
    assert!(said.starts_with(&start), "{said}");
    assert!(said.contains("refused"), "{said}");
    assert!(said.contains("help: is the registry running"), "{said}");
}

#[test]
fn a_server_without_tls_is_a_wrong_command_line() {
    let scene = Scene::stranger();
    let (ca, token) = (scene.path("ca.pem"), scene.path("token"));
    let login = ["login", "--server", "http://r:80", "--ca", &ca, "--token-file", &token];
    assert_eq!(
        scene.run(&login).failed(2),
        "error: server \"http://r:80\": not https: expected https://HOST or https://HOST:PORT\n"
    );
}

#[test]
fn a_file_that_is_no_certificate_is_refused() {
    let scene = Scene::stranger();
    scene.file("ca.pem", "hello");
    assert!(scene.login().failed(1).starts_with("error: certificate of the fleet CA: "));
}

#[test]
fn without_a_login_the_way_to_log_in_is_shown() {
    let scene = Scene::stranger();
    for verb in [
        &["get", "hosts"][..],
        &["describe", "host", "h"],
        &["delete", "site", "s"],
        &["wait", "lease", "a/b", "--for", "gone"],
        &["logs", "a/b"],
        &["join-ticket", "s"],
    ] {
        let config = scene.path("bulkhead/config.json");
        assert_eq!(
            scene.run(verb).failed(1),
            format!(
                "error: not logged in to a registry: {config} is not there\n  \
                 help: bulkhead login --server URL --ca FILE --token-file FILE\n"
            )
        );
    }
}

#[test]
fn a_configuration_that_others_can_read_is_not_used() {
    let scene = Scene::new();
    let config = scene.path("bulkhead/config.json");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(
        scene.run(&["get", "hosts"]).failed(1),
        format!(
            "error: {config} can be read by others (mode 644), and it holds a token\n  \
             help: chmod 600 {config}\n"
        )
    );
}

#[test]
fn a_broken_configuration_names_its_file_and_place() {
    let scene = Scene::new();
    let config = scene.path("bulkhead/config.json");
    fs::write(&config, "{ \"server\": 5 }").unwrap();
    let said = scene.run(&["get", "hosts"]).failed(1);
    assert!(said.starts_with(&format!("error: read {config}: invalid type: ")), "{said}");
    assert!(said.contains("line 1"), "{said}");
}
