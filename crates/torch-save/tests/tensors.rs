//! Every construction that torch has rebuilt tensors from, and the names that follow from the tree.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use ckptkit_core::{ErrorKind, TensorSource};
use support::build::*;
use support::{floats, listing, open};
use torch_save::TorchFile;

/// The listing of an object whose storage `0` holds 0 to 11 in 32-bit floats, `1` as many 64-bit
/// integers, and `2` twelve bytes.
fn check(object: &[u8], expected: &[&str]) -> TorchFile {
    let twelve = || (0..12_u8).map(f32::from).collect::<Vec<_>>();
    let longs = (0..12_i64).flat_map(i64::to_le_bytes).collect();
    let bytes = (0..12).collect();
    let file = open(pt(object, &[("0", f32s(&twelve())), ("1", longs), ("2", bytes)]));
    assert_eq!(listing(&file), expected);
    assert!(file.failures().is_empty(), "{:?}", file.failures());
    file
}

fn f() -> Vec<u8> {
    storage("FloatStorage", "0", 12)
}

fn l(offset: i64, n: i64) -> Vec<u8> {
    tensor(storage("LongStorage", "1", 12), offset, &[n], &[1])
}

fn values(n: i64) -> Vec<u8> {
    tensor(f(), 0, &[n], &[1])
}

fn hooks() -> Vec<u8> {
    reduce(&global("collections", "OrderedDict"), &[])
}

#[test]
fn rebuild_tensor_of_every_age() {
    let untyped = persid(&tuple(&[
        text("storage"),
        global("torch.storage", "UntypedStorage"),
        text("0"),
        text("cpu"),
        int(48),
    ]));
    let state = tuple(&[f(), int(1), ints(&[2]), ints(&[3])]);
    let variable = reduce(&global("torch.autograd.variable", "Variable"), &[values(2)]);
    let flags = tuple(&[boolean(true), boolean(false), none()]);
    let object = object(&[
        ("v1", torch_utils("_rebuild_tensor", &[f(), int(2), ints(&[2, 2]), ints(&[1, 2])])),
        (
            "v3",
            torch_utils(
                "_rebuild_tensor_v3",
                &[
                    untyped,
                    int(3),
                    ints(&[3]),
                    ints(&[1]),
                    boolean(true),
                    hooks(),
                    global("torch", "uint32"),
                ],
            ),
        ),
        ("class", build(&newobj(&global("torch", "FloatTensor"), &[]), &state)),
        ("cuda", build(&newobj(&global("torch.cuda", "FloatTensor"), &[]), &state)),
        ("variable", build(&variable, &flags)),
        ("new", build(&newobj(&global("torch.nn.parameter", "Parameter"), &[values(1)]), &flags)),
        ("made", torch_utils("_rebuild_parameter", &[values(1), boolean(true), hooks()])),
        (
            "with_state",
            torch_utils(
                "_rebuild_parameter_with_state",
                &[values(1), boolean(false), hooks(), object(&[("mark", l(0, 2))])],
            ),
        ),
        (
            "sized",
            torch_utils(
                "_rebuild_tensor",
                &[f(), int(0), reduce(&global("torch", "Size"), &[ints(&[2])]), ints(&[1])],
            ),
        ),
    ]);
    let file = check(
        &object,
        &[
            "v1 F32 [2, 2] tensor",
            "v3 U32 [3] tensor",
            "class F32 [2] tensor",
            "cuda F32 [2] tensor",
            "variable F32 [2] tensor",
            "new F32 [1] parameter",
            "made F32 [1] parameter",
            "with_state F32 [1] parameter",
            "with_state.mark I64 [2] tensor",
            "sized F32 [2] tensor",
        ],
    );
    assert_eq!(floats(&file, "v1"), [2.0, 4.0, 3.0, 5.0]);
    assert_eq!(floats(&file, "v3"), [3.0, 4.0, 5.0]);
    assert_eq!(floats(&file, "class"), [1.0, 4.0]);
    let grad: Vec<bool> = file.tensors().iter().map(|e| e.requires_grad()).collect();
    assert_eq!(grad, [false, true, false, false, true, true, true, false, false, false]);
    assert_eq!(file.tensors()[8].part_of(), Some(7));
}

#[test]
fn sparse() {
    let layout = |name: &str| {
        reduce(&global("torch.serialization", "_get_layout"), &[text(&format!("torch.{name}"))])
    };
    let sparse = |name: &str, data: &[Vec<u8>]| {
        torch_utils("_rebuild_sparse_tensor", &[layout(name), tuple(data)])
    };
    let indices = tensor(storage("LongStorage", "1", 12), 0, &[2, 3], &[3, 1]);
    let object = object(&[
        ("coo", sparse("sparse_coo", &[indices.clone(), values(3), ints(&[4, 4])])),
        ("coo4", sparse("sparse_coo", &[indices, values(3), ints(&[4, 4]), boolean(true)])),
        ("csr", sparse("sparse_csr", &[l(0, 5), l(0, 3), values(3), ints(&[4, 4])])),
        (
            "bsc",
            sparse(
                "sparse_bsc",
                &[l(0, 3), l(0, 2), tensor(f(), 0, &[2, 2, 2], &[4, 2, 1]), ints(&[4, 4])],
            ),
        ),
    ]);
    let file = check(
        &object,
        &[
            "coo F32 [4, 4] sparse",
            "coo.indices I64 [2, 3] tensor",
            "coo.values F32 [3] tensor",
            "coo4 F32 [4, 4] sparse",
            "coo4.indices I64 [2, 3] tensor",
            "coo4.values F32 [3] tensor",
            "csr F32 [4, 4] sparse",
            "csr.crow_indices I64 [5] tensor",
            "csr.col_indices I64 [3] tensor",
            "csr.values F32 [3] tensor",
            "bsc F32 [4, 4] sparse",
            "bsc.ccol_indices I64 [3] tensor",
            "bsc.row_indices I64 [2] tensor",
            "bsc.values F32 [2, 2, 2] tensor",
        ],
    );
    let e = file.tensor("coo").unwrap().read().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("listed under it"), "{e}");
}

#[test]
fn a_root_that_is_one_tensor() {
    let layout = global("torch", "sparse_coo");
    let object =
        torch_utils("_rebuild_sparse_tensor", &[layout, tuple(&[l(0, 2), values(2), ints(&[4])])]);
    check(
        &object,
        &["tensor F32 [4] sparse", "tensor.indices I64 [2] tensor", "tensor.values F32 [2] tensor"],
    );
    check(&values(2), &["tensor F32 [2] tensor"]);
}

#[test]
fn quantized() {
    let scheme = |name| global("torch", name);
    let quint8 = || storage("QUInt8Storage", "2", 12);
    let rebuilt = |storage, size: &[i64], stride: &[i64], q: &[Vec<u8>]| {
        torch_utils(
            "_rebuild_qtensor",
            &[storage, int(0), ints(size), ints(stride), tuple(q), boolean(false), hooks()],
        )
    };
    let per_tensor = [scheme("per_tensor_affine"), float(0.1), int(3)];
    let per_channel = [scheme("per_channel_affine"), values(2), l(0, 2), int(0)];
    let lists = [scheme("per_channel_affine"), list(&[float(0.1)]), list(&[int(0)]), int(0)];
    let object = object(&[
        ("tensor", rebuilt(quint8(), &[2, 3], &[3, 1], &per_tensor)),
        ("channel", rebuilt(quint8(), &[2, 3], &[1, 2], &per_channel)),
        ("lists", rebuilt(quint8(), &[1], &[1], &lists)),
        // Four bits an element; the storage's id counts bytes.
        ("packed", rebuilt(storage("QUInt4x2Storage", "2", 12), &[3, 5], &[5, 1], &per_tensor)),
        ("strange", rebuilt(storage("QUInt4x2Storage", "2", 12), &[3, 5], &[1, 3], &per_tensor)),
    ]);
    let file = check(
        &object,
        &[
            "tensor QUINT8 [2, 3] quantized",
            "channel QUINT8 [2, 3] quantized",
            "channel.scales F32 [2] tensor",
            "channel.zero_points I64 [2] tensor",
            "lists QUINT8 [1] quantized",
            "packed QUINT4X2 [3, 5] quantized",
            "strange QUINT4X2 [3, 5] quantized",
        ],
    );
    assert_eq!(file.tensor("channel").unwrap().read().unwrap(), [0, 2, 4, 1, 3, 5]);
    assert_eq!(file.tensor("packed").unwrap().read().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
    let e = file.tensor("strange").unwrap().read().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
}

#[test]
fn without_bytes() {
    let meta = torch_utils(
        "_rebuild_meta_tensor_no_storage",
        &[global("torch", "bfloat16"), ints(&[2, 3]), ints(&[3, 1]), boolean(true)],
    );
    let located = persid(&tuple(&[
        text("storage"),
        global("torch", "FloatStorage"),
        text("9"),
        text("meta"),
        int(4),
    ]));
    let shard = |size: &[i64]| {
        let class = || global("torch.distributed.tensor", "DTensor");
        let inner = tuple(&[
            class(),
            global("torch", "float32"),
            ints(size),
            ints(&[1]),
            none(),
            global("torch", "strided"),
            none(),
            boolean(false),
        ]);
        let spec = build(
            &newobj(&global("torch.distributed.tensor._dtensor_spec", "DTensorSpec"), &[]),
            &object(&[("mesh", l(0, 2))]),
        );
        let state = tuple(&[object(&[]), object(&[("_local_tensor", values(3)), ("_spec", spec)])]);
        reduce(
            &global("torch._tensor", "_rebuild_from_type_v2"),
            &[global("torch._utils", "_rebuild_wrapper_subclass"), class(), inner, state],
        )
    };
    let njt = |name| global("torch.nested._internal.nested_tensor", name);
    let from_type = |func: Vec<u8>, args: Vec<u8>, state: Vec<u8>| {
        reduce(
            &global("torch._tensor", "_rebuild_from_type_v2"),
            &[func, njt("NestedTensor"), args, state],
        )
    };
    // What torch 2.15 writes says everything twice, in the arguments and in the state.
    let jagged = |more: &[(&str, Vec<u8>)]| {
        let mut kwargs = vec![("values", values(4)), ("offsets", l(0, 2))];
        kwargs.extend(more.iter().cloned());
        let state = [("_values", values(4)), ("_offsets", l(0, 2)), ("_lengths", none())];
        from_type(njt("_rebuild_njt"), tuple(&[object(&kwargs)]), object(&state))
    };
    let jagged_2_1 = |lengths: Vec<u8>| {
        let state = [("_values", values(4)), ("_offsets", l(0, 2)), ("_lengths", lengths)];
        from_type(njt("NestedTensor"), tuple(&[values(4), l(0, 2)]), object(&state))
    };
    let object = object(&[
        ("meta", meta),
        ("location", tensor(located, 0, &[4], &[1])),
        ("shard", shard(&[6])),
        ("whole", shard(&[3])),
        ("nested", torch_utils("_rebuild_nested_tensor", &[values(4), l(0, 2), l(0, 2), l(0, 2)])),
        ("jagged", jagged(&[("lengths", none()), ("_metadata_cache", object(&[]))])),
        (
            "jagged_views",
            jagged(&[
                ("lengths", l(2, 2)),
                ("_metadata_cache", object(&[("max_seqlen", values(1)), ("min_seqlen", l(1, 1))])),
                ("requires_grad", boolean(true)),
            ]),
        ),
        ("jagged_2_1", jagged_2_1(none())),
        ("jagged_2_3", jagged_2_1(l(0, 1))),
    ]);
    let file = check(
        &object,
        &[
            "meta BF16 [2, 3] meta",
            "location F32 [4] meta",
            "shard F32 [6] distributed",
            "shard.local F32 [3] tensor",
            "whole F32 [3] distributed",
            "whole.local F32 [3] tensor",
            "nested F32 [] nested",
            "nested.buffer F32 [4] tensor",
            "nested.sizes I64 [2] tensor",
            "nested.strides I64 [2] tensor",
            "nested.offsets I64 [2] tensor",
            "jagged F32 [] nested",
            "jagged.values F32 [4] tensor",
            "jagged.offsets I64 [2] tensor",
            "jagged_views F32 [] nested",
            "jagged_views.values F32 [4] tensor",
            "jagged_views.offsets I64 [2] tensor",
            "jagged_views.lengths I64 [2] tensor",
            "jagged_views.min_seqlen I64 [1] tensor",
            "jagged_views.max_seqlen F32 [1] tensor",
            "jagged_2_1 F32 [] nested",
            "jagged_2_1.values F32 [4] tensor",
            "jagged_2_1.offsets I64 [2] tensor",
            "jagged_2_3 F32 [] nested",
            "jagged_2_3.values F32 [4] tensor",
            "jagged_2_3.offsets I64 [2] tensor",
            "jagged_2_3.lengths I64 [1] tensor",
        ],
    );
    for name in ["meta", "location", "shard", "nested", "jagged", "jagged_2_1"] {
        let tensor = file.tensor(name).unwrap();
        assert!(!tensor.has_bytes());
        assert_eq!(tensor.read().unwrap_err().kind(), ErrorKind::Unsupported);
    }
    assert_eq!(file.entry("shard").unwrap().class(), Some("torch.distributed.tensor.DTensor"));
}

#[test]
fn a_subclass_around_tensors() {
    let class = || global("mine", "Pair");
    let inner = tuple(&[
        class(),
        global("torch", "float32"),
        ints(&[2]),
        ints(&[1]),
        none(),
        none(),
        none(),
        boolean(false),
    ]);
    let state = object(&[("left", values(2)), ("right", l(0, 2)), ("note", text("n"))]);
    let wrapper = reduce(
        &global("torch._tensor", "_rebuild_from_type_v2"),
        &[global("torch._utils", "_rebuild_wrapper_subclass"), class(), inner, state],
    );
    check(
        &object(&[("w", wrapper)]),
        &["w F32 [2] wrapper", "w.left F32 [2] tensor", "w.right I64 [2] tensor"],
    );
}

#[test]
fn from_numpy() {
    let array = |code: &str, n: i64, bytes: &[u8]| {
        let dtype = build(
            &reduce(&global("numpy", "dtype"), &[text(code), boolean(false), boolean(true)]),
            &tuple(&[int(3), text("<"), none(), none(), none(), int(-1), int(-1), int(0)]),
        );
        let latin1: String = bytes.iter().map(|&b| char::from(b)).collect();
        let raw = reduce(&global("_codecs", "encode"), &[text(&latin1), text("latin1")]);
        let empty = reduce(
            &global("numpy.core.multiarray", "_reconstruct"),
            &[global("numpy", "ndarray"), ints(&[0]), text("b")],
        );
        build(&empty, &tuple(&[int(1), ints(&[n]), dtype, boolean(false), raw]))
    };
    let device = |array, dtype| {
        torch_utils(
            "_rebuild_device_tensor_from_numpy",
            &[array, global("torch", dtype), text("xla:0"), boolean(true)],
        )
    };
    let object = object(&[
        ("same", device(array("f4", 2, &f32s(&[1.5, -2.0])), "float32")),
        // numpy cannot hold bfloat16, so torch saved it wider.
        ("narrowed", device(array("f4", 2, &f32s(&[1.5, -2.0])), "bfloat16")),
        ("other", device(array("f4", 2, &f32s(&[1.5, -2.0])), "int32")),
    ]);
    let file = check(
        &object,
        &["same F32 [2] tensor", "narrowed BF16 [2] tensor", "other I32 [2] tensor"],
    );
    assert_eq!(floats(&file, "same"), [1.5, -2.0]);
    assert_eq!(file.tensor("narrowed").unwrap().read().unwrap(), [0xC0, 0x3F, 0x00, 0xC0]);
    assert_eq!(file.tensor("other").unwrap().read().unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn conjugate_and_negative_bits() {
    let view = |set: &str| {
        let c64 = storage("ComplexFloatStorage", "0", 6);
        let metadata = object(&[(set, boolean(true))]);
        torch_utils(
            "_rebuild_tensor_v2",
            &[c64, int(0), ints(&[2]), ints(&[1]), boolean(false), hooks(), metadata],
        )
    };
    let file = check(
        &object(&[("conj", view("conj")), ("neg", view("neg"))]),
        &["conj C64 [2] tensor", "neg C64 [2] tensor"],
    );
    assert_eq!(floats(&file, "conj"), [0.0, -1.0, 2.0, -3.0]);
    assert_eq!(floats(&file, "neg"), [-0.0, -1.0, -2.0, -3.0]);
}

#[test]
fn names_follow_keys_and_never_hide_each_other() {
    let object = dict(&[
        (text("a.b"), values(1)),
        (text("a"), object(&[("b", values(2)), ("list", list(&[values(3), tuple(&[values(4)])]))])),
        (int(0), values(5)),
        (text("0"), values(6)),
        (tuple(&[int(1), text("x")]), values(7)),
        (none(), values(8)),
    ]);
    check(
        &object,
        &[
            "a\\.b F32 [1] tensor",
            "a.b F32 [2] tensor",
            "a.list.0 F32 [3] tensor",
            "a.list.1.0 F32 [4] tensor",
            "[0] F32 [5] tensor",
            "0 F32 [6] tensor",
            "(1, 'x') F32 [7] tensor",
            "None F32 [8] tensor",
        ],
    );
}

#[test]
fn a_shared_container_is_entered_once() {
    let inner = put(0, &object(&[("w", values(2))]));
    let object = object(&[("first", inner), ("second", get(0)), ("third", list(&[get(0)]))]);
    let file = check(&object, &["first.w F32 [2] tensor"]);
    assert_eq!(
        file.notes(),
        [
            "second is the same object as first; its tensors are listed there",
            "third.0 is the same object as first; its tensors are listed there"
        ]
    );
}

#[test]
fn a_shared_tensor_is_listed_under_every_name() {
    let object = object(&[
        ("embed", put(0, &values(2))),
        ("head", get(0)),
        ("deep", object(&[("head", get(0))])),
    ]);
    let file = check(
        &object,
        &["embed F32 [2] tensor", "head F32 [2] tensor", "deep.head F32 [2] tensor"],
    );
    assert!(file.tensor("embed").unwrap().is_tied_with(&file.tensor("head").unwrap()));
    let value = file.lookup("deep").unwrap();
    assert_eq!(value.get("head"), Some(&torch_save::Value::Tensor("deep.head".into())));
}

#[test]
fn modules_are_named_like_their_state_dict() {
    let ordered = |pairs: &[(&str, Vec<u8>)]| {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (text(k), v.clone())).collect();
        set_items(&hooks(), &pairs)
    };
    let module = |class: &str, state: &[(&str, Vec<u8>)]| {
        build(&newobj(&global("net", class), &[]), &object(state))
    };
    let transient = reduce(&global("__builtin__", "set"), &[list(&[text("scratch")])]);
    let norm = module(
        "Norm",
        &[
            ("_parameters", ordered(&[("weight", values(2)), ("bias", none())])),
            ("_buffers", ordered(&[("mean", values(3)), ("scratch", values(4))])),
            ("_non_persistent_buffers_set", transient),
            ("_modules", ordered(&[])),
            ("cache", values(6)),
        ],
    );
    let net = module(
        "Net",
        &[
            ("_parameters", ordered(&[])),
            ("_buffers", ordered(&[])),
            ("_modules", ordered(&[("0", norm.clone()), ("none", none())])),
        ],
    );
    check(&net, &["0.weight F32 [2] tensor", "0.mean F32 [3] tensor"]);
    check(
        &object(&[("model", net)]),
        &["model.0.weight F32 [2] tensor", "model.0.mean F32 [3] tensor"],
    );
}

#[test]
fn attributes_and_arguments_of_objects_are_entered() {
    let object = build(
        &reduce(&global("mine", "Thing"), &[values(1)]),
        &tuple(&[object(&[("a", values(2))]), object(&[("slot", values(3))])]),
    );
    check(&object, &["0 F32 [1] tensor", "a F32 [2] tensor", "slot F32 [3] tensor"]);
}

#[test]
fn what_is_not_there_is_named() {
    let file = check(
        &object(&[("model", object(&[("weight", values(1))]))]),
        &["model.weight F32 [1] tensor"],
    );
    let e = file.tensor("weight").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("did you mean model.weight"), "{e}");
    let e = file.lookup("model.bias").unwrap_err().to_string();
    assert!(e.contains("\"model\" holds: weight"), "{e}");
}

#[test]
fn the_typed_containers_of_torchscript_are_seen_through() {
    // As torch 2.15 pickles List[Tensor], Dict[str, Tensor] and List[int] of a scripted module.
    let tag = |name: &str, args: &[Vec<u8>]| reduce(&global("torch.jit._pickle", name), args);
    let tagged = [object(&[("k", values(3))]), text("Dict[str, Tensor]")];
    let object = object(&[
        ("lst", tag("build_tensorlist", &[list(&[values(2), l(0, 1)])])),
        ("d", tag("restore_type_tag", &tagged)),
        ("n", tag("build_intlist", &[ints(&[4, 5])])),
    ]);
    let file =
        check(&object, &["lst.0 F32 [2] tensor", "lst.1 I64 [1] tensor", "d.k F32 [3] tensor"]);
    assert_eq!(file.lookup("n.1").unwrap().as_int(), Some(5));
}
