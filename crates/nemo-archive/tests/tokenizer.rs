//! Tokenizers: read as sentencepiece reads them, derived as its trainer and NeMo derive.
#![cfg(feature = "write")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use ckptkit_core::{ErrorKind, Section};
use nemo_archive::{PieceKind, SentencePieceModel, TokenizerFiles};
use proptest::prelude::*;
use serde_json::Value as Json;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers").join(name)
}

fn bytes(name: &str, file: &str) -> Vec<u8> {
    std::fs::read(folder(name).join(file)).unwrap()
}

const ALL: [&str; 3] = ["same_size", "larger", "unigram"];

#[test]
fn pieces_are_those_of_sentencepiece() {
    for name in ALL {
        let model = SentencePieceModel::parse(&bytes(name, "tokenizer.model")).unwrap();
        let said: Vec<Json> = serde_json::from_slice(&bytes(name, "pieces.json")).unwrap();
        assert_eq!(model.pieces().len(), said.len(), "{name}");
        for (piece, said) in model.pieces().iter().zip(&said) {
            assert_eq!(piece.text, said["text"], "{name}");
            let score = said["score"].as_f64().unwrap();
            assert!((f64::from(piece.score) - score).abs() < 1e-12, "{name}: {score}");
            let kind = match piece.kind {
                PieceKind::Unknown => "unknown",
                PieceKind::Control => "control",
                PieceKind::Byte => "byte",
                _ => "other",
            };
            assert_eq!(kind, said["kind"], "{name}: {}", piece.text);
        }
    }
    let model = SentencePieceModel::parse(&bytes("unigram", "tokenizer.model")).unwrap();
    let defined = model.pieces().iter().filter(|p| p.kind == PieceKind::UserDefined);
    assert_eq!(defined.map(|p| p.text.as_str()).collect::<Vec<_>>(), ["▁zwei", "[LAUGH]"]);
}

#[test]
fn derived_files_are_those_of_the_trainer_and_of_nemo() {
    for name in ALL {
        let model = SentencePieceModel::parse(&bytes(name, "tokenizer.model")).unwrap();
        let text = |file| String::from_utf8(bytes(name, file)).unwrap();
        assert_eq!(model.vocab(), text("tokenizer.vocab"), "{name}");
        assert_eq!(model.vocab_txt(), text("vocab.txt"), "{name}");
    }
}

#[test]
fn files_are_taken_or_derived() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let error = TokenizerFiles::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    write("vocab.txt", b"[PAD]\n[UNK]\nthe\n##s\n");
    let words = TokenizerFiles::open(dir.path()).unwrap();
    assert_eq!(words.pieces(), ["[PAD]", "[UNK]", "the", "##s"]);

    write("tokenizer.model", &bytes("same_size", "tokenizer.model"));
    let files = TokenizerFiles::open(dir.path()).unwrap();
    assert_eq!(files.pieces().len(), 40);
    assert_eq!(files.pieces()[0], "<unk>");

    // A vocabulary of another model was left there.
    write("tokenizer.vocab", &bytes("larger", "tokenizer.vocab"));
    let error = TokenizerFiles::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("has 52 lines, tokenizer.model has 40 pieces"), "{error}");
}

#[test]
fn what_is_no_model_is_refused() {
    let good = bytes("same_size", "tokenizer.model");
    for (bytes, says) in [
        (&b""[..], "holds no pieces"),
        (b"<unk>\t0\n", "protobuf"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends early"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "protobuf"),
        (b"\x0a\x05\x0a\x03\xff\xff\xff", "piece 0: is not UTF-8"),
        (b"\x0a\x02\x18\x09", "kind"),
        (b"\x00\x00", "protobuf"),
        (&good[..good.len() - 1], "ends early"),
    ] {
        let error = SentencePieceModel::parse(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let named = SentencePieceModel::read(&Section::from_bytes(*b"x", "dir/tokenizer.model"));
    assert!(named.unwrap_err().to_string().contains("dir/tokenizer.model"));
}

proptest! {
    #[test]
    fn damaged_models_never_panic(at in 0_usize..1000, value: u8, end in 0_usize..600) {
        let mut model = bytes("same_size", "tokenizer.model");
        let len = model.len();
        model[at % len] = value;
        model.truncate(end);
        if let Ok(model) = SentencePieceModel::parse(&model) {
            let _ = (model.vocab(), model.vocab_txt());
        }
    }
}
