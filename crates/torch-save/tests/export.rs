//! torch.export archives: the committed one against its manifest, and ones made by hand.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[cfg(not(feature = "export"))]
#[test]
fn a_build_without_the_feature_names_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/torch/export.pt2");
    let error = torch_save::TorchFile::open(path).unwrap_err();
    assert_eq!(error.kind(), ckptkit_core::ErrorKind::Unsupported);
    assert!(error.to_string().contains("feature `export`"), "{error}");
}

#[cfg(feature = "export")]
mod with_the_feature {
    use std::io::{Cursor, Write};
    use std::path::{Path, PathBuf};

    use ckptkit_core::{Dtype, Error, ErrorKind, Limits, Section, TensorBytes, TensorSource};
    use serde_json::{Value as Json, json};
    use sha2::{Digest, Sha256};
    use torch_save::{Container, OpenOptions, TensorKind, TorchFile};
    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    const WEIGHTS: &str = "data/weights/model_weights_config.json";
    const CONSTANTS: &str = "data/constants/model_constants_config.json";

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/torch").join(name)
    }

    /// An archive of these members, packed as `method` says.
    fn packed(members: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        let format = [("archive_format", b"pt2".to_vec()), ("archive_version", b"0".to_vec())];
        for (name, bytes) in members.iter().chain(&format) {
            zip.start_file(format!("a/{name}"), options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        packed(members, CompressionMethod::Stored)
    }

    fn open(bytes: Vec<u8>) -> Result<TorchFile, Error> {
        TorchFile::from_section(&Section::from_bytes(bytes, "crafted"))
    }

    fn config(entries: Json) -> Vec<u8> {
        json!({ "config": entries }).to_string().into_bytes()
    }

    fn sym(numbers: &[u64]) -> Json {
        numbers.iter().map(|n| json!({ "as_int": n })).collect()
    }

    /// The entry of a view, as torch writes it.
    fn view(member: &str, dtype: u32, sizes: &[u64], strides: &[u64], offset: u64) -> Json {
        json!({
            "path_name": member, "is_param": true, "use_pickle": false,
            "tensor_meta": {
                "dtype": dtype, "sizes": sym(sizes), "requires_grad": true,
                "device": {"type": "cuda", "index": 1}, "strides": sym(strides),
                "storage_offset": {"as_int": offset}, "layout": 7,
            },
        })
    }

    fn f32s(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    /// One archive of one raw member of six floats, and these entries.
    fn six(entries: Json) -> Result<TorchFile, Error> {
        open(archive(&[
            ("data/weights/weight_0", f32s(&[0., 1., 2., 3., 4., 5.])),
            (WEIGHTS, config(entries)),
            (CONSTANTS, config(json!({}))),
        ]))
    }

    fn names(file: &TorchFile) -> Vec<&str> {
        file.tensors().iter().map(|e| e.tensor().name()).collect()
    }

    #[test]
    fn the_fixture_is_as_its_manifest_says() {
        let path = fixture("export.pt2");
        let manifest: Json =
            serde_json::from_slice(&std::fs::read(fixture("export.pt2.json")).unwrap()).unwrap();
        let file = TorchFile::open(path).unwrap();
        assert_eq!(file.container(), Container::TorchExport);
        let found: Vec<Json> = file
            .tensors()
            .iter()
            .map(|e| {
                let t = e.tensor();
                let digest: String = Sha256::digest(t.read().unwrap())
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                json!({
                    "name": t.name(), "dtype": t.dtype().name(), "shape": t.shape(),
                    "sha256": digest,
                })
            })
            .collect();
        assert_eq!(Json::from(found), manifest["tensors"]);
        assert!(file.failures().is_empty() && file.notes().is_empty(), "{:?}", file.notes());
        let kind = |name: &str| file.entry(name).unwrap().kind();
        assert_eq!(kind("first.weight"), TensorKind::Parameter);
        assert_eq!(kind("norm.running_mean"), TensorKind::Buffer);
        assert_eq!(kind("scratch"), TensorKind::Plain);
        assert_eq!(file.verify().unwrap().tensors, 10);
    }

    #[test]
    fn views_of_one_member_are_views_of_one_storage() {
        let file = six(json!({
            "whole": view("weight_0", 7, &[2, 3], &[3, 1], 0),
            "tied": view("weight_0", 7, &[2, 3], &[3, 1], 0),
            "turned": view("weight_0", 7, &[3, 2], &[1, 3], 0),
            "end": view("weight_0", 7, &[2], &[1], 4),
            "none": view("weight_0", 7, &[0, 3], &[3, 1], 0),
            "pair": view("weight_0", 10, &[], &[], 1),
        }))
        .unwrap();
        let tensor = |name: &str| file.tensor(name).unwrap();
        assert!(tensor("whole").is_tied_with(&tensor("tied")));
        assert!(!tensor("whole").is_tied_with(&tensor("turned")));
        let storage = tensor("whole").info().storage();
        assert!(storage.is_some());
        assert!(file.tensors().iter().all(|e| e.tensor().info().storage() == storage));
        assert_eq!(tensor("turned").read().unwrap(), f32s(&[0., 3., 1., 4., 2., 5.]));
        assert_eq!(tensor("end").as_slice().unwrap(), f32s(&[4., 5.]));
        assert_eq!(tensor("none").read().unwrap(), [0_u8; 0]);
        assert_eq!(tensor("pair").dtype(), Dtype::C64);
        assert_eq!(tensor("pair").read().unwrap(), f32s(&[2., 3.]));
        let entry = file.entry("whole").unwrap();
        assert!(entry.requires_grad());
        assert_eq!(entry.location(), Some("cuda:1"));
    }

    #[test]
    fn names_stay_in_the_order_of_the_config() {
        let one = |name: &str| format!("{name:?}: {}", view("weight_0", 7, &[6], &[1], 0));
        let text = format!("{{\"config\": {{{}, {}, {}}}}}", one("z"), one("a.b"), one("m"));
        let file = open(archive(&[
            ("data/weights/weight_0", vec![0; 24]),
            (WEIGHTS, text.into_bytes()),
            (CONSTANTS, config(json!({ "a.b": view("tensor_0", 1, &[2], &[1], 0) }))),
            ("data/constants/tensor_0", vec![7, 8]),
        ]))
        .unwrap();
        assert_eq!(names(&file)[..1], ["z"]);
        assert_eq!(file.tensors().len(), 4);
        // One name for a weight and a constant: neither is lost.
        assert_eq!(file.tensors()[3].tensor().read().unwrap(), [7, 8]);
        assert_ne!(names(&file)[1], names(&file)[3]);
    }

    #[test]
    fn a_malformed_entry_fails_alone() {
        let mut symbolic = view("weight_0", 7, &[6], &[1], 0);
        symbolic["tensor_meta"]["sizes"] =
            json!([{ "as_expr": {"expr_str": "Symbol('s0')", "hint": {"as_int": 6}} }]);
        let mut negative = view("weight_0", 7, &[6], &[1], 0);
        negative["tensor_meta"]["storage_offset"] = json!({ "as_int": -1 });
        let mut sparse = view("weight_0", 7, &[6], &[1], 0);
        sparse["tensor_meta"]["layout"] = json!(1);
        let mut bare = view("weight_0", 7, &[6], &[1], 0);
        bare["tensor_meta"] = Json::Null;
        let huge = u64::MAX;
        let cases = [
            ("symbolic", symbolic, "symbolic"),
            ("negative", negative, "-1"),
            ("sparse", sparse, "layout number 1"),
            ("bare", bare, "tensor_meta"),
            ("dtype", view("weight_0", 0, &[6], &[1], 0), "dtype number 0"),
            ("outside", view("weight_0", 7, &[6], &[1], 1), "its storage has 24"),
            ("wide", view("weight_0", 7, &[2], &[huge], huge), "view"),
            ("large", view("weight_0", 7, &[huge, huge], &[1, 1], 0), "elements"),
            ("rank", view("weight_0", 7, &[6], &[1, 1], 0), "stride"),
            ("missing", view("weight_9", 7, &[6], &[1], 0), "data/weights/weight_9"),
            ("up", view("../../archive_format", 1, &[3], &[1], 0), "not in the archive"),
            ("text", json!("weight_0"), "malformed"),
            ("nothing", json!({}), "path_name"),
        ];
        for (name, entry, expected) in cases {
            let file =
                six(json!({ name: entry, "good": view("weight_0", 7, &[6], &[1], 0) })).unwrap();
            assert_eq!(file.tensor("good").unwrap().read().unwrap().len(), 24);
            let error = file.tensor(name).and_then(|t| t.read()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(name), "{name}: {error}");
            assert!(file.verify().is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_described_twice_is_not_chosen_from() {
        let entry = view("weight_0", 7, &[6], &[1], 0);
        let text = format!("{{\"config\": {{\"a\": {entry}, \"b\": {entry}, \"a\": {entry}}}}}");
        let file =
            open(archive(&[("data/weights/weight_0", vec![0; 24]), (WEIGHTS, text.into_bytes())]))
                .unwrap();
        assert_eq!(names(&file), ["b"]);
        assert!(file.tensor("a").unwrap_err().to_string().contains("twice"));
        assert!(file.notes()[0].contains("model_constants_config.json"), "{:?}", file.notes());
    }

    #[test]
    fn a_config_that_is_none_is_refused_with_its_place() {
        for text in ["", "{", "[]", "{\"config\": []}", "{\"other\": {}}", "\u{1}", "{}{}"] {
            let error = open(archive(&[(WEIGHTS, text.into())])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{text}");
            assert!(error.to_string().contains(WEIGHTS), "{error}");
        }
        let deep = format!("{{\"config\": {{\"a\": {}", "[".repeat(1 << 20));
        assert!(open(archive(&[(WEIGHTS, deep.into_bytes())])).is_err());
        let mut limits = Limits::default();
        limits.header_bytes = 500;
        let long = archive(&[(WEIGHTS, vec![b' '; 501])]);
        let error = OpenOptions::default()
            .limits(limits)
            .open(&Section::from_bytes(long, "crafted"))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        let error = open(archive(&[("byteorder", b"middle".to_vec())])).unwrap_err();
        assert!(error.to_string().contains("middle"), "{error}");
    }

    #[test]
    fn values_that_were_not_exported_are_not_zeros() {
        let file = open(archive(&[
            ("data/weights/weight_0", Vec::new()),
            (WEIGHTS, config(json!({ "fake": view("weight_0", 7, &[2], &[1], 0) }))),
        ]))
        .unwrap();
        let entry = file.entry("fake").unwrap();
        assert_eq!(entry.kind(), TensorKind::Meta);
        assert!(matches!(entry.tensor().bytes(), TensorBytes::None(_)));
    }

    #[test]
    fn big_endian_bytes_are_swapped() {
        let file = open(archive(&[
            ("data/weights/weight_0", vec![1, 2, 3, 4]),
            (WEIGHTS, config(json!({ "w": view("weight_0", 3, &[2], &[1], 0) }))),
            (CONSTANTS, config(json!({}))),
            ("byteorder", b"big".to_vec()),
        ]))
        .unwrap();
        assert_eq!(file.tensor("w").unwrap().read().unwrap(), [2, 1, 4, 3]);
        assert!(file.notes()[0].contains("big-endian"));
    }

    fn pickled(member: &str, meta: bool) -> Json {
        let mut entry = view(member, 7, &[1], &[1], 0);
        entry["use_pickle"] = json!(true);
        if !meta {
            entry["tensor_meta"] = Json::Null;
        }
        entry
    }

    fn bytes_of(name: &str) -> Vec<u8> {
        std::fs::read(fixture(name)).unwrap()
    }

    #[test]
    fn nested_archives_are_read_in_place() {
        let outer = archive(&[
            ("data/weights/weight_0", bytes_of("single_tensor.pt")),
            ("data/weights/weight_1", bytes_of("tied.pt")),
            ("data/weights/weight_2", bytes_of("sparse.pt")),
            (
                WEIGHTS,
                config(json!({
                    "one": pickled("weight_0", true),
                    "several": pickled("weight_1", true),
                    "sparse": pickled("weight_2", true),
                })),
            ),
            ("data/constants/custom_obj_0", bytes_of("plain_dict.pkl")),
            (CONSTANTS, config(json!({ "object": pickled("custom_obj_0", false) }))),
        ]);
        let file = open(outer.clone()).unwrap();
        assert!(file.failures().is_empty(), "{:?}", file.failures());
        let alone = |name: &str| TorchFile::open(fixture(name)).unwrap();

        let one = file.entry("one").unwrap();
        let single = alone("single_tensor.pt");
        assert_eq!(one.kind(), TensorKind::Parameter);
        assert_eq!(one.tensor().shape(), single.tensors()[0].tensor().shape());
        assert_eq!(one.tensor().read().unwrap(), single.tensors()[0].tensor().read().unwrap());
        let window = one.tensor().contiguous().unwrap();
        assert_eq!(window.source().size(), outer.len() as u64);

        for (prefix, inner) in [("several", alone("tied.pt")), ("sparse", alone("sparse.pt"))] {
            for e in inner.tensors() {
                let found = file.entry(&format!("{prefix}.{}", e.tensor().name())).unwrap();
                assert_eq!(found.kind(), e.kind());
                let part_of = |file: &TorchFile, at: Option<usize>| {
                    at.map(|at| file.tensors()[at].tensor().name().to_owned())
                };
                assert_eq!(
                    part_of(&file, found.part_of()),
                    part_of(&inner, e.part_of()).map(|name| format!("{prefix}.{name}"))
                );
                if e.tensor().has_bytes() {
                    assert_eq!(found.tensor().read().unwrap(), e.tensor().read().unwrap());
                }
            }
            for (a, b) in inner.tensors().iter().zip(&inner.tensors()[1..]) {
                let again = |e: &torch_save::TensorEntry| {
                    file.tensor(&format!("{prefix}.{}", e.tensor().name())).unwrap()
                };
                assert_eq!(a.tensor().is_tied_with(b.tensor()), again(a).is_tied_with(&again(b)));
            }
        }
        assert!(file.notes().iter().any(|n| n.contains("object")), "{:?}", file.notes());
    }

    #[test]
    fn nesting_ends() {
        let entry = || config(json!({ "w": pickled("weight_0", true) }));
        let mut inner = archive(&[("data/weights/weight_0", Vec::new()), (WEIGHTS, entry())]);
        for _ in 0..1000 {
            inner = archive(&[("data/weights/weight_0", inner), (WEIGHTS, entry())]);
        }
        let file = open(inner).unwrap();
        let error = file.tensor("w").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("within another"), "{error}");

        let file = open(archive(&[
            ("data/weights/weight_0", bytes_of("single_tensor.pt")),
            (
                WEIGHTS,
                config(json!({ "a": pickled("weight_0", true), "b": pickled("weight_0", true) })),
            ),
        ]))
        .unwrap();
        assert_eq!(names(&file), ["a"]);
        let error = file.tensor("b").unwrap_err().to_string();
        assert!(error.contains("is that of a too"), "{error}");

        for junk in [Vec::new(), b"PK".to_vec(), bytes_of("plain_dict.pkl")] {
            let file =
                open(archive(&[("data/weights/weight_0", junk), (WEIGHTS, entry())])).unwrap();
            assert!(file.tensor("w").is_err());
        }
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn nested_archives_are_not_inflated() {
        let members = [
            ("data/weights/weight_0", bytes_of("single_tensor.pt")),
            ("data/weights/weight_1", vec![5; 100]),
            (
                WEIGHTS,
                config(json!({
                    "w": pickled("weight_0", true),
                    "raw": view("weight_1", 1, &[100], &[1], 0),
                })),
            ),
        ];
        let file = open(packed(&members, CompressionMethod::Deflated)).unwrap();
        assert_eq!(file.tensor("raw").unwrap().read().unwrap(), [5; 100]);
        assert!(file.tensor("w").unwrap_err().to_string().contains("deflated"));
    }

    #[test]
    fn several_models_stand_under_their_names() {
        let one = || config(json!({ "l.weight": view("weight_0", 7, &[1], &[1], 0) }));
        let file = open(archive(&[
            ("data/weights/weight_0", vec![0; 4]),
            ("data/weights/enc_weights_config.json", one()),
            ("data/constants/enc_constants_config.json", config(json!({}))),
            ("models/enc.json", b"{}".to_vec()),
            ("data/weights/dec_weights_config.json", one()),
            ("data/constants/dec_constants_config.json", config(json!({}))),
            ("data/weights/weight_1", vec![0; 4]),
        ]))
        .unwrap();
        assert_eq!(names(&file), ["enc.l.weight", "dec.l.weight"]);
        assert!(file.tensors()[0].tensor().is_tied_with(file.tensors()[1].tensor()));
        assert_eq!(file.notes().len(), 1);
        assert!(file.notes()[0].contains("data/weights/weight_1"), "{:?}", file.notes());
    }

    #[test]
    fn the_files_of_earlier_versions_are_nested() {
        let file = open(archive(&[
            ("data/weights/model.pt", bytes_of("state_dict.pt")),
            ("data/constants/model.pt", bytes_of("empty_dict.pt")),
        ]))
        .unwrap();
        let alone = TorchFile::open(fixture("state_dict.pt")).unwrap();
        assert_eq!(names(&file), names(&alone));
        assert!(file.notes().is_empty() && file.failures().is_empty(), "{:?}", file.notes());
        for e in alone.tensors() {
            let found = file.tensor(e.tensor().name()).unwrap();
            assert_eq!(found.read().unwrap(), e.tensor().read().unwrap());
        }
    }

    #[test]
    fn later_versions_are_refused() {
        let mut bytes = archive(&[(WEIGHTS, config(json!({})))]);
        let at = bytes.windows(2).rposition(|w| w == b"0P").unwrap();
        assert_eq!(bytes[at], b'0');
        bytes[at] = b'7';
        let error = open(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("\"7\""), "{error}");
    }
}
