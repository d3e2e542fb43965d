//! Values into the caller's types.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![cfg(feature = "serde")]

mod support;

use std::collections::BTreeMap;

use ckptkit_core::ErrorKind;
use serde::Deserialize;
use serde::de::IgnoredAny;
use support::build::*;
use support::open;

/// What the value of `object` is as a `T`.
fn check<T: serde::de::DeserializeOwned>(object: &[u8]) -> T {
    open(pt(object, &[("0", f32s(&[1.0, 2.0]))])).lookup("").unwrap().deserialize().unwrap()
}

fn refused<T: serde::de::DeserializeOwned + std::fmt::Debug>(object: &[u8]) -> String {
    let e = open(pt(object, &[])).lookup("").unwrap().deserialize::<T>().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    e.to_string()
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Activation {
    Relu,
    Leaky(f64),
    Clamp { low: f64, high: f64 },
}

#[derive(Debug, Deserialize, PartialEq)]
struct Layer {
    size: u32,
    activation: Activation,
    dropout: Option<f32>,
    #[serde(default)]
    tags: Vec<String>,
}

fn layer(activation: Vec<u8>) -> Vec<u8> {
    object(&[
        ("size", int(8)),
        ("activation", activation),
        ("dropout", none()),
        ("tags", tuple(&[text("a"), text("b")])),
        ("unknown", list(&[int(1)])),
    ])
}

#[test]
fn structs_and_enums() {
    let expected = |activation| Layer {
        size: 8,
        activation,
        dropout: None,
        tags: vec!["a".into(), "b".into()],
    };
    let by_value = reduce(&global("mine", "Activation"), &[text("relu")]);
    for (written, read) in [
        (text("relu"), Activation::Relu),
        (by_value, Activation::Relu),
        (object(&[("leaky", float(0.1))]), Activation::Leaky(0.1)),
        (
            object(&[("clamp", object(&[("low", float(-1.0)), ("high", int(1))]))]),
            Activation::Clamp { low: -1.0, high: 1.0 },
        ),
    ] {
        assert_eq!(check::<Layer>(&layer(written.clone())), expected(read));
    }
}

#[test]
fn objects_give_their_plain_form() {
    let namespace = build(&newobj(&global("argparse", "Namespace"), &[]), &layer(text("relu")));
    assert_eq!(check::<Layer>(&namespace).size, 8);
    let node = |value| {
        build(&newobj(&global("omegaconf.nodes", "AnyNode"), &[]), &object(&[("_val", value)]))
    };
    let content = object(&[("size", node(int(9))), ("activation", node(text("relu")))]);
    let config = build(
        &newobj(&global("omegaconf.dictconfig", "DictConfig"), &[]),
        &object(&[("_content", content), ("_parent", none())]),
    );
    assert_eq!(check::<Layer>(&config).size, 9);
    let path = reduce(&global("pathlib", "PosixPath"), &[text("/"), text("data"), text("x")]);
    assert_eq!(check::<std::path::PathBuf>(&path), std::path::Path::new("/data/x"));
    let ordered = reduce(&global("collections", "OrderedDict"), &[]);
    let ordered = set_items(&ordered, &[(text("b"), int(1)), (text("a"), int(2))]);
    assert_eq!(check::<BTreeMap<String, u8>>(&ordered)["a"], 2);
}

#[test]
fn numbers_of_every_size() {
    assert_eq!(check::<u64>(b"\x8a\x09\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x00"), u64::MAX);
    let two_to_the_70 = b"\x8a\x09\0\0\0\0\0\0\0\0\x40";
    assert_eq!(check::<i128>(two_to_the_70), 1 << 70);
    assert_eq!(check::<String>(two_to_the_70), "1180591620717411303424");
    assert_eq!(check::<f64>(&int(3)), 3.0);
    assert!(refused::<u8>(&int(300)).contains("300"));
    assert!(refused::<u8>(&float(1.5)).contains("floating point"));
}

#[test]
fn sequences_and_bytes() {
    assert_eq!(check::<(u8, String)>(&tuple(&[int(1), text("x")])), (1, "x".into()));
    assert_eq!(check::<Vec<u8>>(b"\x8e\x02\0\0\0\0\0\0\0\x07\x08"), [7, 8]);
    let complex = reduce(&global("__builtin__", "complex"), &[float(1.0), float(-2.0)]);
    assert_eq!(check::<(f64, f64)>(&complex), (1.0, -2.0));
    let set = reduce(&global("__builtin__", "set"), &[list(&[int(3), int(1)])]);
    assert_eq!(check::<std::collections::BTreeSet<i32>>(&set), [1, 3].into());
}

#[test]
fn maps_with_any_keys() {
    let map = dict(&[(int(0), text("a")), (int(10), text("b"))]);
    assert_eq!(check::<BTreeMap<u32, String>>(&map)[&10], "b");
    assert_eq!(check::<BTreeMap<String, String>>(&map)["10"], "b");
}

#[test]
fn tensors_are_their_names() {
    let object = object(&[("w", vector("FloatStorage", "0", 2))]);
    assert_eq!(check::<BTreeMap<String, String>>(&object)["w"], "w");
}

#[test]
fn numpy_arrays_are_nested_sequences() {
    let dtype = reduce(&global("numpy", "dtype"), &[text("i2"), boolean(false), boolean(true)]);
    let raw = b"\x8e\x08\0\0\0\0\0\0\0\x01\0\x02\0\x03\0\xFF\xFF".to_vec();
    let array = reduce(
        &global("numpy._core.numeric", "_frombuffer"),
        &[raw, dtype, ints(&[2, 2]), text("C")],
    );
    assert_eq!(check::<Vec<Vec<i16>>>(&array), [[1, 2], [3, -1]]);
}

#[test]
fn errors_say_where() {
    let nested = object(&[("model", object(&[("layers", list(&[layer(int(3))]))]))]);
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Config {
        model: BTreeMap<String, Vec<Layer>>,
    }
    let e = refused::<Config>(&nested);
    assert!(e.starts_with("model: layers: 0: activation: unknown variant `3`"), "{e}");
    let e = refused::<Layer>(&object(&[("size", int(1))]));
    assert!(e.contains("missing field `activation`"), "{e}");
    let opaque = reduce(&global("mine", "Thing"), &[int(1), int(2)]);
    assert!(refused::<u8>(&opaque).contains("mine.Thing has no plain form"));
}

#[test]
fn what_is_not_asked_for_may_be_anything() {
    let opaque = reduce(&global("mine", "Thing"), &[int(1), int(2)]);
    let cycle = set_items(&put(0, b"}"), &[(text("me"), get(0))]);
    let object = object(&[("size", int(1)), ("opaque", opaque), ("cycle", cycle.clone())]);
    let map: BTreeMap<String, IgnoredAny> = check(&object);
    assert_eq!(map.len(), 3);
    #[derive(Debug, Deserialize)]
    struct Size {
        size: u8,
    }
    assert_eq!(check::<Size>(&object).size, 1);
    let e = refused::<BTreeMap<String, BTreeMap<String, String>>>(&cycle);
    assert!(e.contains("cycle"), "{e}");
}
