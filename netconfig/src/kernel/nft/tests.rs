use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::firewall::ruleset::{Statement, Verdict, render};
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
fn what_the_real_kernel_has_is_what_was_asked_for() {
    in_namespace(|| {
        let nft = nft();
        assert!(nft.version().unwrap() >= OLDEST);
        assert_eq!(nft.read().unwrap(), Ruleset::default());
        let wanted = compile(&sample::desired(3, 2, 2), &sample::access()).unwrap();
        assert_eq!(nft.converge(&wanted).unwrap(), Outcome::Changed);
        assert_eq!(nft.converge(&wanted).unwrap(), Outcome::AlreadySo);
    });
}

#[test]
fn speed() {
    in_namespace(|| {
        let nft = nft();
        let mut desired = sample::desired(1000, 1, 1);
        let mut access = sample::access();
        for vrfs in [false, true] {
            access.vrfs = vrfs;
            let wanted = compile(&desired, &access).unwrap();
            let text = render(&wanted);
            std::fs::write("/tmp/nftlab/big.nft", &text).unwrap();
            for _ in 0..4 {
                let t = std::time::Instant::now();
                nft.apply(&text).unwrap();
                println!("vrfs {vrfs} replace {:?} {} bytes", t.elapsed(), text.len());
            }
            let t = std::time::Instant::now();
            let read = nft.read().unwrap();
            println!("read {:?} {:?}", t.elapsed(), differences(&read, &wanted).len());
            sample::add(&mut desired, 2000, 1, 1);
            let more = compile(&desired, &access).unwrap();
            let t = std::time::Instant::now();
            let text = change(&wanted, &more).unwrap();
            println!("change {:?}", t.elapsed());
            println!("{text}");
            let t = std::time::Instant::now();
            nft.apply(&text).unwrap();
            println!("add {:?}", t.elapsed());
            let text = change(&more, &wanted).unwrap();
            let t = std::time::Instant::now();
            nft.apply(&text).unwrap();
            println!("remove {:?}", t.elapsed());
            println!("{text}");
            desired = sample::desired(1000, 1, 1);
        }
    });
}
