//! Specs that a host must refuse, each with its own reason, while what it runs stays as it is. They come from a
//! site in the wrong hands: it has a good certificate, but not the key that specs are signed with.

mod rogue;

use std::fs;

use anyhow::Result;
use bulkhead_api::condition::{self, Truth};
use bulkhead_api::lease::LeasePhase;
use bulkhead_api::spec::{self, HostSpec, SignedSpec, SpecKeys};
use bulkhead_qemu_tests::fixture::{Resumed, SOON, scene, until};
use bulkhead_qemu_tests::fleet::Program;
use ring::signature::Ed25519KeyPair;
use rogue::RogueSite;

/// Waits until the host says that it refused a spec for `reason`.
fn await_refusal(host: &mut Resumed, reason: &str) -> Result<()> {
    until(reason, SOON, || {
        let status = host.status()?;
        let accepted = condition::find(&status.conditions, "SpecAccepted");
        Ok(accepted.filter(|c| c.status == Truth::False && c.reason == reason).map(drop))
    })
}

#[test]
fn a_damaged_a_foreign_an_old_and_an_expired_spec_are_refused_each_with_its_reason() -> Result<()> {
    scene("spec", |scene, host| {
        let site = scene.running.fleet.dir.join("site");
        let cached = site.join("specs").join(format!("{}.json", host.host));
        let good: SignedSpec = serde_json::from_slice(&fs::read(cached)?)?;
        let registry = scene.running.fleet.registry();
        let keys: SpecKeys =
            serde_json::from_slice(&fs::read(registry.join("trust/spec-keys.json"))?)?;
        let wanted = spec::verify(&good, &keys)?;
        let key = fs::read(registry.join("signer/spec.pk8"))?;
        let key = Ed25519KeyPair::from_pkcs8(&key).map_err(|e| anyhow::anyhow!("{e}"))?;
        let sign = |spec: &HostSpec| spec::sign(spec, &key);
        let next =
            HostSpec { generation: wanted.generation + 1, leases: Vec::new(), ..wanted.clone() };
        let before = host.status()?;
        scene.running.kill_program(Program::Site);
        let ca = registry.join("trust/ca.pem");
        let rogue = RogueSite::start(scene.running.net, &site, &ca, host.host.as_str())?;

        let mut bit = sign(&next)?;
        bit.body.0[40] ^= 1;
        let mut cases = vec![("BadSignature", bit)];
        let foreign = HostSpec { host: "lab-01-ffffff".parse()?, ..next.clone() };
        cases.push(("WrongHost", sign(&foreign)?));
        let old = HostSpec { generation: wanted.generation, ..next.clone() };
        cases.push(("OldGeneration", sign(&old)?));
        let expired = HostSpec {
            not_before: "2026-01-01T00:00:00Z".parse()?,
            expiry: "2026-01-02T00:00:00Z".parse()?,
            ..next.clone()
        };
        cases.push(("Expired", sign(&expired)?));
        let mut unknown = sign(&next)?;
        unknown.key_id = "0000000000000000".to_owned();
        cases.push(("UnknownKey", unknown));
        for (reason, signed) in cases {
            rogue.hand_out(&signed)?;
            await_refusal(host, reason)?;
            let now = host.status()?;
            assert_eq!(now.accepted_generation, before.accepted_generation, "{reason}");
            assert_eq!(now.leases.len(), 1, "{reason}");
            assert_eq!(now.leases[0].status.phase, LeasePhase::Running, "{reason}");
            assert_eq!(now.leases[0].status.pid, before.leases[0].status.pid, "{reason}");
        }
        // The control: the same order, well signed, is obeyed.
        rogue.hand_out(&sign(&next)?)?;
        until("the good spec obeyed", SOON, || {
            let status = host.status()?;
            Ok((status.leases.is_empty() && status.settled_generation == next.generation)
                .then_some(()))
        })
    })
}
