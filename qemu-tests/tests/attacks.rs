//! What a tenant tries against its host and its neighbour: all of it is refused, and each attempt succeeds where the guard
//! that it meets is missing.
//!
//! ```text
//!  rival/attacker ── every probe ──► refused      the same program, on the same host:
//!  rival/machine  ── in the jail of a VM ──► refused
//!  demo/victim    ── counts on                    in crun without one guard ──► what that guard stops SUCCEEDS
//!                                                 as root in no container   ──► every probe SUCCEEDS
//! ```
//!
//! | guard | switched off by | what then succeeds |
//! |---|---|---|
//! | system call filter | no `seccomp` | keyrings, io-uring, userfaultfd, sockets of other families, a user namespace and mounts in it |
//! | user ids of its own, no capability | no user namespace, all capabilities | devices and disks by number, kernel log, mounts, priorities, the clock |
//! | process namespace | the host's, and the host's users | ids, memory and environment of the host's processes |
//! | network namespace | the host's | the host's links, the site, the host's sockets without a file |
//! | paths hidden and read-only, control groups read-only | none hidden, all writable | `/proc/sys`, `/sys`, `/dev`, another control group |
//! | control group | in the root group | more processes and memory than a lease may have |
//! | core of its own | a hog on the victim's core | the victim's throughput falls |
//! | pages zeroed when they are given back | `init_on_free=0` | the marker of a lease that is gone is in the host's memory |
//!
//! What a tenant opens is looked at for the isolation statement, so it may try to have more than can be looked at: its program
//! ends, and the host lets others in as before.
//!
//! One guard cannot be switched off: the kernel zeroes every page that it maps into a program, so that a scan from within
//! finds nothing with or without `init_on_free`. The scanner shows that it would: it writes the marker there and finds it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod hogs;
mod probe;
mod remains;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::LeasePhase;
use bulkhead_qemu_tests::fixture::{Resumed, SOON, Scene, scene, tenant, until};
use serde_json::{Value, json};

use self::probe::{Said, id, outside, reports};

/// All probes of one program, under emulation.
const PROBES: Duration = Duration::from_secs(240);
/// Statements come at changes and every half minute.
const STATED: Duration = Duration::from_secs(90);

/// A container's configuration with one guard less.
struct Unguarded {
    guard: &'static str,
    remove: fn(&mut Value),
    /// What succeeds then.
    opens: &'static [&'static str],
}

const UNGUARDED: [Unguarded; 5] = [
    Unguarded {
        guard: "seccomp",
        remove: no_seccomp,
        opens: &["keyrings", "io-uring", "userfaultfd", "mounts", "sockets"],
    },
    Unguarded {
        guard: "ids",
        remove: no_ids,
        opens: &["devices", "volumes", "kernel-log", "mounts", "host-calls", "processor"],
    },
    Unguarded { guard: "pids", remove: no_pids, opens: &["pids"] },
    Unguarded {
        guard: "network",
        remove: |config| no_namespace(config, "network"),
        opens: &["sockets"],
    },
    Unguarded {
        guard: "paths",
        remove: no_paths,
        opens: &["proc-sys", "processor", "crowded-dev"],
    },
];

fn no_seccomp(config: &mut Value) {
    config["linux"].as_object_mut().unwrap().remove("seccomp");
}

fn no_namespace(config: &mut Value, kind: &str) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != kind);
}

/// Root of the host, as far as users go.
fn no_ids(config: &mut Value) {
    no_seccomp(config);
    no_namespace(config, "user");
    let linux = config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let all = json!([
        "CAP_SYS_ADMIN",
        "CAP_SYS_RAWIO",
        "CAP_MKNOD",
        "CAP_SYSLOG",
        "CAP_SYS_TIME",
        "CAP_SYS_NICE",
        "CAP_SYS_CHROOT",
        "CAP_DAC_OVERRIDE",
        "CAP_SETUID",
        "CAP_SYS_BOOT"
    ]);
    config["process"]["capabilities"] =
        json!({ "bounding": all, "effective": all, "permitted": all });
    // Nodes work only where the file system lets them.
    for mount in config["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "nodev");
        }
    }
}

/// With the host's users too: others cannot mount a `/proc` of the host's processes.
fn no_pids(config: &mut Value) {
    no_ids(config);
    no_namespace(config, "pid");
}

fn no_paths(config: &mut Value) {
    no_ids(config);
    let linux = config["linux"].as_object_mut().unwrap();
    linux.remove("maskedPaths");
    linux.remove("readonlyPaths");
    for mount in config["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "ro");
        }
    }
}

/// The attacker's own configuration without one guard, run by hand beside the lease.
fn without(
    host: &mut Resumed,
    attacker: &LeaseId,
    case: &Unguarded,
) -> Result<Vec<(String, Said)>> {
    let folder = probe::folder(attacker);
    let config = host.guest.run(&format!("cat {folder}/config.json"))?;
    let config: Value = serde_json::from_str(&config).context("the lease's configuration")?;
    let mut said = Vec::new();
    for name in case.opens {
        let mut config = config.clone();
        (case.remove)(&mut config);
        config["root"]["path"] = json!(format!("{folder}/rootfs"));
        config["process"]["args"] = json!(["/bin/probe", name]);
        let bundle = format!("/run/unguarded/{}-{name}", case.guard);
        write(host, &bundle, "config.json", &config.to_string())?;
        // As a lease's own service has it: crun gives its input and output to the container's user.
        let unit = format!("unguarded-{}-{name}", case.guard);
        let run = format!(
            "systemd-run --quiet --wait --unit={unit} --property=StandardInput=file:{bundle}/config.json \
             --property=StandardOutput=append:{bundle}/log --property=StandardError=append:{bundle}/log \
             crun --root /run/unguarded/crun --cgroup-manager=disabled run --bundle {bundle} {unit}; \
             cat {bundle}/log"
        );
        let answer = host.guest.ask(&run)?;
        let Some(report) = reports(&answer.text).into_values().next() else {
            let journal =
                host.guest.ask(&format!("journalctl -b -o cat -u {unit} | tail -n 20"))?;
            bail!("{run}: {}\n{}", answer.text, journal.text);
        };
        said.push(((*name).to_owned(), report));
    }
    host.guest.run("rm -rf /run/unguarded")?;
    Ok(said)
}

/// All probes in the jail of a virtual machine, in its control group, as by one who took over its emulator; what they said.
fn broken_out(host: &mut Resumed, machine: &LeaseId, slice: &str, program: &str) -> Result<String> {
    let folder = probe::folder(machine);
    let config = host.guest.run(&format!("cat {folder}/config.json"))?;
    let mut config: Value = serde_json::from_str(&config).context("the jail's configuration")?;
    let root = config["root"]["path"].as_str().context("a root")?;
    let root = if root.starts_with('/') { root.to_owned() } else { format!("{folder}/{root}") };
    config["root"]["path"] = json!(root);
    // Its own program is the only thing that it has more than the emulator.
    host.guest.run(&format!("touch {root}/probe"))?;
    config["mounts"].as_array_mut().context("mounts")?.push(json!({
        "destination": "/probe", "type": "bind", "source": program,
        "options": ["bind", "ro", "nosuid", "nodev"],
    }));
    config["process"]["args"] = json!(["/probe", "tenant"]);
    let bundle = "/run/broken-out";
    write(host, bundle, "config.json", &config.to_string())?;
    host.guest.run(&format!(
        "systemd-run --quiet --unit=broken-out --slice={slice} --property=StandardInput=file:{bundle}/config.json \
         --property=StandardOutput=append:{bundle}/log --property=StandardError=append:{bundle}/log \
         crun --root {bundle}/crun --cgroup-manager=disabled run --bundle {bundle} broken-out"
    ))?;
    let mut last = String::new();
    let done = until("the probes of the jail", PROBES, || {
        last = host.guest.ask(&format!("cat {bundle}/log"))?.text;
        Ok(last.contains("PROBES done").then_some(()))
    });
    host.guest.ask(&format!("systemctl stop broken-out; rm -rf {bundle} {root}/probe"))?;
    done.with_context(|| last.clone()).map(|()| last)
}

/// Writes a file in the guest: the channel takes lines of shell.
fn write(host: &mut Resumed, folder: &str, name: &str, text: &str) -> Result<()> {
    use base64::Engine as _;
    host.guest.run(&format!("mkdir -p {folder}; : > {folder}/{name}"))?;
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    // A line of the channel is shorter than a page.
    for part in encoded.as_bytes().chunks(3000) {
        let part = std::str::from_utf8(part)?;
        host.guest.run(&format!("echo {part} | base64 -d >> {folder}/{name}"))?;
    }
    Ok(())
}

/// Grants a lease of the probe and waits until it runs.
fn run(scene: &Scene<'_>, lease: &LeaseId, memory: &str, arguments: &[&str]) -> Result<()> {
    let (tenant, name) = (lease.tenant.as_str(), lease.name.as_str());
    scene.running.apply(&probe::lease(tenant, name, memory, arguments))?;
    scene.await_phase(name, LeasePhase::Running, SOON)?;
    Ok(())
}

/// The host proves that its leases share nothing, by a statement made from now on.
fn proved(host: &mut Resumed) -> Result<()> {
    let mut last = String::new();
    let found = until("a statement without violations", STATED, || {
        let answer = host.guest.ask("bulkhead host prove")?;
        last = answer.text;
        Ok((answer.status == 0).then_some(()))
    });
    found.map_err(|error| error.context(last))
}

#[test]
fn every_attack_from_a_lease_is_refused_and_succeeds_without_its_guard() -> Result<()> {
    probe::publish()?;
    scene("attacks", |scene, host| {
        let (victim, attacker) = (id("demo/victim")?, id("rival/attacker")?);
        scene.running.apply(&tenant("rival"))?;
        run(scene, &victim, "64Mi", &["count"])?;
        run(scene, &attacker, "64Mi", &["tenant"])?;
        let before = scene.lease("victim")?.unwrap().status.unwrap();
        let pid = before.pid.context("the victim's process")?;
        let count = hogs::count(&mut host.guest, pid)?;

        let text = probe::console(&mut host.guest, &attacker, "PROBES done", PROBES)?;
        let inside = reports(&text);
        let through: Vec<_> = inside.iter().filter(|(_, said)| said.succeeded).collect();
        ensure!(through.is_empty(), "got through: {through:#?}");
        ensure!(inside.len() >= 16, "only {} probes reported: {text}", inside.len());
        let mut table: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, said) in &inside {
            table.entry(name.clone()).or_default().push(format!("in the lease: {}", said.detail));
        }
        let program = probe::program(&attacker);
        let mut open = Vec::new();
        for name in inside.keys() {
            // Pinned, so that other cores than the first are a success.
            let said = outside(&mut host.guest, "taskset -c 0", &program, name)?;
            table.entry(name.clone()).or_default().push(format!("as root: {}", said.detail));
            if !said.succeeded {
                open.push(format!("{name} is refused to root: {}", said.detail));
            }
        }
        for case in &UNGUARDED {
            for (name, said) in without(host, &attacker, case)? {
                let row = format!("without {}: {}", case.guard, said.detail);
                table.entry(name.clone()).or_default().push(row);
                if !said.succeeded {
                    open.push(format!("{name} without {}: {}", case.guard, said.detail));
                }
            }
        }
        for (name, rows) in &table {
            println!("{name}\n    {}", rows.join("\n    "));
        }
        ensure!(open.is_empty(), "no proof, as refused without the guard too: {open:#?}");

        proved(host)?;
        let after = scene.lease("victim")?.unwrap().status.unwrap();
        assert_eq!((after.pid, after.starts), (before.pid, before.starts));
        assert!(hogs::count(&mut host.guest, pid)? > count, "the victim counts no more");
        Ok(())
    })
}

#[test]
fn who_breaks_out_of_a_virtual_machine_is_in_a_jail_where_every_attack_is_refused() -> Result<()> {
    probe::publish()?;
    scene("attacks-vm", |scene, host| {
        let (attacker, machine) = (id("rival/attacker")?, id("rival/machine")?);
        scene.running.apply(&tenant("rival"))?;
        run(scene, &attacker, "64Mi", &["count"])?;
        let mut document = probe::lease("rival", "machine", "128Mi", &[]);
        document["spec"]["instance"] = json!("vm");
        document["spec"]["workload"] = json!({ "image": "oci://bulkhead.site/demo-vm:latest" });
        scene.running.apply(&document)?;
        let lease = scene.await_phase("machine", LeasePhase::Running, SOON)?;
        let group = hogs::slice(&mut host.guest, &lease)?;
        let slice = group.trim().rsplit('/').next().context("a slice")?.to_owned();
        let text = broken_out(host, &machine, &slice, &probe::program(&attacker))?;
        let inside = reports(&text);
        // It runs virtual machines: that device is its own.
        let own = |said: &Said| said.detail.ends_with("of 12: open-kvm");
        let through: Vec<_> =
            inside.iter().filter(|(_, said)| said.succeeded && !own(said)).collect();
        ensure!(through.is_empty(), "got through: {through:#?}");
        ensure!(inside.get("devices").is_some_and(own), "no KVM: {text}");
        ensure!(inside.len() >= 16, "only {} probes reported: {text}", inside.len());
        for (name, said) in &inside {
            println!("{name}: {}", said.detail);
        }
        // The guest saw nothing of it.
        let after = scene.lease("machine")?.unwrap().status.unwrap();
        assert_eq!(after.pid, lease.status.unwrap().pid);
        Ok(())
    })
}

#[test]
fn nobody_gets_more_than_its_share_and_the_same_program_does_outside_of_a_lease() -> Result<()> {
    probe::publish()?;
    scene("attacks-greed", |scene, host| {
        let (victim, greedy) = (id("demo/victim")?, id("rival/greedy")?);
        scene.running.apply(&tenant("rival"))?;
        run(scene, &victim, "64Mi", &["count"])?;
        let before = scene.lease("victim")?.unwrap().status.unwrap();
        let mut refused = Vec::new();
        for (probe, number) in
            [("disk-filler", "600"), ("fork-bomb", "4200"), ("memory-hog", "600")]
        {
            run(scene, &greedy, "400Mi", &[probe, number])?;
            let group = hogs::slice(&mut host.guest, &scene.lease("greedy")?.unwrap())?;
            let end = until(&format!("the end of {probe}"), PROBES, || {
                let lease = scene.lease("greedy")?.and_then(|lease| lease.status);
                let ended = |phase| matches!(phase, LeasePhase::Ended | LeasePhase::Failed);
                Ok(lease.filter(|status| ended(status.phase)))
            })?;
            let log = format!("{}/console.log", probe::folder(&greedy));
            let text = host.guest.run(&format!("cat {log}"))?;
            let events =
                host.guest.run(&format!("cat {group}/memory.events {group}/pids.events"))?;
            println!("{probe}: {end:?}\n{text}\n{events}");
            match reports(&text).remove(probe) {
                Some(said) => ensure!(!said.succeeded, "{probe}: {}", said.detail),
                // The kernel ended it at its bound, before it could say so.
                None => ensure!(
                    !events.contains("oom_kill 0"),
                    "{probe} neither spoke nor was ended: {events}"
                ),
            }
            let program = probe::program(&greedy);
            let root = "echo 0 > /sys/fs/cgroup/cgroup.procs;";
            let said = outside(&mut host.guest, root, &program, &format!("{probe} {number}"))?;
            println!("{probe} in no lease: {}", said.detail);
            if !said.succeeded {
                refused.push(format!("{probe}: {}", said.detail));
            }
            scene.running.bulkhead(["delete", "lease", "rival/greedy", "--wait"])?;
        }
        ensure!(refused.is_empty(), "no proof, as refused outside of a lease too: {refused:#?}");
        proved(host)?;
        let after = scene.lease("victim")?.unwrap().status.unwrap();
        assert_eq!((after.pid, after.starts), (before.pid, before.starts));
        Ok(())
    })
}

#[test]
fn a_neighbour_that_takes_all_it_can_does_not_slow_a_lease_down() -> Result<()> {
    probe::publish()?;
    scene("attacks-hog", |scene, host| {
        let (victim, hog) = (id("demo/victim")?, id("rival/hog")?);
        scene.running.apply(&tenant("rival"))?;
        run(scene, &victim, "64Mi", &["count"])?;
        run(scene, &hog, "128Mi", &["hog", "64"])?;
        let lease = scene.lease("victim")?.unwrap();
        let rates =
            hogs::measure(host, &lease, &scene.lease("hog")?.unwrap(), &probe::program(&hog))?;
        println!("{rates}");
        rates.check()
    })
}

#[test]
fn a_tenant_with_more_open_files_than_can_be_looked_at_ends_and_holds_up_nobody() -> Result<()> {
    probe::publish()?;
    scene("attacks-crowd", |scene, host| {
        scene.running.apply(&tenant("rival"))?;
        let before = scene.lease("base")?.unwrap().status.unwrap();
        let mut crowd = probe::lease("rival", "crowd", "64Mi", &["open-files", "3"]);
        // It tries again whenever it was ended.
        crowd["spec"]["workload"]["restart"] = json!("always");
        scene.running.apply(&crowd)?;
        let text = probe::console(&mut host.guest, &id("rival/crowd")?, "PROBE open-files", SOON)?;
        println!("{text}");
        let ended = "journalctl -b -o cat -u bulkheadd | grep -c 'more open files' || true";
        let times =
            |host: &mut Resumed| -> Result<u32> { Ok(host.guest.run(ended)?.trim().parse()?) };
        until("its end", STATED, || Ok((times(host)? > 0).then_some(())))?;
        run(scene, &id("demo/late")?, "64Mi", &["count"])?;
        proved(host)?;
        println!("ended {} times", times(host)?);
        let after = scene.lease("base")?.unwrap().status.unwrap();
        assert_eq!((after.pid, after.starts), (before.pid, before.starts));
        Ok(())
    })
}

#[test]
fn nothing_that_a_tenant_wrote_is_in_memory_after_its_lease_and_is_where_pages_are_not_zeroed()
-> Result<()> {
    probe::publish()?;
    remains::test()
}
