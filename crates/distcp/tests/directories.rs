//! Directories: links, parents, what is missing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;

use ckptkit_core::{ErrorKind, TensorSource};
use distcp::DistCheckpoint;
use support::item::floats;
use support::{Memory, Metadata};

/// Writes a checkpoint of one tensor whose item is in `file`.
fn save(dir: &Path, file: &str) {
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    let (at, len) = files.item(file, &floats(&[2], &[1.0, 2.0]));
    m.tensor("w", "float32", &[2], &[(&[0], &[2])]);
    m.place("w", Some(&[0]), file, at, len);
    files.0.insert(".metadata".into(), m.pickle());
    for (name, bytes) in files.0 {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn read(dir: &Path) -> ckptkit_core::Result<Vec<u8>> {
    DistCheckpoint::open(dir)?.tensor("w")?.read()
}

#[test]
fn files_in_subdirectories_and_of_other_names() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "sub/deep/any name");
    assert_eq!(read(dir.path()).unwrap().len(), 8);
    assert_eq!(DistCheckpoint::open(dir.path()).unwrap().ranks(), 0);
}

#[test]
fn parents_with_one_and_with_several() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs::create_dir(top.join("logs")).unwrap();
    save(&top.join("iter_0000012"), "__0_0.distcp");
    let opened = DistCheckpoint::open(top).unwrap();
    assert!(opened.dir().unwrap().ends_with("iter_0000012"));
    save(&top.join("iter_0000100"), "__0_0.distcp");
    save(&top.join("iter_0000020/weights"), "__0_0.distcp");
    let e = DistCheckpoint::open(top).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    let text = e.to_string();
    assert!(text.contains("iter_0000012, iter_0000020, iter_0000100 (the latest)"), "{text}");
    fs::write(top.join("latest_checkpointed_iteration.txt"), "20\n").unwrap();
    let text = DistCheckpoint::open(top).unwrap_err().to_string();
    assert!(text.contains("iter_0000020 (the latest)"), "{text}");
}

#[test]
fn what_is_there_instead() {
    let says = |name: &str, bytes: &[u8], words: &str, kind: ErrorKind| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), bytes).unwrap();
        let e = DistCheckpoint::open(dir.path()).unwrap_err();
        assert!(e.to_string().contains(words), "{e}");
        assert_eq!(e.kind(), kind);
    };
    says(".metadata.tmp", b"", "unfinished save", ErrorKind::Malformed);
    says("a.safetensors", b"", "open it as safetensors", ErrorKind::NotFound);
    says("__0_0.distcp", b"", "data files only", ErrorKind::NotFound);
    says("metadata.json", br#"{"sharded_backend": "zarr"}"#, "\"zarr\"", ErrorKind::Unsupported);
    says("readme", b"", "give the directory", ErrorKind::NotFound);
    let e = DistCheckpoint::open("no/such/directory").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}

#[test]
fn stale_files_are_told() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "__0_0.distcp");
    fs::write(dir.path().join("__0.metadata"), b"").unwrap();
    fs::write(dir.path().join(".metadata.tmp"), b"").unwrap();
    let notes = DistCheckpoint::open(dir.path()).unwrap().notes().join("\n");
    assert!(notes.contains("of another save"), "{notes}");
    assert!(notes.contains("was not finished"), "{notes}");
}

#[cfg(unix)]
#[test]
fn links_stay_inside() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    save(&inside, "__0_0.distcp");
    fs::rename(inside.join("__0_0.distcp"), inside.join("real")).unwrap();
    symlink("real", inside.join("__0_0.distcp")).unwrap();
    assert_eq!(read(&inside).unwrap().len(), 8);
    // Out of the directory, as a file and as a directory on the way.
    let out = dir.path().join("out");
    save(&out, "__0_0.distcp");
    fs::rename(out.join("__0_0.distcp"), dir.path().join("elsewhere")).unwrap();
    symlink("../elsewhere", out.join("__0_0.distcp")).unwrap();
    let e = read(&out).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.to_string().contains("leads out of the checkpoint"), "{e}");
    let sub = dir.path().join("sub");
    save(&sub, "d/f");
    fs::rename(sub.join("d"), dir.path().join("d")).unwrap();
    symlink("../d", sub.join("d")).unwrap();
    assert_eq!(read(&sub).unwrap_err().kind(), ErrorKind::Denied);
    // The Hugging Face cache is made of such links.
    let snapshot = dir.path().join("models--a--b/snapshots/0123");
    save(&snapshot, "__0_0.distcp");
    fs::create_dir(dir.path().join("models--a--b/blobs")).unwrap();
    fs::rename(snapshot.join("__0_0.distcp"), dir.path().join("models--a--b/blobs/ff")).unwrap();
    symlink("../../blobs/ff", snapshot.join("__0_0.distcp")).unwrap();
    assert_eq!(read(&snapshot).unwrap().len(), 8);
    // The directory itself may be a link.
    symlink(&inside, dir.path().join("link")).unwrap();
    assert_eq!(read(&dir.path().join("link")).unwrap().len(), 8);
}

#[test]
fn detection_by_names() {
    assert!(DistCheckpoint::detect([".metadata", "x"]));
    assert!(DistCheckpoint::detect(["__0.metadata"]));
    assert!(!DistCheckpoint::detect(["__0_0.distcp", ".metadata.tmp", "a.metadata"]));
}
