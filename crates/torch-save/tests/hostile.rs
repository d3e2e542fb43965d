//! Files that were made to hurt: each costs what it weighs, and fails where it is wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use ckptkit_core::{ErrorKind, Limits, Section, TensorSource};
use proptest::prelude::*;
use support::build::*;
use support::{floats, open, refused};
use torch_save::{Graph, OpenOptions, TorchFile, Value};

fn good() -> Vec<u8> {
    vector("FloatStorage", "0", 2)
}

/// A file with a good tensor and a bad one: the good one reads, the bad one's error has the words.
fn check(bad: Vec<u8>, kind: ErrorKind, words: &str) {
    let object = object(&[("bad", bad), ("good", good())]);
    let file = open(pt(&object, &[("0", f32s(&[1.0, 2.0]))]));
    assert_eq!(floats(&file, "good"), [1.0, 2.0]);
    let e = file.tensor("bad").and_then(|t| t.read()).unwrap_err();
    assert!(e.to_string().contains("tensor bad") && e.to_string().contains(words), "{e}");
    assert_eq!(e.kind(), kind, "{e}");
    assert_eq!(
        file.verify().unwrap_err().to_string().contains("bad"),
        kind != ErrorKind::LimitExceeded
    );
}

#[test]
fn geometry_that_cannot_be_fails_alone() {
    let two = || storage("FloatStorage", "0", 2);
    use ErrorKind::Malformed;
    check(tensor(two(), 0, &[3], &[1]), Malformed, "needs 12 bytes, its storage has 8");
    check(tensor(two(), 2, &[1], &[1]), Malformed, "needs 12 bytes");
    check(tensor(two(), i64::MAX, &[1], &[1]), Malformed, "needs");
    check(tensor(two(), i64::MAX, &[2], &[i64::MAX]), Malformed, "needs");
    check(tensor(two(), -1, &[1], &[1]), Malformed, "storage offset -1");
    check(tensor(two(), 0, &[-1], &[1]), Malformed, "size -1");
    check(tensor(two(), 0, &[2], &[-1]), Malformed, "stride -1");
    check(tensor(two(), 0, &[2], &[1, 1]), Malformed, "different numbers of dimensions");
    check(tensor(two(), 0, &[1 << 40, 1 << 40], &[0, 0]), Malformed, "more elements");
    check(tensor(two(), 0, &[1; 65], &[1; 65]), Malformed, "dimensions");
    check(vector("FloatStorage", "0", 3), Malformed, "storage 0");
    check(vector("FloatStorage", "1", 2), Malformed, "storage 1");
    check(vector("FloatStorage", "../data.pkl", 2), Malformed, "not in the file");
    check(vector("FloatStorage", "", 2), Malformed, "not in the file");
    check(
        vector("NoSuchStorage", "0", 2),
        ErrorKind::Unsupported,
        "storage class torch.NoSuchStorage",
    );
    check(tensor(storage("FloatStorage", "0", -1), 0, &[1], &[1]), Malformed, "no valid number");
    check(tensor(storage("DoubleStorage", "9", i64::MAX), 0, &[1], &[1]), Malformed, "storage 9");
    check(torch_utils("_rebuild_tensor_v2", &[text("x")]), Malformed, "1 arguments");
    check(
        torch_utils("_rebuild_tensor_v2", &[text("x"), int(0), ints(&[]), ints(&[])]),
        Malformed,
        "no persistent id",
    );
}

#[test]
fn an_expand_bomb_is_listed_but_not_read() {
    let bomb = tensor(storage("FloatStorage", "0", 2), 0, &[1 << 40], &[0]);
    let file = open(pt(&object(&[("bad", bomb)]), &[("0", f32s(&[1.0, 2.0]))]));
    assert_eq!(file.tensor("bad").unwrap().shape(), [1 << 40]);
    assert_eq!(file.tensor("bad").unwrap().read().unwrap_err().kind(), ErrorKind::LimitExceeded);
    let mut first = [0; 4];
    file.tensor("bad").unwrap().read_into(0, &mut first).unwrap();
    assert_eq!(first, 1.0_f32.to_le_bytes());
}

#[test]
fn empty_tensors_may_stand_anywhere() {
    let object = object(&[
        ("e", tensor(storage("FloatStorage", "0", 2), 1 << 40, &[0, 5], &[1 << 50, 7])),
        ("q", tensor(storage("QUInt4x2Storage", "1", 0), 99, &[0], &[1])),
    ]);
    let file = open(pt(&object, &[("0", f32s(&[1.0, 2.0])), ("1", vec![])]));
    assert!(file.tensor("e").unwrap().read().unwrap().is_empty());
    assert!(file.tensor("q").unwrap().read().unwrap().is_empty());
}

/// A value that cannot be a tree within reason: the error asks for a part of it.
fn check_value_limit(object: &[u8]) {
    let file = open(pt(object, &[]));
    let e = file.value(file.root()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded, "{e}");
}

fn doubling(first: Vec<u8>, pair: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let mut body = put(0, &first);
    for i in 0..60 {
        // The one below stays on the stack, under the result.
        body.extend(put(i + 1, &pair(i)));
    }
    // Only the last is wanted: the others are popped from under it by way of a tuple.
    let mut all = vec![b'('];
    all.extend(body);
    all.push(b't');
    all
}

#[test]
fn memo_bombs() {
    check_value_limit(&doubling(int(1), |i| tuple(&[get(i), get(i)])));
    check_value_limit(&doubling(list(&[int(1)]), |i| object(&[("a", get(i)), ("b", get(i))])));
    // One long text, repeated.
    let mut body = put(0, &text(&"x".repeat(1 << 20)));
    body = [&b"("[..], &body, &b"j\0\0\0\0".repeat(100_000), b"t"].concat();
    check_value_limit(&body);
    // A configuration that holds itself twice.
    let node = put(0, &newobj(&global("omegaconf.listconfig", "ListConfig"), &[]));
    let twice = build(&node, &object(&[("_content", list(&[get(0), get(0)]))]));
    let file = open(pt(&twice, &[]));
    assert!(matches!(file.value(file.root()), Ok(Value::Object(_))));
    let config = |i: u32| {
        let class = newobj(&global("omegaconf.listconfig", "ListConfig"), &[]);
        build(&class, &object(&[("_content", list(&[get(i), get(i)]))]))
    };
    check_value_limit(&doubling(list(&[int(1)]), config));
}

#[test]
fn cycles_become_references() {
    // d = {}; d['me'] = d; d['list'] = [d]
    let body = set_items(&put(0, b"}"), &[(text("me"), get(0)), (text("list"), list(&[get(0)]))]);
    let file = open(pt(&object(&[("d", body)]), &[]));
    let d = file.lookup("d").unwrap();
    assert_eq!(d.get("me"), Some(&Value::Ref(String::new())));
    let root = file.value(file.root()).unwrap();
    assert_eq!(root.get("d.list.0"), Some(&Value::Ref("d".into())));
}

#[test]
fn depth_costs_no_stack() {
    let deep: Vec<u8> = std::iter::once(b')').chain(std::iter::repeat_n(0x85, 300_000)).collect();
    check_value_limit(&deep);
    let lists = [&b"]".repeat(100_000)[..], &b"a".repeat(99_999)].concat();
    check_value_limit(&lists);
    // A tensor at the bottom is found, and its name is as long as the way to it.
    let mut body = b"](".repeat(0);
    body.extend(std::iter::repeat_n(b']', 10_000));
    body.extend(vector("FloatStorage", "0", 2));
    body.extend(std::iter::repeat_n(b'a', 10_000));
    let file = open(pt(&body, &[("0", f32s(&[1.0, 2.0]))]));
    assert_eq!(file.tensors()[0].path().len(), 10_000);
    // Values as deep as they may get are dropped, printed and compared without overflow.
    let lists = [&b"]".repeat(250)[..], &b"a".repeat(249)].concat();
    let file = open(pt(&lists, &[]));
    let value = file.value(file.root()).unwrap();
    assert_eq!(format!("{:?}", value.clone()), format!("{value:?}"));
    assert_eq!(value, value.clone());
}

#[test]
fn constructions_that_hold_themselves() {
    // args = [f, cls, args, state] of _rebuild_from_type_v2, in a list that is in itself.
    let from_type = || global("torch._tensor", "_rebuild_from_type_v2");
    let args =
        [&put(0, b"]")[..], b"(", &from_type(), &global("torch", "Tensor"), &get(0), &none(), b"e"]
            .concat();
    let endless = [&from_type()[..], &args, b"R"].concat();
    check(endless, ErrorKind::Malformed, "wrappers");
    // A jagged tensor whose values are itself.
    let njt = global("torch.nested._internal.nested_tensor", "NestedTensor");
    let body = [
        &njt[..],
        &put(0, b"]"),
        b"R",
        &put(1, b""),
        b"0",
        &get(0),
        &get(1),
        b"a",
        &get(1),
        b"a0",
        &get(1),
    ]
    .concat();
    let file = open(pt(&list(&[[&body[..]].concat(), good()]), &[("0", f32s(&[1.0, 2.0]))]));
    assert!(file.tensors().iter().any(|e| e.tensor().dtype().name() == "F32"));
    // One whose keyword arguments hold it, and one of more keywords than it can have.
    let njt = global("torch.nested._internal.nested_tensor", "_rebuild_njt");
    let itself = [
        &njt[..],
        &put(0, b"}"),
        &[0x85],
        b"R",
        &put(1, b""),
        b"0",
        &get(0),
        &text("offsets"),
        &good(),
        b"s",
        &text("values"),
        &get(1),
        b"s0",
        &get(1),
    ]
    .concat();
    check(itself, ErrorKind::Malformed, "wrappers");
    let many: Vec<u8> = (0..1000).flat_map(|i| [text(&i.to_string()), none()].concat()).collect();
    let many = [&njt[..], b"}(", &many, b"u", &[0x85], b"R"].concat();
    check(many, ErrorKind::Malformed, "without values and offsets");
    // Parameters of parameters.
    let mut nested = good();
    for _ in 0..40 {
        nested = torch_utils("_rebuild_parameter", &[nested, boolean(true), none()]);
    }
    check(nested, ErrorKind::Malformed, "wrappers");
    // Nested tensors that share both of what they are made of.
    let shared = |i| torch_utils("_rebuild_nested_tensor", &[get(i), get(i), get(i), get(i)]);
    let file = open(pt(&doubling(good(), shared), &[("0", f32s(&[1.0, 2.0]))]));
    assert!(!file.tensors().is_empty());
}

#[test]
fn listing_costs_what_the_file_weighs() {
    // Thousands of objects that share one long tuple of arguments, or one long state.
    let n = 20_000;
    let long = put(0, &tuple(&vec![b"]".to_vec(); n]));
    let object = [&global("mine", "C")[..], &get(0), b"R"].concat();
    let body = [&b"("[..], &long, &object.repeat(n), b"t"].concat();
    let file = open(pt(&body, &[]));
    assert_eq!(file.failures()[0].1.kind(), ErrorKind::LimitExceeded);
    // One long name, in front of everything.
    let key = put(0, &text(&"k".repeat(1 << 20)));
    let mut body = [&b"]("[..], &b"}"[..], &key, &put(1, &good()), b"s"].concat();
    for _ in 0..2_000 {
        body.extend([&b"}"[..], &get(0), &get(1), b"s"].concat());
    }
    body.push(b'e');
    let file = open(pt(&body, &[("0", f32s(&[1.0, 2.0]))]));
    assert!(file.tensors().len() < 1_000);
    assert_eq!(file.failures()[0].1.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn limits_can_be_set() {
    let bytes = pt(&object(&[("a", list(&vec![int(1); 100]))]), &[]);
    let mut limits = Limits::default();
    limits.nodes = 10;
    let e = OpenOptions::default().limits(limits).open(&Section::from_bytes(bytes, "test"));
    assert_eq!(e.unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn text_that_is_none() {
    assert!(refused(pt(b"X\x02\0\0\0\xFF\xFE", &[])).contains("not UTF-8"));
    let file = open(pt(b"X\x03\0\0\0\xED\xA0\x80", &[]));
    assert_eq!(file.value(file.root()).unwrap(), Value::Surrogates(vec![0xED, 0xA0, 0x80]));
}

#[test]
fn empty_text_of_protocol_0_before_other_bytes() {
    assert!(refused(b"V\n.more".to_vec()).contains("this is text"));
    let file = open([&pickle(&list(&[b"V\n".to_vec(), b"L0L\n".to_vec()]))[..], b"more"].concat());
    let items = vec![Value::Str(String::new()), Value::Int(0)];
    assert_eq!(file.value(file.root()).unwrap(), Value::List(items));
}

/// Everything that can be asked of a file.
fn exercise(file: &TorchFile) -> Vec<(String, Option<Vec<u8>>)> {
    let _ = file.value(file.root());
    let _ = file.verify();
    file.tensors().iter().map(|e| (e.tensor().name().to_owned(), e.tensor().read().ok())).collect()
}

fn sample() -> Vec<u8> {
    let hooks = reduce(&global("collections", "OrderedDict"), &[]);
    let object = object(&[
        ("w", good()),
        ("t", tensor(storage("FloatStorage", "0", 2), 0, &[2, 1], &[1, 2])),
        ("p", torch_utils("_rebuild_parameter", &[good(), boolean(true), hooks])),
        ("n", list(&[int(1), float(0.5), text("x"), none()])),
    ]);
    pt(&object, &[("0", f32s(&[1.0, 2.0]))])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Whatever happens to one byte, a tensor either keeps its bytes, or its checksum tells, or the
    /// file says something else that is well-formed: nothing panics.
    #[test]
    fn a_flipped_byte(at in any::<prop::sample::Index>(), bit in 0..8_u32, legacy_stream: bool) {
        let original = if legacy_stream {
            let w = tensor(storage_view("FloatStorage", "0", 2, none()), 0, &[2], &[1]);
            legacy(&object(&[("w", w)]), &[("0", 2, f32s(&[1.0, 2.0]))])
        } else {
            sample()
        };
        let mut bytes = original.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(file) = TorchFile::from_section(&Section::from_bytes(bytes, "flipped")) {
            let found = exercise(&file);
            let same = found == exercise(&open(original));
            // The archive has a checksum over everything that matters.
            prop_assert!(same || legacy_stream || file.verify().is_err());
        }
    }

    #[test]
    fn a_cut_file(at in any::<prop::sample::Index>()) {
        let mut bytes = sample();
        bytes.truncate(at.index(bytes.len()));
        prop_assert!(TorchFile::from_section(&Section::from_bytes(bytes, "cut")).is_err());
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Graph::parse(bytes.clone(), &Limits::default());
        let _ = TorchFile::from_section(&Section::from_bytes(bytes, "random")).map(|f| exercise(&f));
    }

    /// Random opcodes get further than random bytes.
    #[test]
    fn random_opcodes(ops in prop::collection::vec(prop::sample::select(opcodes()), 0..80)) {
        let body = ops.concat();
        let file = pt(&body, &[("0", f32s(&[1.0, 2.0]))]);
        let _ = TorchFile::from_section(&Section::from_bytes(file, "random")).map(|f| exercise(&f));
    }

    #[test]
    fn short_text_is_no_checkpoint(text in "[ -~\n]{0,60}\n") {
        prop_assert!(TorchFile::from_section(&Section::from_bytes(text, "text")).is_err());
    }
}

fn opcodes() -> Vec<Vec<u8>> {
    let mut ops = vec![
        good(),
        int(1),
        int(0),
        text("a"),
        text("_content"),
        none(),
        boolean(true),
        float(1.0),
        ints(&[2]),
        global("torch._utils", "_rebuild_tensor_v2"),
        global("torch._utils", "_rebuild_sparse_tensor"),
        global("torch._tensor", "_rebuild_from_type_v2"),
        global("torch._utils", "_rebuild_nested_tensor"),
        global("torch._utils", "_rebuild_parameter"),
        global("collections", "OrderedDict"),
        global("omegaconf.listconfig", "ListConfig"),
        global("torch.nested._internal.nested_tensor", "_rebuild_njt"),
        storage("FloatStorage", "0", 2),
        get(0),
        get(1),
        b"r\0\0\0\0".to_vec(),
        b"r\x01\0\0\0".to_vec(),
    ];
    ops.extend(b"()]}tlduesabRQ20.".iter().map(|&b| vec![b]));
    ops.extend([0x81, 0x85, 0x86, 0x87, 0x8f, 0x90, 0x91, 0x92, 0x93, 0x94].map(|b| vec![b]));
    ops
}
