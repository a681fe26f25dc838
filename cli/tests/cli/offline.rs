//! Verbs that need nobody.

use expect_test::expect;

use crate::scene::{Said, run};

fn bulkhead(arguments: &[&str]) -> Said {
    run("/nowhere".into(), "", arguments, |_| Ok(()))
}

#[test]
fn a_kind_is_explained_with_its_fields() {
    expect![[r#"
        Site  bulkhead.io/v1

          An edge location.

        Fields:
          apiVersion  <text>  required
              `bulkhead.io/v1`.
              One of: bulkhead.io/v1
          metadata  <object>  required
              Its name.
          spec  <object>
              What it should do.
          status  <object>
              What is known of it; ignored when written by a person.
    "#]]
    .assert_eq(&bulkhead(&["explain", "site"]).ok());
}

#[test]
fn a_field_is_explained_with_its_choices() {
    expect![[r#"
        Lease.spec.workload  <object>  required

          What to run.
          The program of a lease.

        Fields:
          args  <list of text>
              Arguments in place of the image's `Cmd`; empty = the image's own.
          image  <text>  required
              `oci://HOST/NAME:TAG` or `oci://HOST/NAME@sha256:…`; HOST `bulkhead.site` is the site's own cache.
          restart  <text>
              What happens when the program ends.
              One of: always, onFailure, never
    "#]].assert_eq(&bulkhead(&["explain", "lease.spec.workload"]).ok());
}

#[test]
fn every_field_of_every_kind_is_explained() {
    for kind in ["sites", "hosts", "tenants", "leases"] {
        let text = bulkhead(&["explain", kind, "--recursive"]).ok();
        assert!(text.contains("metadata  <object>  required"), "{text}");
        assert!(!text.contains("<anything>"), "{kind}: {text}");
    }
}

#[test]
fn what_cannot_be_explained_names_what_is_near() {
    assert_eq!(
        bulkhead(&["explain", "leese"]).failed(2),
        "error: kind \"leese\" is not known: expected one of site, host, tenant, lease; did you mean lease?\n"
    );
    let said = bulkhead(&["explain", "lease.spec.cpu"]).failed(2);
    assert!(said.starts_with("error: Lease.spec has no field \"cpu\": it has "), "{said}");
    assert!(said.ends_with("; did you mean cpus?\n"), "{said}");
    let said = bulkhead(&["explain", "lease.spec.cpus.x"]).failed(2);
    assert!(said.contains("it is whole number and has no fields"), "{said}");
}

#[test]
fn completion_scripts_are_printed_for_the_usual_shells() {
    for (shell, mark) in
        [("bash", "complete -F"), ("zsh", "#compdef bulkhead"), ("fish", "complete -c bulkhead")]
    {
        let script = bulkhead(&["completion", shell]).ok();
        assert!(script.contains(mark), "{shell}");
        assert!(script.contains("join-ticket"), "{shell}");
    }
}

#[test]
fn the_version_is_printed() {
    let want = format!("bulkhead {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(bulkhead(&["version"]).ok(), want);
    assert_eq!(bulkhead(&["--version"]).ok(), want);
}

#[test]
fn help_is_for_standard_output_and_names_every_verb() {
    expect![[r#"
        The command line of a Bulkhead fleet

        Usage: bulkhead [OPTIONS] <COMMAND>

        Commands:
          login        Remember a registry and how to speak to it
          logout       Forget the registry and its token
          get          Show objects as a table, YAML or JSON
          describe     Show all that is known of one object
          apply        Create or change what a file describes
          delete       Delete an object, or what a file describes
          wait         Wait until an object is observed in a state
          logs         Show the console log of a lease's program
          host         Ask the supervisor of this very host, or of another
          verify       Check isolation statements or receipts in a file with the fleet CA alone
          join-ticket  Make a one-time secret with which a site joins the fleet
          explain      Explain why an object is as it is, where a lease would fit, or what a field means
          completion   Print the completion script of a shell
          version      Print the version

        Options:
              --config <FILE>  Where server and token are kept [default:
                               $XDG_CONFIG_HOME/bulkhead/config.json]
          -h, --help           Print help
          -V, --version        Print version
    "#]]
    .assert_eq(&bulkhead(&["--help"]).ok());
}

#[test]
fn no_arguments_are_a_wrong_command_line() {
    assert!(bulkhead(&[]).failed(2).contains("Usage: bulkhead"));
}
