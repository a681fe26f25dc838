use super::*;
use crate::kernel::memory::Memory;
use crate::merge::{Routing, merge};

fn target() -> Target {
    let text = r#"{"tenants":{"acme":7},"underlay":{"uplink":{"members":["up0","up1"],"mtu":1500,
        "bond":{"mode":"activeBackup","miimonMs":100},"addresses":[["198.51.100.1",24]]}},
        "networks":[[{"tenant":"acme","name":"a"},{"segment":{"vlan":7},"mtu":1400}]],"ports":[]}"#;
    merge(&serde_json::from_str(text).unwrap(), Routing::Vrf)
}

fn host() -> Memory {
    let mut memory = Memory::default();
    memory.card(2, "up0");
    memory.card(3, "up1");
    memory
}

/// Who commands the host is reached by a card that is nobody's member.
struct ByCard;

impl Contact for ByCard {
    fn confirmed(&mut self, _: Duration) -> bool {
        false
    }
}

#[test]
fn an_uplink_that_is_cut_comes_back_without_anybody() {
    let mut memory = host();
    let before = memory.state.clone();
    let within = Duration::from_secs(30);
    let error = commit(&mut memory, &target(), None, &mut ByCard, within).unwrap_err();
    let TransactionError::RolledBack { cause, remade } = error else { panic!("{error}") };
    assert_eq!(cause.to_string(), "no contact within 30s");
    assert_eq!(remade, []);
    assert_eq!(memory.state.links, before.links, "cards are up and nobody's again");
}

#[test]
fn a_settled_network_asks_nobody() {
    struct Never;
    impl Contact for Never {
        fn confirmed(&mut self, _: Duration) -> bool {
            panic!("nothing was changed")
        }
    }
    let mut memory = host();
    commit(&mut memory, &target(), None, &mut NoContact, Duration::ZERO).unwrap();
    let again = commit(&mut memory, &target(), None, &mut Never, Duration::ZERO).unwrap();
    assert_eq!(again.operations, 0);
}

/// A kernel that says yes and does nothing.
struct Liar(Memory);

impl Kernel for Liar {
    fn observe(&mut self) -> Result<Observed, KernelError> {
        self.0.observe()
    }

    fn apply(&mut self, _: &[Operation]) -> Result<(), ApplyError> {
        Ok(())
    }
}

#[test]
fn a_yes_that_does_not_read_back_is_a_no() {
    let error =
        commit(&mut Liar(host()), &target(), None, &mut NoContact, Duration::ZERO).unwrap_err();
    let TransactionError::RolledBack { cause: Cause::Unsettled { left, .. }, .. } = error else {
        panic!("{error}")
    };
    assert!(left > 5);
}

#[test]
fn a_network_that_cannot_be_taken_back_is_stuck_and_keeps_its_checkpoint() {
    struct Dead(Memory);
    impl Kernel for Dead {
        fn observe(&mut self) -> Result<Observed, KernelError> {
            self.0.observe()
        }

        fn apply(&mut self, operations: &[Operation]) -> Result<(), ApplyError> {
            let half = operations.len() / 2;
            self.0.apply(&operations[..half])?;
            let source = KernelError::refused(nix::errno::Errno::ENOMEM);
            Err(ApplyError { change: operations[half].to_string(), source })
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::at(&folder.path().join("checkpoint.json"));
    let mut kernel = Dead(host());
    let error = commit(&mut kernel, &target(), Some(&journal), &mut NoContact, Duration::ZERO);
    assert!(matches!(error, Err(TransactionError::Stuck { .. })), "{error:?}");
    let mut memory = kernel.0;
    assert!(recover(&mut memory, &journal).unwrap());
    assert_eq!(memory.state.ours().count(), 0);
    assert!(!recover(&mut memory, &journal).unwrap(), "the checkpoint is used up");
}

#[test]
fn a_checkpoint_that_cannot_be_kept_leaves_everything_as_it_is() {
    let journal = Journal::at(Path::new("/nonexistent/checkpoint.json"));
    let mut memory = host();
    let error = commit(&mut memory, &target(), Some(&journal), &mut NoContact, Duration::ZERO);
    assert!(matches!(error, Err(TransactionError::Checkpoint { .. })), "{error:?}");
    assert_eq!(memory.asked, 0);
}

#[test]
fn a_checkpoint_wants_what_is_there() {
    let mut memory = host();
    commit(&mut memory, &target(), None, &mut NoContact, Duration::ZERO).unwrap();
    let there = plan(&checkpoint(&memory.state, &target()), &memory.state);
    assert_eq!((there.operations, there.refused), (vec![], vec![]));
}
