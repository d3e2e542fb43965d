//! Megatron's objects in files of their own, where something about them is wrong.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;

use ckptkit_core::{ErrorKind, TensorSource};
use distcp::DistCheckpoint;
use support::item::{archive, floats};
use support::pickle::{P, dict, s};
use support::{Memory, Metadata};
use torch_save::Value;

/// One tensor, and what says that Megatron wrote it.
fn megatron() -> (Memory, Metadata) {
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    let (at, len) = files.item("__0_0.distcp", &floats(&[2], &[1.0, 2.0]));
    m.tensor("w", "float32", &[2], &[(&[0], &[2])]);
    m.place("w", Some(&[0]), "__0_0.distcp", at, len);
    files.0.insert("common.pt".into(), archive(&dict(vec![("iteration", P::Int(7))]), &[]));
    (files, m)
}

fn number(i: i64) -> Vec<u8> {
    archive(&P::Int(i), &[])
}

fn text_of(checkpoint: &DistCheckpoint) -> String {
    checkpoint.notes().join("\n")
}

/// Whatever lies beside it, the tensor is read.
#[track_caller]
fn readable(checkpoint: &DistCheckpoint) {
    assert_eq!(checkpoint.tensor("w").unwrap().read().unwrap().len(), 8);
}

#[test]
fn without_megatron_nothing_is_looked_for() {
    let (mut files, m) = megatron();
    files.0.insert("rng_state/shard_0_1.pt".into(), number(1));
    assert_eq!(files.open(&m).unwrap().byte_items().count(), 1);
    files.0.remove("common.pt");
    assert_eq!(files.open(&m).unwrap().byte_items().count(), 0);
    files.0.insert("metadata.json".into(), b"{\"sharded_backend\": \"torch_dist\"}".to_vec());
    assert_eq!(files.open(&m).unwrap().byte_items().count(), 1);
}

#[test]
fn keys_in_folders_of_folders() {
    let (mut files, m) = megatron();
    files.0.insert("a/b/c/shard_0_1.pt".into(), number(5));
    files.0.insert("a/shard__.pt".into(), number(6));
    let checkpoint = files.open(&m).unwrap();
    assert_eq!(checkpoint.item_value("a/b/c/shard_0_1").unwrap(), Value::Int(5));
    assert_eq!(checkpoint.value("a/shard__").unwrap(), Value::Int(6));
    assert_eq!(checkpoint.notes(), [""; 0]);
    assert!(checkpoint.verify().unwrap().is_ok());
}

#[test]
fn missing_shards_are_noted() {
    let (mut files, m) = megatron();
    for name in ["k/shard_0.0_2.2", "k/shard_1.1_2.2", "old/shard_0.2_1"] {
        files.0.insert(format!("{name}.pt"), number(1));
    }
    let checkpoint = files.open(&m).unwrap();
    let text = text_of(&checkpoint);
    assert!(text.contains("object k: 2 of 4 shards are missing: shard_0.1_2.2, shard_1.0_2.2"));
    assert!(text.contains("object old: 2 of 3 shards are missing: shard_0.0_1.3, shard_0.1_1.3"));
    let names: Vec<&str> = checkpoint.byte_items().collect();
    assert_eq!(names, ["k/shard_0.0_2.2", "k/shard_1.1_2.2", "old/shard_0.2_1.3"]);
    readable(&checkpoint);
}

#[test]
fn numbers_that_nobody_can_count() {
    let (mut files, m) = megatron();
    let odd = [
        "shard_99999999999999999999_1",
        "shard_0_99999999999999999999",
        "shard_0",
        "shard_0_1_2",
        "shard_-1_2",
        "shard_x_y",
        &format!("shard_0.{}_1", u64::MAX),
        &format!("shard_{0}_{0}", vec!["0"; 1000].join(".")),
    ];
    for stem in odd {
        files.0.insert(format!("k/{stem}.pt"), number(1));
    }
    files.0.insert("huge/shard_0_9000000000000000000.pt".into(), number(2));
    files.0.insert("huge/shard_1.1_9000000000000000000.9000000000000000000.pt".into(), number(3));
    let checkpoint = files.open(&m).unwrap();
    // Read all the same, under the names that the files have.
    for stem in odd {
        assert_eq!(checkpoint.item_value(&format!("k/{stem}")).unwrap(), Value::Int(1), "{stem}");
    }
    let text = text_of(&checkpoint);
    assert_eq!(text.matches("is not named as Megatron names an object").count(), odd.len());
    assert!(text.contains("8999999999999999999 of 9000000000000000000 shards are missing"));
    assert!(text.contains("nobody has as many shards"));
    readable(&checkpoint);
}

#[test]
fn names_that_meet_are_not_read_twice() {
    let (mut files, mut m) = megatron();
    let (at, len) = files.item("__0_0.distcp", &number(1));
    m.bytes("k/shard_0_1");
    m.place("k/shard_0_1", None, "__0_0.distcp", at, len);
    files.0.insert("k/shard_0_1.pt".into(), number(2));
    // Saved over an older save: the new name wins, the old file keeps its own.
    files.0.insert("o/shard_0.0_1.1.pt".into(), number(3));
    files.0.insert("o/shard_0.0_1.pt".into(), number(4));
    let checkpoint = files.open(&m).unwrap();
    assert_eq!(checkpoint.item_value("k/shard_0_1").unwrap(), Value::Int(1));
    assert_eq!(checkpoint.item_value("o/shard_0.0_1.1").unwrap(), Value::Int(3));
    assert_eq!(checkpoint.item_value("o/shard_0.0_1").unwrap(), Value::Int(4));
    let text = text_of(&checkpoint);
    assert!(text.contains("k/shard_0_1.pt is not read: the metadata has an entry"), "{text}");
    assert!(text.contains("o/shard_0.0_1.pt is of an older save"), "{text}");
}

#[test]
fn files_that_are_no_torch_files() {
    let (mut files, m) = megatron();
    files.0.insert("k/shard_0_3.pt".into(), b"no torch file at all".to_vec());
    files.0.insert("k/shard_1_3.pt".into(), Vec::new());
    let mut cut = number(1);
    cut.truncate(cut.len() - 10);
    files.0.insert("k/shard_2_3.pt".into(), cut);
    let checkpoint = files.open(&m).unwrap();
    for i in 0..3 {
        let e = checkpoint.item_value(&format!("k/shard_{i}_3")).unwrap_err().to_string();
        assert!(e.contains(&format!("k/shard_{i}_3")), "{e}");
    }
    assert_eq!(checkpoint.failures().len(), 3);
    assert_eq!(checkpoint.verify().unwrap().problems.len(), 3);
    readable(&checkpoint);
}

#[test]
fn objects_are_opened_when_they_are_wanted() {
    /// Counts what is opened.
    struct Counting(Memory, std::sync::Arc<std::sync::Mutex<Vec<String>>>);
    impl distcp::StorageReader for Counting {
        fn open(&self, relative: &str) -> ckptkit_core::Result<ckptkit_core::Section> {
            self.1.lock().unwrap().push(relative.to_owned());
            self.0.open_section(relative)
        }
        fn list(&self) -> ckptkit_core::Result<Vec<String>> {
            self.0.list()
        }
        fn size(&self, relative: &str) -> ckptkit_core::Result<Option<u64>> {
            self.0.size(relative)
        }
    }
    let (mut files, m) = megatron();
    files.0.insert("k/shard_0_2.pt".into(), number(1));
    files.0.insert("k/shard_1_2.pt".into(), number(2));
    files.0.insert(".metadata".into(), m.pickle());
    let opened = std::sync::Arc::default();
    let storage = Counting(files, std::sync::Arc::clone(&opened));
    let checkpoint = DistCheckpoint::with_storage(Box::new(storage)).unwrap();
    assert_eq!(*opened.lock().unwrap(), [".metadata"]);
    assert_eq!(checkpoint.byte_items().count(), 2);
    let file = checkpoint.item("k/shard_1_2").unwrap().unwrap();
    assert_eq!(file.value(file.root()).unwrap(), Value::Int(2));
    assert_eq!(*opened.lock().unwrap(), [".metadata", "k/shard_1_2.pt"]);
}

#[test]
fn more_files_than_any_checkpoint_has() {
    let (mut files, m) = megatron();
    for i in 0..100_001 {
        files.0.insert(format!("k/shard_{i}_200000.pt"), Vec::new());
    }
    let checkpoint = files.open(&m).unwrap();
    assert_eq!(checkpoint.byte_items().count(), 0);
    assert!(text_of(&checkpoint).contains("left out: memory: objects in files of their own"));
    let report = checkpoint.verify().unwrap();
    assert_eq!(report.problems[0].kind(), ErrorKind::LimitExceeded);
    readable(&checkpoint);
}

/// Thousands of keys, each with shards missing: the notes stay few.
#[test]
fn thousands_of_files() {
    let (mut files, m) = megatron();
    for i in 0..5000 {
        files.0.insert(format!("k{i}/shard_0_2.pt"), number(i));
    }
    let checkpoint = files.open(&m).unwrap();
    assert_eq!(checkpoint.byte_items().count(), 5000);
    let notes = checkpoint.notes();
    assert_eq!(notes.len(), 51);
    assert_eq!(notes[50], "and 4950 more notes about objects");
}

fn write(files: &Memory, m: &Metadata, dir: &Path) {
    let mut files = files.clone();
    files.0.insert(".metadata".into(), m.pickle());
    for (name, bytes) in files.0 {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (mut files, m) = megatron();
    files.0.insert("a/b/shard_0_1.pt".into(), archive(&s("found"), &[]));
    write(&files, &m, dir.path());
    // A folder with a file's name is no file.
    fs::create_dir_all(dir.path().join("c/shard_0_1.pt")).unwrap();
    let checkpoint = DistCheckpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.item_value("a/b/shard_0_1").unwrap(), Value::Str("found".into()));
    assert_eq!(checkpoint.byte_items().count(), 1);
    assert_eq!(checkpoint.notes(), [""; 0]);
    readable(&checkpoint);
}

#[cfg(unix)]
#[test]
fn links_that_leave_the_directory_are_refused() {
    use std::os::unix::fs::symlink;

    let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut files, m) = megatron();
    files.0.insert("k/shard_0_3.pt".into(), number(1));
    write(&files, &m, dir.path());
    fs::write(outside.path().join("shard_0_1.pt"), number(9)).unwrap();
    let here = dir.path();
    symlink(outside.path().join("shard_0_1.pt"), here.join("k/shard_1_3.pt")).unwrap();
    symlink("shard_0_3.pt", here.join("k/shard_2_3.pt")).unwrap();
    // Folders: one that leaves, one that goes round and round.
    symlink(outside.path(), here.join("linked")).unwrap();
    symlink(here, here.join("k/again")).unwrap();
    let checkpoint = DistCheckpoint::open(here).unwrap();
    let names: Vec<&str> = checkpoint.byte_items().collect();
    assert_eq!(names, ["k/shard_0_3", "k/shard_1_3", "k/shard_2_3"]);
    assert_eq!(checkpoint.item_value("k/shard_0_3").unwrap(), Value::Int(1));
    assert_eq!(checkpoint.item_value("k/shard_2_3").unwrap(), Value::Int(1));
    let e = checkpoint.item_value("k/shard_1_3").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
    assert!(e.to_string().contains("k/shard_1_3"), "{e}");
    assert!(checkpoint.item("k/shard_1_3").is_err());
    assert_eq!(checkpoint.failures().len(), 1);
    let text = text_of(&checkpoint);
    assert!(text.contains("not looked through for objects") && text.contains("linked"), "{text}");
    readable(&checkpoint);
}

/// Names come from listing, but a storage may list anything.
#[test]
fn a_listed_name_that_leaves_the_checkpoint() {
    let (mut files, m) = megatron();
    for bad in ["../k/shard_0_1.pt", "/etc/shard_0_1.pt", "k/../../shard_0_1.pt"] {
        files.0.insert(bad.into(), number(1));
    }
    let checkpoint = files.open(&m).unwrap();
    assert_eq!(checkpoint.failures().len(), 3, "{:?}", checkpoint.failures());
    assert!(checkpoint.failures().iter().all(|(_, e)| e.kind() == ErrorKind::Denied));
    readable(&checkpoint);
}

/// Each file counts its storages from 0: those of two files are not one.
#[test]
fn tensors_of_different_files_are_not_tied() {
    let (mut files, m) = megatron();
    let value = |first: f32| floats(&[2], &[first, 0.0]);
    files.0.insert("k/shard_0_2.pt".into(), value(1.0));
    files.0.insert("k/shard_1_2.pt".into(), value(2.0));
    let checkpoint = files.open(&m).unwrap();
    let [a, b] = ["k/shard_0_2", "k/shard_1_2"].map(|name| checkpoint.tensor(name).unwrap());
    assert!(!a.is_tied_with(&b));
    assert!(a.is_tied_with(&checkpoint.tensor("k/shard_0_2").unwrap()));
    assert_ne!(a.info().storage(), b.info().storage());
}
