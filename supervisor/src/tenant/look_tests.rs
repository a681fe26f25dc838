use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use super::*;
use crate::class::{Class, ClassError, Erased, Progress};
use crate::tenant::plan::tests::id;

/// Answers when it is told to.
#[derive(Debug)]
struct Slow(Mutex<Receiver<()>>);

impl Slow {
    fn new() -> (SyncSender<()>, Arc<Self>) {
        let (tell, told) = sync_channel(8);
        (tell, Arc::new(Self(Mutex::new(told))))
    }
}

impl Class for Slow {
    fn observe(&self, _: &Order) -> Result<Attached, ClassError> {
        self.0.lock().unwrap().recv().unwrap();
        Ok(Attached::Yes)
    }

    fn attach(&self, _: &Order) -> Result<(), ClassError> {
        Ok(())
    }

    fn erase(&self, _: &Order) -> Result<Erased, ClassError> {
        Ok(Erased::default())
    }
}

/// Lists nothing and breaks when it looks.
#[derive(Debug)]
struct Broken;

impl Class for Broken {
    fn found(&self) -> Result<Vec<(LeaseId, Resource)>, ClassError> {
        Err(ClassError::Unsupported("unreadable".to_owned()))
    }

    fn observe(&self, _: &Order) -> Result<Attached, ClassError> {
        Err(ClassError::Unsupported("no such thing".to_owned()))
    }

    fn attach(&self, _: &Order) -> Result<(), ClassError> {
        Ok(())
    }

    fn erase(&self, _: &Order) -> Result<Erased, ClassError> {
        Ok(Erased::default())
    }
}

fn order(resource: Resource) -> Order {
    Order {
        lease: id("a"),
        resource,
        instance: bulkhead_api::lease::InstanceKind::Container,
        first_id: 1 << 20,
        weaker_erase: false,
        progress: Progress::default(),
    }
}

fn cores() -> Resource {
    Resource::Cpu { cpus: [1].into() }
}

fn cache() -> Resource {
    Resource::Cache { ways: Vec::new() }
}

#[tokio::test]
async fn a_class_that_does_not_answer_is_unseen_and_asked_again_when_it_does() {
    let (tell, slow) = Slow::new();
    let (answers, quick) = Slow::new();
    let classes =
        Classes::default().with(ResourceClass::Cpu, slow).with(ResourceClass::Cache, quick);
    let orders = || vec![order(cores()), order(cache())];
    let patience = Duration::from_secs(2);
    let mut looks = Looks { patience, ..Looks::default() };
    let begun = Instant::now();
    for look in 0..3 {
        answers.send(()).unwrap();
        let (seen, unlisted) = looks.look(&classes, orders()).await;
        let resources = &seen[&id("a")];
        assert!(matches!(resources[&cores()], Attached::Unseen(_)), "{resources:?}");
        assert!(unlisted.unwrap().starts_with("cpu resources cannot be looked at"), "{look}");
    }
    assert!(begun.elapsed() < patience * 2, "it is waited for once");
    tell.send(()).unwrap();
    answers.send(()).unwrap();
    for (_, answer) in looks.silent.values_mut() {
        let (found, _) = answer.await.unwrap();
        assert_eq!(found, Ok(Vec::new()));
    }
    tell.send(()).unwrap();
    let (seen, unlisted) = looks.look(&classes, orders()).await;
    assert_eq!((seen[&id("a")][&cores()].clone(), unlisted), (Attached::Yes, None));
}

#[tokio::test]
async fn a_class_that_fails_says_so_of_its_own_resources() {
    let classes = Classes::default().with(ResourceClass::Cpu, Arc::new(Broken));
    let orders = vec![order(cores()), order(cache())];
    let (seen, unlisted) = Looks::default().look(&classes, orders).await;
    let unseen = |why: &str| Attached::Unseen(why.to_owned());
    let resources = &seen[&id("a")];
    assert_eq!(resources[&cores()], unseen("no such thing"));
    assert_eq!(resources[&cache()], unseen("this version cannot handle it"));
    assert_eq!(unlisted.as_deref(), Some("list cpu resources: unreadable"));
}
