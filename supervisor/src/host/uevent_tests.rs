use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{MsgFlags, recv, sendto};
use proptest::prelude::*;
use tokio::time::timeout;

use super::*;
use crate::testing::LONG;

#[test]
fn a_message_has_action_path_and_subsystem() {
    let message = b"add@/devices/virtual/net/veth0\0ACTION=add\0SUBSYSTEM=net\0SEQNUM=7\0";
    let change = parse(message).unwrap();
    assert_eq!(
        (change.action.as_str(), change.path.as_str(), change.subsystem.as_str()),
        ("add", "/devices/virtual/net/veth0", "net")
    );
    assert!(change.is_watched());
    assert!(!parse(b"change@/devices/x\0SUBSYSTEM=leds\0").unwrap().is_watched());
    assert!(!parse(b"add@/module/x\0").unwrap().is_watched());
}

#[test]
fn other_bytes_are_no_message() {
    for bytes in [&b""[..], b"libudev\0\xfe\xed", b"add", b"@/devices", b"add@devices", b"A@/x"] {
        assert_eq!(parse(bytes), None, "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let _ = parse(&[&b"add@/d\0"[..], &bytes].concat());
    }
}

/// Runs in a network namespace of its own, with a runtime of its own.
fn in_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    };
    thread::spawn(run).join().unwrap();
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Makes a pair of connected interfaces (rtnetlink(7); linux/rtnetlink.h, linux/if_link.h).
fn make_pair(name: &str) {
    const NEWLINK: u16 = 16;
    const REQUEST_ACK_CREATE_EXCL: u16 = 0x1 | 0x4 | 0x400 | 0x200;
    const NAME: u16 = 3;
    const LINK_INFO: u16 = 18;
    const INFO_KIND: u16 = 1;
    let mut body = vec![0; 16];
    body.extend(attribute(NAME, &[name.as_bytes(), b"\0"].concat()));
    body.extend(attribute(LINK_INFO, &attribute(INFO_KIND, b"veth")));
    let mut message = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    message.extend(NEWLINK.to_ne_bytes());
    message.extend(REQUEST_ACK_CREATE_EXCL.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute);
    let fd = fd.unwrap();
    let kernel = NetlinkAddr::new(0, 0);
    sendto(fd.as_raw_fd(), &message, &kernel, MsgFlags::empty()).unwrap();
    let mut reply = [0; 512];
    let length = recv(fd.as_raw_fd(), &mut reply, MsgFlags::empty()).unwrap();
    // nlmsgerr behind the header: 0 is success.
    assert!(length >= 20 && reply[16..20] == [0; 4], "the kernel made no pair: {reply:?}");
}

#[test]
fn a_new_interface_is_heard_from_the_kernel() {
    in_namespace(async || {
        let uevents = Uevents::open().unwrap();
        make_pair("pair0");
        let heard = async {
            loop {
                if let Heard::Change(change) = uevents.next().await.unwrap()
                    && change.path == "/devices/virtual/net/pair0"
                {
                    return change;
                }
            }
        };
        let change = timeout(LONG, heard).await.expect("heard in time");
        assert_eq!((change.action.as_str(), change.subsystem.as_str()), ("add", "net"));
    });
}

#[test]
fn a_change_wakes_who_waits_and_a_message_of_a_program_does_not() {
    in_namespace(async || {
        let changed = Arc::new(Notify::new());
        let mut tasks = tokio::task::JoinSet::new();
        let uevents = Uevents::open().unwrap();
        let flags = SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let forger = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).unwrap();
        let forged = b"add@/devices/forged\0SUBSYSTEM=pci\0";
        let all = NetlinkAddr::new(0, KERNEL_GROUP);
        sendto(forger.as_raw_fd(), forged, &all, MsgFlags::empty()).unwrap();
        make_pair("pair1");
        // Messages come in order: had the forged one counted, it would be the first.
        let first = timeout(LONG, uevents.next()).await.expect("heard in time").unwrap();
        assert!(!matches!(&first, Heard::Change(c) if c.path.contains("forged")), "{first:?}");
        tasks.spawn(uevents.wake(Arc::clone(&changed)));
        timeout(LONG, changed.notified()).await.expect("woken in time");
    });
}
