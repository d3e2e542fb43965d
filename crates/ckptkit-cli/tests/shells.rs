//! What packagers take: completions and the manual page.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::process::{Command, Stdio};

use common::stdout;

const VERBS: [&str; 9] =
    ["inspect", "ls", "show", "digest", "convert", "nemo", "lightning", "completions", "man"];
/// What is done to a `.nemo`.
const EDITS: [&str; 9] =
    ["unpack", "pack", "get", "set", "del", "replace", "add", "rm", "tokenizer"];

/// What is made of a `.ckpt`.
const COPIES: [&str; 2] = ["slim", "sanitize"];

/// Whether a shell takes the script; `None` where the shell is not installed.
fn accepted(shell: &str, script: &str) -> Option<bool> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script");
    std::fs::write(&path, script).unwrap();
    let status = Command::new(shell).arg("-n").arg(&path).stderr(Stdio::null()).status().ok()?;
    Some(status.success())
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&["completions", shell]);
        for word in VERBS.iter().chain(&["max-shard-size", "weights-key", "reference"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert_ne!(accepted(shell, &script), Some(false), "{shell}");
    }
    assert!(stdout(&["completions", "bash"]).contains("complete -F _ckptkit"));
    assert!(stdout(&["completions", "zsh"]).starts_with("#compdef ckptkit"));
    assert!(stdout(&["completions", "fish"]).contains("complete -c ckptkit"));
    for shell in ["elvish", "powershell"] {
        assert!(stdout(&["completions", shell]).contains("ckptkit"), "{shell}");
    }
}

#[test]
fn the_manual_page_has_every_verb_and_flag() {
    let page = stdout(&["man"]);
    assert!(page.contains(".TH ckptkit 1"), "{page}");
    let sections: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix(".SH ")).collect();
    for verb in VERBS {
        let section = format!("\"CKPTKIT {}\"", verb.to_uppercase());
        assert!(sections.contains(&&*section), "{sections:?}");
    }
    for edit in EDITS {
        let section = format!("\"CKPTKIT NEMO {}\"", edit.to_uppercase());
        assert!(sections.contains(&&*section), "{sections:?}");
    }
    for copy in COPIES {
        let section = format!("\"CKPTKIT LIGHTNING {}\"", copy.to_uppercase());
        assert!(sections.contains(&&*section), "{sections:?}");
    }
    for flag in ["weights\\-key", "max\\-shard\\-size", "overwrite", "dry\\-run", "tree", "sort"] {
        assert!(page.contains(flag), "{flag}");
    }
}

#[test]
fn help_names_every_verb() {
    let help = stdout(&["--help"]);
    assert!(VERBS.iter().all(|v| help.contains(v)), "{help}");
    let edits = stdout(&["nemo", "--help"]);
    assert!(EDITS.iter().all(|v| edits.contains(v)), "{edits}");
    let copies = stdout(&["lightning", "--help"]);
    assert!(COPIES.iter().all(|v| copies.contains(v)), "{copies}");
    assert!(help.contains("Exit codes"), "{help}");
    assert!(stdout(&["--version"]).starts_with("ckptkit "));
}
