//! What people see: tables, pipes that close early, progress on a terminal only.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{fixture, names, program, run, sparse, stdout};

#[test]
fn a_table_lines_up() {
    let table = stdout(&["ls", "--weights", &fixture("nemo/ctc_bpe.nemo")]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 53);
    let starts = |line: &str| {
        let words: Vec<usize> = line.match_indices("  ").map(|(i, _)| i).collect();
        words.first().copied()
    };
    assert!(lines[0].starts_with("name ") && lines[0].ends_with("  bytes"), "{}", lines[0]);
    let dtype = lines[0].find("dtype").unwrap();
    for line in &lines[1..] {
        assert!(starts(line).is_some(), "{line}");
        assert_eq!(&line[dtype - 2..dtype], "  ", "{line}");
        assert_ne!(&line[dtype..=dtype], " ", "{line}");
        assert_eq!(line.len(), lines[0].len(), "{line}");
    }
}

#[test]
fn a_tree_sums() {
    let tree = stdout(&["ls", "--tree", &fixture("lightning/tied.ckpt")]);
    let line = |name: &str| tree.lines().find(|l| l.trim_start().starts_with(name)).unwrap();
    let root: Vec<&str> = line(". ").split_whitespace().collect();
    assert_eq!(root[1], "13");
    assert!(line("state_dict ").split_whitespace().nth(1) == Some("4"), "{tree}");
    assert!(tree.contains("F32 [5, 3]"), "{tree}");
}

#[test]
fn ten_thousand_tensors_are_listed_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("many.safetensors");
    sparse(&path, 10_000, 1 << 20);
    let path = path.to_str().unwrap();
    for args in
        [&["ls", path][..], &["ls", "--tree", path], &["ls", "--json", path], &["inspect", path]]
    {
        let start = Instant::now();
        let said = stdout(args);
        assert!(said.len() > 100);
        // A fraction of a second even without optimization; the bound is for slow machines.
        assert!(start.elapsed() < Duration::from_secs(5), "{args:?}: {:?}", start.elapsed());
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("many.safetensors");
    sparse(&path, 20_000, 16);
    for verb in [&["ls"][..], &["ls", "--json"], &["ls", "--tree"], &["digest"]] {
        let mut child = program()
            .args(verb)
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        let ran = common::from(child.wait_with_output().unwrap());
        assert_eq!(ran.stderr, "", "{verb:?}");
    }
}

#[test]
fn nothing_moves_where_there_is_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out").to_str().unwrap().to_owned();
    let ran = run(&["convert", &fixture("nemo/rnnt_bpe.nemo"), &to]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(!ran.stdout.contains(['\r', '\u{1b}']), "{:?}", ran.stdout);
}

/// Runs the program on a terminal of its own; `None` where there is no `script` to make one.
#[cfg(target_os = "linux")]
fn on_a_terminal(command: &str) -> Option<String> {
    let out = Command::new("script")
        .args(["-q", "-e", "-c", command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_sees_rate_and_time_left() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source.safetensors");
    sparse(&source, 8, 16 << 20);
    let command = |more: &str, to: &str| {
        let (program, dir) = (env!("CARGO_BIN_EXE_ckptkit"), dir.path().display());
        format!("'{program}' convert {more} --threads 1 '{}' '{dir}/{to}'", source.display())
    };
    let Some(shown) = on_a_terminal(&command("", "out.safetensors")) else { return };
    assert!(
        shown.contains("converting") && shown.contains("/s") && shown.contains("left"),
        "{shown}"
    );
    assert!(shown.contains("wrote "), "{shown}");
    let quiet = on_a_terminal(&command("--quiet", "quiet.safetensors")).unwrap();
    assert_eq!(quiet, "");
    assert_eq!(names(dir.path()), ["out.safetensors", "quiet.safetensors", "source.safetensors"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_gets_no_codes_from_an_artifact() {
    let (program, path) = (env!("CARGO_BIN_EXE_ckptkit"), fixture("nemo/ctc_bpe.nemo"));
    let model = "f728b4fa42484e3a8a5d2f346baa9455_tokenizer.model";
    let Some(shown) = on_a_terminal(&format!("'{program}' show '{path}' {model}")) else { return };
    assert!(shown.contains("bytes that are no text") || !shown.contains('\u{1b}'), "{shown}");
}
