use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};

mod frame;
mod lab;
mod wire_tests;

use super::*;
use crate::firewall::{compile, sample};

/// The `nft` of the host image, by the image's own loader.
pub(crate) fn nft() -> Nft {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        |target| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(target),
    );
    let root: PathBuf = target.join("image/work/root.d");
    let program = root.join("usr/sbin/nft");
    assert!(program.exists(), "{} is missing: run `cargo xtask image`", program.display());
    let library = root.join("usr/lib/x86_64-linux-gnu");
    let leading = vec!["--library-path".into(), library.into(), program.into()];
    Nft::by(root.join("usr/lib64/ld-linux-x86-64.so.2"), leading)
}

/// Runs in a network namespace of its own, which ends with it.
pub(crate) fn in_namespace<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: it needs root");
            run()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn real_kernel_has_what_was_asked_for() {
    in_namespace(|| {
        let nft = nft();
        assert!(nft.version().unwrap() >= OLDEST);
        assert_eq!(nft.read().unwrap(), Ruleset::default());
        let wanted = compile(&sample::desired(3, 2, 2), &sample::access()).ruleset;
        assert_eq!(nft.converge(&wanted).unwrap(), Outcome::Changed);
        assert_eq!(nft.converge(&wanted).unwrap(), Outcome::AlreadySo);
    });
}

#[test]
fn real_kernel_one_tenant_comes_and_goes_without_a_word_about_others() {
    in_namespace(|| {
        let nft = nft();
        let access = sample::access();
        let mut desired = sample::desired(3, 1, 1);
        let few = compile(&desired, &access).ruleset;
        sample::add(&mut desired, 7, 2, 1);
        let more = compile(&desired, &access).ruleset;
        nft.converge(&few).unwrap();
        let come = change(&few, &more).unwrap();
        let go = change(&more, &few).unwrap();
        for other in ["t1", "t2", "t3"] {
            assert!(!come.contains(other) && !go.contains(other), "{come}\n{go}");
        }
        for (transaction, wanted) in [(&come, &more), (&go, &few)] {
            nft.apply(transaction).unwrap();
            assert_eq!(differences(&nft.read().unwrap(), wanted), Vec::<String>::new());
        }
    });
}

#[test]
fn real_kernel_a_transaction_that_fails_in_the_middle_changes_nothing_and_names_the_object() {
    in_namespace(|| {
        let nft = nft();
        let wanted = compile(&sample::desired(2, 1, 1), &sample::access()).ruleset;
        nft.converge(&wanted).unwrap();
        let broken = "add counter inet bulkhead one\n\
                      delete element inet bulkhead zones { \"nobody\" : 7 }\n\
                      add counter inet bulkhead two\n";
        let error = nft.apply(broken).unwrap_err();
        let NftError::Refused { line, object, message } = &error else { panic!("{error}") };
        assert_eq!((*line, object.as_str()), (2, "\"nobody\""), "{message}");
        assert!(message.contains("No such file"), "{message}");
        let typo =
            nft.apply("add counter inet bulkhead one\nadd rule inet bulkhead between tcp prot 7\n");
        assert!(matches!(typo, Err(NftError::Refused { line: 2, .. })), "{typo:?}");
        assert_eq!(nft.read().unwrap(), wanted);
        assert_eq!(nft.converge(&wanted).unwrap(), Outcome::AlreadySo);
    });
}

#[test]
fn real_kernel_what_others_wrote_in_our_tables_goes_and_their_tables_stay() {
    in_namespace(|| {
        let nft = nft();
        let wanted = compile(&sample::desired(2, 1, 1), &sample::access()).ruleset;
        nft.converge(&wanted).unwrap();
        // What is understood is taken out, what is not makes the table new.
        for foreign in [
            "insert rule inet bulkhead between accept",
            "insert rule inet bulkhead between meta length 7 accept",
        ] {
            nft.apply(&format!("add table ip theirs\n{foreign}\n")).unwrap();
            assert_eq!(nft.converge(&wanted).unwrap(), Outcome::Changed, "{foreign}");
            assert_eq!(nft.read().unwrap(), wanted);
        }
        let tables = nft.run(&["list", "tables"], "").unwrap();
        assert!(String::from_utf8_lossy(&tables.stdout).contains("table ip theirs"));
        // All of ours gone is a state, too.
        assert_eq!(nft.converge(&Ruleset::default()).unwrap(), Outcome::Changed);
        assert_eq!(nft.read().unwrap(), Ruleset::default());
    });
}

#[test]
fn a_release_is_read_or_refused() {
    assert_eq!(parse_version("nftables v1.1.3 (Commodore Bullmoose #4)"), Some(OLDEST));
    assert_eq!(parse_version("nftables v1.0.6 (Lester Gooch #5)"), Some(Version(1, 0, 6)));
    assert!(Version(1, 0, 9) < OLDEST && Version(1, 1, 3) >= OLDEST && Version(1, 1, 10) > OLDEST);
    for text in
        ["", "nftables", "nftables v1.1", "nftables v1.1.x", "nftables v1.1.3.4", "iptables v1.1.3"]
    {
        assert_eq!(parse_version(text), None, "{text:?}");
    }
}

#[test]
fn what_is_no_nft_is_an_error_that_says_so() {
    let says = |script: &str| Nft::by("/bin/sh", vec!["-c".into(), script.into()]);
    let old = says("echo 'nftables v1.0.6 (Lester Gooch #5)'").version().unwrap_err();
    assert_eq!(
        old.to_string(),
        "nft 1.0.6: older than 1.1.3, which misreads maps with joined keys"
    );
    assert!(
        matches!(says("echo hello").version(), Err(NftError::NoVersion(said)) if said == "hello")
    );
    assert!(matches!(says("echo '{'").read(), Err(NftError::Answer(_))));
    let failed = says("echo broken >&2; exit 3").apply("").unwrap_err().to_string();
    assert_eq!(failed, "nft fails (exit status: 3): broken");
    let missing = Nft::by("/nowhere/nft", Vec::new()).version().unwrap_err();
    assert_eq!(missing.to_string(), "run \"/nowhere/nft\"");
    // It ends before it has read a long transaction.
    let long = "x".repeat(1 << 20);
    assert!(says("exit 1").apply(&long).is_err());
}
