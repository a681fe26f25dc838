//! Who asks.

use axum::body::to_bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;
use tracing::debug;

use super::reply::{Refused, refused};

/// Of a refused request no more than this is read.
const MOST_UNREAD: usize = 64 << 10;

/// The user of the process at the other end; absent where the kernel does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer(pub(super) Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|credentials| credentials.uid()))
    }
}

/// Who may ask besides root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed(pub(super) u32);

impl Allowed {
    fn admits(self, peer: Peer) -> Result<(), Refused> {
        match peer.0 {
            Some(user) if user == 0 || user == self.0 => Ok(()),
            Some(user) => Err(refused(
                StatusCode::FORBIDDEN,
                "Forbidden",
                format!("user {user} may not ask the supervisor: ask as root"),
            )),
            None => Err(refused(
                StatusCode::FORBIDDEN,
                "Forbidden",
                "the kernel does not say who asks the supervisor: ask as root".to_owned(),
            )),
        }
    }
}

pub(super) async fn admit(
    State(allowed): State<Allowed>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    if let Err(refusal) = allowed.admits(peer) {
        // What was sent is read first: whoever still sends when the connection ends sees no answer.
        if let Err(error) = to_bytes(request.into_body(), MOST_UNREAD).await {
            debug!(%error, "body of a refused request");
        }
        return Err(refusal);
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_one_allowed_user_may_ask_and_nobody_else() {
        assert!(Allowed(0).admits(Peer(Some(0))).is_ok());
        assert!(Allowed(7).admits(Peer(Some(7))).is_ok());
        for stranger in [Some(1000), Some(u32::MAX), None] {
            let refusal = Allowed(0).admits(Peer(stranger)).unwrap_err();
            assert_eq!(refusal.0, StatusCode::FORBIDDEN);
            assert!(refusal.1.message.ends_with("ask as root"), "{}", refusal.1.message);
        }
    }
}
