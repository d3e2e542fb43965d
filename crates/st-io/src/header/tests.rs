//! The quick parser reads what the strict one reads, or nothing.
#![allow(clippy::panic, reason = "what went wrong, in tests")]

use std::path::{Path, PathBuf};

use super::{parse, plain};

/// Whether the quick parser reads it, which it must then do as the strict one does.
#[track_caller]
fn is_plain(text: &str) -> bool {
    let Some(quick) = plain::read(text) else { return false };
    match parse::read(text) {
        Ok(strict) => assert_eq!(quick, strict, "{text}"),
        Err(e) => panic!("{e}: {text}"),
    }
    true
}

const ORDINARY: [&str; 7] = [
    "{}",
    r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#,
    r#"{"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}   "#,
    r#"{"__metadata__":{"format":"pt","é":"{}"},"":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}"#,
    r#"{"x.y":{"data_offsets":[10,10],"shape":[0,7],"dtype":"BF16"},"__metadata__":{},
        "z":{"shape":[],"data_offsets":[2,3],"dtype":"BOOL"}}"#,
    " {\t\"long name of a tensor\"\n:\r{ \"dtype\" : \"U8\" , \"shape\" : [ 18446744073 ] , \
     \"data_offsets\" : [ 0 , 18446744073 ] } } \r\n",
    r#"{"\u00fc\ud83d\ude00\\":{"dtype":"I8","shape":[],"data_offsets":[0,1]},
        "\u005f_metadata__":{"\"a\"":"{\"b\":[\n]}é\/"}}"#,
];

#[test]
fn what_writers_write_is_plain() {
    for text in ORDINARY {
        assert!(is_plain(text), "{text}");
    }
}

#[test]
fn anything_else_is_left_to_the_strict_parser() {
    let dims = |count| format!("[{}]", vec!["1"; count].join(","));
    let entry = |shape: &str, range: &str| {
        format!(r#"{{"a":{{"dtype":"U8","shape":{shape},"data_offsets":{range}}}}}"#)
    };
    assert!(is_plain(&entry(&dims(64), "[0,1]")));
    let too_many = dims(65);
    let of_entries = [
        (too_many.as_str(), "[0,1]"),
        ("[1]", "[1,0]"),
        ("[1]", "[0,2]"),
        ("[1]", "[0]"),
        ("[1]", "[0,1,2]"),
        ("[1]", "[]"),
        ("[1]", "[-0,1]"),
        ("[1]", "[00,1]"),
        ("[1]", "[0,01]"),
        ("[1]", "[0,1.0]"),
        ("[1]", "[0,1e0]"),
        ("[1]", "[0,+1]"),
        ("[1,]", "[0,1]"),
        ("[,1]", "[0,1]"),
        ("[1 1]", "[0,1]"),
        ("1", "[0,1]"),
        ("null", "[0,1]"),
        ("[\"1\"]", "[0,1]"),
        ("[0,18446744073709551616]", "[0,0]"),
        ("[0,99999999999999999999]", "[0,0]"),
        ("[4294967296,4294967296]", "[0,0]"),
    ];
    for (shape, range) in of_entries {
        assert!(!is_plain(&entry(shape, range)), "{shape} {range}");
    }
    let metadata = |text: &str| format!(r#"{{"__metadata__":{text}}}"#);
    for text in [
        "null",
        "[]",
        r#"{"a":1}"#,
        r#"{"a":"b","a":"b"}"#,
        r#"{"a":"\ud800"}"#,
        r#"{"a":"\é"}"#,
        r#"{"a"}"#,
    ] {
        assert!(!is_plain(&metadata(text)), "{text}");
    }
    let others = [
        "",
        "[]",
        "{} x",
        "{}{}",
        "{}\0",
        "{}\u{a0}",
        "\u{feff}{}",
        r#"{"__metadata__":{},"__metadata__":{}}"#,
        r#"{"__metadata__":{},"\u005f_metadata__":{}}"#,
        r#"{"a":{"\u0064type":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        r#"{"a\"#,
        r#"{"a\""#,
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}"#,
        r#"{"a":{"dtype":"U8","shape":[1],"dtype":"U8"}}"#,
        r#"{"a":{"dtype":"U8","shape":[1],"shape":[1]}}"#,
        r#"{"a":{"data_offsets":[0,1],"shape":[1],"data_offsets":[0,1]}}"#,
        r#"{"a":{"dtype":"U8","shape":[1]}}"#,
        r#"{"a":{"dtype":"u8","shape":[1],"data_offsets":[0,1]}}"#,
        r#"{"a":{"dtype":"QINT8","shape":[1],"data_offsets":[0,1]}}"#,
        r#"{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}"#,
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},}"#,
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],}}"#,
    ];
    for text in others {
        assert!(!is_plain(text), "{text}");
    }
}

/// Every byte taken away, doubled, exchanged with the next, and replaced; every beginning.
#[test]
fn what_is_changed_is_read_alike_or_left() {
    let bytes = b"\"\\{}[],: \t\n\x0c\x00\x7f0159-+.eaFUB_\x80\xc3\xa9";
    let (mut plain, mut left) = (0, 0);
    let mut check = |text: Vec<u8>| {
        if let Ok(text) = String::from_utf8(text) {
            *if is_plain(&text) { &mut plain } else { &mut left } += 1;
        }
    };
    for text in ORDINARY.map(str::as_bytes) {
        for at in 0..text.len() {
            let (before, after) = (&text[..at], &text[at + 1..]);
            check(before.to_vec());
            check([before, after].concat());
            check([before, &[text[at]; 2], after].concat());
            if let Some((next, rest)) = after.split_first() {
                check([before, &[*next, text[at]], rest].concat());
            }
            for byte in bytes {
                check([before, &[*byte], after].concat());
                check([before, &[*byte], &text[at..]].concat());
            }
        }
    }
    assert!(plain > 2_000 && left > 10_000, "{plain} {left}");
}

#[test]
fn fixtures_are_read_alike() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let mut ordinary = 0;
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for path in paths(&folder) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Some(header) = header(&path) else { continue };
            let plain = is_plain(&header);
            if path.starts_with(root.join("safetensors")) {
                assert!(plain, "{}", path.display());
                ordinary += 1;
            }
        }
    }
    assert!(ordinary > 10, "{ordinary}");
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn header(path: &Path) -> Option<String> {
    path.extension().filter(|e| *e == "safetensors")?;
    let bytes = std::fs::read(path).unwrap();
    let (len, rest) = bytes.split_first_chunk()?;
    let header = rest.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    String::from_utf8(header.to_vec()).ok()
}
