//! New archives, packed directories, unpacked archives, swapped tokenizers.
#![cfg(feature = "write")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ckptkit_core::{CopyOptions, Error, ErrorKind, Existing, OutputFile, Result, Section, Segment};
use common::{Tar, names, open, weights};
use nemo_archive::{
    Builder, Change, Config, Editor, NemoArchive, NewArchive, OpenOptions, PackOptions, Swap,
    TokenizerFiles, UnpackOptions, Value, WriteOptions, pack,
};

fn options() -> WriteOptions {
    let mut options = WriteOptions::new();
    options.epoch = Some(7);
    options
}

fn packing(extra: bool) -> PackOptions {
    let mut packing = PackOptions::new();
    (packing.extra, packing.write) = (extra, options());
    packing
}

fn written(archive: NewArchive) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out.nemo");
    archive.write(&to, Existing::Refuse, &CopyOptions::default()).unwrap();
    fs::read(to).unwrap()
}

fn text(bytes: &[u8]) -> Section {
    Section::from_bytes(bytes, "new")
}

fn file(bytes: Vec<u8>) -> OutputFile {
    let mut file = OutputFile::default();
    file.push(Segment::Literal(bytes)).unwrap();
    file
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, says: &str) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    error
}

fn entries(archive: &NemoArchive) -> Vec<&str> {
    archive.entries().map(|e| e.path().as_str()).collect()
}

// --- from nothing ------------------------------------------------------------------

#[test]
fn an_archive_from_nothing() {
    let config = Config::parse(b"target: nemo.x.Y\nlabels: nemo:words.txt\n").unwrap();
    let mut builder = Builder::new(config);
    builder.weights(file(weights())).unwrap();
    builder.member("words.txt", &text(b"a\n")).unwrap();
    builder.member("sub/extra.txt", &text(b"e\n")).unwrap();
    builder.artifact("tokenizer.model_path", "tokenizer.model", &text(b"c\n")).unwrap();
    builder.artifact("tokenizer.again", "tokenizer.model", &text(b"c\n")).unwrap();
    assert!(builder.config().get("tokenizer.again").is_some());
    let bytes = written(builder.clone().layout(&options()).unwrap());
    assert_eq!(bytes, written(builder.layout(&options()).unwrap()));
    let archive = open(bytes).unwrap();
    let hashed = "a3a5e715f0cc574a73c3f9bebb6bc24f_tokenizer.model";
    assert_eq!(
        entries(&archive),
        ["model_config.yaml", hashed, "sub", "sub/extra.txt", "words.txt", "model_weights.ckpt"]
    );
    assert!(archive.entries().all(|e| e.raw_name().starts_with("./") && e.mtime() == 7));
    assert_eq!(names(&archive), ["encoder.w", "decoder.b"]);
    let artifacts = archive.artifacts().unwrap();
    assert_eq!(artifacts[0].keys(), ["tokenizer.model_path", "tokenizer.again"]);
}

#[test]
fn what_is_missing_is_said_before_a_byte_is_written() {
    let config = || Config::parse(b"a: nemo:x.txt\nb: nemo:y.txt\nc: z.txt\n").unwrap();
    let builder = Builder::new(config());
    refused(builder.layout(&options()), ErrorKind::NotFound, "no weights");
    let mut builder = Builder::new(config());
    builder.weights(file(weights())).unwrap();
    let error = builder.clone().layout(&options());
    refused(error, ErrorKind::NotFound, "(a: nemo:x.txt, b: nemo:y.txt)");
    refused(builder.weights(file(weights())), ErrorKind::InvalidArgument, "already");
    let mut member = |name: &str| builder.member(name, &text(b""));
    member("x.txt").unwrap();
    refused(member("X.TXT"), ErrorKind::InvalidArgument, "there is a member x.txt");
    refused(member("../y.txt"), ErrorKind::Denied, "'..'");
    refused(member("/y.txt"), ErrorKind::Denied, "absolute");
    refused(member("c:y.txt"), ErrorKind::Denied, "c:y.txt");
    refused(member("./model_weights.ckpt"), ErrorKind::InvalidArgument, "config or the weights");
    refused(member("model_config.yaml"), ErrorKind::InvalidArgument, "config or the weights");
    member("y.txt/z").unwrap();
    refused(builder.layout(&options()), ErrorKind::NotFound, "b: nemo:y.txt");
    let mut builder = Builder::new(Config::parse(b"a: 1\n").unwrap());
    builder.weights(file(weights())).unwrap();
    builder.member("y", &text(b"")).unwrap();
    builder.member("y/z", &text(b"")).unwrap();
    refused(builder.layout(&options()), ErrorKind::InvalidArgument, "y, which is a file");
    let error = Builder::new(Config::parse(b"a: 1\n").unwrap()).artifact("k", "a/b", &text(b""));
    refused(error, ErrorKind::InvalidArgument, "no name of a file");
}

// --- directories -------------------------------------------------------------------

const TOKENIZER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_tokenizer.model";

fn model() -> Tar {
    let config = format!("target: nemo.x.Y\ntokenizer:\n  model_path: nemo:{TOKENIZER}\n");
    Tar::default()
        .dir("./")
        .file("./model_weights.ckpt", &weights())
        .file("./model_config.yaml", config.as_bytes())
        .dir("./empty/")
        .file(&format!("./{TOKENIZER}"), b"model")
        .file("./notes.md", b"nobody names this")
}

fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap())
        .filter(|f| f.path().is_file())
        .map(|f| (f.file_name().into_string().unwrap(), fs::read(f.path()).unwrap()))
        .collect()
}

fn unpack(archive: &NemoArchive, to: &Path, plain: bool) -> Result<nemo_archive::Unpacked> {
    let mut options = UnpackOptions::new();
    options.plain_names = plain;
    archive.unpack(to, &options, &CopyOptions::default())
}

#[test]
fn unpacked_files_are_the_members() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("model");
    let archive = open(model().end()).unwrap();
    let unpacked = unpack(&archive, &to, false).unwrap();
    assert_eq!(unpacked.files, 4);
    let found = tree(&to);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, [TOKENIZER, "model_config.yaml", "model_weights.ckpt", "notes.md"]);
    assert_eq!(found[TOKENIZER], b"model");
    assert!(to.join("empty").is_dir());
    let time = fs::metadata(to.join("notes.md")).unwrap().modified().unwrap();
    let seconds = time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds, archive.entry("notes.md").unwrap().mtime());
    // A directory that holds something stays as it is.
    refused(unpack(&archive, &to, false), ErrorKind::InvalidArgument, "exists already");
    fs::write(dir.path().join("file"), "x").unwrap();
    refused(unpack(&archive, &dir.path().join("file"), false), ErrorKind::InvalidArgument, "file");
    fs::create_dir(dir.path().join("fresh")).unwrap();
    unpack(&archive, &dir.path().join("fresh"), false).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn packed_is_what_was_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let archive = open(model().end()).unwrap();
    for plain in [false, true] {
        let to = dir.path().join(plain.to_string());
        let unpacked = unpack(&archive, &to, plain).unwrap();
        assert_eq!(tree(&to).contains_key("tokenizer.model"), plain);
        assert_eq!(tree(&to).contains_key("ckptkit_names.json"), plain);
        assert_eq!(unpacked.renamed.len(), usize::from(plain));
        let packed = pack(&to, &packing(false)).unwrap();
        let left_out = Change::LeftOut { member: "notes.md".into(), bytes: 17 };
        assert_eq!(packed.changes(), [left_out]);
        let bytes = written(packed);
        assert_eq!(bytes, written(pack(&to, &packing(false)).unwrap()));
        let found = open(bytes).unwrap();
        assert_eq!(entries(&found), ["model_config.yaml", TOKENIZER, "model_weights.ckpt"]);
        assert_eq!(found.config_text().unwrap(), archive.config_text().unwrap());
        let all = open(written(pack(&to, &packing(true)).unwrap())).unwrap();
        assert_eq!(
            entries(&all),
            ["model_config.yaml", TOKENIZER, "empty", "notes.md", "model_weights.ckpt"]
        );
        // Files are not newer than the epoch, where one is given.
        assert!(all.entries().all(|e| e.mtime() <= 7));
        // The directory opens as the archive does.
        let opened = NemoArchive::open(&to).unwrap();
        assert_eq!(
            opened.artifacts().unwrap().iter().find(|a| a.is_referenced()).unwrap().name(),
            TOKENIZER
        );
    }
}

#[test]
fn names_that_would_be_alike_keep_their_digits() {
    let hex = |c: &str| c.repeat(32);
    let config = format!(
        "a: nemo:{}_tokenizer.model\nb: nemo:{}_Tokenizer.model\nc: nemo:{}_x.txt\n\
         d: nemo:{}_model_config.yaml\ne: nemo:{}_ckptkit_names.json\nf: nemo:plain.txt\n",
        hex("a"),
        hex("b"),
        hex("c"),
        hex("d"),
        hex("e")
    );
    let mut tar = Tar::default()
        .file("model_config.yaml", config.as_bytes())
        .file("model_weights.ckpt", &weights())
        .file("plain.txt", b"");
    for (c, name) in [
        ("a", "tokenizer.model"),
        ("b", "Tokenizer.model"),
        ("c", "x.txt"),
        ("d", "model_config.yaml"),
        ("e", "ckptkit_names.json"),
    ] {
        tar = tar.file(&format!("{}_{name}", hex(c)), c.as_bytes());
    }
    let archive = open(tar.end()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("m");
    let unpacked = unpack(&archive, &to, true).unwrap();
    assert_eq!(unpacked.renamed, [("x.txt".to_owned(), format!("{}_x.txt", hex("c")))]);
    let packed = open(written(pack(&to, &packing(false)).unwrap())).unwrap();
    assert_eq!(packed.artifacts().unwrap().len(), 6);
    assert_eq!(
        packed.artifact(&format!("nemo:{}_x.txt", hex("c"))).unwrap().read(1).unwrap(),
        b"c"
    );
    // An archive that has such a file of its own.
    let own = model().file("ckptkit_names.json", b"{}").end();
    let error = unpack(&open(own).unwrap(), &dir.path().join("n"), true);
    refused(error, ErrorKind::InvalidArgument, "ckptkit_names.json");
}

#[test]
fn a_map_of_names_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("m");
    unpack(&open(model().end()).unwrap(), &to, true).unwrap();
    for (map, kind) in [
        ("[]", ErrorKind::Malformed),
        ("{", ErrorKind::Malformed),
        ("{\"tokenizer.model\": 1}", ErrorKind::Malformed),
        ("{\"tokenizer.model\": \"../x\"}", ErrorKind::Denied),
        ("{\"tokenizer.model\": \"/x\"}", ErrorKind::Denied),
        ("{\"tokenizer.model\": \"notes.md\"}", ErrorKind::Malformed),
        ("{\"tokenizer.model\": \"model_weights.ckpt/x\"}", ErrorKind::Malformed),
    ] {
        fs::write(to.join("ckptkit_names.json"), map).unwrap();
        let error = pack(&to, &packing(false)).unwrap_err();
        assert_eq!(error.kind(), kind, "{map}: {error}");
    }
}

#[test]
fn directories_that_are_not_packed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("m");
    fs::create_dir(&folder).unwrap();
    refused(pack(&folder, &packing(false)), ErrorKind::NotFound, "no members");
    fs::write(folder.join("model_config.yaml"), "t: nemo:t.model\n").unwrap();
    refused(pack(&folder, &packing(false)), ErrorKind::NotFound, "model_weights.ckpt");
    fs::write(folder.join("model_weights.ckpt"), weights()).unwrap();
    refused(pack(&folder, &packing(false)), ErrorKind::NotFound, "t: nemo:t.model");
    fs::write(folder.join("t.model"), "t").unwrap();
    pack(&folder, &packing(false)).unwrap();
    refused(pack(dir.path().join("none"), &packing(false)), ErrorKind::NotFound, "none");
    fs::write(folder.join("T.model"), "t").unwrap();
    pack(&folder, &packing(false)).unwrap();
    refused(pack(&folder, &packing(true)), ErrorKind::InvalidArgument, "differ only in case");
    fs::remove_file(folder.join("T.model")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/etc/hostname", folder.join("link")).unwrap();
        refused(pack(&folder, &packing(true)), ErrorKind::Denied, "link");
        fs::remove_file(folder.join("link")).unwrap();
        // One that stays inside is the file that it leads to.
        std::os::unix::fs::symlink("t.model", folder.join("inner")).unwrap();
        let archive = open(written(pack(&folder, &packing(true)).unwrap())).unwrap();
        assert_eq!(archive.entry("inner").unwrap().read(9).unwrap(), b"t");
    }
}

#[test]
fn ranks_keep_their_folders() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("m");
    for rank in ["mp_rank_00", "mp_rank_01"] {
        fs::create_dir_all(folder.join(rank)).unwrap();
        fs::write(folder.join(rank).join("model_weights.ckpt"), weights()).unwrap();
    }
    fs::write(folder.join("model_config.yaml"), "tensor_model_parallel_size: 2\n").unwrap();
    let archive = open(written(pack(&folder, &packing(false)).unwrap())).unwrap();
    assert_eq!(
        entries(&archive),
        [
            "model_config.yaml",
            "mp_rank_00",
            "mp_rank_00/model_weights.ckpt",
            "mp_rank_01",
            "mp_rank_01/model_weights.ckpt"
        ]
    );
    assert_eq!(names(&archive).len(), 4);
}

#[test]
fn an_archive_without_weights_is_unpacked() {
    let tar = Tar::default().file("model_config.yaml", b"a: 1\n").end();
    let archive = OpenOptions::new().members_only(true);
    let archive = archive.open_section(Section::from_bytes(tar, "x.nemo")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    unpack(&archive, &dir.path().join("m"), false).unwrap();
    assert_eq!(tree(&dir.path().join("m")).len(), 1);
}

#[test]
fn what_leads_out_of_the_directory_is_not_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let members = |config: &str| {
        let tar = Tar::default().file("model_config.yaml", config.as_bytes()).end();
        let archive = OpenOptions::new().members_only(true);
        archive.open_section(Section::from_bytes(tar, "x.nemo")).unwrap()
    };
    let bad = members("a: nemo:../../etc/passwd\n");
    refused(unpack(&bad, &dir.path().join("m"), false), ErrorKind::Denied, "key a");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // What cannot be read can be mended.
    unpack(&members("a: !!python/name:os.system\n"), &dir.path().join("m"), false).unwrap();
}

// --- tokenizers --------------------------------------------------------------------

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers").join(name)
}

fn read(name: &str, file: &str) -> Vec<u8> {
    fs::read(data(name).join(file)).unwrap()
}

fn hex(c: &str) -> String {
    c.repeat(32)
}

/// A model with a tokenizer, as NeMo saves one, from a folder of it.
fn with_tokenizer(name: &str, more: &str) -> Tar {
    let files = TokenizerFiles::open(data(name)).unwrap();
    let list: String =
        files.pieces().iter().map(|p| format!("  - '{}'\n", p.replace('\'', "''"))).collect();
    let len = files.pieces().len();
    let config = format!(
        "tokenizer:\n  dir: /old/tok\n  type: bpe\n  model_path: nemo:{}_tokenizer.model\n  \
         vocab_path: nemo:{}_vocab.txt\n  spe_tokenizer_vocab: nemo:{}_tokenizer.vocab\n\
         decoder:\n  num_classes: {len}\n  vocabulary:\n{list}labels: []  # none\n{more}",
        hex("a"),
        hex("b"),
        hex("c")
    );
    Tar::default()
        .file(&format!("{}_tokenizer.model", hex("a")), &read(name, "tokenizer.model"))
        .file(&format!("{}_vocab.txt", hex("b")), &read(name, "vocab.txt"))
        .file(&format!("{}_tokenizer.vocab", hex("c")), &read(name, "tokenizer.vocab"))
        .file("model_config.yaml", config.as_bytes())
        .file("model_weights.ckpt", &weights())
}

fn content(archive: &NemoArchive, key: &str) -> Vec<u8> {
    let uri = archive.config().unwrap().get(key).unwrap();
    archive.artifact(uri.as_str().unwrap()).unwrap().read(1 << 20).unwrap()
}

fn pieces(name: &str) -> Vec<Value> {
    let files = TokenizerFiles::open(data(name)).unwrap();
    files.pieces().iter().map(|p| Value::Str(p.clone())).collect()
}

#[test]
fn a_tokenizer_is_swapped_whole() {
    let old = "same_size";
    let archive = open(with_tokenizer("larger", "").end()).unwrap();
    let mut editor = Editor::new(&archive).unwrap();
    let new = TokenizerFiles::open(data(old)).unwrap();
    let error = refused(
        editor.tokenizer(&new, &Swap::new()),
        ErrorKind::InvalidArgument,
        "the new tokenizer has 40 pieces, the model was trained with 52",
    );
    assert!(error.to_string().contains("force"), "{error}");
    let before = editor.clone().layout(&options()).unwrap();
    assert_eq!(before.changes(), []);

    let mut force = Swap::new();
    force.force = true;
    editor.tokenizer(&new, &force).unwrap();
    let edited = open(written(editor.layout(&options()).unwrap())).unwrap();
    assert_eq!(content(&edited, "tokenizer.model_path"), read(old, "tokenizer.model"));
    assert_eq!(content(&edited, "tokenizer.vocab_path"), read(old, "vocab.txt"));
    assert_eq!(content(&edited, "tokenizer.spe_tokenizer_vocab"), read(old, "tokenizer.vocab"));
    let config = edited.config().unwrap();
    assert_eq!(config.get("decoder.vocabulary"), Some(Value::List(pieces(old))));
    assert_eq!(config.get("decoder.num_classes"), Some(Value::Int(40)));
    assert_eq!(config.get("labels"), Some(Value::List(Vec::new())));
    assert!(config.as_str().contains("labels: []  # none\n"));
    assert_eq!(edited.artifacts().unwrap().len(), 3);
}

#[test]
fn what_is_derived_need_not_be_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.model"), read("same_size", "tokenizer.model")).unwrap();
    let new = TokenizerFiles::open(dir.path()).unwrap();
    let mut editor = Editor::new(&open(with_tokenizer("same_size", "").end()).unwrap()).unwrap();
    editor.tokenizer(&new, &Swap::new()).unwrap();
    let edited = open(written(editor.layout(&options()).unwrap())).unwrap();
    assert_eq!(content(&edited, "tokenizer.vocab_path"), read("same_size", "vocab.txt"));
    assert_eq!(
        content(&edited, "tokenizer.spe_tokenizer_vocab"),
        read("same_size", "tokenizer.vocab")
    );
}

#[test]
fn the_languages_of_an_aggregate_tokenizer() {
    let section =
        |c: &str| format!("{{dir: x, type: bpe, model_path: 'nemo:{}_tokenizer.model'}}", hex(c));
    let total: Vec<Value> = [pieces("same_size"), pieces("larger")].concat();
    let list = |items: &[Value]| {
        items.iter().map(|v| format!("- '{}'\n", v.as_str().unwrap())).collect::<String>()
    };
    let config = format!(
        "tokenizer:\n  type: agg\n  langs:\n    en: {}\n    de: {}\njoint:\n  num_classes: {}\nlabels:\n{}",
        section("a"),
        section("b"),
        total.len(),
        list(&total)
    );
    let tar = Tar::default()
        .file("model_config.yaml", config.as_bytes())
        .file(&format!("{}_tokenizer.model", hex("a")), &read("same_size", "tokenizer.model"))
        .file(&format!("{}_tokenizer.model", hex("b")), &read("larger", "tokenizer.model"))
        .file("model_weights.ckpt", &weights());
    let mut editor = Editor::new(&open(tar.end()).unwrap()).unwrap();
    let unigram = TokenizerFiles::open(data("unigram")).unwrap();
    let larger = TokenizerFiles::open(data("larger")).unwrap();
    let mut swap = Swap::new();
    let hint = "name one of en, de";
    refused(editor.tokenizer(&unigram, &swap), ErrorKind::InvalidArgument, hint);
    swap.lang = Some("fr".into());
    refused(editor.tokenizer(&unigram, &swap), ErrorKind::InvalidArgument, hint);
    swap.lang = Some("en".into());
    refused(editor.tokenizer(&unigram, &swap), ErrorKind::InvalidArgument, "310 pieces");
    swap.force = true;
    editor.tokenizer(&unigram, &swap).unwrap();
    // Another one after it.
    swap.lang = Some("de".into());
    swap.force = false;
    editor.tokenizer(&larger, &swap).unwrap();
    let edited = open(written(editor.layout(&options()).unwrap())).unwrap();
    let config = edited.config().unwrap();
    let labels = [pieces("unigram"), pieces("larger")].concat();
    assert_eq!(config.get("joint.num_classes"), Some(Value::Int(362)));
    assert_eq!(config.get("labels"), Some(Value::List(labels)));
    assert_eq!(
        content(&edited, "tokenizer.langs.en.model_path"),
        read("unigram", "tokenizer.model")
    );
    assert_eq!(
        content(&edited, "tokenizer.langs.de.model_path"),
        read("larger", "tokenizer.model")
    );
}

#[test]
fn tokenizers_of_other_archives() {
    let new = TokenizerFiles::open(data("same_size")).unwrap();
    // Before NeMo 1.0 members were found by their names.
    let old = Tar::default()
        .file("model_config.yaml", b"tokenizer:\n  dir: /old/tok\n  type: bpe\n")
        .file("tokenizer.model", &read("same_size", "tokenizer.model"))
        .file("vocab.txt", b"old\n")
        .file("model_weights.ckpt", &weights());
    let mut editor = Editor::new(&open(old.end()).unwrap()).unwrap();
    editor.tokenizer(&new, &Swap::new()).unwrap();
    let edited = open(written(editor.layout(&options()).unwrap())).unwrap();
    assert_eq!(content(&edited, "tokenizer.vocab_path"), read("same_size", "vocab.txt"));
    assert!(edited.entry("vocab.txt").is_err());
    assert!(edited.config().unwrap().get("tokenizer.spe_tokenizer_vocab").is_none());

    // A nested model's tokenizer, beside which its own copies lie.
    let files = |c: &str| format!("{}_tokenizer.model", hex(c));
    let nested = format!(
        "labels: [x]\nasr:\n  labels: [y]\n  tokenizer: {{model_path: 'nemo:{}'}}\n",
        files("a")
    );
    let tar = Tar::default()
        .file("model_config.yaml", nested.as_bytes())
        .file(&files("a"), &read("same_size", "tokenizer.model"))
        .file("model_weights.ckpt", &weights());
    let mut editor = Editor::new(&open(tar.end()).unwrap()).unwrap();
    refused(editor.tokenizer(&new, &Swap::new()), ErrorKind::NotFound, "no such section");
    let mut swap = Swap::new();
    swap.section = "asr.tokenizer".into();
    swap.lang = Some("en".into());
    refused(editor.tokenizer(&new, &swap), ErrorKind::InvalidArgument, "one for all");
    swap.lang = None;
    editor.tokenizer(&new, &swap).unwrap();
    let config = editor.config().unwrap();
    assert_eq!(config.get("labels.0"), Some(Value::Str("x".into())));
    assert_eq!(config.get("asr.labels"), Some(Value::List(pieces("same_size"))));

    // Words for words, and nothing else for them.
    let words =
        |text: &[u8]| TokenizerFiles::from_words(&Section::from_bytes(text, "vocab.txt")).unwrap();
    let tar = Tar::default()
        .file("model_config.yaml", b"tokenizer: {type: wpe, vocab_path: 'nemo:v.txt'}\n")
        .file("v.txt", b"[UNK]\na\n")
        .file("model_weights.ckpt", &weights());
    let mut editor = Editor::new(&open(tar.end()).unwrap()).unwrap();
    refused(editor.tokenizer(&new, &Swap::new()), ErrorKind::InvalidArgument, "word-piece");
    refused(editor.tokenizer(&words(b"a\n"), &Swap::new()), ErrorKind::InvalidArgument, "1 pieces");
    editor.tokenizer(&words(b"[UNK]\nb\n"), &Swap::new()).unwrap();
    let edited = open(written(editor.layout(&options()).unwrap())).unwrap();
    assert_eq!(content(&edited, "tokenizer.vocab_path"), b"[UNK]\nb\n");
    // A reference to a file that is missing is mended.
    let tar = Tar::default()
        .file(
            "model_config.yaml",
            format!(
                "tokenizer:\n  model_path: nemo:{}_tokenizer.model\n  spe_tokenizer_vocab: nemo:gone\n",
                hex("a")
            )
            .as_bytes(),
        )
        .file(&files("a"), &read("same_size", "tokenizer.model"))
        .file("model_weights.ckpt", &weights());
    let mut editor = Editor::new(&open(tar.end()).unwrap()).unwrap();
    editor.tokenizer(&new, &Swap::new()).unwrap();
    let edited = open(written(editor.layout(&options()).unwrap())).unwrap();
    assert_eq!(
        content(&edited, "tokenizer.spe_tokenizer_vocab"),
        read("same_size", "tokenizer.vocab")
    );
}
