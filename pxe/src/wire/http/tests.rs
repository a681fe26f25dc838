use proptest::prelude::*;

use super::*;

const TAG: &str = "\"abc\"";

fn head(lines: &[&str]) -> Head {
    parse_head(format!("GET /x HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n")).as_bytes()).unwrap()
}

fn answered(lines: &[&str]) -> Answer {
    answer(&head(lines), TAG, 1000)
}

#[test]
fn a_head_of_edk2_is_read_whole() {
    let text = b"HEAD /b/1/uki.efi HTTP/1.1\r\nHost: 10.9.0.1\r\nAccept: */*\r\n\
                 User-Agent: UefiHttpBoot/1.0\r\n\r\n";
    assert_eq!(head_length(text), Some(text.len()));
    let head = parse_head(text).unwrap();
    assert_eq!(
        (head.method, head.path.as_str(), head.keep_alive),
        (Method::Head, "/b/1/uki.efi", true)
    );
}

#[test]
fn a_head_ends_with_its_empty_line() {
    assert_eq!(head_length(b"GET / HTTP/1.1\r\nHost: x\r\n"), None);
    assert_eq!(head_length(b"GET / HTTP/1.1\r\n\r\nGET /next"), Some(18));
}

#[test]
fn targets_lose_query_and_authority() {
    let path = |target: &str| {
        parse_head(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes()).map(|head| head.path)
    };
    assert_eq!(path("/a?b=c#d").unwrap(), "/a");
    assert_eq!(path("http://10.9.0.1:80/a/b").unwrap(), "/a/b");
    assert_eq!(path("http://10.9.0.1").unwrap(), "/");
    assert!(path("a").is_err());
    assert!(path("/\u{e9}").is_err());
}

#[test]
fn what_is_not_served_has_its_reason() {
    let parse = |text: &str| parse_head(text.as_bytes()).unwrap_err();
    assert_eq!(parse("PUT / HTTP/1.1\r\n\r\n"), HeadError::Method("PUT".into()));
    assert_eq!(parse("GET / HTTP/2.0\r\n\r\n"), HeadError::Version("HTTP/2.0".into()));
    assert_eq!(parse("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"), HeadError::Body);
    assert_eq!(parse("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), HeadError::Body);
    for text in [
        "GET /\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1 x\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nRange : bytes=0-1\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",
        "GET / HTTP/1.1",
    ] {
        assert!(matches!(parse(text), HeadError::Malformed(_)), "{text:?}");
    }
}

#[test]
fn a_connection_stays_open_as_the_versions_say() {
    let keeps = |text: &str| parse_head(text.as_bytes()).unwrap().keep_alive;
    assert!(keeps("GET / HTTP/1.1\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn each_range_and_condition_has_its_answer() {
    let part = |first, count| Answer::Part { first, count };
    let rows: [(&[&str], Answer); 21] = [
        (&["Host: x"], Answer::Whole),
        (&["Range: bytes=0-99"], part(0, 100)),
        (&["Range: bytes=100-"], part(100, 900)),
        (&["Range: bytes=100-5000"], part(100, 900)),
        (&["Range: bytes=-100"], part(900, 100)),
        (&["Range: bytes=-5000"], part(0, 1000)),
        (&["Range: bytes=999-999"], part(999, 1)),
        (&["Range: bytes=1000-"], Answer::Unsatisfiable),
        (&["Range: bytes=-0"], Answer::Unsatisfiable),
        (&["Range: bytes=5-1"], Answer::Whole),
        (&["Range: bytes=0-1,5-6"], Answer::Whole),
        (&["Range: bytes=+1-2"], Answer::Whole),
        (&["Range: lines=0-1"], Answer::Whole),
        // Firmware that resumes.
        (&["Range: bytes=10-19", "If-Match: \"abc\""], part(10, 10)),
        (&["Range: bytes=10-19", "If-Match: \"old\""], Answer::PreconditionFailed),
        (&["If-Match: \"old\", \"abc\""], Answer::Whole),
        (&["If-Match: *"], Answer::Whole),
        (&["If-Unmodified-Since: Mon, 01 Jan 2024 00:00:00 GMT"], Answer::PreconditionFailed),
        (&["If-None-Match: W/\"abc\""], Answer::NotModified),
        (&["Range: bytes=10-19", "If-Range: \"old\""], Answer::Whole),
        (&["Range: bytes=10-19", "If-Range: \"abc\""], part(10, 10)),
    ];
    for (lines, expected) in rows {
        assert_eq!(answered(lines), expected, "{lines:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = head_length(&bytes);
        let _ = parse_head(&bytes);
        let _ = parse_head(&[&bytes[..], b"\r\n\r\n"].concat());
    }

    #[test]
    fn any_header_text_is_answered_within_the_file(
        range in "(bytes=)?[0-9,-]{0,24}", size in 0..5000_u64, tag in "\"?[a-z*]{0,4}\"?",
    ) {
        let head = head(&[&format!("Range: {range}"), &format!("If-Match: {tag}")]);
        if let Answer::Part { first, count } = answer(&head, TAG, size) {
            prop_assert!(count > 0 && first + count <= size);
        }
    }
}
