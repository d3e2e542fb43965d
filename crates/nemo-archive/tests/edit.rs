//! Edited archives: what changes, and that nothing else does.
#![cfg(feature = "write")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use ckptkit_core::{
    CopyOptions, Dtype, Error, ErrorKind, Existing, OutputFile, Result, Section, Segment,
    TensorInfo, TensorSource,
};
use common::{Tar, names, open, weights};
use nemo_archive::{
    Change, Config, Editor, NemoArchive, NewArchive, OpenOptions, Replace, Value, WriteOptions,
    compare_weights,
};

/// An archive with two artifacts, one of them known to two keys, and a file that nobody names.
const CONFIG: &str = "\
target: nemo.collections.asr.models.EncDecCTCModelBPE  # the class
tokenizer:
  model_path: nemo:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_tokenizer.model
  vocab_path: nemo:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_vocab.txt
other: {words: 'nemo:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_vocab.txt'}
optim:
  lr: 1e-3
";

fn model() -> Tar {
    Tar::default()
        .dir("./")
        .file("./zzz_notes.md", b"nobody names this")
        .file("./bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_vocab.txt", b"a\nb\n")
        .file("./aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_tokenizer.model", b"model")
        .file("./model_config.yaml", CONFIG.as_bytes())
        .file("./model_weights.ckpt", &weights())
}

fn editor() -> Editor {
    Editor::new(&open(model().end()).unwrap()).unwrap()
}

fn text(bytes: &[u8]) -> Section {
    Section::from_bytes(bytes, "new")
}

fn options() -> WriteOptions {
    let mut options = WriteOptions::new();
    options.epoch = Some(7);
    options
}

fn written(archive: NewArchive) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out.nemo");
    archive.write(&to, Existing::Refuse, &CopyOptions::default()).unwrap();
    let bytes = std::fs::read(to).unwrap();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let header = entry.unwrap().header().clone();
        let is_dir = header.entry_type().is_dir();
        assert_eq!(header.mode().unwrap(), if is_dir { 0o755 } else { 0o644 });
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
    }
    bytes
}

/// Names, times and contents, as the crate `tar` reads them.
fn members(bytes: &[u8]) -> Vec<(String, u64, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            (name, header.mtime().unwrap(), data)
        })
        .collect()
}

fn layout(editor: Editor) -> Vec<u8> {
    written(editor.layout(&options()).unwrap())
}

#[track_caller]
fn refused(result: Result<()>, kind: ErrorKind, says: &str) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    error
}

#[test]
fn a_config_edit_changes_the_config_alone() {
    let mut editor = editor();
    editor.set("optim.lr", "0.01").unwrap();
    editor.delete("other").unwrap();
    let edited = editor.layout(&options()).unwrap();
    let shown: Vec<String> = edited.changes().iter().map(Change::to_string).collect();
    assert_eq!(
        shown,
        [
            "optim.lr: 0.01 (was 0.001)",
            "other: deleted (was {words: 'nemo:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_vocab.txt'})"
        ]
    );
    let after = members(&written(edited));
    let before = members(&model().end());
    assert_eq!(after.len(), before.len());
    // Not one of them moved, and the folder's own time is that of new things.
    for (old, new) in before.iter().zip(&after).skip(1) {
        assert_eq!(old.0, new.0);
        if old.0 == "./model_config.yaml" {
            let expected = CONFIG
                .replace("lr: 1e-3", "lr: 0.01")
                .replace("other: {words: 'nemo:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_vocab.txt'}\n", "");
            assert_eq!(String::from_utf8_lossy(&new.2), expected);
            assert_eq!(new.1, 7);
        } else {
            assert_eq!(old, new);
        }
    }
}

#[test]
fn nothing_edited_is_the_same_archive() {
    let bytes = layout(editor());
    let again = layout(Editor::new(&open(bytes.clone()).unwrap()).unwrap());
    assert_eq!(bytes, again);
    assert_eq!(members(&bytes)[1..], members(&model().end())[1..]);
}

/// SHA-256 of `c\n`, by coreutils.
const C: &str = "a3a5e715f0cc574a73c3f9bebb6bc24f32ffd5b67b387244c2c909da779a1478";

#[test]
fn an_artifact_is_replaced_under_a_new_name() {
    let mut editor = editor();
    editor.replace("tokenizer.vocab_path", &text(b"c\n"), &Replace::new()).unwrap();
    let archive = open(layout(editor)).unwrap();
    let new = format!("{}_vocab.txt", &C[..32]);
    let config = archive.config().unwrap();
    assert_eq!(config.get("tokenizer.vocab_path"), Some(Value::Str(format!("nemo:{new}"))));
    assert_eq!(archive.artifact(&format!("nemo:{new}")).unwrap().read(9).unwrap(), b"c\n");
    // The other key has what it had.
    let other = config.get("other.words").unwrap();
    assert_eq!(archive.artifact(other.as_str().unwrap()).unwrap().read(9).unwrap(), b"a\nb\n");
    assert_eq!(archive.config_text().unwrap().matches("the class").count(), 1);

    // All of them, by the name of the file: the old member goes.
    let mut editor = Editor::new(&archive).unwrap();
    let mut all = Replace::new();
    all.all_refs = true;
    let member = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_vocab.txt";
    editor.replace(member, &text(b"c\n"), &all).unwrap();
    let edited = editor.layout(&options()).unwrap();
    assert!(
        edited
            .changes()
            .iter()
            .any(|c| matches!(c, Change::Removed { member: gone, bytes: 4 } if gone == member))
    );
    let archive = open(written(edited)).unwrap();
    assert_eq!(archive.artifacts().unwrap().len(), 3);
    let keys: Vec<String> =
        archive.artifacts().unwrap().iter().flat_map(|a| a.keys().to_vec()).collect();
    assert_eq!(keys, ["tokenizer.vocab_path", "other.words", "tokenizer.model_path"]);
}

#[test]
fn targets_are_keys_members_and_files() {
    for (target, all) in [
        ("tokenizer.model_path", false),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_tokenizer.model", false),
        ("./aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_tokenizer.model", true),
        ("tokenizer.model", true),
    ] {
        let mut editor = editor();
        let mut how = Replace::new();
        how.all_refs = all;
        editor.replace(target, &text(b"c\n"), &how).unwrap();
        let archive = open(layout(editor)).unwrap();
        let artifacts = archive.artifacts().unwrap();
        // It stands where the old one stood.
        assert_eq!(artifacts[2].name(), format!("{}_tokenizer.model", &C[..32]), "{target}");
        assert_eq!(artifacts.len(), 3);
    }
    let mut named = Replace::new();
    named.base_name = Some("other.model".into());
    let mut editor = editor();
    editor.replace("tokenizer.model", &text(b"c\n"), &named).unwrap();
    // What no key names keeps its name.
    editor.replace("zzz_notes.md", &text(b"d\n"), &Replace::new()).unwrap();
    let archive = open(layout(editor)).unwrap();
    assert_eq!(archive.artifacts().unwrap()[2].base_name(), "other.model");
    assert_eq!(archive.entry("zzz_notes.md").unwrap().read(9).unwrap(), b"d\n");
}

#[test]
fn replacing_with_the_same_changes_nothing() {
    let mut first = editor();
    first.replace("tokenizer.model", &text(b"c\n"), &Replace::new()).unwrap();
    let bytes = layout(first);
    let mut second = Editor::new(&open(bytes.clone()).unwrap()).unwrap();
    second.replace("tokenizer.model", &text(b"c\n"), &Replace::new()).unwrap();
    let edited = second.layout(&options()).unwrap();
    assert_eq!(edited.changes(), []);
    assert_eq!(written(edited), bytes);
}

#[test]
fn artifacts_that_cannot_be_replaced() {
    let replace = |target: &str| editor().replace(target, &text(b"c\n"), &Replace::new());
    refused(replace("vocab.txt"), ErrorKind::InvalidArgument, "2 keys refer to it");
    refused(replace("vocab.txt"), ErrorKind::InvalidArgument, "tokenizer.vocab_path, other.words");
    refused(replace("nothing"), ErrorKind::NotFound, "there are: zzz_notes.md");
    refused(replace("optim.lr"), ErrorKind::NotFound, "no artifact is called");
    refused(replace("target"), ErrorKind::NotFound, "names no artifact");
    refused(replace("model_config.yaml"), ErrorKind::NotFound, "no artifact");
    refused(replace("../x"), ErrorKind::Denied, "'..'");
    let mut odd = Replace::new();
    for (name, kind) in [
        ("a/b", ErrorKind::InvalidArgument),
        ("../b", ErrorKind::Denied),
        ("", ErrorKind::Denied),
        ("./b", ErrorKind::InvalidArgument),
    ] {
        odd.base_name = Some(name.into());
        refused(editor().replace("tokenizer.model", &text(b"c"), &odd), kind, "artifact tokenizer");
    }
    // A failed edit is no edit.
    let anchored = CONFIG.replace("vocab_path: nemo", "vocab_path: &v nemo") + "again: *v\n";
    let tar = Tar::default()
        .file("model_config.yaml", anchored.as_bytes())
        .file("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_vocab.txt", b"a")
        .file("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_tokenizer.model", b"a")
        .file("model_weights.ckpt", &weights());
    let mut editor = Editor::new(&open(tar.end()).unwrap()).unwrap();
    let plain = layout(editor.clone());
    let result = editor.replace("tokenizer.vocab_path", &text(b"c"), &Replace::new());
    refused(result, ErrorKind::Denied, "by the anchor &v");
    assert_eq!(layout(editor), plain);
}

#[test]
fn a_name_that_is_taken_by_other_content() {
    let name = format!("./{}_tokenizer.model", &C[..32]);
    let tar = model().file(&name, b"something else").end();
    let mut editor = Editor::new(&open(tar).unwrap()).unwrap();
    let result = editor.replace("tokenizer.model_path", &text(b"c\n"), &Replace::new());
    refused(result, ErrorKind::InvalidArgument, "with other content");
}

#[test]
fn artifacts_are_added_and_removed() {
    let mut editor = editor();
    editor.add("tokenizer.spe_tokenizer_vocab", "tokenizer.vocab", &text(b"c\n")).unwrap();
    editor.remove("zzz_notes.md").unwrap();
    let archive = open(layout(editor)).unwrap();
    let artifacts = archive.artifacts().unwrap();
    let added = artifacts.iter().find(|a| a.base_name() == "tokenizer.vocab").unwrap();
    assert_eq!(added.keys(), ["tokenizer.spe_tokenizer_vocab"]);
    assert_eq!(added.name(), format!("{}_tokenizer.vocab", &C[..32]));
    assert!(archive.entry("zzz_notes.md").is_err());
    // Before the weights.
    assert_eq!(archive.entries().last().unwrap().path().as_str(), "model_weights.ckpt");

    let mut editor = Editor::new(&archive).unwrap();
    let again = editor.add("tokenizer.model_path", "t", &text(b""));
    refused(again, ErrorKind::InvalidArgument, "replace it instead");
    let result = editor.remove("tokenizer.vocab");
    refused(result, ErrorKind::InvalidArgument, "tokenizer.spe_tokenizer_vocab");
    editor.delete("tokenizer.spe_tokenizer_vocab").unwrap();
    editor.remove("tokenizer.vocab").unwrap();
    refused(editor.remove("model_weights.ckpt"), ErrorKind::NotFound, "no artifact");
    refused(editor.remove("tokenizer.vocab"), ErrorKind::NotFound, "no artifact");
    refused(editor.add("target.x", "t", &text(b"")), ErrorKind::InvalidArgument, "no mapping");
    assert_eq!(open(layout(editor)).unwrap().artifacts().unwrap().len(), 2);
}

#[test]
fn two_keys_may_get_the_same_content() {
    let mut editor = editor();
    editor.add("extra.a", "w.txt", &text(b"c\n")).unwrap();
    editor.add("extra.b", "w.txt", &text(b"c\n")).unwrap();
    let archive = open(layout(editor)).unwrap();
    let artifacts = archive.artifacts().unwrap();
    assert_eq!(artifacts.last().unwrap().keys(), ["extra.a", "extra.b"]);
}

#[test]
fn references_must_name_members() {
    let mut first = editor();
    first.set("tokenizer.model_path", "nemo:elsewhere_t.model").unwrap();
    let error = first.layout(&options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("tokenizer.model_path: nemo:elsewhere"), "{error}");
    let mut second = editor();
    second.set("tokenizer.model_path", "nemo:../../etc/passwd").unwrap();
    let error = second.layout(&options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    // Weights and config are no artifacts.
    let mut third = editor();
    third.set("x", "nemo:model_weights.ckpt").unwrap();
    assert_eq!(third.layout(&options()).unwrap_err().kind(), ErrorKind::NotFound);

    // One that the source does not resolve is none of our business.
    let config = CONFIG.replace("nemo:aaaa", "nemo:gone");
    let tar = Tar::default()
        .file("model_config.yaml", config.as_bytes())
        .file("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_vocab.txt", b"a")
        .file("model_weights.ckpt", &weights());
    let mut editor = Editor::new(&open(tar.end()).unwrap()).unwrap();
    editor.set("optim.lr", "1").unwrap();
    let edited = editor.layout(&options()).unwrap();
    assert!(edited.notes()[0].contains("tokenizer.model_path"), "{:?}", edited.notes());
}

#[test]
fn weights_are_replaced_and_compared() {
    let archive = open(model().end()).unwrap();
    let mut editor = Editor::new(&archive).unwrap();
    let same: Vec<TensorInfo> = archive.infos().cloned().collect();
    assert!(editor.difference(&same).unwrap().is_empty());
    let info = |name: &str, dtype, shape: &[u64]| TensorInfo::new(name, dtype, shape).unwrap();
    let other = [
        info("encoder.w", Dtype::Bf16, &[3]),
        info("decoder.b", Dtype::F32, &[2]),
        info("new", Dtype::F32, &[1]),
    ];
    let difference = editor.difference(&other).unwrap();
    assert_eq!(difference.dtypes, [("encoder.w".to_owned(), Dtype::F32, Dtype::Bf16)]);
    assert_eq!(difference.shapes, [("decoder.b".to_owned(), vec![1], vec![2])]);
    assert_eq!(difference.unexpected, ["new"]);
    let error = difference.refuse().unwrap_err();
    assert!(error.to_string().contains("1 not expected (new); 1 of other shapes"), "{error}");
    let missing = compare_weights(&same, &[]);
    assert_eq!(missing.missing, ["encoder.w", "decoder.b"]);
    assert!(compare_weights(&[], &[]).refuse().is_ok());

    let bytes = common::checkpoint(&[("x", &[5.0])]);
    let mut file = OutputFile::default();
    file.push(Segment::Literal(bytes.clone())).unwrap();
    editor.weights(file).unwrap();
    let edited = layout(editor);
    assert_eq!(members(&edited).last().unwrap().2, bytes);
    assert_eq!(names(&open(edited).unwrap()), ["x"]);
}

#[test]
fn weights_of_other_layouts_are_not_replaced() {
    let ranks = Tar::default()
        .file("model_config.yaml", CONFIG.as_bytes())
        .file("mp_rank_00/model_weights.ckpt", &weights());
    let archive = OpenOptions::new().members_only(true);
    let archive = archive.open_section(Section::from_bytes(ranks.end(), "ranks.nemo")).unwrap();
    let mut editor = Editor::new(&archive).unwrap();
    refused(editor.weights(OutputFile::default()), ErrorKind::Unsupported, "Ranks");
    // An archive without weights can be given some.
    let none = Tar::default().file("model_config.yaml", b"a: 1\n").end();
    let archive = OpenOptions::new().members_only(true);
    let archive = archive.open_section(Section::from_bytes(none, "none.nemo")).unwrap();
    let mut editor = Editor::new(&archive).unwrap();
    let mut file = OutputFile::default();
    file.push(Segment::Literal(weights())).unwrap();
    editor.weights(file).unwrap();
    assert_eq!(names(&open(layout(editor)).unwrap()), ["encoder.w", "decoder.b"]);
}

#[test]
fn a_config_that_cannot_be_read_can_be_replaced() {
    let tar = Tar::default()
        .file("model_config.yaml", b"a: 1\na: 2\n")
        .file("model_weights.ckpt", &weights());
    let archive = OpenOptions::new().members_only(true);
    let archive = archive.open_section(Section::from_bytes(tar.end(), "bad.nemo")).unwrap();
    let mut editor = Editor::new(&archive).unwrap();
    refused(editor.set("a", "3"), ErrorKind::Malformed, "twice");
    assert!(editor.clone().layout(&options()).is_err());
    editor.replace_config(Config::parse(b"a: 3\n").unwrap());
    let archive = open(layout(editor)).unwrap();
    assert_eq!(archive.config_text().unwrap(), "a: 3\n");
}

#[test]
fn what_is_no_archive_of_today_is_not_edited() {
    let old = Tar::default().file("module.yaml", b"a: 1\n").file("X.pt", &weights()).end();
    let error = Editor::new(&open(old).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn a_folder_around_everything_falls_away() {
    let tar = Tar::default()
        .dir("mymodel/")
        .file("mymodel/model_config.yaml", b"a: nemo:sub/x.txt\n")
        .dir("mymodel/sub/")
        .file("mymodel/sub/x.txt", b"x")
        .file("mymodel/model_weights.ckpt", &weights());
    let editor = Editor::new(&open(tar.end()).unwrap()).unwrap();
    let edited = editor.layout(&options()).unwrap();
    assert_eq!(edited.changes(), [Change::Unwrapped]);
    let bytes = written(edited);
    let names: Vec<String> = members(&bytes).into_iter().map(|m| m.0).collect();
    assert_eq!(
        names,
        ["./", "./model_config.yaml", "./sub/", "./sub/x.txt", "./model_weights.ckpt"]
    );
    assert_eq!(open(bytes).unwrap().notes(), Vec::<String>::new());
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/nemo")
}

/// Every tensor's bytes by its name.
fn tensors(archive: &NemoArchive) -> BTreeMap<String, Vec<u8>> {
    let names: Vec<String> = archive.infos().map(|t| t.name().to_owned()).collect();
    names
        .into_iter()
        .map(|name| (name.clone(), archive.tensor(&name).unwrap().read().unwrap()))
        .collect()
}

#[test]
fn archives_of_every_kind_are_repacked() {
    let Ok(files) = std::fs::read_dir(fixtures()) else { return };
    let mut repacked = 0;
    for path in files.map(|f| f.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".nemo") && name != "unpacked" {
            continue;
        }
        let archive = match NemoArchive::open(&path) {
            Err(e) if e.to_string().contains("build with the feature") => continue,
            opened => opened.unwrap(),
        };
        let bytes = layout(Editor::new(&archive).unwrap());
        let again = layout(Editor::new(&archive).unwrap());
        assert_eq!(bytes, again, "{name}");
        let found = open(bytes.clone()).unwrap();
        assert_eq!(tensors(&found), tensors(&archive), "{name}");
        assert_eq!(found.config_text().unwrap(), archive.config_text().unwrap(), "{name}");
        let list = |archive: &NemoArchive| -> Vec<(String, u64, Vec<u8>)> {
            let files = archive.entries().filter(|e| !e.is_dir());
            files.map(|e| (e.path().to_string(), e.mtime(), e.read(1 << 20).unwrap())).collect()
        };
        let before = list(&archive);
        for (old, new) in before.iter().zip(&list(&found)) {
            assert_eq!((&old.0, &old.2), (&new.0, &new.2), "{name}");
            // Files of a directory have the time of whoever put them there.
            assert_eq!(new.1, if name == "unpacked" { old.1.min(7) } else { old.1 }, "{name}");
        }
        assert_eq!(layout(Editor::new(&found).unwrap()), bytes, "{name}");
        repacked += 1;
    }
    assert!(repacked >= 12, "{repacked}");
}

#[cfg(feature = "gzip")]
#[test]
fn gzip_holds_the_plain_archive() {
    use std::ops::ControlFlow;
    use std::sync::Mutex;

    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, copy: &CopyOptions<'_>| {
        let to = dir.path().join(name);
        let archive = editor().layout(&options()).unwrap();
        archive.write_gzip(&to, Existing::Refuse, copy).map(|report| (to, report))
    };
    #[derive(Default)]
    struct Watch {
        stop: u64,
        seen: Mutex<Vec<(u64, u64)>>,
        written: Mutex<Vec<u64>>,
    }
    impl ckptkit_core::Observer for Watch {
        fn on_progress(&self, p: ckptkit_core::Progress) -> ControlFlow<()> {
            self.seen.lock().unwrap().push((p.bytes_done, p.bytes_total));
            if p.bytes_done >= self.stop {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }

        fn on_written(&self, report: &ckptkit_core::CopyReport) {
            self.written.lock().unwrap().push(report.bytes);
        }
    }
    let watch = Watch { stop: u64::MAX, ..Watch::default() };
    let mut copy = CopyOptions::default();
    copy.observer = &watch;
    let (one, report) = write("one.nemo", &copy).unwrap();
    let (two, _) = write("two.nemo", &CopyOptions::default()).unwrap();
    let (one, two) = (std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
    assert_eq!(one, two);
    assert_eq!(report.bytes, one.len() as u64);
    assert_eq!(*watch.written.lock().unwrap(), [report.bytes], "told once, when it stands");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&one[..]).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, layout(editor()));
    let seen = watch.seen.lock().unwrap();
    let total = 2 * plain.len() as u64;
    assert_eq!(seen.last(), Some(&(total, total)));
    assert!(seen.is_sorted());
    drop(seen);
    // NeMo of those days, and the reader here.
    assert_eq!(names(&open(one).unwrap()), ["encoder.w", "decoder.b"]);

    // Stopped in either pass, it leaves nothing.
    for stop in [1, plain.len() as u64 + 1] {
        let watch = Watch { stop, ..Watch::default() };
        let mut copy = CopyOptions::default();
        copy.observer = &watch;
        assert_eq!(write("three.nemo", &copy).unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(watch.written.lock().unwrap().is_empty());
    }
    assert!(write("one.nemo", &CopyOptions::default()).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}
