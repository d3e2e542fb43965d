//! Broken and hostile files: each refused with an error that says what is wrong.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

mod common;

use ckptkit_core::{Error, ErrorKind, Limits, Section};
use common::{file, open};
use st_io::{Header, StFile};

#[track_caller]
fn check_error(error: &Error, kind: ErrorKind, says: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in says {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[track_caller]
fn refused(bytes: Vec<u8>, says: &[&str]) {
    check_error(&open(bytes).unwrap_err(), ErrorKind::Malformed, says);
}

/// A header with data of the given length.
#[track_caller]
fn header_refused(header: &str, data: usize, says: &[&str]) {
    refused(file(header, &vec![0; data]), says);
}

#[test]
fn lengths() {
    refused(vec![], &["0 bytes", "at least 10"]);
    refused(vec![2, 0, 0, 0, 0, 0, 0, 0, b'{'], &["9 bytes"]);
    let with_n = |n: u64| [&n.to_le_bytes()[..], &[b' '; 100]].concat();
    refused(with_n(100_000_001), &["100000001", "100000000"]);
    refused(with_n(u64::MAX), &["18446744073709551615"]);
    refused(with_n(101), &["101 bytes", "only 100"]);
    refused(with_n(0), &["0 bytes"]);
    refused(with_n(1), &["1 bytes"]);
    refused(with_n(100), &["JSON"]);
    let limits = {
        let mut l = Limits::default();
        l.header_bytes = 1;
        l
    };
    let section = Section::from_bytes(file("{}", b""), "crafted");
    let error = StFile::from_section_with(section, &limits).unwrap_err();
    check_error(&error, ErrorKind::LimitExceeded, &["2 bytes", "limit is 1"]);
}

#[test]
fn other_formats_are_named() {
    let zip = [b"PK\x03\x04\x00\x00\x08\x08\x00\x00".as_slice(), &[0; 64]].concat();
    refused(zip, &["zip archive"]);
    refused([b"\x80\x02ccollections\nOrderedDict\n".as_slice(), &[0; 9]].concat(), &["pickle"]);
    refused(b"version https://git-lfs.github.com/spec/v1\n".to_vec(), &["Git LFS"]);
}

#[test]
fn file_lengths() {
    let good = r#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    header_refused(good, 3, &["cut short", "64", "65", "4 of tensors"]);
    header_refused(good, 5, &["trailing bytes"]);
    header_refused("{}", 1, &["trailing bytes"]);
}

#[test]
fn text() {
    refused(file(b"{\"\xff\":1}", b""), &["UTF-8", "at offset 10"]);
    header_refused("\u{feff}{}", 0, &["byte order mark"]);
    header_refused("{}\0\0", 0, &["NUL", "at offset 10"]);
    header_refused("{} {}", 0, &["JSON"]);
    header_refused("[]", 0, &["sequence"]);
    header_refused("{\"w\":", 0, &["tensor w", "EOF"]);
    header_refused(
        r#"{"\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
        0,
        &["hex escape"],
    );
    header_refused(
        r#"{"\udc00":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
        0,
        &["surrogate"],
    );
    let deep = format!("{}{}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    header_refused(&deep, 0, &["tensor a", "deeper"]);
    let deep = format!(r#"{{"w":{{"x":{}{}}}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    header_refused(&deep, 0, &["deeper"]);
}

#[test]
fn fields() {
    let entry = |fields: &str| format!("{{\"w\":{{{fields}}}}}");
    for (fields, says) in [
        (r#""shape":[0],"data_offsets":[0,0]"#, "dtype is missing"),
        (r#""dtype":"U8","data_offsets":[0,0]"#, "shape is missing"),
        (r#""dtype":"U8","shape":[0]"#, "data_offsets is missing"),
        (r#""dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]"#, "\"dtype\" twice"),
        (r#""dtype":"U8","shape":[0],"sh\u0061pe":[0],"data_offsets":[0,0]"#, "\"shape\" twice"),
        (r#""dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1,"x":2"#, "\"x\" twice"),
        (r#""dtype":5,"shape":[0],"data_offsets":[0,0]"#, "expected a string"),
        (r#""dtype":null,"shape":[0],"data_offsets":[0,0]"#, "expected a string"),
        (r#""dtype":"U8","shape":[4.0],"data_offsets":[0,4]"#, "found 4.0"),
        (r#""dtype":"U8","shape":[1e0],"data_offsets":[0,1]"#, "found 1.0"),
        (r#""dtype":"U8","shape":[-0],"data_offsets":[0,0]"#, "found -0.0"),
        (r#""dtype":"U8","shape":[-1],"data_offsets":[0,0]"#, "found -1"),
        (r#""dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,0]"#, "plain integer"),
        (r#""dtype":"U8","shape":["4"],"data_offsets":[0,4]"#, "non-negative integer"),
        (r#""dtype":"U8","shape":4,"data_offsets":[0,4]"#, "list of integers"),
        (r#""dtype":"U8","shape":null,"data_offsets":[0,4]"#, "list of integers"),
        (r#""dtype":"U8","shape":[0],"data_offsets":[0]"#, "expected two numbers"),
        (r#""dtype":"U8","shape":[0],"data_offsets":[0,0,0]"#, "more than 2"),
        (r#""dtype":"U8","shape":[0],"data_offsets":[4,0]"#, "end before they begin"),
        (r#""dtype":"U8","shape":[3],"data_offsets":[0,4]"#, "hold 4 bytes, U8 of shape [3] has 3"),
        (r#""dtype":"F4","shape":[3],"data_offsets":[0,2]"#, "12 bits"),
        (r#""dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2]"#, "12 bits"),
        (r#""dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]"#, "i64"),
        (
            r#""dtype":"F32","shape":[0,9223372036854775808,9223372036854775808],"data_offsets":[0,0]"#,
            "i64",
        ),
        (
            r#""dtype":"F32","shape":[9223372036854775808,9223372036854775808,0],"data_offsets":[0,0]"#,
            "i64",
        ),
        (r#""dtype":"F32","shape":[4611686018427387904,2],"data_offsets":[0,0]"#, "i64"),
        (r#""dtype":"F64","shape":[9223372036854775807],"data_offsets":[0,0]"#, "bytes"),
    ] {
        header_refused(&entry(fields), 4, &["crafted", "tensor w", says]);
    }
    header_refused(r#"{"w":["U8",[4],[0,4]]}"#, 4, &["tensor w", "sequence", "expected an object"]);
    header_refused(r#"{"w":null}"#, 0, &["tensor w", "null"]);
    let many = format!("[{}1]", "1,".repeat(64));
    header_refused(
        &entry(&format!(r#""dtype":"U8","shape":{many},"data_offsets":[0,1]"#)),
        1,
        &["64"],
    );
}

#[test]
fn metadata() {
    header_refused(
        r#"{"__metadata__":{"a":1}}"#,
        0,
        &["__metadata__ key \"a\"", "expected a string"],
    );
    header_refused(r#"{"__metadata__":{"a":null}}"#, 0, &["expected a string"]);
    header_refused(r#"{"__metadata__":{"a":{}}}"#, 0, &["expected a string"]);
    header_refused(r#"{"__metadata__":[]}"#, 0, &["__metadata__ as an object"]);
    header_refused(r#"{"__metadata__":"x"}"#, 0, &["__metadata__ as an object"]);
    header_refused(r#"{"__metadata__":{},"__metadata__":{}}"#, 0, &["\"__metadata__\" twice"]);
    header_refused(r#"{"__metadata__":null,"__metadata__":{}}"#, 0, &["\"__metadata__\" twice"]);
    header_refused(r#"{"__metadata__":{"a":"","\u0061":""}}"#, 0, &["\"a\" twice"]);
    // A tensor cannot be called so: the reference writer lets it happen.
    header_refused(
        r#"{"__metadata__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
        0,
        &["string"],
    );
}

#[test]
fn tiling() {
    let two = |a: (u64, u64), b: (u64, u64)| {
        let entry = |(begin, end): (u64, u64)| {
            format!(r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end - begin)
        };
        format!(r#"{{"one":{},"two":{}}}"#, entry(a), entry(b))
    };
    header_refused(
        &two((0, 4), (4, 8)).replace("two", r"\u006fne"),
        8,
        &["two tensors", "\"one\""],
    );
    header_refused(&two((0, 4), (5, 8)), 8, &["tensor two", "[5, 8]", "hole", "4 to 5"]);
    header_refused(&two((1, 4), (4, 8)), 8, &["tensor one", "hole", "0 to 1"]);
    header_refused(
        &two((0, 4), (3, 8)),
        8,
        &["tensor two", "[3, 8]", "overlap", "\"one\", [0, 4]"],
    );
    header_refused(&two((0, 4), (0, 4)), 4, &["tensor two", "\"one\" too", "alias"]);
    header_refused(&two((0, 4), (2, 2)), 4, &["tensor two", "overlap"]);
    header_refused(&two((0, 4), (9, 9)), 4, &["tensor two", "hole"]);
    let far = u64::MAX - 4;
    let entry =
        format!(r#"{{"w":{{"dtype":"U8","shape":[4],"data_offsets":[{far},{}]}}}}"#, u64::MAX);
    header_refused(&entry, 4, &["tensor w", "hole"]);
}

#[test]
fn a_million_empty_tensors_stay_small() {
    let mut header = String::from("{");
    for i in 0..1_000_000 {
        let comma = if i == 0 { "" } else { "," };
        header += &format!(r#"{comma}"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    }
    header.push('}');
    let header = Header::parse(header.as_bytes()).unwrap();
    assert_eq!(header.entries().len(), 1_000_000);
    assert!(header.entry("999999").is_some() && header.entry("1000000").is_none());
    assert_eq!(header.notes().len(), 1, "the length of the header is worth a note");
}

#[test]
fn a_flipped_byte_gives_the_same_tensor_or_an_error() {
    let good = file(
        r#"{"__metadata__":{"k":"v"},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"I16","shape":[],"data_offsets":[2,4]}}"#,
        &[1, 2, 3, 4],
    );
    for at in 0..good.len() - 4 {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            if let Ok(file) = open(bytes) {
                for t in file.tensors() {
                    let t = t.unwrap();
                    assert_eq!(t.read().unwrap().len() as u64, t.byte_len());
                }
            }
        }
    }
    for len in 0..good.len() {
        assert!(open(good[..len].to_vec()).is_err(), "{len} bytes");
    }
}

#[test]
fn a_file_that_changes_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let bytes = file(r#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, &[1, 2, 3, 4]);
    std::fs::write(&path, &bytes).unwrap();
    let opened = StFile::open(&path).unwrap();
    opened.verify().unwrap();
    let handle = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    handle.set_len(bytes.len() as u64 + 1).unwrap();
    check_error(&opened.verify().unwrap_err(), ErrorKind::Io, &["65 bytes, now 66"]);
    handle.set_len(bytes.len() as u64 - 1).unwrap();
    assert_eq!(opened.verify().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(opened.tensor("w").unwrap().read().unwrap_err().kind(), ErrorKind::Io);
}
