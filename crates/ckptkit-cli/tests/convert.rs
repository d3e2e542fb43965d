//! `convert` as a program: what it leaves on the disk.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::path::Path;

use common::{fixture, json, names, refused, run, stdout, tree};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn dry_run_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["out", "out.safetensors"] {
        let to = text(&dir.path().join(name));
        let said = stdout(&["convert", "--dry-run", &fixture("nemo/rnnt_bpe.nemo"), &to]);
        assert!(said.starts_with("would write "), "{said}");
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn verify_reads_the_output_back() {
    let dir = tempfile::tempdir().unwrap();
    for (source, name) in [
        ("nemo/rnnt_bpe.nemo", "a"),
        ("torch/views.pt", "b.safetensors"),
        ("distcp/fsdp2_4", "c"),
        ("torch/big_endian.pt", "d"),
    ] {
        let to = text(&dir.path().join(name));
        let args = ["convert", "--verify", "--max-shard-size", "1KB", &fixture(source), &to];
        assert!(stdout(&args).starts_with("wrote "), "{source}");
    }
}

#[test]
fn verbose_says_how_long_it_took_and_how_bytes_were_moved() {
    let dir = tempfile::tempdir().unwrap();
    let nemo = fixture("nemo/rnnt_bpe.nemo");
    let out = |name: &str| dir.path().join(name);
    for (args, out) in [
        (vec!["convert", &nemo], out("a.safetensors")),
        (vec!["nemo", "set", &nemo, "optim.lr=1e-4", "--gzip", "-o"], out("b.nemo")),
        (vec!["lightning", "slim", &fixture("lightning/adam.ckpt")], out("c.ckpt")),
    ] {
        let ran = run(&[&args[..], &[&text(&out), "--quiet", "-v"]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{args:?} {}", ran.stderr);
        let len = out.metadata().unwrap().len();
        let said = ran.stderr.strip_prefix(&format!("{len} bytes in 1 file(s), planned in "));
        let said = said.unwrap_or_else(|| panic!("{args:?} {}", ran.stderr));
        let (plan, said) = said.split_once(" s, written in ").unwrap();
        let (write, said) = said.split_once(" s: ").unwrap();
        for seconds in [plan, write] {
            assert!(seconds.parse::<f64>().is_ok_and(|s| s >= 0.0), "{seconds}");
        }
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.ends_with(" shared with the source\n"), "{said}");
    }
}

#[test]
fn the_form_follows_the_name_unless_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixture("safetensors/dtypes.safetensors");
    let convert = |name: &str, more: &[&str]| {
        let to = dir.path().join(name);
        stdout(&[&["convert", "--quiet", &source, &text(&to)][..], more].concat());
        to
    };
    assert!(convert("a.safetensors", &[]).is_file());
    assert!(convert("a", &[]).is_dir());
    assert!(convert("b.safetensors", &["--to", "safetensors"]).is_file());
    assert!(convert("b.ckpt", &["--to", "safetensors"]).is_dir());
    assert_eq!(names(&dir.path().join("a")), ["model.safetensors"]);
    assert_eq!(
        std::fs::read(dir.path().join("a.safetensors")).unwrap(),
        std::fs::read(dir.path().join("a/model.safetensors")).unwrap()
    );
}

#[test]
fn overwrite_replaces_a_checkpoint_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out");
    let (first, second) = (fixture("nemo/ctc_char.nemo"), fixture("lightning/adam.ckpt"));
    stdout(&["convert", "--quiet", &first, &text(&to), "--max-shard-size", "2KB"]);
    let before = tree(&to);
    // Not without the word for it.
    refused(&["convert", &second, &text(&to)]);
    assert!(tree(&to) == before);
    // With it, nothing of the old checkpoint stays.
    stdout(&["convert", "--quiet", "--overwrite", &second, &text(&to)]);
    assert_eq!(names(&to), ["config.json", "model.safetensors"]);
    // Never a directory with anything foreign in it.
    std::fs::write(to.join("thesis.tex"), "years of work").unwrap();
    let before = tree(&to);
    let line = refused(&["convert", "--overwrite", &first, &text(&to)]);
    assert!(line.contains("thesis.tex"), "{line}");
    assert!(tree(&to) == before);
    std::fs::remove_file(to.join("thesis.tex")).unwrap();
    std::fs::create_dir_all(to.join("deep/er")).unwrap();
    std::fs::write(to.join("deep/er/thesis.tex"), "more years").unwrap();
    let line = refused(&["convert", "--overwrite", &first, &text(&to)]);
    assert!(line.contains("deep/er/thesis.tex"), "{line}");
    std::fs::remove_dir_all(to.join("deep")).unwrap();
    // What an earlier conversion put beside the tensors is no obstacle.
    for source in [&first, &fixture("nemo/ctc_bpe.nemo"), &second] {
        stdout(&["convert", "--quiet", "--overwrite", source, &text(&to)]);
    }
    // Nor one that holds no checkpoint at all.
    let photos = dir.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    std::fs::write(photos.join("cat.jpg"), "meow").unwrap();
    let line = refused(&["convert", "--overwrite", &first, &text(&photos)]);
    assert!(line.contains("holds no checkpoint"), "{line}");
    // An empty one is free, and a file is replaced.
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    stdout(&["convert", "--quiet", &first, &text(&dir.path().join("empty"))]);
    let file = dir.path().join("x.safetensors");
    std::fs::write(&file, "old").unwrap();
    stdout(&["convert", "--quiet", "--overwrite", &first, &text(&file)]);
    assert!(std::fs::metadata(&file).unwrap().len() > 1000);
    assert_eq!(names(dir.path()), ["empty", "out", "photos", "x.safetensors"]);
}

#[test]
fn a_failed_overwrite_leaves_the_old_output() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out.safetensors");
    std::fs::write(&to, "old").unwrap();
    refused(&["convert", "--overwrite", &fixture("hostile/lightning_truncated.ckpt"), &text(&to)]);
    refused(&["convert", "--overwrite", &fixture("torch/ema.pt"), &text(&to)]);
    assert_eq!(std::fs::read(&to).unwrap(), b"old");
    assert_eq!(names(dir.path()), ["out.safetensors"]);
}

#[test]
fn a_checkpoint_can_be_converted_onto_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::copy(fixture("safetensors/reordered.safetensors"), &path).unwrap();
    let whole = |p: &Path| stdout(&["digest", &text(p)]).lines().last().unwrap().to_owned();
    let before = whole(&path);
    stdout(&["convert", "--quiet", "--overwrite", "--verify", &text(&path), &text(&path)]);
    assert_eq!(whole(&path), before);
    assert_eq!(names(dir.path()), ["model.safetensors"]);
}

#[test]
fn directories_can_be_converted_onto_themselves() {
    for name in ["safetensors/hf_sharded", "distcp/fsdp2_2"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        std::fs::create_dir(&path).unwrap();
        for (file, bytes) in tree(Path::new(&fixture(name))) {
            std::fs::write(path.join(file.file_name().unwrap()), bytes).unwrap();
        }
        let whole =
            |p: &str| stdout(&["digest", "--weights", p]).lines().last().unwrap().to_owned();
        stdout(&["convert", "--quiet", "--overwrite", "--verify", &text(&path), &text(&path)]);
        assert_eq!(whole(&text(&path)), whole(&fixture(name)), "{name}");
        assert_eq!(names(dir.path()), ["model"]);
    }
}

#[test]
fn a_directory_with_the_source_in_it_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("last.safetensors");
    std::fs::copy(fixture("safetensors/dtypes.safetensors"), &source).unwrap();
    let args = ["convert", "--overwrite", &text(&source), &text(dir.path()), "--select", "bool"];
    let line = refused(&args);
    assert!(line.contains("the source lies in it"), "{line}");
    assert_eq!(names(dir.path()), ["last.safetensors"]);
}

#[test]
fn a_missing_folder_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let to = text(&dir.path().join("no/such/out.safetensors"));
    let line = refused(&["convert", &fixture("torch/tied.pt"), &to]);
    assert!(line.starts_with(&format!("error: {to}: cannot create the output")), "{line}");
    assert!(line.contains("create the directory"), "{line}");
    let to = text(&dir.path().join("no/such/ranks"));
    let line = refused(&["convert", &fixture("torch/tied.pt"), &to, "--to", "distcp"]);
    assert!(line.starts_with(&format!("error: {to}: cannot create the output")), "{line}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn options_reach_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("aligned.safetensors");
    let source = fixture("torch/train_adam.pt");
    stdout(&[
        "convert",
        "--quiet",
        "--align",
        "4096",
        "--fsync",
        "--threads",
        "3",
        &source,
        &text(&to),
    ]);
    let bytes = std::fs::read(&to).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!((header + 8) % 4096, 0);
    let line = refused(&["convert", "--align", "12", &source, &text(&dir.path().join("x"))]);
    assert!(line.contains("multiple of 8"), "{line}");
    // In the order of the source, and under the key that is asked for.
    let to = text(&dir.path().join("ema.safetensors"));
    stdout(&[
        "convert",
        "--quiet",
        "--weights-key",
        "ema",
        "--order",
        "source",
        &fixture("torch/ema.pt"),
        &to,
    ]);
    let found = json(&["ls", "--json", &to]);
    let judge = common::manifest("torch/ema.pt");
    let expected: Vec<&str> = judge["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|t| t["name"].as_str().unwrap().strip_prefix("ema."))
        .collect();
    let found: Vec<&str> =
        found["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(found, expected);
}

#[test]
fn states_of_optimizers_get_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&dir.path().join(name));
    let listed = |path: &str| stdout(&["ls", path, "optimizer**"]);
    stdout(&["convert", &fixture("lightning/adam.ckpt"), &at("a"), "--all", "--optimizer-names"]);
    assert!(listed(&at("a")).contains("optimizer.exp_avg_sq.net.first.weight"));

    // Where shapes leave it open the report says so, until the names are given.
    let twin = fixture("lightning/frozen_twin.ckpt");
    let said = stdout(&["convert", &twin, &at("b"), "--to", "distcp"]);
    assert!(said.contains("12 ways") && said.contains("--param-names FILE"), "{said}");
    assert!(listed(&at("b")).contains("optimizer_0.state.1.exp_avg"));
    let model = ["embed.weight", "norm.weight", "norm.bias", "body.weight", "body.bias"];
    let more = ["batch_norm.weight", "batch_norm.bias"];
    let model = model.iter().chain(&more).map(|n| format!("net.{n}\n")).collect::<String>();
    std::fs::write(at("names.txt"), format!("# in order\n{model}")).unwrap();
    let given = ["--param-names", &at("names.txt")];
    let said = stdout(&[&["convert", &twin, &at("c"), "--to", "distcp"], &given[..]].concat());
    assert!(!said.contains("note"), "{said}");
    assert!(listed(&at("c")).contains("optimizer_0.state.net.body.weight.exp_avg"));
    assert!(stdout(&["show", &at("c"), "optimizer_0.param_groups.0.params"]).contains("net.body"));

    // What would take no names is refused.
    let e = refused(&[&["convert", &twin, &at("d.safetensors")], &given[..]].concat());
    assert!(e.contains("--param-names"), "{e}");
    let e = refused(&["convert", &twin, &at("d.pt"), "--all", "--optimizer-names"]);
    assert!(e.contains("directory"), "{e}");
    std::fs::write(at("names.txt"), "net.embed.weight\nnet.nothing\n").unwrap();
    let e = refused(&[&["convert", &twin, &at("d"), "--to", "distcp"], &given[..]].concat());
    assert!(e.contains("line 2") && e.contains("net.nothing"), "{e}");
    assert_eq!(names(dir.path()), ["a", "b", "c", "names.txt"]);
}

#[test]
fn an_encoder_is_taken_out_of_an_archive() {
    let dir = tempfile::tempdir().unwrap();
    let to = text(&dir.path().join("encoder.safetensors"));
    stdout(&[
        "convert",
        "--quiet",
        &fixture("nemo/ctc_bpe.nemo"),
        &to,
        "--select",
        "encoder.**",
        "--select",
        "preprocessor.**",
        "--add-prefix",
        "perception.",
    ]);
    let found = json(&["digest", "--json", &to]);
    let found = found["tensors"].as_object().unwrap();
    let judge = common::manifest("nemo/ctc_bpe.nemo");
    let mut expected = 0;
    for t in judge["tensors"].as_array().unwrap() {
        let name = t["name"].as_str().unwrap();
        if name.starts_with("encoder.") || name.starts_with("preprocessor.") {
            expected += 1;
            assert_eq!(found[&format!("perception.{name}")]["sha256"], t["sha256"], "{name}");
        }
    }
    assert_eq!(found.len(), expected);
}
