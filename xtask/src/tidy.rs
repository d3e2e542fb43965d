//! `tidy`: the house rules that neither rustc nor clippy know.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{Outcome, root};

/// Who may know whom. A crate that is not listed may know nobody.
const EDGES: &[(&str, &[&str])] = &[
    ("ckptkit-cli", &["ckptkit"]),
    (
        "ckptkit",
        &["st-io", "lightning-ckpt", "nemo-archive", "distcp", "torch-save", "ckptkit-core"],
    ),
    ("nemo-archive", &["torch-save", "ckptkit-core", "distcp", "st-io"]),
    ("lightning-ckpt", &["torch-save", "ckptkit-core"]),
    ("distcp", &["torch-save", "ckptkit-core", "st-io"]),
    ("torch-save", &["ckptkit-core"]),
    ("st-io", &["ckptkit-core"]),
    ("ckptkit-core", &[]),
];

/// Edges that exist only behind the feature of this name.
const OPTIONAL: &[(&str, &str, &str)] = &[
    ("nemo-archive", "distcp", "distcp"),
    ("nemo-archive", "st-io", "safetensors"),
    ("distcp", "st-io", "safetensors"),
];

/// May know all; nobody may know them.
const BESIDE: &[&str] = &["xtask", "ckptkit-tests"];

/// What `ckptkit-core` may bring in: name, and whether only as an option.
const CORE: (&str, &[(&str, bool)]) = (
    "ckptkit-core",
    &[("crc32fast", false), ("foldhash", false), ("memmap2", true), ("rustix", true)],
);

/// The one file with the keyword in question.
const UNSAFE_FILE: &str = "crates/ckptkit-core/src/mmap.rs";

const MAX_LINES: usize = 900;

pub(crate) fn run(_: &[String]) -> Outcome {
    let mut wrong = manifests(&metadata()?);
    let root = root();
    for path in rust_files(&root)? {
        let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&path).map_err(|e| format!("{name}: {e}"))?;
        wrong.extend(source(&name, &text));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("\n{}", wrong.join("\n"))) }
}

fn metadata() -> Result<Value, String> {
    let out = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .map_err(|e| format!("cargo metadata did not start: {e}"))?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    serde_json::from_slice(&out.stdout).map_err(|e| format!("cargo metadata: {e}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// The rules on dependencies, over the JSON of `cargo metadata`.
fn manifests(metadata: &Value) -> Vec<String> {
    let ours: BTreeSet<&str> = list(metadata, "packages").map(|p| text(p, "name")).collect();
    let mut wrong = Vec::new();
    for package in list(metadata, "packages") {
        let name = text(package, "name");
        for dependency in list(package, "dependencies") {
            let on = text(dependency, "name");
            let complaint = if text(dependency, "kind") == "dev" {
                dev_dependency(dependency, on, &ours)
            } else if ours.contains(on) {
                edge(package, name, dependency, on)
            } else {
                external(name, dependency, on)
            };
            wrong.extend(complaint.map(|why| format!("{name} → {on}: {why}")));
        }
    }
    wrong
}

fn dev_dependency(dependency: &Value, on: &str, ours: &BTreeSet<&str>) -> Option<String> {
    if BESIDE.contains(&on) {
        return Some("nobody depends on this one".to_owned());
    }
    let versioned = text(dependency, "req") != "*";
    (ours.contains(on) && versioned)
        .then(|| "a dev-dependency on a sibling has a path and no version".to_owned())
}

fn edge(package: &Value, name: &str, dependency: &Value, on: &str) -> Option<String> {
    if BESIDE.contains(&on) {
        return Some("nobody depends on this one".to_owned());
    }
    if BESIDE.contains(&name) {
        return None;
    }
    let known = EDGES.iter().find(|(from, _)| *from == name).map_or(&[][..], |(_, to)| to);
    if !known.contains(&on) {
        return Some("this edge is not drawn in the design".to_owned());
    }
    let (.., feature) = OPTIONAL.iter().find(|(from, to, _)| (*from, *to) == (name, on))?;
    let optional = dependency["optional"].as_bool() == Some(true);
    let gates = enabled_by(package, on);
    (!optional || gates != [*feature])
        .then(|| format!("only as an option, behind the feature `{feature}` alone"))
}

/// The features of `package` that switch the optional dependency on.
fn enabled_by<'a>(package: &'a Value, dependency: &str) -> Vec<&'a str> {
    let features = package["features"].as_object().into_iter().flatten();
    let switches = |on: &Value| {
        let on = on.as_str().unwrap_or("");
        on.strip_prefix("dep:") == Some(dependency) || on.split('/').next() == Some(dependency)
    };
    features
        .filter(|(_, on)| on.as_array().is_some_and(|on| on.iter().any(switches)))
        .map(|(feature, _)| feature.as_str())
        .collect()
}

fn external(name: &str, dependency: &Value, on: &str) -> Option<String> {
    let (core, allowed) = CORE;
    if name != core {
        return None;
    }
    let Some((_, as_option)) = allowed.iter().find(|(known, _)| *known == on) else {
        return Some(format!("{core} has no such dependency"));
    };
    let optional = dependency["optional"].as_bool() == Some(true);
    (*as_option && !optional).then(|| "only as an option".to_owned())
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| format!("{}: {e}", dir.display()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                open.push(path);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The rules on one source file.
fn source(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        wrong.push(format!("{name}: {lines} lines, more than {MAX_LINES}: split it"));
    }
    let code = code_only(text);
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    for (at, _) in code.match_indices("unsafe").filter(|_| name != UNSAFE_FILE) {
        let rest = code[at + "unsafe".len()..].trim_start();
        let next =
            ["fn", "impl", "trait", "extern"].iter().any(|word| starts_with_word(rest, word));
        if ends_before(&code, at) && (rest.starts_with('{') || next) {
            wrong.push(format!("{name}:{}: unsafe code has one place, {UNSAFE_FILE}", line_of(at)));
        }
    }
    for unfinished in ["todo!(", "unimplemented!("] {
        for (at, _) in code.match_indices(unfinished).filter(|(at, _)| ends_before(&code, *at)) {
            wrong.push(format!("{name}:{}: {unfinished}…) is not finished work", line_of(at)));
        }
    }
    wrong
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// No word reaches up to `at`.
fn ends_before(code: &str, at: usize) -> bool {
    !code[..at].ends_with(is_word)
}

fn starts_with_word(code: &str, word: &str) -> bool {
    code.strip_prefix(word).is_some_and(|rest| !rest.starts_with(is_word))
}

/// The text without comments and literals, line for line.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            'r' if ends_before(&code, code.len()) => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skip == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..skip].chars().filter(|c| *c == '\n'));
            code.push(' ');
            rest = &rest[skip..];
        }
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of `r"…"` or `r#"…"#`, 0 where it is none.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let open = 1 + hashes;
    if !text[open..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    text[open + 1..].find(&close).map_or(text.len(), |at| open + 1 + at + close.len())
}

/// Length of a character literal, 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(text.len(), |(at, _)| at + 1)
        }
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workspace(name: &str, dependency: &Value, features: &Value) -> Value {
        let mut packages = vec![json!({
            "name": name, "dependencies": [dependency], "features": features,
        })];
        for other in ["torch-save", "distcp", "st-io", "ckptkit-core", "xtask", "ckptkit-tests"] {
            packages.push(json!({"name": other, "dependencies": [], "features": {}}));
        }
        json!({ "packages": packages })
    }

    fn on(name: &str, optional: bool) -> Value {
        json!({"name": name, "kind": null, "optional": optional, "req": "^0.1"})
    }

    fn complaints(name: &str, dependency: Value) -> Vec<String> {
        manifests(&workspace(name, &dependency, &json!({})))
    }

    #[test]
    fn drawn_edges_pass() {
        assert!(complaints("lightning-ckpt", on("torch-save", false)).is_empty());
        assert!(complaints("ckptkit", on("distcp", true)).is_empty());
        assert!(complaints("ckptkit-tests", on("torch-save", false)).is_empty());
    }

    #[test]
    fn other_edges_fail() {
        assert_eq!(complaints("lightning-ckpt", on("distcp", false)).len(), 1);
        assert_eq!(complaints("ckptkit-core", on("torch-save", false)).len(), 1);
        assert_eq!(complaints("ckptkit-cli", on("torch-save", false)).len(), 1);
        assert_eq!(complaints("ckptkit", on("xtask", false)).len(), 1);
        assert_eq!(complaints("brand-new", on("torch-save", false)).len(), 1);
    }

    #[test]
    fn nesting_edges_are_options_behind_their_feature() {
        let with = |optional, features| {
            manifests(&workspace("nemo-archive", &on("distcp", optional), &features))
        };
        assert!(with(true, json!({"distcp": ["dep:distcp"]})).is_empty());
        assert_eq!(with(false, json!({})).len(), 1);
        assert_eq!(with(true, json!({"default": ["dep:distcp"]})).len(), 1);
        assert_eq!(with(true, json!({"distcp": ["dep:distcp"], "x": ["distcp/y"]})).len(), 1);
    }

    #[test]
    fn dev_dependencies_on_siblings_have_no_version() {
        let dev = |name, req| json!({"name": name, "kind": "dev", "optional": false, "req": req});
        assert!(complaints("st-io", dev("torch-save", "*")).is_empty());
        assert!(complaints("st-io", dev("tempfile", "^3")).is_empty());
        assert_eq!(complaints("st-io", dev("torch-save", "^0.1.0")).len(), 1);
        assert_eq!(complaints("st-io", dev("ckptkit-tests", "*")).len(), 1);
    }

    #[test]
    fn the_core_stays_small() {
        assert!(complaints("ckptkit-core", on("crc32fast", false)).is_empty());
        assert!(complaints("ckptkit-core", on("memmap2", true)).is_empty());
        assert_eq!(complaints("ckptkit-core", on("memmap2", false)).len(), 1);
        assert_eq!(complaints("ckptkit-core", on("serde", true)).len(), 1);
    }

    #[test]
    fn unsafe_code_has_one_place() {
        for bad in
            ["unsafe { x }", "unsafe\n{", "pub unsafe fn f() {}", "unsafe impl Send for X {}"]
        {
            assert_eq!(source("a.rs", bad).len(), 1, "{bad}");
            assert!(source(UNSAFE_FILE, bad).is_empty(), "{bad}");
        }
        for good in [
            "// unsafe { x }",
            "\"unsafe fn\"",
            "r#\"\"unsafe {\"#",
            "unsafe_code {",
            "'\"'; not_unsafe {",
        ] {
            assert!(source("a.rs", good).is_empty(), "{good}");
        }
    }

    #[test]
    fn unfinished_work_fails() {
        let bad = "fn f<'a>() {\n    todo!()\n}";
        assert_eq!(source("a.rs", bad), ["a.rs:2: todo!(…) is not finished work"]);
        assert!(source("a.rs", "/* a /* todo!() */ todo!() */ my_todo!()").is_empty());
        assert_eq!(source("a.rs", "'a'; unimplemented!(\"x\")").len(), 1);
    }

    #[test]
    fn long_files_fail() {
        assert!(source("a.rs", &"\n".repeat(MAX_LINES)).is_empty());
        assert_eq!(source("a.rs", &"\n".repeat(MAX_LINES + 1)).len(), 1);
    }
}
