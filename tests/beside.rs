//! The sidecar beside a distributed checkpoint: what it keeps, which checkpoint it belongs to, and
//! that one that cannot be used is ignored aloud.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use ckptkit::sidecar::{FILE_NAME, STORAGES_NAME};
use ckptkit::{
    Checkpoint, Convert, CopyOptions, Dtype, Existing, Format, Json, Report, Scope, Target, digest,
};
use ckptkit_tests::archive::{archive, with_one_node_a_word};
use ckptkit_tests::fixture::{each, group, one};
use ckptkit_tests::{copy, damage, tree};

fn all(target: Target) -> Convert {
    let mut wish = Convert::new(target);
    wish.scope = Scope::All;
    wish
}

fn convert(from: &Path, wish: &Convert, to: &Path) -> Report {
    let plan = wish.plan(&Checkpoint::open(from).unwrap(), to).unwrap();
    plan.write_verified(Existing::Refuse, &CopyOptions::default()).unwrap()
}

/// A distributed checkpoint of all of a fixture.
fn distributed(fixture: &str, dir: &Path) -> PathBuf {
    let to = dir.join("sharded");
    let mut wish = all(Target::Distcp);
    wish.ranks = 3;
    convert(&one(fixture).path, &wish, &to);
    to
}

/// What is said of a sidecar that is not used.
fn ignored(at: &Path) -> String {
    let checkpoint = Checkpoint::open(at).unwrap();
    assert_eq!(checkpoint.sidecar(), None);
    let notes: Vec<&String> =
        checkpoint.notes().iter().filter(|n| n.starts_with("ckptkit.json is ignored")).collect();
    assert_eq!(notes.len(), 1, "{:?}", checkpoint.notes());
    // It is in the summary, and in the report of a conversion, which goes on without.
    assert!(checkpoint.summary().warnings.contains(notes[0]));
    let report = all(Target::Torch).plan(&checkpoint, at.join("x")).unwrap().report().clone();
    assert!(report.notes.contains(notes[0]));
    // Not carried along either.
    let plan = all(Target::Distcp).plan(&checkpoint, at.join("x")).unwrap();
    assert!(plan.layout().files().all(|(path, _)| path.unwrap().as_str() != FILE_NAME));
    notes[0].clone()
}

/// The object as an archive in which equal words are one.
fn object(at: &Path, dir: &Path) -> Vec<u8> {
    let mut document = Checkpoint::open(at).unwrap().document().unwrap();
    with_one_node_a_word(&mut document);
    archive(&document, &dir.join("archive"))
}

fn lines(at: &Path) -> String {
    digest(Checkpoint::open(at).unwrap().tensors(), &|_| true).unwrap().lines()
}

#[test]
fn values_stand_under_their_own_paths() {
    let dir = tempfile::tempdir().unwrap();
    let sharded = distributed("lightning/two_optimizers.ckpt", dir.path());
    let archive = dir.path().join("archive");
    convert(
        &one("lightning/two_optimizers.ckpt").path,
        &all(Target::SafetensorsDirectory),
        &archive,
    );
    let source = Checkpoint::open(one("lightning/two_optimizers.ckpt").path).unwrap();
    for at in [sharded, archive] {
        let kept = Checkpoint::open(&at).unwrap();
        assert_eq!(kept.sidecar(), Some(Format::LightningCkpt));
        let summary = kept.summary();
        assert_eq!(summary.sidecar, Some("lightning-ckpt"));
        assert!(summary.writer.unwrap().starts_with("ckptkit "));
        assert_eq!(kept.training(), source.training());
        assert_eq!(kept.training().unwrap().optimizers, 2);
        assert_eq!(kept.value_keys(), source.value_keys());
        for path in ["epoch", "optimizer_states.1.param_groups.0.lr", "loops", "callbacks", "lr"] {
            let value =
                |c: &Checkpoint| c.value(path).map(|v| serde_json::to_value(Json(&v)).unwrap());
            match (value(&kept), value(&source)) {
                (Ok(kept), Ok(source)) => assert_eq!(kept, source, "{path}"),
                (Err(_), Err(_)) if path == "lr" => {}
                (kept, source) => panic!("{path}: {kept:?}, {source:?}"),
            }
        }
        let config = |c: &Checkpoint| c.config().unwrap().map(|c| (c.origin, c.value));
        assert_eq!(config(&kept), config(&source));
    }
}

#[test]
fn storages_that_no_entry_shows_stand_in_a_file_that_no_loader_reads() {
    let dir = tempfile::tempdir().unwrap();
    let sharded = distributed("torch/views.pt", dir.path());
    assert!(tree(&sharded).contains_key(STORAGES_NAME));
    // Neither an entry nor in the object.
    let checkpoint = Checkpoint::open(&sharded).unwrap();
    assert!(checkpoint.tensors().all(|t| !t.name().contains("__storage__")));
    let index = std::fs::read(sharded.join(".metadata")).unwrap();
    assert!(!index.windows(11).any(|w| w == b"__storage__"));
    std::fs::remove_file(sharded.join(STORAGES_NAME)).unwrap();
    let why = ignored(&sharded);
    assert!(why.contains("does not hold this tensor"), "{why}");
    // Where entries show all there is, there is no such file.
    let dir = tempfile::tempdir().unwrap();
    let sharded = distributed("lightning/ema.ckpt", dir.path());
    assert!(!tree(&sharded).contains_key(STORAGES_NAME));
}

#[test]
fn a_later_save_makes_it_stale() {
    let dir = tempfile::tempdir().unwrap();
    let sharded = distributed("lightning/adam.ckpt", dir.path());
    // Weights alone, as another program saves them into the directory.
    let later = dir.path().join("later");
    let mut wish = Convert::new(Target::Distcp);
    wish.scope = Scope::Weights;
    convert(&one("lightning/adam.ckpt").path, &wish, &later);
    assert!(!tree(&later).contains_key(FILE_NAME), "weights alone have no sidecar");
    for name in tree(&later).keys() {
        std::fs::copy(later.join(name), sharded.join(name)).unwrap();
    }
    let why = ignored(&sharded);
    assert!(why.contains(".metadata is not the one that it was written with"), "{why}");

    // Lightning's own file, saved again.
    let dir = tempfile::tempdir().unwrap();
    let sharded = distributed("lightning/adam.ckpt", dir.path());
    let other = tempfile::tempdir().unwrap();
    let other = distributed("lightning/sgd.ckpt", other.path()).join("meta.pt");
    let meta = sharded.join("meta.pt");
    let first = std::fs::read(&meta).unwrap();
    std::fs::copy(other, &meta).unwrap();
    let why = ignored(&sharded);
    assert!(why.contains("meta.pt is not the one"), "{why}");
    std::fs::remove_file(&meta).unwrap();
    let why = ignored(&sharded);
    assert!(why.contains("meta.pt is not the one"), "{why}");
    // The same object in other bytes is the same: only its pickle counts.
    std::fs::write(&meta, first).unwrap();
    assert!(Checkpoint::open(&sharded).unwrap().sidecar().is_some());
}

#[test]
fn it_is_used_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let sharded = distributed("torch/train_adam.pt", dir.path());
    let elsewhere = dir.path().join("elsewhere");
    copy(&one("distcp/nested").path, &elsewhere);
    std::fs::copy(sharded.join(FILE_NAME), elsewhere.join(FILE_NAME)).unwrap();
    let why = ignored(&elsewhere);
    assert!(why.contains("does not hold this tensor") || why.contains(".metadata is not"), "{why}");
    // That of a directory of safetensors, with the same tensors.
    let archive = dir.path().join("archive");
    convert(&one("torch/train_adam.pt").path, &all(Target::SafetensorsDirectory), &archive);
    std::fs::copy(archive.join(FILE_NAME), sharded.join(FILE_NAME)).unwrap();
    let why = ignored(&sharded);
    assert!(why.contains("not written beside a distributed checkpoint"), "{why}");
    // A whole directory may be moved.
    let moved = dir.path().join("moved");
    let again = tempfile::tempdir().unwrap();
    copy(&distributed("torch/train_adam.pt", again.path()), &moved);
    assert_eq!(Checkpoint::open(&moved).unwrap().sidecar(), Some(Format::Torch));
}

#[test]
fn damage_is_said_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let sharded = distributed("torch/shared_containers.pt", dir.path());
    let file = sharded.join(FILE_NAME);
    let expected = lines(&sharded);
    let read = || {
        let checkpoint = Checkpoint::open(&sharded).unwrap();
        let used = checkpoint.sidecar().is_some();
        assert!(
            used || checkpoint.notes().iter().any(|n| n.starts_with("ckptkit.json is ignored"))
        );
        let found = digest(checkpoint.tensors(), &|_| true).unwrap().lines();
        assert!(used || found == expected);
        // Whatever it says now, it can be laid out or refused.
        let _ = all(Target::Torch).plan(&checkpoint, "x").is_ok();
        let _ = checkpoint.value("");
        used
    };
    assert!(read());
    let len = std::fs::metadata(&file).unwrap().len();
    damage::truncations(&file, 97, |at| assert!(!read() || at as u64 == len));
    damage::flips(&file, 200, |_, _| {
        read();
    });
    std::fs::write(&file, "{}").unwrap();
    assert!(ignored(&sharded).contains("this is no sidecar"));
    // Another version of the format is none that is guessed at.
    let again = tempfile::tempdir().unwrap();
    let sharded = distributed("torch/train_sgd.pt", again.path());
    let file = sharded.join(FILE_NAME);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"version\": 1,", "\"version\": 2,")).unwrap();
    assert!(ignored(&sharded).contains("version 2 of the sidecar"));
}

/// Cast on the way there, on the way on and on the way back: the same object.
#[test]
fn what_is_cast_is_kept_cast() {
    each(&group("lightning", 14), |f| {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let cast = |target| {
            let mut wish = all(target);
            wish.dtype = Some(Dtype::F16);
            wish.ranks = 2;
            wish
        };
        convert(&f.path, &cast(Target::LightningCkpt), &at("direct.ckpt"));
        let expected = object(&at("direct.ckpt"), dir.path());
        convert(&f.path, &cast(Target::Distcp), &at("there"));
        convert(&f.path, &all(Target::Distcp), &at("plain"));
        convert(&at("plain"), &cast(Target::Distcp), &at("on"));
        convert(&at("plain"), &cast(Target::LightningCkpt), &at("back.ckpt"));
        for way in ["there", "on", "back.ckpt"] {
            assert!(object(&at(way), dir.path()) == expected, "{} {way}", f.name);
        }
        assert!(Checkpoint::open(at("on")).unwrap().sidecar().is_some());
    });
}

/// Conversions of the weights alone take them as they are in the object, too.
#[test]
fn weights_are_tied_as_they_were() {
    for fixture in ["lightning/tied.ckpt", "torch/tied.pt", "torch/views.pt", "torch/train_sgd.pt"]
    {
        let dir = tempfile::tempdir().unwrap();
        let sharded = distributed(fixture, dir.path());
        let source = one(fixture).path;
        let parameters = |at: &Path| Checkpoint::open(at).unwrap().summary().parameters;
        assert_eq!(parameters(&sharded), parameters(&source), "{fixture}");
        for (name, target) in [
            ("x.safetensors", Target::SafetensorsFile),
            ("x.pt", Target::Torch),
            ("x", Target::Distcp),
        ] {
            let written = |from: &Path, to: &str| {
                let mut wish = Convert::new(target);
                wish.scope = Scope::Weights;
                let to = dir.path().join(to).join(name);
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                let report = convert(from, &wish, &to);
                (report.aliases, to)
            };
            let (aliases, found) = written(&sharded, "found");
            let (expected_aliases, expected) = written(&source, "expected");
            assert_eq!(aliases, expected_aliases, "{fixture} {name}");
            assert_eq!(lines(&found), lines(&expected), "{fixture} {name}");
            if target == Target::Torch {
                let same = object(&found, dir.path()) == object(&expected, dir.path());
                assert!(same, "{fixture}: another state dict");
            }
        }
    }
}

/// A distributed checkpoint with its sidecar inside a NeMo archive's directory.
#[test]
fn inside_an_archive_of_nemo() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("model_config.yaml"), "target: made.up.Model\n").unwrap();
    let mut wish = all(Target::Distcp);
    wish.ranks = 2;
    convert(&one("torch/tied.pt").path, &wish, &model.join("model_weights"));
    let archive = Checkpoint::open(&model).unwrap();
    assert_eq!((archive.format(), archive.sidecar()), (Format::Nemo, Some(Format::Torch)));
    let to = dir.path().join("back.pt");
    convert(&model, &all(Target::Torch), &to);
    assert!(object(&to, dir.path()) == object(&one("torch/tied.pt").path, dir.path()));
}
