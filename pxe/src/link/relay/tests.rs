use bulkhead_api::link::rpc::down;

use super::*;

fn host(number: u8) -> HostId {
    format!("lab-{number}").parse().unwrap()
}

fn hello(text: &str) -> HostSays {
    HostSays::Hello(Bytes::copy_from_slice(text.as_bytes()))
}

fn status(text: &str) -> HostSays {
    HostSays::Status(Bytes::copy_from_slice(text.as_bytes()))
}

/// Everything that is due, as `host:what`.
fn drain(relay: &Relay, connection: u64) -> Vec<String> {
    let mut all = Vec::new();
    while let Taken::Message(message) = relay.take(connection) {
        let what = match message.body.unwrap() {
            up::Body::HelloJson(json) | up::Body::StatusJson(json) => {
                String::from_utf8(json.to_vec()).unwrap()
            }
            up::Body::Answer(answer) => format!("answer {}", answer.id),
            up::Body::Detached(_) => "detached".to_owned(),
            up::Body::MachinesJson(_) | up::Body::HandOverJson(_) => {
                panic!("only a site says this")
            }
        };
        all.push(format!("{}:{what}", message.host));
    }
    all
}

#[test]
fn of_a_status_only_the_latest_goes_up_and_hello_goes_first() {
    let relay = Relay::new();
    let (connection, _news) = relay.connected();
    let (serial, _down) = relay.attach(&host(1));
    assert!(relay.up(&host(1), serial, hello("h")));
    for text in ["s1", "s2", "s3"] {
        assert!(relay.up(&host(1), serial, status(text)));
    }
    assert_eq!(drain(&relay, connection), ["lab-1:h", "lab-1:s3"]);
    assert_eq!(drain(&relay, connection), [""; 0]);
}

#[test]
fn a_new_connection_hears_of_every_attached_host_again() {
    let relay = Relay::new();
    let (first, _news) = relay.connected();
    let (serial, _down) = relay.attach(&host(1));
    relay.up(&host(1), serial, hello("h"));
    relay.up(&host(1), serial, status("s"));
    let (gone, _queue) = relay.attach(&host(2));
    relay.up(&host(2), gone, hello("h2"));
    drain(&relay, first);
    relay.detach(&host(2), gone);
    let (second, _news) = relay.connected();
    assert_eq!(relay.take(first), Taken::Superseded, "the older connection takes nothing away");
    assert_eq!(drain(&relay, second), ["lab-1:h", "lab-1:s"]);
}

#[test]
fn the_newest_stream_of_a_host_wins() {
    let relay = Relay::new();
    let (connection, _news) = relay.connected();
    let (old, mut old_down) = relay.attach(&host(1));
    relay.up(&host(1), old, hello("old"));
    drain(&relay, connection);
    let (new, _down) = relay.attach(&host(1));
    assert!(old_down.try_recv().is_err(), "the older stream is closed");
    assert!(!relay.up(&host(1), old, status("late")));
    relay.detach(&host(1), old);
    assert_eq!(drain(&relay, connection), [""; 0], "its end is no news: the host is attached");
    relay.up(&host(1), new, hello("new"));
    relay.detach(&host(1), new);
    assert_eq!(drain(&relay, connection), ["lab-1:detached"]);
}

#[test]
fn the_end_of_a_stream_is_told_once_even_if_its_successor_never_spoke() {
    let relay = Relay::new();
    let (connection, _news) = relay.connected();
    let (first, _down) = relay.attach(&host(1));
    relay.up(&host(1), first, hello("h"));
    drain(&relay, connection);
    let (second, _down) = relay.attach(&host(1));
    relay.detach(&host(1), second);
    assert_eq!(drain(&relay, connection), ["lab-1:detached"]);
    let (mute, _down) = relay.attach(&host(2));
    relay.detach(&host(2), mute);
    assert_eq!(drain(&relay, connection), [""; 0], "the registry never knew of it");
    assert!(relay.lock().hosts.is_empty(), "nothing is left behind");
}

#[test]
fn hosts_take_turns() {
    let relay = Relay::new();
    let (connection, _news) = relay.connected();
    let streams: Vec<_> = (1..=3).map(|number| (number, relay.attach(&host(number)))).collect();
    for (number, (serial, _)) in &streams {
        relay.up(&host(*number), *serial, hello("h"));
        relay.up(&host(*number), *serial, status("s"));
    }
    let expected = ["lab-1:h", "lab-2:h", "lab-3:h", "lab-1:s", "lab-2:s", "lab-3:s"];
    assert_eq!(drain(&relay, connection), expected);
}

#[test]
fn a_host_that_does_not_read_loses_its_stream_and_harms_nobody() {
    let relay = Relay::new();
    let (_, mut down) = relay.attach(&host(1));
    let message = Down { host: "lab-1".into(), body: Some(down::Body::SignedSpecJson("s".into())) };
    for _ in 0..DOWN_QUEUE {
        assert_eq!(relay.down(&host(1), message.clone()), Ok(()));
    }
    assert_eq!(relay.down(&host(1), message.clone()), Err(NotDelivered::NotReading));
    assert_eq!(relay.down(&host(1), message.clone()), Err(NotDelivered::NotAttached));
    assert_eq!(relay.down(&host(9), message.clone()), Err(NotDelivered::NotAttached));
    assert_eq!(down.try_recv(), Ok(message), "what was queued still arrives");
}

#[test]
fn answers_are_bounded_and_do_not_outlive_the_connection_that_asked() {
    let relay = Relay::new();
    let (connection, _news) = relay.connected();
    let (serial, _down) = relay.attach(&host(1));
    let reply = |id| HostSays::Answer(Answer { id, ..Answer::default() });
    for id in 0..20 {
        relay.up(&host(1), serial, reply(id));
    }
    let replies = drain(&relay, connection);
    assert_eq!((replies.len(), replies[0].as_str()), (ANSWER_QUEUE, "lab-1:answer 4"));
    relay.up(&host(1), serial, reply(21));
    let (connection, _news) = relay.connected();
    assert_eq!(drain(&relay, connection), [""; 0]);
}

#[test]
fn news_wakes_whoever_waits() {
    let relay = Relay::new();
    let (_, mut news) = relay.connected();
    news.mark_unchanged();
    let (serial, _down) = relay.attach(&host(1));
    assert!(!news.has_changed().unwrap());
    relay.up(&host(1), serial, hello("h"));
    assert!(news.has_changed().unwrap());
}
