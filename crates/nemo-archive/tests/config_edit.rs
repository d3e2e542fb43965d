//! Edits of configs: the exact text, as OmegaConf was asked to read it.
#![cfg(feature = "write")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;

use ckptkit_core::{ErrorKind, Result};
use nemo_archive::{Config, Value};
use proptest::prelude::*;
use serde_json::Value as Json;

struct Case {
    name: String,
    operation: String,
    before: String,
    after: String,
}

fn cases() -> Vec<Case> {
    let mut out: Vec<Case> = Vec::new();
    let mut part = 0;
    for line in include_str!("data/edits.txt").split_inclusive('\n') {
        if let Some(name) = line.strip_prefix("=== ") {
            let name = name.trim_end().to_owned();
            let (operation, before, after) = Default::default();
            out.push(Case { name, operation, before, after });
            part = 0;
            continue;
        }
        let case = out.last_mut().unwrap();
        match (line, part) {
            ("--- before\n", _) => part = 1,
            ("--- after\n", _) => part = 2,
            (line, 0) => case.operation.push_str(line.trim_end_matches('\n')),
            (line, 1) => case.before.push_str(line),
            (line, _) => case.after.push_str(line),
        }
    }
    out
}

fn run(operation: &str, before: &str) -> Result<String> {
    let config = Config::parse(before.as_bytes())?;
    let words: Vec<&str> = operation.splitn(3, ' ').collect();
    let edited = match words[..] {
        ["set", key, value] => config.set(key, value)?,
        ["del", key] => config.delete(key)?,
        _ => panic!("{operation}"),
    };
    Ok(edited.as_str().to_owned())
}

#[track_caller]
fn check(what: &str, case: &Case, change: impl Fn(&str) -> String) -> Option<String> {
    let (before, after) = (change(&case.before), change(&case.after));
    match run(&case.operation, &before) {
        Ok(found) if found == after => None,
        Ok(found) => Some(format!(
            "{} ({what}): {}\n{before}--- expected\n{after}--- found\n{found}",
            case.name, case.operation
        )),
        Err(e) => Some(format!("{} ({what}): {e}", case.name)),
    }
}

#[test]
fn edits_give_the_text_that_omegaconf_was_asked_about() {
    let cases = cases();
    assert!(cases.len() > 100, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(check("as it is", case, str::to_owned));
        wrong.extend(check("CRLF", case, |text| text.replace('\n', "\r\n")));
        wrong.extend(check("BOM", case, |text| format!("\u{feff}{text}")));
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), 3 * cases.len(), wrong.join("\n"));
}

#[test]
fn the_edited_text_says_what_omegaconf_says() {
    let said: BTreeMap<&str, Json> = include_str!("data/edits.tsv")
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .map(|(name, json)| (name, serde_json::from_str(json).unwrap()))
        .collect();
    let cases = cases();
    assert_eq!(said.len(), cases.len());
    for case in &cases {
        let config = Config::parse(case.after.as_bytes()).unwrap();
        let mut found = config.value();
        if config.get("trainer").is_none() && case.after.contains("\nmodel:\n") {
            // The section of the model, of which OmegaConf knows nothing.
            found = Value::Dict(vec![
                (Value::Str("trainer".into()), Config::parse(b"devices: 1").unwrap().value()),
                (Value::Str("model".into()), found),
            ]);
        }
        assert!(common::same(&found, &said[case.name.as_str()]), "{}: {found:?}", case.name);
    }
}

#[test]
fn edits_that_would_change_more_are_refused() {
    let config = concat!(
        "base: &base {lr: 1, deep: &deep [1]}\n",
        "copy: *base\n",
        "merged:\n  <<: *base\n  own: 1\n",
        "used: *deep\n",
        "text: &text |\n  x\n",
        "again: *text\n",
        "plain: &plain 5\n",
        "five: *plain\n",
        "scalar: 1\n",
        "list: [1]\n",
        "set: &unused {a: 1}\n",
    );
    for (operation, kind, says) in [
        ("set copy.lr 2", ErrorKind::Denied, "key copy.lr: its value stands at the anchor &base"),
        ("set copy.new 2", ErrorKind::Denied, "at the anchor &base"),
        ("set merged.lr 2", ErrorKind::Denied, "at the anchor &base"),
        ("del merged.lr", ErrorKind::Denied, "at the anchor &base"),
        ("set base.lr 2", ErrorKind::Denied, "by the anchor &base"),
        ("set base.new 2", ErrorKind::Denied, "by the anchor &base"),
        ("set base 2", ErrorKind::Denied, "by the anchor &base"),
        ("del base", ErrorKind::Denied, "by the anchor &base"),
        ("set base.deep.0 2", ErrorKind::Denied, "by the anchor"),
        ("set text 2", ErrorKind::Denied, "by the anchor &text"),
        ("del plain", ErrorKind::Denied, "by the anchor &plain"),
        ("set scalar.x 2", ErrorKind::InvalidArgument, "below a value that is no mapping"),
        ("set list.3 2", ErrorKind::InvalidArgument, "the position 1 appends"),
        ("set list.x 2", ErrorKind::InvalidArgument, "no position"),
        ("set scalar [", ErrorKind::Malformed, "new value"),
        ("set scalar !!python/name:os.system", ErrorKind::Denied, "!!python"),
        ("set scalar \u{7}", ErrorKind::Malformed, "control character"),
        ("set  2", ErrorKind::InvalidArgument, "no key"),
        ("del none", ErrorKind::NotFound, "key none"),
        ("del list.1", ErrorKind::NotFound, "no such key"),
        ("del ", ErrorKind::NotFound, "no such key"),
    ] {
        let error = run(operation, config).unwrap_err();
        assert_eq!(error.kind(), kind, "{operation}: {error}");
        assert!(error.to_string().contains(says), "{operation}: {error}");
    }
    assert!(run("set scalar 2", config).unwrap().contains("scalar: 2\n"));
    assert!(run("set used 2", config).unwrap().contains("used: 2\n"));
    assert!(run("set set.a 2", config).unwrap().contains("&unused {a: 2}\n"));
    // A key that is a text of many lines.
    for operation in ["set a 2", "del a", "set new 1"] {
        let error = run(operation, "? |\n  key\n: 1\na: 1\n").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("cannot be edited in place"), "{error}");
    }
    // A list of pairs has no place for a key.
    let error = run("set a.0.c 1", "a: [b: 1]\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    // What a merge brings in would come back.
    let error = run("del b.y", "a: &x {y: 1}\nb:\n  <<: *x\n  y: 2\n  z: 3\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn values_of_other_types_are_refused() {
    let config = Config::parse(b"a: 1\n").unwrap();
    let error = config.set_value("a", &Value::Bytes(vec![1])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let json = Config::parse(b"{\"a\": 1}").unwrap();
    assert_eq!(json.set("a", ".inf").unwrap_err().kind(), ErrorKind::Unsupported);
}

/// Values of every kind that YAML has.
fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-zA-Z0-9 ',:#{}\\[\\]&*!|>%@`~?=.+\\-_$\"\\\\é▁\n\t]{0,12}",
        any::<String>().prop_filter("YAML holds it", |s| !s.contains('\u{fffe}')),
        prop::sample::select(vec![
            "yes",
            "n",
            "0x1F",
            "1e-4",
            "null",
            "12:30",
            "2001-12-14",
            "<<",
            "="
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(|f| Value::Float(if f.is_nan() { f64::NAN } else { f })),
        text.prop_map(Value::Str),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = "[a-zA-Z0-9 é:#]{1,6}";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|pairs| {
                Value::Dict(pairs.into_iter().map(|(k, v)| (Value::Str(k), v)).collect())
            }),
        ]
    })
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Dict(a), Value::Dict(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, v), (l, w))| equal(k, l) && equal(v, w))
        }
        (a, b) => a == b,
    }
}

proptest! {
    /// Whatever is set is read back, wherever it is put, and can be replaced and deleted again.
    #[test]
    fn what_is_set_is_what_is_read(values in prop::collection::vec(value(), 3)) {
        let start = concat!(
            "# head\na: 1 # c\nb:\n  c: [1, {d: 2}] # c\n  e:\n  - x # c\n  - f: 1\n    g: 2\n",
            "  -\nh:\ni: |\n  text\n# tail\n",
        );
        for key in ["a", "b", "b.c.0", "b.c.1.d", "b.c.1.new", "b.e.0", "b.e.1", "b.e.1.g",
                    "b.e.2", "b.e.3", "h", "i", "new", "new.new"] {
            let mut config = Config::parse(start.as_bytes()).unwrap();
            for value in &values {
                config = config.set_value(key, value).unwrap();
                prop_assert!(equal(&config.get(key).unwrap(), value), "{key}\n{}", config.as_str());
                prop_assert!(config.as_str().starts_with("# head\n"));
                prop_assert!(config.as_str().ends_with("# tail\n"));
            }
            let without = config.delete(key).unwrap();
            let list_goes_on = key == "b.e.0" || key == "b.e.1" || key == "b.e.2" || key == "b.c.0";
            prop_assert!(list_goes_on || without.get(key).is_none(), "{key}\n{}", without.as_str());
        }
    }

    /// Any text is edited or refused.
    #[test]
    fn no_text_makes_an_edit_panic(
        text in "[a-c0-3:\\-\\[\\]{},&*!|>'\"#?%@ \\n\\t\\r~<$.\\\\é]{0,60}",
        new in "[a-c0-3:\\-\\[\\]{},'\"# \\n]{0,10}",
    ) {
        let Ok(config) = Config::parse(text.as_bytes()) else { return Ok(()) };
        let mut keys: Vec<String> = vec!["new".into(), "a.b.c".into(), "0".into()];
        let mut pending = vec![(String::new(), config.value())];
        while let Some((key, value)) = pending.pop() {
            let below = |step: String| if key.is_empty() { step } else { format!("{key}.{step}") };
            match value {
                Value::List(items) => {
                    keys.push(below(items.len().to_string()));
                    pending.extend(items.into_iter().enumerate().map(|(i, v)| (below(i.to_string()), v)));
                }
                Value::Dict(pairs) => {
                    pending.extend(pairs.into_iter().map(|(k, v)| (below(k.key_text()), v)));
                }
                _ => {}
            }
            keys.push(key);
        }
        for key in keys {
            if let Ok(edited) = config.set(&key, &new) {
                prop_assert!(Config::parse(edited.as_str().as_bytes()).is_ok());
            }
            let _ = config.delete(&key);
            if let Some(span) = config.span(&key) {
                prop_assert!(config.as_str().get(span).is_some());
            }
        }
    }
}
