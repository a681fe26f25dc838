//! What each connected site has to be told, and who waits for an answer of it.
//!
//! An outbox holds *that* something changed, never the thing: the session reads the latest when it
//! sends. So an outbox cannot grow beyond the site's hosts, and no older spec follows a newer one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_api::id::{HostId, SiteName};
use bulkhead_api::link::rpc;
use tokio::sync::{Notify, oneshot};

/// Something to tell a site.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Its own spec.
    SiteSpec,
    /// The signed spec of one of its hosts.
    Spec(HostId),
    /// A host is asked something.
    Ask(HostId, rpc::Question),
    /// Another stream of the site took over, or its key is void.
    Close(&'static str),
}

#[derive(Debug, Default)]
struct Orders {
    close: Option<&'static str>,
    site_spec: bool,
    questions: VecDeque<(HostId, rpc::Question)>,
    specs: BTreeSet<HostId>,
}

/// Orders for one stream.
#[derive(Debug, Default)]
pub struct Outbox {
    orders: Mutex<Orders>,
    added: Notify,
}

impl Outbox {
    fn add(&self, put: impl FnOnce(&mut Orders)) {
        put(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        self.added.notify_one();
    }

    /// The spec of a host changed, or the host may have missed it.
    pub fn spec(&self, host: &HostId) {
        self.add(|orders| {
            orders.specs.insert(host.clone());
        });
    }

    /// The site's spec changed, or the site may have missed it.
    pub fn site_spec(&self) {
        self.add(|orders| orders.site_spec = true);
    }

    fn pop(&self) -> Option<Order> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = orders.close {
            return Some(Order::Close(why));
        }
        if std::mem::take(&mut orders.site_spec) {
            return Some(Order::SiteSpec);
        }
        if let Some((host, question)) = orders.questions.pop_front() {
            return Some(Order::Ask(host, question));
        }
        orders.specs.pop_first().map(Order::Spec)
    }

    /// Waits for the next order. Dropped while it waits, no order is lost.
    pub async fn next(&self) -> Order {
        loop {
            if let Some(order) = self.pop() {
                return order;
            }
            self.added.notified().await;
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<SiteName, (u64, Arc<Outbox>)>,
    waiting: BTreeMap<u64, Waiting>,
}

/// Somebody who waits for an answer.
#[derive(Debug)]
struct Waiting {
    site: SiteName,
    host: HostId,
    reply: oneshot::Sender<rpc::Answer>,
}

/// Every open stream; one a site.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<Table>);

impl Sessions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a stream; an older one of the site is closed.
    pub fn open(&self, site: &SiteName) -> (u64, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::default());
        let mut table = self.table();
        table.next += 1;
        let number = table.next;
        let before = table.open.insert(site.clone(), (number, Arc::clone(&outbox)));
        drop(table);
        if let Some((_, before)) = before {
            before.add(|orders| orders.close = Some("another stream of this site took over"));
        }
        (number, outbox)
    }

    /// Takes a stream off. `true` if no other one took over before.
    pub fn ended(&self, site: &SiteName, number: u64) -> bool {
        let mut table = self.table();
        let last = table.open.get(site).is_some_and(|(open, _)| *open == number);
        if last {
            table.open.remove(site);
            // Whoever waits for an answer learns of it by the dropped sender.
            table.waiting.retain(|_, waiting| waiting.site != *site);
        }
        last
    }

    fn with(&self, site: &SiteName, tell: impl FnOnce(&Outbox)) -> bool {
        let outbox = self.table().open.get(site).map(|(_, outbox)| Arc::clone(outbox));
        outbox.inspect(|outbox| tell(outbox)).is_some()
    }

    /// A host's spec changed; nothing to do where the site is away: it gets all when it comes.
    pub fn spec_changed(&self, site: &SiteName, host: &HostId) {
        self.with(site, |outbox| outbox.spec(host));
    }

    /// A site's spec changed.
    pub fn site_spec_changed(&self, site: &SiteName) {
        self.with(site, Outbox::site_spec);
    }

    /// The site's certificate is void: its stream ends.
    pub fn close(&self, site: &SiteName, why: &'static str) {
        self.with(site, |outbox| outbox.add(|orders| orders.close = Some(why)));
    }

    /// Asks a host, with a number of this registry's; `None` where its site is away. The answer may never come.
    #[must_use]
    pub fn ask(
        &self,
        site: &SiteName,
        host: &HostId,
        question: rpc::Question,
    ) -> Option<Asked<'_>> {
        let (sender, reply) = oneshot::channel();
        let mut table = self.table();
        table.next += 1;
        let id = table.next;
        let waiting = Waiting { site: site.clone(), host: host.clone(), reply: sender };
        table.waiting.insert(id, waiting);
        drop(table);
        // Made first: it takes the entry back on every way out.
        let asked = Asked { sessions: self, id, reply };
        let order = (host.clone(), rpc::Question { id, ..question });
        self.with(site, |outbox| outbox.add(|orders| orders.questions.push_back(order)))
            .then_some(asked)
    }

    /// A site passed a host's answer on. One that this host of this site was not asked for is dropped:
    /// question numbers can be guessed, and a host must not answer for another one's tenants.
    pub fn answered(&self, site: &SiteName, host: &HostId, reply: rpc::Answer) {
        let mut table = self.table();
        let asked = |waiting: &Waiting| waiting.site == *site && waiting.host == *host;
        if !table.waiting.get(&reply.id).is_some_and(asked) {
            return;
        }
        if let Some(waiting) = table.waiting.remove(&reply.id) {
            // The asker may have gone.
            drop(waiting.reply.send(reply));
        }
    }
}

/// Something that was asked.
#[derive(Debug)]
pub struct Asked<'a> {
    sessions: &'a Sessions,
    id: u64,
    reply: oneshot::Receiver<rpc::Answer>,
}

impl Asked<'_> {
    /// The answer; `None` where the site's stream ended first.
    pub async fn answer(&mut self) -> Option<rpc::Answer> {
        (&mut self.reply).await.ok()
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.sessions.table().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    fn site() -> SiteName {
        "sjc-01".parse().unwrap()
    }

    fn host(text: &str) -> HostId {
        text.parse().unwrap()
    }

    #[test]
    fn an_order_given_twice_is_carried_out_once() {
        let outbox = Outbox::default();
        outbox.spec(&host("a"));
        outbox.spec(&host("b"));
        outbox.spec(&host("a"));
        outbox.site_spec();
        outbox.site_spec();
        let orders: Vec<_> = std::iter::from_fn(|| outbox.pop()).collect();
        assert_eq!(orders, [Order::SiteSpec, Order::Spec(host("a")), Order::Spec(host("b"))]);
    }

    #[test]
    fn a_second_stream_closes_the_first_and_its_end_does_not_end_the_second() {
        let sessions = Sessions::default();
        let (first, outbox) = sessions.open(&site());
        let (second, _) = sessions.open(&site());
        assert!(matches!(outbox.pop(), Some(Order::Close(_))));
        assert!(!sessions.ended(&site(), first));
        assert!(sessions.ended(&site(), second));
        assert!(sessions.ask(&site(), &host("a"), rpc::Question::default()).is_none());
    }

    #[test]
    fn a_question_is_answered_by_the_host_that_was_asked_and_by_no_other() {
        let sessions = Sessions::default();
        let (_, outbox) = sessions.open(&site());
        let mut question = sessions.ask(&site(), &host("a"), rpc::Question::default()).unwrap();
        let Some(Order::Ask(_, request)) = outbox.pop() else { panic!("no order") };
        let reply = |text: &str| rpc::Answer {
            id: request.id,
            status: 200,
            body: text.as_bytes().to_vec().into(),
        };
        sessions.answered(&"fra-01".parse().unwrap(), &host("a"), reply("of another site"));
        sessions.answered(&site(), &host("b"), reply("of another host"));
        sessions.answered(&site(), &host("a"), reply("true"));
        let answer = Builder::new_current_thread().build().unwrap().block_on(question.answer());
        assert_eq!(answer.unwrap().body, b"true".as_slice());
    }

    #[test]
    fn nobody_waits_for_a_site_that_went() {
        let sessions = Sessions::default();
        let (number, _outbox) = sessions.open(&site());
        let mut question = sessions.ask(&site(), &host("a"), rpc::Question::default()).unwrap();
        sessions.ended(&site(), number);
        let answer = Builder::new_current_thread().build().unwrap().block_on(question.answer());
        assert_eq!(answer, None);
    }
}
