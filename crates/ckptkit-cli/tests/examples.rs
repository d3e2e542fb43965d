//! The examples of the documents run, in order, and print what is shown of their output; every
//! verb and every flag is in one of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::{from, program, stdout};

/// The documents, from the root of the workspace. The first names the files that examples use.
const DOCUMENTS: [&str; 3] = ["docs/cli.md", "README.md", "crates/ckptkit-cli/README.md"];
/// Flags of which no example can be made from fixtures, and why.
const WITHOUT_EXAMPLE: [(&str, &str); 1] =
    [("--lang", "no fixture has a tokenizer for each language; NeMo makes one for its judge")];

/// A command, and what is shown of its output.
#[derive(Debug)]
struct Example {
    line: usize,
    words: Vec<String>,
    /// The file that its output goes into.
    to: Option<String>,
    shown: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The words of a line as a shell sees them: single quotes keep what is in them, `#` after a space
/// begins a comment.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut quoted, mut between) = (false, true);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                if between {
                    words.push(String::new());
                    between = false;
                }
            }
            ' ' if !quoted => between = true,
            '#' if between && !quoted => break,
            '"' | '\\' | '$' | ';' | '|' | '&' | '<' if !quoted => {
                panic!("{line}: the examples have no {c:?} outside of single quotes")
            }
            c => {
                if between {
                    words.push(String::new());
                    between = false;
                }
                words.last_mut().unwrap().push(c);
            }
        }
    }
    assert!(!quoted, "{line}: a quote is not closed");
    words
}

fn example(line: usize, text: &str) -> Example {
    let mut words = words(text);
    let to = match words.iter().position(|w| w == ">") {
        Some(at) => {
            let to = words.get(at + 1).cloned();
            assert_eq!(words.len(), at + 2, "{text}");
            words.truncate(at);
            to
        }
        None => None,
    };
    assert_eq!(words.remove(0), "ckptkit", "{text}");
    Example { line, words, to, shown: Vec::new() }
}

/// Every example of a document: commands in `console` blocks with their output, commands in indented
/// blocks, and code in tables.
fn examples(text: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut console = false;
    for (at, line) in (1..).zip(text.lines()) {
        if line.starts_with("```") {
            console = line == "```console";
        } else if let (true, Some(command)) = (console, line.strip_prefix("$ ")) {
            found.push(example(at, command));
        } else if console {
            let last = found.last_mut().unwrap_or_else(|| panic!("{line}: output of nothing"));
            last.shown.push(line.to_owned());
        } else if let Some(command) =
            line.strip_prefix("    ").filter(|l| l.starts_with("ckptkit "))
        {
            found.push(example(at, command));
        } else if line.starts_with('|') {
            let code = line.split('`').skip(1).step_by(2).filter(|c| c.starts_with("ckptkit "));
            found.extend(code.map(|command| example(at, &command.replace("\\|", "|"))));
        }
    }
    found
}

/// The files that the examples use, as the first document lists them.
fn files() -> BTreeMap<String, PathBuf> {
    let text = document(DOCUMENTS[0]);
    let rows = text.lines().filter_map(|line| {
        let mut code = line.strip_prefix("| `")?.split('`');
        let (name, _, fixture) = (code.next()?, code.next()?, code.next()?);
        Some((name.to_owned(), root().join("tests/fixtures").join(fixture)))
    });
    let files: BTreeMap<_, _> = rows.take_while(|(_, path)| path.exists()).collect();
    assert!(files.len() > 5, "{files:?}");
    files
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

/// Whether the output is what is shown; `…` alone on a line stands for any number of lines.
fn agrees(shown: &[String], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "…" => {
            (0..=printed.len()).any(|skipped| agrees(rest, &printed[skipped..]))
        }
        Some((first, rest)) => {
            printed.first().is_some_and(|line| line.trim_end() == first.trim_end())
                && agrees(rest, &printed[1..])
        }
    }
}

/// Runs the examples of a document in a folder with the files; says which went wrong.
fn failures(name: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, path) in files() {
        copy(&path, &dir.path().join(name));
    }
    let mut wrong = Vec::new();
    let examples = examples(&document(name));
    assert!(!examples.is_empty(), "{name} has no example");
    for example in examples {
        let ran = from(program().args(&example.words).current_dir(&dir).output().unwrap());
        let printed: Vec<&str> = ran.stdout.lines().collect();
        let at = format!("{name}:{}: ckptkit {}", example.line, example.words.join(" "));
        if ran.code != Some(0) {
            wrong.push(format!("{at}\nended with {:?}: {}", ran.code, ran.stderr));
        } else if let Some(to) = &example.to {
            fs::write(dir.path().join(to), &ran.stdout).unwrap();
        } else if !example.shown.is_empty() && !agrees(&example.shown, &printed) {
            wrong.push(format!("{at}\nprinted:\n{}", ran.stdout));
        }
    }
    wrong
}

/// The verbs with the long flags that their help lists; those that have verbs below them stand for
/// these.
fn verbs() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![String::new()];
    while let Some(verb) = pending.pop() {
        let mut args: Vec<&str> = verb.split_whitespace().collect();
        args.push("--help");
        let help = stdout(&args);
        let below: Vec<&str> = help
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.strip_prefix("  ").filter(|l| !l.starts_with(' ')))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help")
            .collect();
        if below.is_empty() {
            let flags = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
            let long =
                flags.filter_map(|line| line.split([' ', ',']).find(|w| w.starts_with("--")));
            let long = long.filter(|flag| !matches!(*flag, "--help" | "--version"));
            found.insert(verb.trim().to_owned(), long.map(str::to_owned).collect());
        }
        pending.extend(below.iter().map(|name| format!("{verb} {name}")));
    }
    assert!(found.contains_key("convert") && found.contains_key("nemo set"), "{found:?}");
    found
}

#[test]
fn examples_run_and_print_what_is_shown() {
    for name in DOCUMENTS {
        let wrong = failures(name);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// The table of the first page names each verb, with an example of it.
#[test]
fn the_table_has_every_verb() {
    let text = document("README.md");
    let table: Vec<Example> = {
        let rows: Vec<&str> = text.lines().filter(|l| l.starts_with("| `")).collect();
        examples(&rows.join("\n"))
    };
    for verb in verbs().keys() {
        let parts: Vec<&str> = verb.split(' ').collect();
        let has = |e: &&Example| e.words.iter().zip(&parts).filter(|(a, b)| a == *b).count();
        assert!(table.iter().any(|e| has(&e) == parts.len()), "README's table has no `{verb}`");
    }
}

/// A flag that only one verb has is in an example of it, one that several have in any.
#[test]
fn every_flag_is_in_an_example() {
    let verbs = verbs();
    let all: Vec<Example> = DOCUMENTS.iter().flat_map(|name| examples(&document(name))).collect();
    for (verb, flags) in &verbs {
        let parts: Vec<&str> = verb.split(' ').collect();
        for flag in flags {
            if WITHOUT_EXAMPLE.iter().any(|(without, _)| without == flag) {
                continue;
            }
            let shared = verbs.values().filter(|flags| flags.contains(flag)).count() > 1;
            let of_verb = |e: &&Example| shared || e.words.iter().zip(&parts).all(|(a, b)| a == b);
            let used = all.iter().filter(of_verb).any(|e| e.words.contains(flag));
            assert!(used, "no example has `ckptkit {verb} {flag}`");
        }
    }
    for (flag, why) in WITHOUT_EXAMPLE {
        assert!(verbs.values().any(|flags| flags.contains(flag)), "{flag}: {why}");
        assert!(!all.iter().any(|e| e.words.iter().any(|w| w == flag)), "{flag} has an example");
    }
}

#[test]
fn output_that_differs_is_seen() {
    let shown = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(agrees(&shown("a\n…\nd"), &["a", "b", "c", "d"]));
    assert!(agrees(&shown("a\n…"), &["a"]));
    assert!(!agrees(&shown("a\n…\nd"), &["a", "b"]));
    assert!(!agrees(&shown("a"), &["a", "b"]));
    assert!(!agrees(&shown("a\nb"), &["a"]));
    let text =
        "```console\n$ ckptkit ls a 'b c' # d\nx\n\ny\n```\n| `ckptkit man` |\n    ckptkit ls b";
    let found = examples(text);
    assert_eq!(found[0].words, ["ls", "a", "b c"]);
    assert_eq!(found[0].shown, ["x", "", "y"]);
    assert_eq!((found.len(), &found[1].words[0][..]), (3, "man"));
}
