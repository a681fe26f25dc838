//! Fetches an image from a server on the loopback interface, as stage 1 does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Seek as _, Write as _};
use std::net::TcpListener;

use bulkhead_api::boot::VerityImage;
use bulkhead_init::console::Console;
use bulkhead_init::http::Base;
use bulkhead_init::image::{self, ImageError};
use bulkhead_init::tree::{BLOCK, Corrupt};
use sha2::{Digest as _, Sha256};

const SALT: [u8; 3] = [1, 2, 3];
const BLOCKS: usize = 100;

fn digest(block: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(SALT).chain_update(block).finalize().into()
}

/// An image of 100 blocks with its tree of one block, and its description.
fn image() -> (Vec<u8>, VerityImage) {
    let mut bytes: Vec<u8> = (0..=u8::MAX).cycle().step_by(7).take(BLOCKS * BLOCK).collect();
    let mut level: Vec<u8> = bytes.chunks(BLOCK).flat_map(digest).collect();
    level.resize(BLOCK, 0);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let described = VerityImage {
        name: "root".to_owned(),
        root_hash: hex(&digest(&level)),
        salt: hex(&SALT),
        data_blocks: BLOCKS as u64,
        size: ((BLOCKS + 1) * BLOCK) as u64,
        crc32: None,
    };
    bytes.extend(level);
    let crc32 = Some(crc32fast::hash(&bytes));
    (bytes, VerityImage { crc32, ..described })
}

/// Fetches `image` from a server that has `bytes`.
fn fetch(bytes: Vec<u8>, image: &VerityImage) -> Result<std::os::fd::OwnedFd, ImageError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = Base::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 500];
        let length = stream.read(&mut request).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
        stream.write_all(head.as_bytes()).unwrap();
        // a client that refuses the length hangs up
        let _ = stream.write_all(&bytes);
        String::from_utf8_lossy(request.get(..length).unwrap()).into_owned()
    });
    let result = image::fetch(&base, image, &Console::default());
    let request = server.join().unwrap();
    assert!(
        request.starts_with(&format!("GET /{}.img HTTP/1.1\r\n", image.root_hash)),
        "{request}"
    );
    result
}

#[test]
fn an_intact_image_is_kept_in_memory_that_nobody_can_change() {
    let (bytes, described) = image();
    let mut file = std::fs::File::from(fetch(bytes.clone(), &described).unwrap());
    let mut kept = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut kept).unwrap();
    assert!(kept == bytes, "the bytes differ");
    file.rewind().unwrap();
    assert!(file.write(b"x").is_err(), "sealed memory was written to");
    assert!(file.set_len(1).is_err(), "sealed memory was cut");
}

#[test]
fn one_flipped_bit_in_data_or_tree_is_refused_by_block() {
    let (bytes, described) = image();
    for (at, expected) in [
        (42 * BLOCK + 1, Corrupt::Data { block: 42 }),
        (BLOCKS * BLOCK + 9, Corrupt::Tree { level: 0, block: 0 }),
        ((BLOCKS + 1) * BLOCK - 1, Corrupt::Tree { level: 0, block: 0 }),
    ] {
        let mut bytes = bytes.clone();
        *bytes.get_mut(at).unwrap() ^= 0x10;
        match fetch(bytes, &described) {
            Err(ImageError::Corrupt(_, corrupt)) => assert_eq!(corrupt, expected),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn a_checksum_that_is_not_the_images_is_refused() {
    let (bytes, described) = image();
    let wrong = VerityImage { crc32: described.crc32.map(|crc| crc ^ 1), ..described };
    assert!(matches!(fetch(bytes, &wrong), Err(ImageError::Description { .. })));
}

#[test]
fn an_image_of_another_length_is_refused_before_it_is_fetched() {
    let (mut bytes, described) = image();
    bytes.push(0);
    assert!(matches!(fetch(bytes, &described), Err(ImageError::Fetch(..))));
}
