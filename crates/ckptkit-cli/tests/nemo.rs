//! `ckptkit nemo`: edits of archives, as a program.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{fixture, json, names, refused, run, stdout};
use serde_json::Value;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A scratch folder, and the program run on a model with a tokenizer in it.
struct Bench {
    folder: tempfile::TempDir,
    source: String,
}

impl Bench {
    fn new(name: &str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), source: fixture(name) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        text(&self.path(name))
    }

    /// The arguments of an edit of the source to `out.nemo`.
    fn args<'a>(&'a self, verb: &'a str, more: &[&'a str], out: &'a str) -> Vec<&'a str> {
        [&["nemo", verb, &self.source], more, &["-o", out]].concat()
    }

    /// Runs an edit; gives the new archive.
    #[track_caller]
    fn edit(&self, verb: &str, more: &[&str]) -> String {
        let out = text(&self.path("out.nemo"));
        stdout(&self.args(verb, &[more, &["--overwrite"]].concat(), &out));
        out
    }

    #[track_caller]
    fn refuse(&self, verb: &str, more: &[&str]) -> String {
        let out = text(&self.path("refused.nemo"));
        let line = refused(&self.args(verb, more, &out));
        assert!(!self.path("refused.nemo").exists());
        line
    }
}

fn model() -> Bench {
    Bench::new("nemo/ctc_bpe.nemo")
}

fn get(archive: &str, key: &str) -> String {
    stdout(&["nemo", "get", archive, key])
}

fn digest(archive: &str) -> Value {
    json(&["digest", "--json", archive])
}

fn artifacts(archive: &str) -> Vec<String> {
    let inspected = json(&["inspect", "--json", archive]);
    let list = inspected["artifacts"].as_array().unwrap();
    list.iter().map(|a| a["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn get_prints_what_is_written() {
    let source = fixture("nemo/yaml_dialect.nemo");
    let whole = stdout(&["nemo", "get", &source]);
    assert!(whole.starts_with("# a comment\r\n"), "{whole}");
    assert_eq!(get(&source, "link"), "${base.lr}\n");
    assert_eq!(get(&source, "base"), "lr: 1.0e-05\nname: 'n'\n");
    assert_eq!(get(&source, "labels.1"), "'\n");
    assert_eq!(get(&source, "text"), "two\nlines\n");
    assert_eq!(json(&["nemo", "get", "--json", &source, "labels"])[6]["value"], "-inf");
    let line = refused(&["nemo", "get", &source, "base.none"]);
    assert!(line.contains("no key \"base.none\""), "{line}");
}

#[test]
fn set_and_del_touch_the_config_alone() {
    let bench = model();
    let out = bench.edit("set", &["optim.lr=1e-4", "optim.betas=[0.9, 0.98]", "new.key=a=b"]);
    assert_eq!(get(&out, "optim"), "name: adamw\nlr: 0.0001\nbetas:\n- 0.9\n- 0.98\n");
    assert_eq!(get(&out, "new.key"), "a=b\n");
    assert_eq!(digest(&out), digest(&bench.source));
    let old = stdout(&["nemo", "get", &bench.source]);
    let new = stdout(&["nemo", "get", &out]);
    let changed = old.replace("  lr: 0.001\n", "  lr: 0.0001\n  betas:\n  - 0.9\n  - 0.98\n");
    assert_eq!(new, changed + "new:\n  key: a=b\n");

    // The source itself, when that is asked for.
    let line = refused(&["nemo", "del", &out, "new", "-o", &out]);
    assert!(line.contains("exists already") && line.contains("--overwrite"), "{line}");
    stdout(&["nemo", "del", &out, "new", "optim.betas", "-o", &out, "--overwrite", "--quiet"]);
    assert_eq!(stdout(&["nemo", "get", &out]), old.replace("lr: 0.001", "lr: 0.0001"));
    assert_eq!(names(bench.folder.path()), ["out.nemo"]);
}

#[test]
fn the_report_says_what_changed() {
    let bench = model();
    let out = text(&bench.path("out.nemo"));
    let said = stdout(&bench.args("set", &["optim.lr=1", "--dry-run"], &out));
    assert!(said.starts_with("optim.lr: 1 (was 0.001)\nwould write "), "{said}");
    assert!(names(bench.folder.path()).is_empty());
    let report = json(&bench.args("set", &["optim.lr=1", "x=[a]", "--json"], &out));
    let changes = serde_json::json!([
        {"kind": "set", "key": "optim.lr", "old": 0.001, "new": 1},
        {"kind": "set", "key": "x", "old": null, "new": ["a"]},
    ]);
    assert_eq!(report["changes"], changes);
    assert_eq!(report["bytes"], fs::metadata(&out).unwrap().len());
    assert_eq!(report["destination"], out);
    assert!(stdout(&["nemo", "del", &out, "x", "-o", &out, "--overwrite", "-q"]).is_empty());
}

#[test]
fn the_same_edit_gives_the_same_bytes() {
    let bench = model();
    let first = fs::read(bench.edit("set", &["optim.lr=1"])).unwrap();
    assert_eq!(first, fs::read(bench.edit("set", &["optim.lr=1"])).unwrap());
    // An artifact has the name of its content, and no time unless one is given.
    let words = bench.file("words.txt", "a\n");
    let target = format!("tokenizer.vocab_path={words}");
    let mut runs = Vec::new();
    for epoch in [None, None, Some("1700000000"), Some("soon")] {
        let out = text(&bench.path("timed.nemo"));
        let mut program = common::program();
        program.args(bench.args("replace", &[&target, "--overwrite"], &out));
        program.env_remove("SOURCE_DATE_EPOCH");
        program.envs(epoch.map(|e| ("SOURCE_DATE_EPOCH", e)));
        let ran = common::from(program.output().unwrap());
        runs.push((ran, fs::read(&out).unwrap()));
    }
    assert!(runs[0].1 == runs[1].1 && runs[1].1 != runs[2].1 && runs[2].1 == runs[3].1);
    assert_eq!(runs[3].0.code, Some(2));
    assert!(runs[3].0.stderr.contains("SOURCE_DATE_EPOCH"), "{}", runs[3].0.stderr);
}

#[test]
fn artifacts_are_replaced_added_and_removed() {
    let bench = model();
    let words = bench.file("words.txt", "c\n");
    let out = bench.edit("replace", &[&format!("vocab.txt={words}")]);
    // SHA-256 of `c\n`, by coreutils.
    let name = "a3a5e715f0cc574a73c3f9bebb6bc24f_vocab.txt";
    assert_eq!(get(&out, "tokenizer.vocab_path"), format!("nemo:{name}\n"));
    assert_eq!(stdout(&["show", &out, "vocab.txt"]), "c\n");
    assert_eq!(artifacts(&out).len(), 3);
    assert_eq!(digest(&out), digest(&bench.source));

    let out = bench.edit("add", &[&format!("extra.words={words}")]);
    let added = "a3a5e715f0cc574a73c3f9bebb6bc24f_words.txt".to_owned();
    assert!(artifacts(&out).contains(&added));
    let line = refused(&["nemo", "rm", &out, "words.txt", "-o", &out, "--overwrite"]);
    assert!(line.contains("extra.words"), "{line}");
    stdout(&["nemo", "del", &out, "extra", "-o", &out, "--overwrite"]);
    stdout(&["nemo", "rm", &out, "words.txt", "-o", &out, "--overwrite"]);
    assert!(!artifacts(&out).contains(&added));
    assert_eq!(digest(&out), digest(&bench.source));

    let line = bench.refuse("replace", &[&format!("nothing={words}")]);
    assert!(line.contains("there are: "), "{line}");
    let line = bench.refuse("replace", &["tokenizer.model_path=/no/such/file"]);
    assert!(line.contains("/no/such/file"), "{line}");
    let line = bench.refuse("add", &[&format!("tokenizer.model_path={words}")]);
    assert!(line.contains("replace it instead"), "{line}");
}

#[test]
fn weights_come_from_any_format() {
    let bench = model();
    let safetensors = text(&bench.path("w.safetensors"));
    stdout(&["convert", "--quiet", &bench.source, &safetensors]);
    let out = bench.edit("replace", &[&format!("weights={safetensors}")]);
    assert_eq!(digest(&out), digest(&bench.source));
    assert_eq!(
        json(&["ls", "--json", &out])["tensors"],
        json(&["ls", "--json", &bench.source])["tensors"]
    );
    let bf16 = format!("weights={}", fixture("nemo/ctc_bpe_bf16.nemo"));
    let line = bench.refuse("replace", &[&bf16]);
    assert!(line.contains("of other dtypes") && line.contains("--force"), "{line}");
    let out = bench.edit("replace", &[&bf16, "--force"]);
    assert_eq!(digest(&out), digest(&fixture("nemo/ctc_bpe_bf16.nemo")));
    let line = bench.refuse("replace", &[&format!("weights={}", fixture("nemo/ctc_char.nemo"))]);
    assert!(line.contains("of other shapes"), "{line}");
    let ranks = Bench::new("nemo/mp_rank.nemo");
    let line = ranks.refuse("replace", &[&format!("weights={safetensors}"), "--force"]);
    assert!(line.contains("Ranks"), "{line}");
}

#[test]
fn directories_and_back() {
    let bench = model();
    let folder = text(&bench.path("model"));
    let report = json(&["nemo", "unpack", &bench.source, &folder, "--plain-names", "--json"]);
    assert_eq!(report["files"], 6);
    assert!(report["renamed"]["tokenizer.model"].as_str().unwrap().ends_with("_tokenizer.model"));
    assert!(names(Path::new(&folder)).contains(&"tokenizer.model".to_owned()));
    let line = refused(&["nemo", "unpack", &bench.source, &folder]);
    assert!(line.contains("exists already"), "{line}");

    fs::write(Path::new(&folder).join("notes.md"), "mine").unwrap();
    let out = text(&bench.path("out.nemo"));
    let said = stdout(&["nemo", "pack", &folder, "-o", &out]);
    assert!(said.contains("left out notes.md"), "{said}");
    assert_eq!(digest(&out), digest(&bench.source));
    assert_eq!(artifacts(&out).len(), artifacts(&bench.source).len());
    assert_eq!(stdout(&["nemo", "get", &out]), stdout(&["nemo", "get", &bench.source]));
    let all = text(&bench.path("all.nemo"));
    stdout(&["nemo", "pack", &folder, "-o", &all, "--extra", "--gzip"]);
    assert_eq!(fs::read(&all).unwrap()[..2], [0x1f, 0x8b]);
    assert!(artifacts(&all).contains(&"notes.md".to_owned()));

    // A directory is edited as an archive is.
    let edited = text(&bench.path("edited.nemo"));
    stdout(&["nemo", "set", &folder, "-o", &edited, "optim.lr=1"]);
    assert_eq!(get(&edited, "optim.lr"), "1\n");
    fs::remove_file(Path::new(&folder).join("vocab.txt")).unwrap();
    let line = refused(&["nemo", "pack", &folder, "-o", &edited, "--overwrite"]);
    assert!(line.contains("tokenizer.vocab_path"), "{line}");
    assert_eq!(get(&edited, "optim.lr"), "1\n");
}

fn tokenizers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nemo-archive/tests/data/tokenizers")
}

#[test]
fn a_tokenizer_is_swapped() {
    for name in ["nemo/ctc_bpe.nemo", "nemo/rnnt_bpe.nemo"] {
        let bench = Bench::new(name);
        let folder = text(&tokenizers().join("same_size"));
        let out = bench.edit("tokenizer", &[&folder]);
        let vocab = fs::read_to_string(tokenizers().join("same_size/tokenizer.vocab")).unwrap();
        assert_eq!(stdout(&["show", &out, "tokenizer.vocab"]), vocab);
        let pieces: Vec<&str> = vocab.lines().map(|l| l.split('\t').next().unwrap()).collect();
        let copy = if name.contains("ctc") { "decoder.vocabulary" } else { "joint.vocabulary" };
        assert_eq!(json(&["nemo", "get", "--json", &out, copy]), serde_json::json!(pieces));
        assert_eq!(digest(&out), digest(&bench.source));
        let line = bench.refuse("tokenizer", &[&text(&tokenizers().join("larger"))]);
        assert!(line.contains("has 52 pieces, the model was trained with 40"), "{line}");
    }
    let line = model().refuse("tokenizer", &[&text(&tokenizers())]);
    assert!(line.contains("neither tokenizer.model nor vocab.txt"), "{line}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let bench = model();
    let line = bench.refuse("set", &["target.x=1"]);
    assert!(line.contains("model_config.yaml") && line.contains("key target.x"), "{line}");
    let line = bench.refuse("set", &["optim.lr=["]);
    assert!(line.contains("new value"), "{line}");
    let line = bench.refuse("set", &["tokenizer.model_path=nemo:none.model"]);
    assert!(line.contains("nemo:none.model"), "{line}");
    let line = bench.refuse("del", &["none"]);
    assert!(line.contains("no such key"), "{line}");
    let yaml = Bench::new("nemo/yaml_dialect.nemo");
    let line = yaml.refuse("set", &["base.lr=1"]);
    assert!(line.contains("by the anchor &base"), "{line}");
    let line = yaml.refuse("set", &["copy.lr=1"]);
    assert!(line.contains("at the anchor &base"), "{line}");
    let quantized = Bench::new("nemo/fp8.qnemo");
    let line = quantized.refuse("set", &["a=1"]);
    assert!(line.contains("quantized export"), "{line}");
    let other = Bench::new("torch/state_dict.pt");
    let line = other.refuse("set", &["a=1"]);
    assert!(line.contains("torch checkpoint"), "{line}");
    // Wrong usage.
    for args in [&["nemo"][..], &["nemo", "set", "x"], &["nemo", "set", "x", "a=1"]] {
        assert_eq!(run(args).code, Some(2), "{args:?}");
    }
    let ran = run(&["nemo", "set", "x", "-o", "y", "no-equals"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("KEY="), "{}", ran.stderr);
}
