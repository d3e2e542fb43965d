//! Objects through the sidecar and back: the archive that is written afterwards must be, byte for
//! byte, the one that is written without the detour.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ckptkit::core::TensorBytes;
use ckptkit::safetensors::{StFile, WriteOptions as StOptions, layout_file};
use ckptkit::sidecar::{self, Encoded, Header, Sidecar};
use ckptkit::torch::pickle::Builder;
use ckptkit::torch::{Document, NodeId, TorchFile, View, WriteOptions};
use ckptkit::{
    CopyOptions, Dtype, ErrorKind, Existing, Limits, Section, Tensor, TensorInfo, TensorSource,
};
use ckptkit_tests::archive::{archive, with_one_node_a_word};
use ckptkit_tests::fixture::{each, group, one};

/// As a converter would call it for a safetensors target.
fn encode(document: &Document, file: &TorchFile) -> Encoded {
    let mut names = sidecar::names(document, file);
    names.retain(|(name, _)| file.tensor(name).unwrap().dtype().safetensors_name().is_some());
    sidecar::encode(document, &names, &Header::new("torch"), &Limits::default()).unwrap()
}

/// Writes what the sidecar refers to as a safetensors file, and opens that.
fn safetensors(encoded: &Encoded, file: &TorchFile, at: &Path) -> StFile {
    let extra = |name: &str| encoded.extra.iter().find(|t| t.name() == name).cloned();
    let found = |name: &String| extra(name).unwrap_or_else(|| file.tensor(name).unwrap());
    let tensors: Vec<Tensor> = encoded.tensors.iter().map(|n| found(n).unshared()).collect();
    let layout = layout_file(&tensors, &BTreeMap::new(), &StOptions::default()).unwrap();
    layout.write(at, Existing::Replace, &CopyOptions::default()).unwrap();
    StFile::open(at).unwrap()
}

fn decode(json: &[u8], tensors: &StFile) -> Document {
    sidecar::decode(json, &|name| tensors.tensor(name).ok(), &Limits::default()).unwrap()
}

/// Takes a file's object through the sidecar, and checks the archive that is written afterwards;
/// says whether it is the one of the untouched document too.
fn there_and_back(file: &TorchFile, mut document: Document, dir: &Path) -> bool {
    // Written anew, not copied.
    document.builder();
    let encoded = encode(&document, file);
    let tensors = safetensors(&encoded, file, &dir.join("tensors"));
    let restored = decode(&encoded.json, &tensors);
    let found = archive(&restored, &dir.join("found"));
    let same = found == archive(&document, &dir.join("direct"));
    with_one_node_a_word(&mut document);
    assert!(found == archive(&document, &dir.join("expected")), "the archives differ");
    same
}

/// What `edit` refuses: programs, which no sidecar could bring back.
const REFUSED: [&str; 2] = ["torch/export.pt2", "torch/torchscript.pt"];

/// Equal texts, or names of classes, are objects of their own here: another pickle of the same
/// object.
const WORDS_APART: [&str; 13] = [
    "torch/conj_neg.pt",
    "torch/dtensor.pt",
    "torch/dtensor_shard.pt",
    "torch/ema.pt",
    "torch/legacy_module.pt",
    "torch/plain_p0.pkl",
    "torch/plain_p2.pkl",
    "torch/values_containers.pt",
    "torch/values_numpy.pt",
    "torch/values_plain.pt",
    "lightning/adam.ckpt",
    "lightning/ema.ckpt",
    "lightning/hparams_refused.ckpt",
];

#[test]
fn the_archive_is_the_one_written_without_the_detour() {
    let fixtures = [group("torch", 65), group("lightning", 14)].concat();
    let (refused, apart) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    each(&fixtures, |f| {
        let file = TorchFile::open(&f.path).unwrap();
        let Ok(document) = file.edit() else {
            refused.borrow_mut().push(f.name.clone());
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let same = there_and_back(&file, document, dir.path());
        if !same {
            apart.borrow_mut().push(f.name.clone());
        }
        // And again, of what came back.
        let file = dir.path().join("found");
        let file = TorchFile::open(file).unwrap();
        there_and_back(&file, file.edit().unwrap(), dir.path());
    });
    assert_eq!(refused.into_inner(), REFUSED);
    assert_eq!(apart.into_inner(), WORDS_APART);
}

/// A document of a pickle; what the sidecar makes of it, and whether it comes back the same.
fn of_pickle(pickle: &[u8]) -> String {
    let file = TorchFile::from_section(&Section::from_bytes(pickle, "a pickle")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    there_and_back(&file, file.edit().unwrap(), dir.path());
    json_of(&file.edit().unwrap())
}

/// The root as the sidecar has it, without spaces.
fn json_of(document: &Document) -> String {
    let header = Header::new("torch");
    let encoded = sidecar::encode(document, &[], &header, &Limits::default()).unwrap();
    let text = String::from_utf8(encoded.json).unwrap();
    let lines: String = text.lines().map(str::trim_start).collect();
    let root = lines.split_once(r#""root":"#).unwrap().1.trim_start();
    root.rsplit_once(r#","storages":"#).unwrap().0.replace("\": ", "\":")
}

/// Takes a document that a builder made through the sidecar, and gives its JSON.
fn of_builder(make: impl FnOnce(&mut Builder) -> NodeId) -> String {
    let mut document = Document::new();
    let root = make(document.builder());
    document.set_root(root);
    let header = Header::new("torch");
    let encoded = sidecar::encode(&document, &[], &header, &Limits::default()).unwrap();
    let restored = sidecar::decode(&encoded.json, &|_| None, &Limits::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let found = archive(&restored, &dir.path().join("found"));
    let json = json_of(&document);
    with_one_node_a_word(&mut document);
    assert!(found == archive(&document, &dir.path().join("expected")), "{json}");
    json
}

#[test]
fn what_json_holds_is_plain() {
    for (pickle, json) in [
        (&b"\x80\x02N."[..], "null"),
        (b"\x80\x02]q\0(\x88\x89K\x01J\xff\xff\xff\xffX\x01\0\0\0ae.", r#"[true,false,1,-1,"a"]"#),
        (b"\x80\x02G\x80\0\0\0\0\0\0\0.", "-0.0"),
        (b"\x80\x02G\x3f\xb9\x99\x99\x99\x99\x99\x9a.", "0.1"),
        (b"\x80\x02G\x7e\x37\xe4\x3c\x88\0\x75\x9c.", "1e300"),
        (b"\x80\x02}(X\x01\0\0\0bK\x01X\x01\0\0\0aK\x02u.", r#"{"b":1,"a":2}"#),
        (b"\x80\x02\x8a\x08\0\0\0\0\0\0\0\x80.", "-9223372036854775808"),
    ] {
        assert_eq!(of_pickle(pickle), json);
    }
}

#[test]
fn the_rest_says_what_it_is() {
    for (pickle, json) in [
        (&b"\x80\x02)."[..], r#"{"$type":"tuple","value":[]}"#),
        (b"\x80\x02K\x01K\x02\x86.", r#"{"$type":"tuple","value":[1,2]}"#),
        (b"\x80\x02}K\x01K\x02s.", r#"{"$type":"dict","value":[[1,2]]}"#),
        (b"\x80\x02}X\x01\0\0\0$K\x02s.", r#"{"$type":"dict","value":[["$",2]]}"#),
        (
            b"\x80\x02}(X\x01\0\0\0aK\x02X\x01\0\0\0aK\x03u.",
            r#"{"$type":"dict","value":[["a",2],["a",3]]}"#,
        ),
        (
            b"\x80\x02\x8a\x09\0\0\0\0\0\0\0\0\x01.",
            r#"{"$type":"int","value":"18446744073709551616"}"#,
        ),
        (b"\x80\x02G\x7f\xf8\0\0\0\0\0\0.", r#"{"$type":"float","value":"nan"}"#),
        (b"\x80\x02G\xff\xf8\0\0\0\0\0\x01.", r#"{"$type":"float","bits":"fff8000000000001"}"#),
        (b"\x80\x02G\xff\xf0\0\0\0\0\0\0.", r#"{"$type":"float","value":"-inf"}"#),
        (b"\x80\x02X\x03\0\0\0\xed\xa0\x80.", r#"{"$type":"str","base64":"7aCA"}"#),
        (b"\x80\x03C\x02\0\xff.", r#"{"$type":"bytes","base64":"AP8="}"#),
        (b"\x80\x05\x96\x01\0\0\0\0\0\0\0\x07.", r#"{"$type":"bytearray","base64":"Bw=="}"#),
        (b"\x80\x04\x8f(K\x01\x90.", r#"{"$type":"set","value":[1]}"#),
        (b"\x80\x04(K\x01\x91.", r#"{"$type":"frozenset","value":[1]}"#),
        (b"\x80\x02c__builtin__\nlong\n.", r#"{"$type":"global","value":"__builtin__:long"}"#),
        (
            b"\x80\x04X\x03\0\0\0a:bX\x01\0\0\0c\x93.",
            r#"{"$type":"global","module":"a:b","name":"c"}"#,
        ),
        (
            b"\x80\x02cm\nC\n)\x81}X\x01\0\0\0aK\x01sb.",
            r#"{"$new":"m:C","args":[],"build":{"a":1}}"#,
        ),
        (
            b"\x80\x04cm\nC\nK\x01\x85}X\x01\0\0\0aK\x02s\x92.",
            r#"{"$new":"m:C","args":[1],"kwargs":{"a":2}}"#,
        ),
        // A call of what a call gives, with arguments that are no tuple.
        (
            b"\x80\x02cm\nf\n)R]R.",
            r#"{"$call":{"$call":"m:f","args":[]},"args":{"$type":"list","value":[]}}"#,
        ),
        (
            b"\x80\x02X\x01\0\0\0fX\x01\0\0\0aR.",
            r#"{"$call":{"$type":"str","value":"f"},"args":"a"}"#,
        ),
        // In an order of its own.
        (
            b"\x80\x02cm\nf\n)RK\x01bK\x02aK\x03b.",
            r#"{"$call":"m:f","args":[],"then":[{"build":1},{"append":[2]},{"build":3}]}"#,
        ),
        (b"\x80\x02]K\x01a}b.", r#"{"$type":"list","value":[1],"build":{}}"#),
        (
            b"\x80\x02}K\x01aK\x01K\x02s.",
            r#"{"$type":"dict","value":[],"append":[1],"set":[[1,2]]}"#,
        ),
        // What nothing ought to happen to.
        (b"\x80\x02NK\x01b.", r#"{"$type":"none","build":1}"#),
        (b"\x80\x02\x88K\x01b.", r#"{"$type":"bool","value":true,"build":1}"#),
        (b"\x80\x02K\x05K\x01b.", r#"{"$type":"int","value":"5","build":1}"#),
        (
            b"\x80\x02G\0\0\0\0\0\0\0\0K\x01b.",
            r#"{"$type":"float","bits":"0000000000000000","build":1}"#,
        ),
        (b"\x80\x02X\x01\0\0\0aK\x01b.", r#"{"$type":"str","value":"a","build":1}"#),
        (b"\x80\x02cm\nf\nK\x01b.", r#"{"$type":"global","value":"m:f","build":1}"#),
        (b"\x80\x02K\x01\x85K\x01b.", r#"{"$type":"tuple","value":[1],"build":1}"#),
    ] {
        assert_eq!(of_pickle(pickle), json);
    }
}

#[test]
fn what_is_shared_is_there_once() {
    for (pickle, json) in [
        // A list in a list twice; in itself; text that is changed beside text that is not.
        (&b"\x80\x02](]q\0h\0e."[..], r#"[{"$id":0,"$type":"list","value":[]},{"$ref":0}]"#),
        (b"\x80\x02]q\0h\0a.", r#"{"$id":0,"$type":"list","value":[{"$ref":0}]}"#),
        (b"\x80\x02}q\0X\x01\0\0\0ah\0s.", r#"{"$id":0,"a":{"$ref":0}}"#),
        (b"\x80\x02](X\x01\0\0\0aq\0h\0e.", r#"["a","a"]"#),
        (
            b"\x80\x02](X\x01\0\0\0aK\x01bq\0X\x01\0\0\0ah\0e.",
            r#"[{"$id":0,"$type":"str","value":"a","build":1},"a",{"$ref":0}]"#,
        ),
        (
            b"\x80\x02](cm\nf\nK\x01bcm\nf\n)Re.",
            r#"[{"$type":"global","value":"m:f","build":1},{"$call":"m:f","args":[]}]"#,
        ),
        // A tuple in a list in the tuple: the list is begun first.
        (
            b"\x80\x02]q\0(h\0tq\x01h\0h\x01a0h\x01.",
            r#"{"$id":0,"$type":"tuple","value":[[{"$ref":0}]]}"#,
        ),
        // Arguments of two calls.
        (
            b"\x80\x02](cm\nf\nK\x01\x85q\0Rcm\nf\nh\0Re.",
            r#"[{"$call":"m:f","args":{"$id":0,"$type":"tuple","value":[1]}},{"$call":"m:f","args":{"$ref":0}}]"#,
        ),
    ] {
        assert_eq!(of_pickle(pickle), json);
    }
    // An object whose argument is a list that holds it.
    let json = of_builder(|b| {
        let list = b.list();
        let object = b.call("m", "f", &[list]);
        b.append(list, &[object]);
        object
    });
    assert_eq!(json, r#"{"$id":0,"$call":"m:f","args":[[{"$ref":0}]]}"#);
    // Nothing grows that was small because it is shared.
    let json = of_builder(|b| {
        let mut node = b.tuple(&[]);
        for _ in 0..60 {
            node = b.tuple(&[node, node]);
        }
        node
    });
    assert!(json.len() < 4000, "{}", json.len());
    let json = of_builder(|b| {
        let long = b.str(&"x".repeat(1000));
        let (list, dict) = (b.list(), b.dict());
        b.append(list, &vec![long; 1000]);
        b.set_items(dict, &[(long, list)]);
        dict
    });
    assert!(json.starts_with(r#"{"$type":"dict","value":[[{"$id":0,"$type":"str","value":"xxx"#));
    assert!(json.len() < 20_000);
    let json = of_builder(|b| b.big_int(&[0x5A; 65]));
    assert!(json.starts_with(r#"{"$type":"int","base64":""#));
    for bytes in [[0x7F; 64], [0x80; 64]] {
        let json = of_builder(|b| b.big_int(&bytes));
        assert!(json.starts_with(r#"{"$type":"int","value":""#));
    }
}

#[test]
fn depth_goes_to_the_table() {
    let nesting = |json: &str| {
        let mut depth = 0;
        json.bytes().fold(0, |most: i32, b| {
            depth += i32::from(b"[{".contains(&b)) - i32::from(b"]}".contains(&b));
            most.max(depth)
        })
    };
    // As deep as they come: pairs in changes that are out of order.
    let json = of_builder(|b| {
        let root = b.call("m", "f", &[]);
        let mut at = root;
        for i in 0..50_000 {
            let (key, inner) = (b.int(i), b.call("m", "f", &[]));
            let state = b.int(i);
            b.build(at, state);
            b.set_items(at, &[(key, inner)]);
            at = inner;
        }
        b.append(at, &[root]);
        root
    });
    assert!((80..100).contains(&nesting(&json)), "{}", nesting(&json));
    assert!(json.contains(r#","nodes":[{"$id":"#));
    let f = one("torch/deep.pt");
    let json = json_of(&TorchFile::open(&f.path).unwrap().edit().unwrap());
    assert!(nesting(&json) < 100);
    // Any parser takes it.
    let _: serde_json::Value = serde_json::from_str(&format!(r#"{{"root":{json}}}"#)).unwrap();
}

fn tensor(name: &str, dtype: Dtype, shape: &[u64]) -> Tensor {
    let info = TensorInfo::new(name, dtype, shape).unwrap();
    let bytes: Vec<u8> = (0..info.byte_len()).map(|i| (i % 251) as u8).collect();
    Tensor::new(info, TensorBytes::Range(Section::from_bytes(bytes, name))).unwrap()
}

/// Name, dtype, offset, shape, and strides that are not row-major.
type Seen<'a> = (&'a str, Dtype, u64, &'a [u64], Option<&'a [u64]>);

/// A list of the tensors that these views of one storage are, each under the name beside it.
fn views(
    dtype: Option<Dtype>,
    numel: u64,
    views: &[Seen<'_>],
) -> (Document, Vec<(String, NodeId)>) {
    let mut document = Document::new();
    let bytes = numel * dtype.map_or(1, |d| d.element_bytes().unwrap());
    let whole = tensor("whole", Dtype::U8, &[bytes]);
    let storage = document.add_storage(dtype, numel, "cuda:1", &[whole]).unwrap();
    let mut names = Vec::new();
    for (name, dtype, offset, shape, strides) in views {
        let mut view = View::new(storage, *dtype, shape);
        view.offset = *offset;
        if let Some(strides) = strides {
            view.strides = strides.to_vec();
        }
        let node = document.rebuild(&view).unwrap();
        names.push(((*name).to_owned(), node));
    }
    let nodes: Vec<NodeId> = names.iter().map(|(_, node)| *node).collect();
    let list = document.builder().list();
    document.builder().append(list, &nodes);
    document.set_root(list);
    (document, names)
}

/// The only row of the table of storages, and the tensors to be written in addition.
fn row(document: &Document, names: &[(String, NodeId)]) -> (String, Vec<String>) {
    let header = Header::new("torch");
    let encoded = sidecar::encode(document, names, &header, &Limits::default()).unwrap();
    let (_, rows) = as_text(&encoded.json).rsplit_once(r#""storages": ["#).unwrap();
    let (row, _) = rows.rsplit_once(']').unwrap();
    (row.to_owned(), encoded.extra.iter().map(|t| format!("{t:?}")).collect())
}

fn as_text(json: &[u8]) -> &str {
    std::str::from_utf8(json).unwrap()
}

#[test]
fn storages_lie_in_the_tensors_that_show_them() {
    use Dtype::{Bf16, C128, F4, F8E4M3, F32, I64, U8};
    let none = Vec::<String>::new();
    let expected = |dtype: &str, numel: u64, rest: &str| {
        format!(r#"{{"dtype":{dtype},"numel":{numel},"location":"cuda:1",{rest}}}"#)
    };
    // The first that is all of it, whatever else there is.
    let long = [("a", F32, 0, &[2, 3][..], None), ("b", F32, 0, &[6], None)];
    let (document, names) = views(Some(F32), 6, &long);
    assert_eq!(row(&document, &names), (expected("\"F32\"", 6, r#""tensor":"a""#), none.clone()));
    // Two that make it up, in whatever order, and one that lies across.
    let parts = [
        ("across", F32, 1, &[3][..], None),
        ("end", F32, 2, &[2, 2], None),
        ("start", F32, 0, &[2], None),
    ];
    let (document, names) = views(Some(F32), 6, &parts);
    let two = expected("\"F32\"", 6, r#""tensors":["start","end"]"#);
    assert_eq!(row(&document, &names), (two, none.clone()));
    // Different dtypes in untyped bytes.
    let mixed = [("half", Bf16, 0, &[4][..], None), ("byte", F8E4M3, 8, &[2], None)];
    let (document, names) = views(None, 10, &mixed);
    let two = expected("null", 10, r#""tensors":["half","byte"]"#);
    assert_eq!(row(&document, &names), (two, none.clone()));
    let pairs = [("pairs", F4, 0, &[2, 8][..], None)];
    let (document, names) = views(None, 8, &pairs);
    assert_eq!(row(&document, &names), (expected("null", 8, r#""tensor":"pairs""#), none.clone()));
    // Gaps, overlaps, other strides, no names: the storage itself.
    let extra = |dtype: &str, n: u64| vec![format!("Tensor(__storage__.0 {dtype} [{n}])")];
    let own = expected("\"F32\"", 6, r#""tensor":"__storage__.0""#);
    for parts in [
        &[("a", F32, 0, &[2][..], None), ("b", F32, 3, &[3], None)][..],
        &[("a", F32, 0, &[4], None), ("b", F32, 3, &[3], None)],
        &[("a", F32, 0, &[3, 2], Some(&[1, 3][..]))],
        &[("a", F32, 0, &[5], None)],
        &[("a", F32, 6, &[0], None)],
    ] {
        let (document, names) = views(Some(F32), 6, parts);
        assert_eq!(row(&document, &names), (own.clone(), extra("F32", 6)));
        assert_eq!(row(&document, &[]), (own.clone(), extra("F32", 6)));
    }
    // What safetensors lacks is there as bytes; a name that is taken is another one's.
    let (document, _) = views(Some(C128), 2, &[("a", C128, 0, &[2], None)]);
    let own = expected("\"C128\"", 2, r#""tensor":"__storage__.0""#);
    assert_eq!(row(&document, &[]), (own, extra("U8", 32)));
    let (document, mut names) = views(Some(I64), 2, &[("a", I64, 0, &[1], None)]);
    names[0].0 = "__storage__.0".into();
    let (_, extra) = row(&document, &names);
    assert_eq!(extra, ["Tensor(___storage__.0 I64 [2])"]);
    // One name for two tensors.
    let (document, mut names) =
        views(Some(U8), 2, &[("a", U8, 0, &[1], None), ("b", U8, 1, &[1], None)]);
    names[1].0 = "a".into();
    let e = sidecar::encode(&document, &names, &Header::new("torch"), &Limits::default());
    let e = e.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    assert!(e.to_string().starts_with("tensor a: "), "{e}");
}

#[test]
fn pieces_come_back_as_one_storage() {
    let parts = [
        ("start", Dtype::F32, 0, &[2][..], None),
        ("end", Dtype::F32, 2, &[2, 2], None),
        ("across", Dtype::F32, 1, &[3], None),
    ];
    let (document, names) = views(Some(Dtype::F32), 6, &parts);
    let encoded =
        sidecar::encode(&document, &names, &Header::new("torch"), &Limits::default()).unwrap();
    let whole: Vec<u8> = (0..24).collect();
    let tensors: HashMap<&str, Tensor> = [("start", 0..8, &[2][..]), ("end", 8..24, &[2, 2])]
        .into_iter()
        .map(|(name, range, shape)| {
            let info = TensorInfo::new(name, Dtype::F32, shape).unwrap();
            let bytes = Section::from_bytes(&whole[range], name);
            (name, Tensor::new(info, TensorBytes::Range(bytes)).unwrap())
        })
        .collect();
    assert_eq!(encoded.tensors, ["start", "end"]);
    assert!(encoded.extra.is_empty());
    let restored =
        sidecar::decode(&encoded.json, &|n| tensors.get(n).cloned(), &Limits::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(archive(&restored, &at("found")) == archive(&document, &at("expected")));
    // The restored document can be taken apart once more.
    let storage = restored.view(restored.at("0").unwrap()).unwrap().storage;
    let storage = restored.storage(storage).unwrap();
    assert_eq!(storage.tensor("whole", true).unwrap().read().unwrap(), whole);
    assert_eq!(storage.location(), "cuda:1");
}

/// A sidecar whose root and storages are these.
fn text(root: &str, storages: &str) -> String {
    format!(
        r#"{{"format":"ckptkit.sidecar","version":1,"writer":"","source_format":"torch","weights_key":null,"root":{root},"storages":[{storages}]}}"#
    )
}

/// Decodes with three tensors at hand.
fn decoded(json: &str) -> ckptkit::Result<Document> {
    let tensors = [
        tensor("w", Dtype::F32, &[2, 3]),
        tensor("raw", Dtype::U8, &[24]),
        tensor("odd", Dtype::U8, &[3]),
    ];
    let find = |name: &str| tensors.iter().find(|t| t.name() == name).cloned();
    sidecar::decode(json.as_bytes(), &find, &Limits::default())
}

const W: &str = r#"{"dtype":"F32","numel":6,"location":"cpu","tensor":"w"}"#;

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    use ErrorKind::{LimitExceeded, Malformed, NotFound, Unsupported};
    let own = |root: &str| (text(root, ""), Malformed);
    let with = |root: &str, storages: &str| (text(root, storages), Malformed);
    let all = |text: String, kind: ErrorKind| (text, kind);
    let row = |dtype: &str, numel: &str, rest: &str| {
        format!(r#"{{"dtype":{dtype},"numel":{numel},"location":"cpu",{rest}}}"#)
    };
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let cases: Vec<((String, ErrorKind), &str)> = vec![
        (all("{}".into(), Malformed), "this is no sidecar"),
        (all("[]".into(), Malformed), "this is no sidecar"),
        (all(r#"{"format":"x"}"#.into(), Malformed), "/format: at offset 10: this is no sidecar"),
        (
            all(text("1", "").replace(r#""version":1"#, r#""version":2"#), Unsupported),
            "version 2 of the sidecar; this release reads version 1; use a newer release",
        ),
        (all(text("1", "") + "x", Malformed), "more behind the end"),
        (
            all(text("1", "").replace(r#""root""#, r#""roof""#), Malformed),
            "expected the member root",
        ),
        (
            all(text("1", "").replace("[]}", "[],\"a\":1}"), Malformed),
            "the member \"a\" is not known",
        ),
        (own("{\"a\":1,\"a\":2}"), "/root/a: at offset 109: the key was there before"),
        (own("{\"a\":{\"$x\":2}}"), "the member \"$x\" is not known here"),
        (own("{\"a\":1,\"$type\":\"list\"}"), "the member \"$type\" is not known here"),
        (own(r#"{"$type":"lists"}"#), "the $type \"lists\" is not known"),
        (own(r#"{"$type":"tuple","items":[]}"#), "expected the member value, found \"items\""),
        (own(r#"{"$type":"tuple","value":{}}"#), "expected an array, found an object"),
        (own(r#"{"$type":"tuple"}"#), "the member value is missing"),
        (own(r#"{"$type":"dict","value":[[1]]}"#), "/root/value/0: "),
        (own(r#"{"$type":"int","value":"1x"}"#), "no integer"),
        (own(r#"{"$type":"int","value":"01"}"#), "no integer"),
        (own(r#"{"$type":"int","value":"-"}"#), "no integer"),
        (own(&format!(r#"{{"$type":"int","value":"{}"}}"#, "1".repeat(156))), "too many digits"),
        (own(r#"{"$type":"int","value":1}"#), "expected text, found an integer"),
        (own(r#"{"$type":"float","value":"NaN"}"#), "neither nan"),
        (own(r#"{"$type":"float","bits":"7ff"}"#), "hexadecimal"),
        (own(r#"{"$type":"float","bits":"+ff8000000000000"}"#), "hexadecimal"),
        (own(r#"{"$type":"bytes","base64":"A"}"#), "no base64"),
        (own(r#"{"$type":"global","value":"os.system"}"#), "expected module:name"),
        (own(r#"{"$call":"m:f"}"#), "the member args is missing"),
        (own(r#"{"$call":"m:f","args":[],"kwargs":{}}"#), "\"kwargs\" is not known"),
        (own(r#"{"$call":"m:f","args":[],"build":1,"set":{}}"#), "out of order"),
        (own(r#"{"$call":"m:f","args":[],"build":1,"build":1}"#), "out of order"),
        (own(r#"{"$call":"m:f","args":[],"then":[{"build":1,"set":{}}]}"#), "\"set\" is not known"),
        (own(r#"{"$call":"m:f","args":[],"then":[{}]}"#), "is missing"),
        (own(r#"{"$call":"m:f","args":[],"then":[],"build":1}"#), "\"build\" is not known"),
        (own(r#"{"$call":"m:f","args":[],"set":1}"#), "expected an object or pairs"),
        (own(r#"{"$ref":0}"#), "at offset 110: no object has the $id 0"),
        (own(r#"{"$ref":-1}"#), "-1 is not 0 or more"),
        (own(r#"{"$ref":0,"a":1}"#), "\"a\" is not known"),
        (own(r#"{"$id":1,"$ref":1}"#), "\"$ref\" is not known"),
        (own(r#"[{"$id":1},{"$id":1}]"#), "two objects have the $id 1"),
        (own(r#"{"$id":1,"$type":"tuple","value":[{"$ref":1}]}"#), "is a part of itself"),
        (
            own(
                r#"[{"$ref":2},{"$id":1,"$call":{"$ref":2},"args":[]},{"$id":2,"$call":"m:f","args":{"$ref":1}}]"#,
            ),
            "is a part of itself",
        ),
        (own(r#"{"$storage":0}"#), "storage 0 is referred to, the table has 0"),
        (own(r#"{"$id":0,"$storage":0}"#), "neither an $id nor changes"),
        (own("18446744073709551616"), "does not fit 64 bits"),
        (own("1e999"), "beyond the range"),
        ((text(&deep(200), ""), LimitExceeded), "nest more than 128 deep"),
        // Tensors and storages.
        (own(r#"{"$tensor":"w"}"#), "tensor w: no storage is said to be made of this tensor"),
        (own(r#"{"$parameter":"w"}"#), "the member requires_grad is missing"),
        (own(r#"{"$tensor":"w","requires_grad":1}"#), "no bool"),
        (with("1", "1"), "a storage is no object"),
        (with("1", &row("null", "-1", "\"tensor\":\"raw\"")), "/storages/0/numel: "),
        (with("1", &row("null", "24", "\"name\":\"raw\"")), "expected the member tensor"),
        (with("1", &row("null", "24", "\"tensor\":\"raw\",\"x\":1")), "\"x\" is not known"),
        (
            all(text("1", &row("\"F99\"", "24", "\"tensor\":\"raw\"")), Unsupported),
            "the dtype \"F99\" is not known",
        ),
        (
            with("1", &row("\"F8_E4M3\"", "24", "\"tensor\":\"raw\"")),
            "no class for storages of F8_E4M3",
        ),
        (
            all(text("1", &row("\"F32\"", "6", "\"tensor\":\"gone\"")), NotFound),
            "sidecar: storage 0: tensor gone: the checkpoint does not hold this tensor",
        ),
        (
            with("1", &row("\"F32\"", "7", "\"tensor\":\"w\"")),
            "tensor w: 24 bytes are given for a storage of 28",
        ),
        (with("1", &row("\"F32\"", "1", "\"tensors\":[]")), "0 bytes are given"),
        (with("1", &row("\"F64\"", "9223372036854775807", "\"tensor\":\"raw\"")), "too large"),
        (
            with("1", &row("\"I32\"", "6", "\"tensor\":\"w\"")),
            "tensor w: it is F32 in the checkpoint, and I32",
        ),
        (with("1", &format!("{W},{W}")), "tensor w: two storages are made of this tensor"),
        (
            with(r#"{"$tensor":"raw"}"#, &row("\"F32\"", "6", "\"tensor\":\"raw\"")),
            "tensor raw: a storage of F32 does not hold a tensor of U8",
        ),
        (
            with(r#"{"$tensor":"w"}"#, &row("null", "27", "\"tensors\":[\"odd\",\"w\"]")),
            "tensor w: it starts at byte 3",
        ),
    ];
    for ((json, kind), part) in &cases {
        let e = decoded(json).err().unwrap_or_else(|| panic!("accepted: {json}"));
        assert_eq!(e.kind(), *kind, "{json}: {e}");
        assert!(e.to_string().contains(part), "{json}: {e}");
    }
    assert!(cases.len() > 60);
    // Beside what is refused: what is not.
    for root in [r#"{"$tensor":"w"}"#, r#"{"$parameter":"w","requires_grad":true}"#, "{}"] {
        decoded(&text(root, W)).unwrap();
    }
    decoded(&text(r#"[{"$ref":0},{"$id":0}]"#, W)).unwrap();
}

#[test]
fn limits_hold_on_both_sides() {
    let mut limits = Limits::default();
    limits.nodes = 100;
    let many = text(&format!("[{}1]", "1,".repeat(200)), "");
    let tensors = text(&format!("[{}1]", r#"{"$tensor":"w"},"#.repeat(60)), W);
    for json in [&many, &tensors] {
        let w = tensor("w", Dtype::F32, &[2, 3]);
        let e = sidecar::decode(json.as_bytes(), &|_| Some(w.clone()), &limits).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::LimitExceeded, "{e}");
    }
    let mut limits = Limits::default();
    limits.pickle_bytes = 1000;
    let e = sidecar::decode(many.as_bytes(), &|_| None, &limits);
    assert!(e.is_ok());
    let long = text(&format!("\"{}\"", "x".repeat(2000)), "");
    let e = sidecar::decode(long.as_bytes(), &|_| None, &limits).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    // A few bytes a reference in a pickle, many here.
    let mut document = Document::new();
    let b = document.builder();
    let (list, word) = (b.list(), b.str(&"\u{1}".repeat(200)));
    b.append(list, &vec![word; 100_000]);
    document.set_root(list);
    let header = Header::new("torch");
    let e = sidecar::encode(&document, &[], &header, &limits).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
}

/// Lays out what could be decoded, which may refuse.
fn survives(json: &[u8], tensors: &HashMap<String, Tensor>) -> bool {
    let find = |name: &str| tensors.get(name).cloned();
    match sidecar::decode(json, &find, &Limits::default()) {
        Ok(document) => document.layout(&WriteOptions::default()).is_ok(),
        Err(_) => false,
    }
}

#[test]
fn damage_is_an_error_or_another_object() {
    for name in ["lightning/hparams_omegaconf.ckpt", "torch/views.pt", "torch/values_objects.pt"] {
        let file = TorchFile::open(&one(name).path).unwrap();
        let encoded = encode(&file.edit().unwrap(), &file);
        let extra = |n: &String| encoded.extra.iter().find(|t| t.name() == n).cloned();
        let tensors: HashMap<String, Tensor> = encoded
            .tensors
            .iter()
            .map(|n| (n.clone(), extra(n).unwrap_or_else(|| file.tensor(n).unwrap())))
            .collect();
        let json = &encoded.json;
        assert!(survives(json, &tensors));
        // Cut anywhere but for the last line break.
        for len in (0..json.len() - 1).step_by(31) {
            assert!(!survives(&json[..len], &tensors), "{name} cut to {len}");
        }
        let mut damaged = json.clone();
        for at in (0..json.len()).step_by(13) {
            for mask in [1, 0x20, 0x80] {
                damaged[at] ^= mask;
                survives(&damaged, &tensors);
                damaged[at] ^= mask;
            }
        }
        // Another value in the place of each number, text, and start of something.
        let text = as_text(json);
        for (at, _) in text.match_indices([':', '[', ',']).step_by(5) {
            for other in ["null,", "-1,", "[],", "{},", "\"$ref\":", "{\"$ref\":0},", "\"x\","] {
                let changed = format!("{}{other}{}", &text[..=at], &text[at + 1..]);
                survives(changed.as_bytes(), &tensors);
            }
        }
    }
}

#[test]
fn what_python_would_import_is_told() {
    let file = TorchFile::open(&one("lightning/hparams_namespace.ckpt").path).unwrap();
    let encoded = encode(&file.edit().unwrap(), &file);
    let sidecar = Sidecar::parse(&encoded.json, &Limits::default()).unwrap();
    assert_eq!(sidecar.globals(), ["argparse.Namespace", "collections.OrderedDict"]);
    assert_eq!(sidecar.header(), &Header::new("torch"));
    assert!(sidecar.tensors().eq(&encoded.tensors));
}

#[test]
fn the_specification_shows_a_real_file() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats/sidecar.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, example) = page.split_once("```json\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let file = TorchFile::open(&one("torch/train_sgd.pt").path).unwrap();
    let found = encode(&file.edit().unwrap(), &file);
    let without_writer = |text: &str| -> Vec<String> {
        text.lines().filter(|l| !l.contains("\"writer\"")).map(str::to_owned).collect()
    };
    assert_eq!(without_writer(as_text(&found.json)), without_writer(example));
}
