//! The config: OmegaConf's scalars, bounds, references, and the bytes that spell each value.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use ckptkit_core::ErrorKind;
use nemo_archive::{ArchiveLimits, Config, Value};

fn config(text: &str) -> Config {
    Config::parse(text.as_bytes()).unwrap()
}

fn refused(text: &str) -> (ErrorKind, String) {
    let e = Config::parse(text.as_bytes()).unwrap_err();
    (e.kind(), e.to_string())
}

fn s(text: &str) -> Value {
    Value::Str(text.into())
}

#[test]
fn scalars_are_what_omegaconf_says() {
    let table = include_str!("data/scalars.tsv");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for row in table.lines().skip(1) {
        let mut cells = row.split('\t');
        let (text, kind, value) =
            (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
        seen += 1;
        let found = Config::parse(format!("a: {text}\n").as_bytes());
        let found = match found {
            Ok(c) => c.get("a").unwrap(),
            Err(e) => {
                if kind != "error" {
                    wrong.push(format!("{text:?}: {e}, expected {kind} {value}"));
                }
                continue;
            }
        };
        let right = match (&found, kind) {
            (Value::None, "null") => true,
            (Value::Bool(b), "bool") => b.to_string() == value,
            (Value::Int(i), "int") => i.to_string() == value,
            (Value::BigInt(i), "int") => i == value,
            (Value::Str(t), "str") => t == value,
            (Value::Float(f), "float") => {
                let expected: f64 = value.parse().unwrap();
                f.to_bits() == expected.to_bits() || (f.is_nan() && expected.is_nan())
            }
            _ => false,
        };
        if !right {
            wrong.push(format!("{text:?}: {found:?}, expected {kind} {value}"));
        }
    }
    assert!(seen > 2000);
    assert!(wrong.is_empty(), "{} of {seen}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn quoted_scalars_stay_texts() {
    let c =
        config("labels: ['n', \"y\", '''', ' ', 'yes', \"1e-4\", 'null', '']\nn: null\nm: ???\n");
    let expected = ["n", "y", "'", " ", "yes", "1e-4", "null", ""].map(s).to_vec();
    assert_eq!(c.get("labels"), Some(Value::List(expected)));
    assert_eq!(c.get("n"), Some(Value::None));
    assert_eq!(c.get("m"), Some(s("???")));
    assert_eq!(config("a: !!str 12\nb: ! 7\nc: !!int '3'\nd: !!float 1").value(), {
        let pairs = [("a", s("12")), ("b", s("7")), ("c", Value::Int(3)), ("d", Value::Float(1.0))];
        Value::Dict(pairs.map(|(k, v)| (s(k), v)).to_vec())
    });
}

#[test]
fn every_spelling_of_a_document_is_read() {
    let expected = config("a: {b: [1, x]}\nc: é\n").value();
    for text in [
        "\u{feff}a:\n  b:\n  - 1\n  - x\nc: é\n",
        "a:\r\n  b:\r\n  - 1\r\n  - x\r\nc: é\r\n",
        "{\"a\": {\"b\": [1, \"x\"]}, \"c\": \"\\u00e9\"}",
        "--- # comment\na:\n    b: [1,\n      x]\n'c': \"é\"\n...\n",
    ] {
        assert_eq!(config(text).value(), expected, "{text:?}");
    }
}

#[test]
fn keys_are_found_by_path() {
    let c = config("a:\n  b:\n  - x\n  - {c: 5}\n  d.e: 6\n1: one\n");
    assert_eq!(c.get("a.b.1.c"), Some(Value::Int(5)));
    assert_eq!(c.get("a.d.e"), Some(Value::Int(6)));
    assert_eq!(c.get("1"), Some(s("one")));
    for missing in ["a.b.2", "a.x", "a.b.-1", "a.b.0.x", "b", "."] {
        assert_eq!(c.get(missing), None, "{missing}");
    }
    let texts: Vec<(String, &str)> = c.strings();
    assert_eq!(texts, [("a.b.0".to_owned(), "x"), ("1".to_owned(), "one")]);
}

#[test]
fn anchors_and_merges_are_written_out() {
    let c = config(
        "base: &b {x: 1, y: 2}\nother: &o {x: 9, z: 3}\nd:\n  <<: [*b, *o]\n  y: 5\ne: *b\n'<<': t\n",
    );
    let map = |pairs: &[(&str, i64)]| {
        Value::Dict(pairs.iter().map(|&(k, v)| (s(k), Value::Int(v))).collect())
    };
    assert_eq!(c.get("d"), Some(map(&[("x", 1), ("z", 3), ("y", 5)])));
    assert_eq!(c.get("e"), Some(map(&[("x", 1), ("y", 2)])));
    assert_eq!(c.get("<<"), Some(s("t")));
    // What stands elsewhere has no bytes of its own to replace.
    assert_eq!(c.span("d.x"), None);
    assert_eq!(c.span("e.x"), None);
    assert_eq!(&c.as_str()[c.span("d.y").unwrap()], "5");
}

#[test]
fn references_are_followed() {
    let c = config(concat!(
        "root: 7\na:\n  b: ${root}\n  c: ${.b}\n  d: {e: \"${..b}/${root}\"}\n  s: ${d}\n",
        "env: ${oc.env:HOME}\nmixed: x${oc.env:HOME}${root}\nesc: \\${root}\nlist: [1, \"${list.0}\"]\n",
        "whole: ${a.d}\nd: {k: v}\nthrough: ${a.s.k}\nf: 1e-5\nt: '${f} ${g}'\ng: true\nopen: '${root'\n",
        "top: ${.root}\n",
    ));
    for (key, expected) in [
        ("a.b", Value::Int(7)),
        ("a.c", Value::Int(7)),
        ("a.d.e", s("7/7")),
        ("env", s("${oc.env:HOME}")),
        ("mixed", s("x${oc.env:HOME}${root}")),
        ("esc", s("${root}")),
        ("list.1", Value::Int(1)),
        ("whole", Value::Dict(vec![(s("e"), s("7/7"))])),
        ("through", s("v")),
        ("t", s("1e-05 True")),
        ("open", s("${root")),
        ("top", Value::Int(7)),
    ] {
        assert_eq!(c.resolve(key).unwrap(), expected, "{key}");
    }
    assert_eq!(c.get("a.b"), Some(s("${root}")));
    assert!(c.resolved().is_ok());
    assert_eq!(c.resolve("nope").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn references_are_what_omegaconf_says() {
    let c = config(include_str!("data/references.yaml"));
    for (key, expected) in [
        ("a.b", "7"),
        ("a.c", "7"),
        ("a.d.e", "7/7"),
        ("esc", "${root}"),
        ("esc2", r"\7"),
        ("esc3", r"x\${root}y"),
        ("esc4", r"\\7"),
        ("list.1", "1"),
        ("list.2", "1"),
        ("list.3", "1"),
        ("list.4", "7"),
        ("whole.e", "7/7"),
        ("through", "v"),
        ("t", "1e-05 True None 1e+16 0.0001 q"),
        ("top", "7"),
        ("sp", "7"),
        ("brk", "7"),
        ("brk2", "7"),
        ("dash", "3"),
        ("al.v", "1"),
        ("al2.v", "2"),
        ("al3.v", "1"),
        ("up2.m.n", "7"),
        ("dollar", "a $ b $$ {root}"),
        ("bs", r"C:\dir\x 7"),
        ("bs2", r"C:\dir\"),
    ] {
        let (section, last) = key.rsplit_once('.').unwrap_or(("", key));
        // `whole` is itself a reference, so its keys are found once it is followed.
        let found = if section == "whole" {
            match c.resolve(section).unwrap() {
                Value::Dict(pairs) => pairs.into_iter().find(|(k, _)| *k == s(last)).unwrap().1,
                other => panic!("{other:?}"),
            }
        } else {
            c.resolve(key).unwrap()
        };
        let found = match found {
            Value::Str(text) => text,
            Value::Int(i) => i.to_string(),
            other => panic!("{key}: {other:?}"),
        };
        assert_eq!(found, expected, "{key}");
    }
}

#[test]
fn references_that_lead_nowhere_are_errors() {
    let c = config(concat!(
        "a: ${b}\nb: ${a}\nself: ${self}\nsec: {in: \"${sec}\"}\nno: ${gone.x}\nup: ${....x}\n",
        "l: [1]\nmid: 'x${l}'\np: ${q.z}\nq: ${p.z}\n",
    ));
    for (key, kind) in [
        ("a", ErrorKind::Malformed),
        ("self", ErrorKind::Malformed),
        ("sec", ErrorKind::Malformed),
        ("no", ErrorKind::NotFound),
        ("up", ErrorKind::NotFound),
        ("mid", ErrorKind::Malformed),
        ("p", ErrorKind::Malformed),
    ] {
        let e = c.resolve(key).unwrap_err();
        assert_eq!(e.kind(), kind, "{key}: {e}");
    }
    let mut chain: String = (0..100).map(|i| format!("k{i}: ${{k{}}}\n", i + 1)).collect();
    chain.push_str("k100: 1\n");
    let c = config(&chain);
    assert_eq!(c.resolve("k0").unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(c.resolve("k60").unwrap(), Value::Int(1));
    // Each level doubles: bounded by nodes, not by patience.
    let mut bomb: String =
        (0..40).map(|i| format!("b{i}: [\"${{b{0}}}\", \"${{b{0}}}\"]\n", i + 1)).collect();
    bomb.push_str("b40: x\n");
    assert_eq!(config(&bomb).resolve("b0").unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn a_training_config_is_entered() {
    let c = config(
        "name: t\nbase: 3\nmodel:\n  target: nemo.x.Y\n  size: ${base}\n  nemo_version: 2.0.0\n",
    );
    assert_eq!(c.target(), Some("nemo.x.Y"));
    assert_eq!(c.nemo_version(), Some("2.0.0"));
    // References still start at the root of the document.
    assert_eq!(c.resolve("size").unwrap(), Value::Int(3));
    assert_eq!(c.get("name"), None);
    assert_eq!(c.notes().len(), 1);
    assert_eq!(config("target: a.B\nmodel: {x: 1}\n").get("model.x"), Some(Value::Int(1)));
}

#[test]
fn what_is_no_config_is_refused() {
    let deep = format!("a: {}{}", "[".repeat(70), "]".repeat(70));
    let aliases: String = (1..12)
        .map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(",")))
        .collect();
    let aliases = format!("a0: &a0 x\n{aliases}");
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(100));
    let keys = format!("? {}\n: [{}]\n", "k".repeat(1 << 20), "x, ".repeat(300));
    let tower: String = (1..70).map(|i| format!("a{i}: &a{i} [*a{}]\n", i - 1)).collect();
    for (text, kind, says) in [
        (
            "a: 1\nb: 2\na: 3\n",
            ErrorKind::Malformed,
            "line 1: the key \"a\" appears twice in one mapping, again in line 3",
        ),
        ("x: {1: a, 1.0: b}", ErrorKind::Malformed, "twice"),
        ("a: !!python/object/apply:os.system ['true']\n", ErrorKind::Denied, "!!python/object"),
        ("a: !!python/name:os.system\n", ErrorKind::Denied, "line 1"),
        ("a: !custom {b: 1}\n", ErrorKind::Denied, "custom"),
        ("a: !!binary aGk=\n", ErrorKind::Denied, "!!binary"),
        ("a: &x [*x]\n", ErrorKind::Malformed, "alias"),
        ("a: *nope\n", ErrorKind::Malformed, "YAML"),
        (&deep, ErrorKind::LimitExceeded, "64"),
        (&aliases, ErrorKind::LimitExceeded, "aliases"),
        (&format!("a0: &a0 x\n{tower}"), ErrorKind::LimitExceeded, "64"),
        (&long, ErrorKind::LimitExceeded, "aliases"),
        (&keys, ErrorKind::LimitExceeded, "dotted keys"),
        ("- a\n- b\n", ErrorKind::Malformed, "mapping"),
        ("just text", ErrorKind::Malformed, "mapping"),
        ("", ErrorKind::Malformed, "empty"),
        ("a: 1\n---\nb: 2\n", ErrorKind::Malformed, "second document"),
        ("a: [1, 2\n", ErrorKind::Malformed, "YAML"),
        ("a: 1\0b: 2\n", ErrorKind::Malformed, "control"),
        ("a: \u{1b}[31m\n", ErrorKind::Malformed, "control"),
        ("? [a, b]\n: c\n", ErrorKind::Malformed, "key"),
        ("<<: 3\n", ErrorKind::Malformed, "<<"),
    ] {
        let (found, message) = refused(text);
        assert_eq!(found, kind, "{text:?}: {message}");
        assert!(message.contains(says), "{text:?}: {message}");
    }
    let e = Config::parse(b"a: \xff\n").unwrap_err();
    assert_eq!((e.kind(), e.offset()), (ErrorKind::Malformed, Some(3)));
    let mut limits = ArchiveLimits::default();
    limits.config_bytes = 3;
    assert_eq!(Config::parse_with(b"a: 1", &limits).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn a_path_object_is_read_as_its_parts() {
    let c = config("p: !!python/object/apply:pathlib.PosixPath\n- /\n- data\n");
    assert_eq!(c.get("p"), Some(Value::List(vec![s("/"), s("data")])));
    assert_eq!(c.notes().len(), 1);
}

#[test]
fn spans_are_the_bytes_of_the_value() {
    for text in [
        "é: 1\nb: 'ñ x'  # c\nc:\n  d: plain words here \n  e: \"q\\n\"\nl:\n- ü\n- 2\nlast: end",
        "\u{feff}é: 1\r\nb: 'ñ x'  # c\r\nc:\r\n  d: plain words here \r\n  e: \"q\\n\"\r\nl:\r\n- ü\r\n- 2\r\nlast: end",
        "{é: 1, b: 'ñ x', c: {d: plain words here , e: \"q\\n\"}, l: [ü, 2], last: end}",
    ] {
        let c = config(text);
        for (key, spelled) in [
            ("é", "1"),
            ("b", "'ñ x'"),
            ("c.d", "plain words here"),
            ("c.e", "\"q\\n\""),
            ("l.0", "ü"),
            ("l.1", "2"),
            ("last", "end"),
        ] {
            let span = c.span(key).unwrap();
            assert_eq!(&c.as_str()[span], spelled, "{key} in {text:?}");
        }
    }
    let c = config(concat!(
        "'k | # x': |  # c | d\n  two\n\n  lines\nl:\n- >-\n  a\n  b\n- |+\n\n  c\n\n\n",
        "t: !!str &x |2\n    in\nq: &q !!str 'it''s' # c\np: &p  plain # c\nempty: |\nlast: 1\n",
    ));
    for (key, spelled) in [
        ("k | # x", "|  # c | d\n  two\n\n  lines"),
        ("l.0", ">-\n  a\n  b"),
        ("l.1", "|+\n\n  c"),
        ("t", "|2\n    in"),
        ("q", "'it''s'"),
        ("p", "plain"),
        ("empty", "|"),
        ("last", "1"),
    ] {
        assert_eq!(&c.as_str()[c.span(key).unwrap()], spelled, "{key}");
    }
    let c = config("a:\nb: 1\n");
    let empty = c.span("a").unwrap();
    assert!(empty.is_empty());
}
