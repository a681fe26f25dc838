//! Frames on the signer's socket: four octets of length, big-endian, then that many of JSON.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest body. A host spec of some hundred leases is a tenth of it.
pub const MAX_BODY: u32 = 1 << 20;

/// Why a frame could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket broke, or ended within a frame.
    #[error("signer socket")]
    Socket(#[source] io::Error),
    /// A body longer than [`MAX_BODY`].
    #[error("frame of {0} bytes: at most {MAX_BODY} are taken")]
    TooLong(u64),
    /// Not the JSON that was expected.
    #[error("frame body")]
    Body(#[source] serde_json::Error),
}

/// Reads a message; `None` where the other end closed between two.
///
/// # Errors
/// Every [`FrameError`].
pub async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Option<T>, FrameError> {
    let mut length = [0; 4];
    let got = from.read(&mut length).await.map_err(FrameError::Socket)?;
    if got == 0 {
        return Ok(None);
    }
    let rest = length.get_mut(got..).unwrap_or_default();
    from.read_exact(rest).await.map_err(FrameError::Socket)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_BODY {
        return Err(FrameError::TooLong(length.into()));
    }
    let mut body = Vec::new();
    // Grows with what arrives: a length alone reserves nothing.
    from.take(length.into()).read_to_end(&mut body).await.map_err(FrameError::Socket)?;
    if u32::try_from(body.len()) != Ok(length) {
        return Err(FrameError::Socket(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&body).map(Some).map_err(FrameError::Body)
}

/// Writes a message.
///
/// # Errors
/// Every [`FrameError`].
pub async fn write<T: Serialize + Sync>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), FrameError> {
    let body = serde_json::to_vec(message).map_err(FrameError::Body)?;
    let too_long = || FrameError::TooLong(u64::try_from(body.len()).unwrap_or(u64::MAX));
    let length = u32::try_from(body.len()).map_err(|_| too_long())?;
    if length > MAX_BODY {
        return Err(too_long());
    }
    let frame = [&length.to_be_bytes(), body.as_slice()].concat();
    to.write_all(&frame).await.map_err(FrameError::Socket)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signer::protocol::SignerRequest;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_body() {
        let bytes = (MAX_BODY + 1).to_be_bytes();
        let refused = block_on(read::<serde_json::Value>(&mut bytes.as_slice()));
        assert!(matches!(refused, Err(FrameError::TooLong(_))), "{refused:?}");
    }

    #[test]
    fn a_body_cut_short_is_an_error_and_a_closed_socket_is_not() {
        let cut = [0, 0, 0, 9, b'{'];
        assert!(block_on(read::<serde_json::Value>(&mut cut.as_slice())).is_err());
        assert!(matches!(block_on(read::<serde_json::Value>(&mut [].as_slice())), Ok(None)));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(block_on(read::<SignerRequest>(&mut bytes.as_slice())));
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            let framed = [&length, bytes.as_slice()].concat();
            let refused = block_on(read::<SignerRequest>(&mut framed.as_slice()));
            prop_assert!(refused.is_err());
        }

        #[test]
        fn a_written_frame_reads_back(text in ".{0,300}") {
            let mut wire = Vec::new();
            block_on(write(&mut wire, &text)).unwrap();
            let back: Option<String> = block_on(read(&mut wire.as_slice())).unwrap();
            prop_assert_eq!(back, Some(text));
        }
    }
}
