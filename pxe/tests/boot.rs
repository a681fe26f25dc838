//! Boot services of a real site over loopback: every door, for a machine that may boot and one that may
//! not.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail where it stands"
)]
#![expect(dead_code, reason = "this program needs no fleet")]

mod lab;

use std::net::{Ipv4Addr, SocketAddr};

use bulkhead_api::boot::SiteBoot;
use bulkhead_api::machine::{BootStage, MachineAdmission};
use bulkhead_api::site::{Admission, AdmissionMode, AdmittedMachine};
use dhcproto::v4::{Decodable as _, DhcpOption, Encodable as _, Message, MessageType, OptionCode};
use dhcproto::{Decoder, Encoder};
use lab::{Lab, MACHINE, SITE, mac, root, root_hash, secret, uki, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};

/// Of machine 2, where there is one.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 101);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 150);

fn boot_file(number: u8) -> String {
    format!("b/{}/uki.efi", secret(number).expose())
}

fn read_request(name: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 1];
    let words = options.iter().flat_map(|(name, value)| [*name, *value]);
    for word in [name, "octet"].into_iter().chain(words) {
        out.extend_from_slice(word.as_bytes());
        out.push(0);
    }
    out
}

async fn client(from: Ipv4Addr) -> UdpSocket {
    UdpSocket::bind((from, 0)).await.unwrap()
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 2000];
    let (length, from) = within("a packet", socket.recv_from(&mut buffer)).await.unwrap();
    buffer.truncate(length);
    (buffer, from)
}

/// The first answer to a read request.
async fn ask_tftp(port: u16, from: Ipv4Addr, request: &[u8]) -> Vec<u8> {
    let socket = client(from).await;
    socket.send_to(request, (SITE, port)).await.unwrap();
    receive(&socket).await.0
}

/// Fetches a file as EDK2 does: windows of four blocks, one acknowledgement a window.
async fn fetch_by_tftp(port: u16, name: &str) -> Vec<u8> {
    let socket = client(MACHINE).await;
    let options = [("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")];
    socket.send_to(&read_request(name, &options), (SITE, port)).await.unwrap();
    let (oack, from) = receive(&socket).await;
    assert_eq!(oack[..2], [0, 6], "{}", String::from_utf8_lossy(&oack));
    assert_ne!(from.port(), port, "each transfer has a port of its own");
    socket.connect(from).await.unwrap();
    socket.send(&[0, 4, 0, 0]).await.unwrap();
    let (mut file, mut expected) = (Vec::new(), 1_u16);
    loop {
        let (packet, _) = receive(&socket).await;
        assert_eq!(packet[..2], [0, 3]);
        assert_eq!(packet[2..4], expected.to_be_bytes());
        file.extend_from_slice(&packet[4..]);
        let last = packet.len() < 1472;
        if last || expected.is_multiple_of(4) {
            socket.send(&[&[0, 4], &expected.to_be_bytes()[..]].concat()).await.unwrap();
        }
        if last {
            return file;
        }
        expected = expected.wrapping_add(1);
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix))
    }
}

async fn http(port: u16, from: Ipv4Addr, head: &str) -> Answer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect((SITE, port).into()).await.unwrap();
    let request = format!("{head}\r\nHost: site\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    within("an HTTP answer", stream.read_to_end(&mut all)).await.unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: all[end + 4..].to_vec() }
}

async fn get(port: u16, path: &str) -> Answer {
    http(port, MACHINE, &format!("GET {path} HTTP/1.1")).await
}

/// A PXE client's question to the boot server.
fn boot_server_question(number: u8, address: Ipv4Addr) -> Vec<u8> {
    let mut message = Message::default();
    message.set_ciaddr(address).set_xid(0x77).set_chaddr(&mac(number).octets());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(MessageType::Request));
    options.insert(DhcpOption::ClassIdentifier(b"PXEClient:Arch:00007:UNDI:003001".to_vec()));
    options.insert(DhcpOption::ClientSystemArchitecture(dhcproto::v4::Architecture::BC));
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_probes_the_size_and_fetches_the_kernel_by_tftp() {
    let lab = Lab::new();
    let site = lab.start().await;
    let socket = client(MACHINE).await;
    let probe = read_request(&boot_file(1), &[("tsize", "0"), ("blksize", "1468")]);
    socket.send_to(&probe, (SITE, site.ports.tftp)).await.unwrap();
    let (oack, from) = receive(&socket).await;
    assert_eq!(oack, b"\0\x06tsize\x00300007\0blksize\x001468\0");
    socket.send_to(b"\0\x05\0\x08User aborted\0", from).await.unwrap();
    assert_eq!(fetch_by_tftp(site.ports.tftp, &format!("/{}", boot_file(1))).await, uki());
    let seen = async || lab.machine(1).filter(|machine| machine.stage == BootStage::Kernel);
    lab::until("the machine's progress on disk", seen).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_fetches_the_kernel_by_http_and_resumes() {
    let lab = Lab::new();
    let site = lab.start().await;
    let (port, path) = (site.ports.http, format!("/{}", boot_file(1)));
    let head = http(port, MACHINE, &format!("HEAD {path} HTTP/1.1")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("Content-Length"), Some("300007"));
    assert_eq!(head.header("Content-Type"), Some("application/efi"));
    let etag = head.header("ETag").unwrap().to_owned();
    assert!(etag.starts_with('"'), "a strong tag");
    let whole = get(port, &path).await;
    assert_eq!((whole.status, whole.body == uki()), (200, true));
    let range = format!("GET {path} HTTP/1.1\r\nRange: bytes=300000-\r\nIf-Match: {etag}");
    let rest = http(port, MACHINE, &range).await;
    assert_eq!((rest.status, rest.body.as_slice()), (206, &uki()[300_000..]));
    assert_eq!(rest.header("Content-Range"), Some("bytes 300000-300006/300007"));
    let other = format!("GET {path} HTTP/1.1\r\nRange: bytes=1-\r\nIf-Match: \"other\"");
    assert_eq!(http(port, MACHINE, &other).await.status, 412);
    let beyond = format!("GET {path} HTTP/1.1\r\nRange: bytes=300007-");
    assert_eq!(http(port, MACHINE, &beyond).await.status, 416);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stage_1_is_told_its_boot_and_fetches_the_image() {
    let lab = Lab::new();
    let site = lab.start().await;
    let base = format!("/b/{}", secret(1).expose());
    let told = get(site.ports.http, &format!("{base}/boot.json")).await;
    let boot: SiteBoot = serde_json::from_slice(&told.body).unwrap();
    assert_eq!((boot.site.as_str(), boot.boot), ("lab", 1));
    assert_eq!(boot.ticket.expose(), secret(1).expose());
    assert_eq!(boot.link, format!("{SITE}:{}", site.ports.tls));
    let image = get(site.ports.http, &format!("{base}/{}.img", root_hash())).await;
    assert_eq!((image.status, image.body == root()), (200, true));
    let again = get(site.ports.http, &format!("{base}/boot.json")).await;
    let boot: SiteBoot = serde_json::from_slice(&again.body).unwrap();
    assert_eq!(boot.boot, 1, "asked twice in one boot");
    site.stop().await;
    assert_eq!(lab.machine(1).unwrap().boots, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_boot_server_points_pxe_firmware_to_a_file_that_is_there() {
    let lab = Lab::new();
    let site = lab.start().await;
    let socket = client(MACHINE).await;
    let door = (SITE, site.ports.boot_server);
    socket.send_to(&boot_server_question(1, MACHINE), door).await.unwrap();
    let (reply, from) = receive(&socket).await;
    assert_eq!(from, door.into());
    let reply = Message::decode(&mut Decoder::new(&reply)).unwrap();
    let Some(DhcpOption::BootfileName(name)) = reply.opts().get(OptionCode::BootfileName) else {
        panic!("no boot file: {reply:?}");
    };
    assert_eq!(reply.opts().msg_type(), Some(MessageType::Ack));
    let name = String::from_utf8(name.clone()).unwrap();
    assert_eq!(fetch_by_tftp(site.ports.tftp, name.trim_end_matches('\0')).await, uki());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_tickets_machine_gets_only_what_is_there() {
    let lab = Lab::new();
    lab.mint(2, 3600);
    let site = lab.start().await;
    let (tftp, web) = (site.ports.tftp, site.ports.http);
    let rows = [
        (MACHINE, boot_file(9), 2, 403, "unknown"),
        (MACHINE, boot_file(2), 2, 410, "expired"),
        (ELSEWHERE, boot_file(1), 2, 403, "was given 127.0.0.100"),
        (MACHINE, "etc/passwd".to_owned(), 1, 404, "no such"),
        (MACHINE, "b/../state/state.json".to_owned(), 1, 404, "no such"),
        (MACHINE, format!("b/{}/../uki.efi", secret(1).expose()), 2, 404, ""),
    ];
    for (from, name, code, status, text) in rows {
        let answer = ask_tftp(tftp, from, &read_request(&name, &[])).await;
        let shown = String::from_utf8_lossy(&answer);
        assert_eq!(answer[..4], [0, 5, 0, code], "{name}: {shown}");
        assert!(shown.contains(text), "{name}: {shown}");
        let answer = http(web, from, &format!("GET /{name} HTTP/1.1")).await;
        let shown = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, status, "{name}: {shown}");
        assert!(shown.contains(text), "{name}: {shown}");
    }
    let upload = ask_tftp(tftp, MACHINE, b"\0\x02b/x\0octet\0").await;
    assert_eq!(upload[..4], [0, 5, 0, 4], "there is no upload");
    assert_eq!(http(web, MACHINE, "POST / HTTP/1.1").await.status, 405);
    assert_eq!(fetch_by_tftp(tftp, &boot_file(1)).await, uki(), "and all still serves");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_not_listed_boots_by_no_door_although_it_has_a_ticket() {
    let mut lab = Lab::new();
    let second = AdmittedMachine { mac: mac(2), uuid: None };
    lab.config.admission = Admission { mode: AdmissionMode::List, machines: vec![second] };
    lab.change_state(|state| assert!(state.bindings.bind(mac(2), OTHER)));
    let site = lab.start().await;
    let answer = ask_tftp(site.ports.tftp, MACHINE, &read_request(&boot_file(1), &[])).await;
    assert_eq!(answer[..4], [0, 5, 0, 2]);
    for name in ["uki.efi", "boot.json", &format!("{}.img", root_hash())] {
        let answer = get(site.ports.http, &format!("/b/{}/{name}", secret(1).expose())).await;
        let shown = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 403, "{name}: {shown}");
        assert!(shown.contains("not on the site's admission list"), "{shown}");
    }
    let machine = lab.machine(1).unwrap();
    assert_eq!(machine.admission, MachineAdmission::Quarantined);
    assert!(machine.reason.contains(&mac(1).to_string()), "{}", machine.reason);
    // Port 4011 answers in order: once the second machine has its answer, the first has none to come.
    let door = (SITE, site.ports.boot_server);
    let (unlisted, listed) = (client(MACHINE).await, client(OTHER).await);
    unlisted.send_to(&boot_server_question(1, MACHINE), door).await.unwrap();
    listed.send_to(&boot_server_question(2, OTHER), door).await.unwrap();
    receive(&listed).await;
    assert!(unlisted.try_recv(&mut [0; 1500]).is_err(), "no answer at all");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_are_taken_are_named() {
    let lab = Lab::new();
    let site = lab.start().await;
    let mut second = Lab::new();
    second.config.ports.http = site.ports.http;
    let error = bulkhead_pxe::run::Bound::bind(&second.config).await.unwrap_err();
    let text = bulkhead_api::chain::Chain(&error).to_string();
    assert!(text.contains(&format!("HTTP: bind {SITE}:{}", site.ports.http)), "{text}");
    site.stop().await;
}
