use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bulkhead_api::lease::InstanceKind;
use bulkhead_api::resource::{EXTENT, Extent};

use super::*;
use crate::class::Attached;
use crate::tenant::plan::tests::id;

/// Erases and attaches end when they are told to, or break.
#[derive(Debug)]
struct Told(Mutex<Receiver<bool>>, Mutex<Vec<String>>);

impl Told {
    fn new() -> (SyncSender<bool>, Arc<Self>) {
        let (tell, told) = sync_channel(8);
        (tell, Arc::new(Self(Mutex::new(told), Mutex::default())))
    }

    fn wait(&self, order: &Order) -> Result<(), ClassError> {
        self.1.lock().unwrap().push(order.lease.name.to_string());
        let good = self.0.lock().unwrap().recv().unwrap();
        assert!(good, "told to break");
        Ok(())
    }

    fn begun(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }
}

impl Class for Told {
    fn observe(&self, _: &Order) -> Result<Attached, ClassError> {
        Ok(Attached::No)
    }

    fn attach(&self, order: &Order) -> Result<(), ClassError> {
        self.wait(order)
    }

    fn erase(&self, order: &Order) -> Result<Erased, ClassError> {
        self.wait(order)?;
        Ok(Erased { methods: vec!["told".to_owned()], ..Erased::default() })
    }
}

fn order(name: &str, pool: &str) -> Order {
    let extents = vec![Extent { start: 0, length: EXTENT }];
    let resource =
        Resource::Volume { name: "data".parse().unwrap(), pool: pool.to_owned(), extents };
    Order {
        lease: id(name),
        resource,
        instance: InstanceKind::Container,
        first_id: 1 << 20,
        weaker_erase: false,
        progress: Progress::default(),
    }
}

struct Loop {
    beside: Beside,
    class: Arc<Told>,
    tell: SyncSender<bool>,
    wake: Arc<Notify>,
}

impl Loop {
    fn new() -> Self {
        let wake = Arc::new(Notify::new());
        let (tell, class) = Told::new();
        Self { beside: Beside::new(Arc::clone(&wake)), class, tell, wake }
    }

    /// Without patience, as in a pass whose moment is over.
    async fn turn(&mut self, deed: Deed, order: &Order) -> Result<Option<Finished>, StepError> {
        let class = Arc::clone(&self.class) as Arc<dyn Class>;
        self.beside.turn(deed, class, order.clone(), Instant::now()).await
    }

    async fn end(&mut self, good: bool) {
        let woken = Arc::clone(&self.wake);
        self.tell.send(good).unwrap();
        woken.notified().await;
    }
}

#[tokio::test]
async fn an_erase_is_pending_until_its_end_is_taken_and_wakes_the_loop() {
    let mut host = Loop::new();
    let a = order("a", "p");
    for _ in 0..3 {
        assert!(host.turn(Deed::Erase, &a).await.unwrap().is_none());
    }
    let under_way: Vec<UnderWay> = host.beside.under_way().collect();
    assert_eq!((under_way.len(), under_way[0].deed), (1, Deed::Erase));
    host.end(true).await;
    host.beside.reap(|_, _| true);
    assert_eq!(host.beside.under_way().count(), 0);
    let done = host.turn(Deed::Erase, &a).await.unwrap().unwrap();
    assert_eq!(done.result.unwrap().methods, ["told"]);
    assert_eq!(host.class.begun(), ["a"], "once");
    assert!(host.turn(Deed::Erase, &a).await.unwrap().is_none(), "and anew when asked anew");
    host.end(true).await;
    host.beside.reap(|_, _| false);
    assert_eq!(host.beside.erases().count(), 0, "what is clean is not asked for");
}

#[tokio::test]
async fn one_disk_is_erased_by_one_at_a_time_and_another_beside_it() {
    let mut host = Loop::new();
    for order in [order("a", "p"), order("b", "p"), order("c", "q")] {
        assert!(host.turn(Deed::Erase, &order).await.unwrap().is_none());
    }
    let whose = |host: &Loop| -> Vec<String> {
        host.beside.under_way().map(|work| work.lease.name.to_string()).collect()
    };
    assert_eq!(whose(&host), ["a", "c"]);
    host.end(true).await;
    host.end(true).await;
    assert!(host.turn(Deed::Erase, &order("b", "p")).await.unwrap().is_none());
    assert_eq!(whose(&host), ["b"]);
    host.end(true).await;
}

#[tokio::test]
async fn what_is_being_given_is_erased_after_that() {
    let mut host = Loop::new();
    let a = order("a", "p");
    assert!(host.turn(Deed::Attach, &a).await.unwrap().is_none());
    assert!(host.turn(Deed::Erase, &a).await.unwrap().is_none());
    assert_eq!(host.beside.under_way().next().unwrap().deed, Deed::Attach);
    host.end(true).await;
    assert!(host.turn(Deed::Erase, &a).await.unwrap().is_none());
    assert_eq!(host.beside.under_way().next().unwrap().deed, Deed::Erase);
    host.end(true).await;
    assert!(host.turn(Deed::Erase, &a).await.unwrap().unwrap().result.is_ok());
}

#[tokio::test]
async fn a_thread_that_breaks_is_an_error_of_its_resource() {
    let mut host = Loop::new();
    let a = order("a", "p");
    assert!(host.turn(Deed::Erase, &a).await.unwrap().is_none());
    host.end(false).await;
    let done = host.turn(Deed::Erase, &a).await.unwrap().unwrap();
    assert!(matches!(done.result, Err(ClassError::Refused { .. })), "{done:?}");
}

#[tokio::test]
async fn a_work_without_progress_is_told_and_so_is_what_waits_for_it() {
    let mut host = Loop::new();
    let (a, b) = (order("a", "p"), order("b", "p"));
    assert!(host.turn(Deed::Erase, &a).await.unwrap().is_none());
    host.beside.stalled = Duration::ZERO;
    for waiting in [&a, &b] {
        let error = host.turn(Deed::Erase, waiting).await.unwrap_err();
        assert!(error.to_string().contains("of acme/a has made no progress"), "{error}");
        assert_eq!((error.label(), error.owner()), ("DeviceSilent", "operator"));
    }
    a.progress.advance(4096);
    assert!(host.turn(Deed::Erase, &a).await.unwrap().is_none(), "it goes on");
    assert!(host.turn(Deed::Erase, &a).await.is_err());
    host.end(true).await;
    assert!(host.turn(Deed::Erase, &a).await.unwrap().is_some(), "it counts whenever it ends");
}
