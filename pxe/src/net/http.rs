//! Plain HTTP for boot artefacts: own small head handling, bodies by `sendfile` on a blocking thread.
//!
//! Artefacts are signed and addressed by content, so their transport needs no secrecy; a general web
//! framework costs five to eight times the CPU here. Firmware needs: HEAD, GET, ranges with a strong
//! entity tag, always a length, an exact type for UKIs, and an answer within five seconds.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_api::chain::Chain;
use nix::sys::sendfile::sendfile;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::NetError;
use super::places::Places;
use crate::artefacts::Blob;
use crate::policy::{Decision, Refusal};
use crate::service::Service;
use crate::site::Artefact;
use crate::tickets::TicketRefusal;
use crate::wire::http::{
    Answer, Head, HeadError, LONGEST_HEAD, Method, answer, head_length, parse_head,
};

/// A request whose head is not there in this time, or an answer that is not read on for it, ends the
/// connection.
const IDLE: Duration = Duration::from_secs(15);
/// Connections at a time; more wait in the listen queue.
const CONNECTIONS: usize = 200;
/// Connections of one address at a time, more are closed: firmware and stage 1 need one or two.
const PER_CLIENT: usize = 8;
/// Content type of programs for the firmware.
const EFI: &str = "application/efi";
/// Bytes a `sendfile` call: long enough to be cheap, short enough to notice a dead client.
const PIECE: usize = 2 << 20;

/// The bound listener.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
}

impl HttpServer {
    /// Binds the listener.
    ///
    /// # Errors
    /// [`NetError::Socket`].
    pub async fn bind(address: Ipv4Addr, port: u16) -> Result<Self, NetError> {
        match TcpListener::bind((IpAddr::V4(address), port)).await {
            Ok(listener) => Ok(Self { listener }),
            Err(source) => Err(NetError::Socket {
                service: "HTTP",
                doing: "bind",
                target: format!("{address}:{port}"),
                source,
            }),
        }
    }

    /// The port in use.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Serves for ever. Dropping the future ends the listener; connections end by their time limit.
    pub async fn serve(&self, service: Arc<Service>) {
        let places = Places::new(CONNECTIONS, PER_CLIENT);
        let mut connections: JoinSet<()> = JoinSet::new();
        loop {
            while connections.len() >= CONNECTIONS {
                connections.join_next().await;
            }
            while connections.try_join_next().is_some() {}
            let stream = match self.listener.accept().await {
                Ok((stream, SocketAddr::V4(from))) => stream.into_std().map(|s| (s, *from.ip())),
                Ok((_, SocketAddr::V6(_))) => continue,
                Err(error) => Err(error),
            };
            let (stream, from) = match stream {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(error = %Chain(&error), "HTTP accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(place) = places.enter(from) else {
                debug!(%from, "HTTP connection over the share of one address closed");
                continue;
            };
            let service = Arc::clone(&service);
            connections.spawn_blocking(move || {
                let _place = place;
                if let Err(error) = serve_connection(&service, &stream, from) {
                    debug!(%from, error = %Chain(&error), "HTTP connection ended");
                }
            });
        }
    }
}

fn serve_connection(service: &Arc<Service>, stream: &TcpStream, from: Ipv4Addr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut pending = Vec::new();
    loop {
        let Some(head) = read_head(stream, &mut pending, Instant::now() + IDLE)? else {
            return Ok(());
        };
        let head = match head {
            Ok(head) => head,
            Err(error) => {
                let status = match error {
                    HeadError::Method(_) => "405 Method Not Allowed",
                    HeadError::Version(_) => "505 HTTP Version Not Supported",
                    HeadError::Malformed(_) | HeadError::Body => "400 Bad Request",
                };
                return text(stream, Method::Get, status, &error.to_string(), false);
            }
        };
        serve_request(service, stream, from, &head)?;
        if !head.keep_alive {
            return Ok(());
        }
    }
}

/// The next request; `None` when the client closed. Byte by byte or not, all of it must be there by
/// `deadline`.
fn read_head(
    mut stream: &TcpStream,
    pending: &mut Vec<u8>,
    deadline: Instant,
) -> io::Result<Option<Result<Head, HeadError>>> {
    let mut buffer = [0; 2048];
    loop {
        if let Some(length) = head_length(pending) {
            let rest = pending.split_off(length);
            let head = std::mem::replace(pending, rest);
            return Ok(Some(parse_head(&head)));
        }
        if pending.len() > LONGEST_HEAD {
            return Ok(Some(Err(HeadError::Malformed("request head is too long"))));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(count) => pending.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn serve_request(
    service: &Arc<Service>,
    stream: &TcpStream,
    from: Ipv4Addr,
    head: &Head,
) -> io::Result<()> {
    let refuse = |status, body: &str| {
        info!(%from, path = ticketless(&head.path), status, reason = body, "HTTP refused");
        text(stream, head.method, status, body, head.keep_alive)
    };
    // `/b/{ticket}/{name}`; runs of slashes count as one, as some firmware joins URLs so.
    let mut parts = head.path.split('/').filter(|part| !part.is_empty());
    let parts = (parts.next(), parts.next(), parts.next(), parts.next());
    let (ticket, name) = match parts {
        (Some("b"), Some(ticket), Some(name), None) => (ticket, name),
        (Some("t"), Some(sha256), Some("uki.efi"), None) => {
            return serve_tenant_uki(service, stream, from, head, sha256);
        }
        _ => return refuse("404 Not Found", "no such path"),
    };
    let Some(artefact) = service.artefacts.named(name) else {
        return refuse("404 Not Found", "no such artefact in the image of this site");
    };
    let asked = service.ask("http", |site, now| site.artefact(ticket, &artefact, from, now));
    let opened = match asked {
        Ok(outcome) => match (outcome.reply, outcome.decision) {
            (Some(opened), _) => opened,
            (None, Decision::Refuse(why)) => return refuse(refusal_status(&why), &why.to_string()),
            (None, Decision::Quarantine(why, _)) => {
                return refuse("403 Forbidden", &why.to_string());
            }
            (None, Decision::Reply(_) | Decision::Silence(_)) => {
                return refuse("403 Forbidden", "not served");
            }
        },
        Err(_) => return refuse("503 Service Unavailable", "server cannot save its state"),
    };
    let Some(blob) = service.artefacts.blob(&artefact) else {
        let body = serde_json::to_string(&service.site_boot(&opened)).map_err(io::Error::other)?;
        return send_text(stream, head, "200 OK", "application/json", &body);
    };
    let kind = match artefact {
        // Compared whole by EDK2: no parameters.
        Artefact::Uki => EFI,
        Artefact::BootJson | Artefact::Image { .. } => "application/octet-stream",
    };
    let done = send_blob(stream, head, kind, blob)?;
    info!(
        mac = %opened.mac,
        artefact = ?artefact,
        method = ?head.method,
        range = head.range.as_deref().unwrap_or("all"),
        bytes = done.sent,
        "HTTP served"
    );
    if done.complete {
        service.note(|site, _| site.delivered(opened.mac, &artefact));
    }
    Ok(())
}

/// `/t/{sha256}/uki.efi`: no secret, as it is for the machine at one address alone.
fn serve_tenant_uki(
    service: &Arc<Service>,
    stream: &TcpStream,
    from: Ipv4Addr,
    head: &Head,
    sha256: &str,
) -> io::Result<()> {
    let refuse = |status, body: &str| {
        info!(%from, path = head.path, status, reason = body, "HTTP refused");
        text(stream, head.method, status, body, head.keep_alive)
    };
    let Ok(outcome) = service.ask("http", |site, now| site.tenant_uki(sha256, from, now)) else {
        return refuse("503 Service Unavailable", "server cannot save its state");
    };
    let mac = match (outcome.reply, outcome.decision) {
        (Some(mac), _) => mac,
        (None, Decision::Refuse(why)) => return refuse(refusal_status(&why), &why.to_string()),
        (None, Decision::Quarantine(why, _)) => return refuse("403 Forbidden", &why.to_string()),
        (None, Decision::Reply(_) | Decision::Silence(_)) => {
            return refuse("403 Forbidden", "not served");
        }
    };
    let blob = match service.tenant_ukis.blob(sha256) {
        Ok(blob) => blob,
        Err(error) => {
            error!(%mac, error = %Chain(&error), "tenant's UKI cannot be served");
            return refuse("500 Internal Server Error", "the site lost the file");
        }
    };
    let done = send_blob(stream, head, EFI, &blob)?;
    info!(%mac, sha256, method = ?head.method, bytes = done.sent, "tenant's UKI served");
    if done.complete {
        service.note(|site, _| site.tenant_uki_delivered(mac));
    }
    Ok(())
}

/// The path for logs: a ticket is a secret while it lives.
fn ticketless(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn refusal_status(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Ticket(TicketRefusal::Expired { .. } | TicketRefusal::Used) => "410 Gone",
        Refusal::Ticket(TicketRefusal::Exhausted { .. }) => "429 Too Many Requests",
        Refusal::Ticket(
            TicketRefusal::Unknown | TicketRefusal::UnderWay | TicketRefusal::OtherMachine { .. },
        )
        | Refusal::OtherHost
        | Refusal::WrongAddress { .. }
        | Refusal::NoBinding(_)
        | Refusal::HandedOver(_)
        | Refusal::NoTenantUki(_) => "403 Forbidden",
    }
}

struct Sent {
    sent: u64,
    /// The last byte of the file went out.
    complete: bool,
}

fn send_blob(mut stream: &TcpStream, head: &Head, kind: &str, blob: &Blob) -> io::Result<Sent> {
    let (status, first, count, range) = match answer(head, &blob.etag, blob.size) {
        Answer::Whole => ("200 OK", 0, blob.size, None),
        Answer::Part { first, count } => {
            let range = format!("bytes {first}-{}/{}", first + count - 1, blob.size);
            ("206 Partial Content", first, count, Some(range))
        }
        Answer::Unsatisfiable => {
            let range = format!("bytes */{}", blob.size);
            ("416 Range Not Satisfiable", 0, 0, Some(range))
        }
        Answer::NotModified => ("304 Not Modified", 0, 0, None),
        Answer::PreconditionFailed => ("412 Precondition Failed", 0, 0, None),
    };
    let range = range.map(|range| format!("Content-Range: {range}\r\n")).unwrap_or_default();
    let connection = if head.keep_alive { "keep-alive" } else { "close" };
    let lines = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {count}\r\nETag: {}\r\n\
         Accept-Ranges: bytes\r\n{range}Connection: {connection}\r\n\r\n",
        blob.etag
    );
    stream.write_all(lines.as_bytes())?;
    if head.method == Method::Head {
        return Ok(Sent { sent: 0, complete: false });
    }
    let mut offset = i64::try_from(first).map_err(io::Error::other)?;
    let mut left = count;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        match sendfile(stream, &blob.file, Some(&mut offset), piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(sent) => left = left.saturating_sub(sent as u64),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Sent { sent: count, complete: count > 0 && first + count == blob.size })
}

fn text(
    stream: &TcpStream,
    method: Method,
    status: &str,
    body: &str,
    keep_alive: bool,
) -> io::Result<()> {
    write_text(
        stream,
        method,
        keep_alive,
        status,
        "text/plain; charset=utf-8",
        &format!("{body}\n"),
    )
}

fn send_text(
    stream: &TcpStream,
    head: &Head,
    status: &str,
    kind: &str,
    body: &str,
) -> io::Result<()> {
    write_text(stream, head.method, head.keep_alive, status, kind, body)
}

fn write_text(
    mut stream: &TcpStream,
    method: Method,
    keep_alive: bool,
    status: &str,
    kind: &str,
    body: &str,
) -> io::Result<()> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Connection: {connection}\r\n\r\n",
        body.len()
    );
    if method == Method::Get {
        answer.push_str(body);
    }
    stream.write_all(answer.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_head_that_trickles_in_is_given_up_at_its_deadline() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        client.write_all(b"GET /b/").unwrap();
        let mut pending = Vec::new();
        // What has arrived counts for nothing once the time is over.
        let late = read_head(&stream, &mut pending, Instant::now()).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        client.write_all(b"x HTTP/1.1\r\n\r\n").unwrap();
        let head = read_head(&stream, &mut pending, Instant::now() + IDLE).unwrap().unwrap();
        assert_eq!(head.unwrap().path, "/b/x");
    }
}
