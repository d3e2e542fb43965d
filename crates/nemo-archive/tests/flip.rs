//! Any single flipped byte of a header gives an equal archive or an error, never a panic; and any
//! text gives a config or an error.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use ckptkit_core::Section;
use common::{Tar, names};
use nemo_archive::{Config, NemoArchive, OpenOptions};
use proptest::prelude::*;

/// Where the headers of an archive lie, extension data included.
fn headers(bytes: &[u8], data: &[std::ops::Range<usize>]) -> Vec<usize> {
    (0..bytes.len()).filter(|i| !data.iter().any(|d| d.contains(i))).collect()
}

fn contents(archive: &NemoArchive) -> Vec<(String, Vec<u8>)> {
    let read = |e: &nemo_archive::Entry| (e.path().to_string(), e.read(1 << 20).unwrap());
    archive.entries().filter(|e| !e.is_dir()).map(read).collect()
}

#[test]
fn a_flipped_byte_of_a_header_is_seen_or_does_not_matter() {
    let tar = Tar::default()
        .pax(b'x', &[("mtime", "1700000000.25")])
        .dir("./")
        .pax(b'x', &[("path", "./tok.model"), ("mtime", "1.5")])
        .file("short", b"t")
        .file("./model_config.yaml", common::CONFIG.as_bytes())
        .file("./model_weights.ckpt", &common::weights())
        .end();
    let open = |bytes: Vec<u8>| {
        OpenOptions::new().members_only(true).open_section(Section::from_bytes(bytes, "t"))
    };
    let original = open(tar.clone()).unwrap();
    let expected = contents(&original);
    let data: Vec<std::ops::Range<usize>> = original
        .entries()
        .filter(|e| !e.is_dir())
        .map(|e| {
            let s = e.section().unwrap();
            let start = usize::try_from(s.offset()).unwrap();
            start..start + usize::try_from(s.len()).unwrap()
        })
        .collect();
    let mut wrong = Vec::new();
    for at in headers(&tar, &data) {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut bytes = tar.clone();
            bytes[at] ^= flip;
            let Ok(archive) = open(bytes) else { continue };
            let found = contents(&archive);
            // PAX records have no checksum: a flip there may rename a member, never change bytes.
            let same = found.len() == expected.len()
                && found.iter().zip(&expected).all(|(a, b)| a.1 == b.1);
            if !same {
                wrong.push((at, flip));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

proptest! {
    #[test]
    fn damaged_archives_never_panic(cuts in prop::collection::vec((0_usize..12_000, any::<u8>()), 1..6), end in 0_usize..12_000) {
        let mut bytes = Tar::model().end();
        for (at, value) in cuts {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        bytes.truncate(end.max(1));
        if let Ok(archive) = common::open(bytes) {
            let _ = names(&archive);
            let _ = archive.notes();
        }
    }

    #[test]
    fn any_text_is_a_config_or_an_error(text in "[a-c0-3:\\-\\[\\]{},&*!|>'\"#?%@ \\n\\t\\r~<$.\\\\é]{0,60}") {
        if let Ok(config) = Config::parse(text.as_bytes()) {
            let _ = config.resolved();
            for (key, value) in config.strings() {
                if let Some(span) = config.span(&key) {
                    prop_assert!(config.as_str().get(span).is_some(), "{key} {value}");
                }
            }
        }
    }

    #[test]
    fn a_mapping_written_is_the_mapping_read(pairs in prop::collection::btree_map("[a-z]{1,6}", "[ -~é]{0,12}", 1..6)) {
        let text: String = pairs.iter().map(|(k, v)| format!("k{k}: '{}'\n", v.replace('\'', "''"))).collect();
        let config = Config::parse(text.as_bytes()).unwrap();
        for (k, v) in &pairs {
            let key = format!("k{k}");
            prop_assert_eq!(config.get(&key), Some(nemo_archive::Value::Str(v.clone())));
            let span = config.span(&key).unwrap();
            prop_assert_eq!(&config.as_str()[span], format!("'{}'", v.replace('\'', "''")));
        }
    }
}
