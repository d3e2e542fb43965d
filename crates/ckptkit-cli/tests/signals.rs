//! A conversion that is stopped or killed in the middle.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{names, program, sparse};

const MIB: u64 = 1 << 20;

/// A conversion of many gigabytes that has begun to write.
fn begun(dir: &Path, to: &str) -> Child {
    let source = dir.join("source.safetensors");
    if !source.exists() {
        sparse(&source, 64, 512 * MIB);
    }
    let mut child = program()
        .args(["convert", "--threads", "1", "--overwrite"])
        .args([&source, &dir.join(to)])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while names(dir).iter().all(|n| !n.starts_with(&format!(".{to}."))) {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not begin");
        assert_eq!(child.try_wait().unwrap(), None, "it ended at once");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(20));
    child
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_stopped_conversion_leaves_nothing() {
    for signal in ["-INT", "-TERM"] {
        for to in ["out", "out.safetensors"] {
            let dir = tempfile::tempdir().unwrap();
            let child = begun(dir.path(), to);
            send(&child, signal);
            let ran = common::from(child.wait_with_output().unwrap());
            assert_eq!(ran.code, Some(2), "{signal} {to}: {}", ran.stderr);
            assert!(ran.stderr.starts_with("error: stopped"), "{}", ran.stderr);
            assert_eq!(names(dir.path()), ["source.safetensors"], "{signal} {to}");
        }
    }
}

#[test]
fn a_stopped_conversion_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("out.safetensors"), "old").unwrap();
    let child = begun(dir.path(), "out.safetensors");
    send(&child, "-INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(2));
    assert_eq!(std::fs::read(dir.path().join("out.safetensors")).unwrap(), b"old");
    assert_eq!(names(dir.path()), ["out.safetensors", "source.safetensors"]);
}

#[test]
fn a_killed_conversion_leaves_the_destination_as_it_was() {
    for to in ["out", "out.safetensors"] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = begun(dir.path(), to);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!dir.path().join(to).exists());
        // What it could not clean up says by its name what it is.
        let left: Vec<String> =
            names(dir.path()).into_iter().filter(|n| n != "source.safetensors").collect();
        assert!(left.len() == 1 && left[0].ends_with(".ckptkit-tmp"), "{left:?}");
    }
}
