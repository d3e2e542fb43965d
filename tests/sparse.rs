//! What opening and listing cost: checkpoints of six gigabytes that are nearly all hole, opened in
//! a process of their own, which tells what it has read and how much memory it took.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::Path;
use std::process::Command;

use ckptkit::{Checkpoint, Convert, Target};
use ckptkit_tests::large::{self, Size};

/// Names the checkpoint to the process that opens it.
const PATH: &str = "CKPTKIT_TESTS_OPEN";

/// A number from a file of `/proc/self`.
fn own(file: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find(|l| l.starts_with(field)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs in the process of its own; by itself it does nothing.
#[test]
fn child() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let read = own("io", "rchar:");
    let checkpoint = Checkpoint::open(&path).unwrap();
    let listing: Vec<String> = checkpoint
        .tensors()
        .map(|t| format!("{} {} {:?} {}", t.name(), t.dtype(), t.shape(), t.byte_len()))
        .collect();
    let _ = checkpoint.summary();
    let listed = own("io", "rchar:") - read;
    // A conversion is planned by where every byte lies, items of distributed checkpoints included.
    let plan = Convert::new(Target::SafetensorsDirectory).plan(&checkpoint, "nowhere").unwrap();
    assert_eq!(plan.report().tensors, listing.len());
    let planned = own("io", "rchar:") - read;
    println!("measured {} {listed} {planned} {}", listing.len(), own("status", "VmHWM:"));
}

fn size_of(path: &Path) -> u64 {
    if path.is_file() {
        return path.metadata().unwrap().len();
    }
    std::fs::read_dir(path).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum()
}

/// 2000 tensors of 3 MiB: 5.9 GiB together.
const SIZE: Size = Size { tensors: 2000, elements: 786_432 };

fn check(make: fn(&Path, Size)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    make(&path, SIZE);
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(PATH, &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}{errors}");
    let (_, measured) = text.split_once("measured ").unwrap_or_else(|| panic!("{text}"));
    let line = measured.lines().next().unwrap();
    let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
    let [tensors, listed, planned, peak_kb] = numbers[..] else { panic!("{numbers:?}") };
    let size = size_of(&path);
    println!(
        "{size} bytes: {tensors} tensors, {listed} bytes to list, {planned} to plan, {peak_kb} KiB"
    );
    assert_eq!(tensors, SIZE.tensors);
    assert!(size > 5 << 30, "{size}");
    assert!(listed < size / 1000, "{listed} of {size} bytes were read to list");
    assert!(planned < size / 100, "{planned} of {size} bytes were read to plan");
    assert!(peak_kb < 64 << 10, "{peak_kb} KiB of memory");
}

#[test]
fn a_safetensors_file() {
    check(large::safetensors);
}

#[test]
fn a_lightning_checkpoint() {
    check(large::ckpt);
}

#[test]
fn a_nemo_archive() {
    check(large::nemo);
}

#[test]
fn a_legacy_stream() {
    check(large::legacy);
}

#[test]
fn a_distributed_checkpoint() {
    check(large::distcp);
}
