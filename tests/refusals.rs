//! What a conversion refuses, in which words, and that the command which it suggests works.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::Path;

use ckptkit::{
    Aliases, Checkpoint, Convert, CopyOptions, ErrorKind, Existing, Glob, Selection, Target, Tensor,
};
use ckptkit_tests::fixture;

/// Plans to one file; nothing is written.
fn plan(name: &str, change: impl FnOnce(&mut Convert)) -> ckptkit::Result<ckptkit::Plan> {
    let checkpoint = Checkpoint::open(fixture::one(name).path).unwrap();
    let mut wish = Convert::new(Target::SafetensorsFile);
    change(&mut wish);
    wish.plan(&checkpoint, Path::new("nowhere/out.safetensors"))
}

/// The error that a wish is refused with.
fn refused(name: &str, kind: ErrorKind, change: impl FnOnce(&mut Convert)) -> String {
    let error = plan(name, change).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error.to_string()
}

fn globs(patterns: &[&str]) -> Vec<Glob> {
    patterns.iter().map(|p| Glob::new(p).unwrap()).collect()
}

#[test]
fn names_that_collide() {
    let text = refused("torch/many_small.pt", ErrorKind::InvalidArgument, |wish| {
        wish.selection.rename.push(Selection::parse_rename("\\d+=0").unwrap());
    });
    assert!(text.contains("would both be called"), "{text}");
    assert!(text.contains("--exclude"), "{text}");
    // Both names are told, and the one that they would get.
    assert_eq!(text.matches('"').count(), 6, "{text}");
}

#[test]
fn names_that_collide_with_a_recorded_alias() {
    // `a` is tied to `b` and recorded; nothing else may be called `a` then.
    let text = refused("torch/tied.pt", ErrorKind::InvalidArgument, |wish| {
        wish.selection.rename.push(Selection::parse_rename("^other$=head.weight").unwrap());
    });
    assert!(text.contains("head.weight"), "{text}");
}

#[test]
fn a_name_that_the_format_keeps_for_itself() {
    let error = plan("torch/tied.pt", |wish| {
        wish.selection.rename.push(Selection::parse_rename("^other$=__metadata__").unwrap());
    })
    .unwrap_err();
    assert!(error.to_string().contains("__metadata__"), "{error}");
}

#[test]
fn nothing_selected() {
    let text = refused("nemo/ctc_bpe.nemo", ErrorKind::InvalidArgument, |wish| {
        wish.selection.select = globs(&["no.such.**"]);
    });
    assert!(text.contains("no tensor is selected"), "{text}");
    assert!(text.contains("the weights have 52 tensors with names such as "), "{text}");
    let text = refused("nemo/ctc_bpe.nemo", ErrorKind::InvalidArgument, |wish| {
        wish.selection.exclude = globs(&["**"]);
    });
    assert!(text.contains("no tensor is selected"), "{text}");
}

#[test]
fn an_empty_checkpoint_is_not_an_empty_selection() {
    for name in ["safetensors/empty.safetensors", "torch/empty_dict.pt"] {
        assert_eq!(plan(name, |_| {}).unwrap().report().tensors, 0, "{name}");
    }
}

#[test]
fn tied_names_where_they_are_refused() {
    let text = refused("torch/tied.pt", ErrorKind::InvalidArgument, |wish| {
        wish.aliases = Aliases::Error;
    });
    assert!(text.contains("share one tensor"), "{text}");
    assert!(text.contains("--aliases drop") && text.contains("--aliases copy"), "{text}");
    for aliases in [Aliases::Drop, Aliases::Copy] {
        plan("torch/tied.pt", |wish| wish.aliases = aliases).unwrap();
    }
    plan("torch/many_small.pt", |wish| wish.aliases = Aliases::Error).unwrap();
}

#[test]
fn copied_aliases_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out.safetensors");
    let f = fixture::one("torch/tied.pt");
    let checkpoint = Checkpoint::open(&f.path).unwrap();
    let mut wish = Convert::new(Target::SafetensorsFile);
    wish.aliases = Aliases::Copy;
    let plan = wish.plan(&checkpoint, &to).unwrap();
    let report = plan.write(Existing::Refuse, &CopyOptions::default()).unwrap();
    assert!(report.aliases.is_empty());
    let written = Checkpoint::open(&to).unwrap();
    let names = |c: &Checkpoint| {
        let mut names: Vec<String> = c.tensors().map(|t| t.name().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&written), names(&checkpoint));
    assert!(written.metadata().keys().eq(["format"]));
}

#[test]
fn dtypes_that_safetensors_lacks_are_named() {
    for name in ["torch/dtypes_v2.pt", "torch/quantized.pt"] {
        let text = refused(name, ErrorKind::Unsupported, |_| {});
        assert!(text.contains("safetensors has no dtype"), "{text}");
        let rows = fixture::one(name).manifest.tensors;
        let named = |t: &&ckptkit_tests::manifest::TensorRow| {
            text.contains(&format!("tensor {}", t.name)) && text.contains(&t.dtype)
        };
        assert!(rows.iter().any(|t| named(&t)), "{text}");
        assert!(text.contains("--exclude '"), "{text}");
    }
}

#[test]
fn several_candidates_are_listed() {
    let text = refused("torch/ema.pt", ErrorKind::InvalidArgument, |_| {});
    assert!(text.contains("model, ema"), "{text}");
    assert!(text.contains("--weights-key model"), "{text}");
    for key in ["model", "ema"] {
        let plan = plan("torch/ema.pt", |wish| wish.weights_key = Some(key.into())).unwrap();
        let rows = fixture::one("torch/ema.pt").manifest.tensors;
        let prefix = format!("{key}.");
        let expected = rows.iter().filter(|t| t.name.starts_with(&prefix)).count();
        assert_eq!(plan.report().tensors, expected);
    }
}

#[test]
fn a_key_without_tensors() {
    let text = refused("lightning/adam.ckpt", ErrorKind::NotFound, |wish| {
        wish.weights_key = Some("nothing".into());
    });
    assert!(text.contains("\"nothing\""), "{text}");
    assert!(text.contains("state_dict") && text.contains("optimizer_states"), "{text}");
}

#[test]
fn the_empty_key_takes_everything() {
    let f = fixture::one("lightning/adam.ckpt");
    let plan = plan("lightning/adam.ckpt", |wish| wish.weights_key = Some(String::new())).unwrap();
    // Optimizer states hold some tensors of the model's.
    let report = plan.report();
    assert_eq!(report.tensors + report.aliases.len(), f.manifest.tensors.len());
}

#[test]
fn the_suffix_names_the_target() {
    let of = |name: &str| Target::of(Path::new(name));
    for name in ["x.pt", "x.pth", "x.bin", "x.PT"] {
        assert_eq!(of(name), Target::Torch, "{name}");
    }
    assert_eq!(of("a/x.ckpt"), Target::LightningCkpt);
    assert_eq!(of("a/x.nemo"), Target::Nemo);
    assert_eq!(of("a/model.safetensors"), Target::SafetensorsFile);
    assert_eq!(of("a/model"), Target::SafetensorsDirectory);
}

#[test]
fn selection_and_renaming_are_reported() {
    let f = fixture::one("nemo/ctc_bpe.nemo");
    let plan = plan("nemo/ctc_bpe.nemo", |wish| {
        wish.selection.select = globs(&["encoder.**", "decoder.**"]);
        wish.selection.exclude = globs(&["**.bias"]);
        wish.selection.strip_prefix = Some("encoder.".into());
    })
    .unwrap();
    let taken =
        |n: &str| (n.starts_with("encoder.") || n.starts_with("decoder.")) && !n.ends_with(".bias");
    let expected: Vec<&str> =
        f.manifest.tensors.iter().map(|t| t.name.as_str()).filter(|n| taken(n)).collect();
    let report = plan.report();
    assert_eq!(report.tensors, expected.len());
    for name in expected {
        match name.strip_prefix("encoder.") {
            Some(rest) => assert_eq!(report.renamed[name], rest),
            None => assert!(!report.renamed.contains_key(name)),
        }
    }
    let left = report.left_out.iter().filter(|l| l.kind == ckptkit::Kind::Tensor).count();
    assert_eq!(left + report.tensors, f.manifest.tensors.len());
    assert!(report.left_out.iter().any(|l| l.why == "excluded by \"**.bias\""));
}

#[test]
fn bytes_are_counted_without_reading() {
    let plan = plan("safetensors/dtypes.safetensors", |_| {}).unwrap();
    let checkpoint = Checkpoint::open(fixture::one("safetensors/dtypes.safetensors").path).unwrap();
    let total: u64 = checkpoint.tensors().map(Tensor::byte_len).sum();
    assert_eq!(plan.report().bytes, total);
}

/// The `safetensors` crate has the same bound; a file beyond it is still one of safetensors.
#[test]
fn headers_that_are_longer_than_the_format_allows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.safetensors");
    let len = 100_000_001_u64;
    std::fs::write(&path, [&len.to_le_bytes()[..], b"{\"a\":"].concat()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8 + len).unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    let text = error.to_string();
    assert!(text.contains("100000001") && text.contains("the format allows 100000000"), "{text}");
}
