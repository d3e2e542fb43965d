//! Agreement with the reference crate, in both directions.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, HashMap};

use ckptkit_core::{Dtype, Tensor};
use common::{bytes_of, contents, map, open, pattern, tensor};
use proptest::prelude::*;
use safetensors::tensor::{Dtype as RefDtype, TensorView};
use safetensors::{SafeTensors, serialize};
use st_io::{Order, WriteOptions, layout_file};

fn reference(dtype: Dtype) -> RefDtype {
    // The reference reads the name that the format gives the dtype.
    serde_json::from_str(&format!("{:?}", dtype.name())).unwrap()
}

/// Names that need escapes now and then, dtypes of every width, shapes with empty dimensions.
fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
    let dtypes: Vec<Dtype> = Dtype::all().filter(|d| d.safetensors_name().is_some()).collect();
    let name = prop_oneof![
        "[a-c]{1,3}(\\.[0-9]{1,2})?(\\.weight)?",
        proptest::string::string_regex("[\"\\\\/\u{0}-\u{1f}é😀\u{7f}a ]{0,6}").unwrap(),
    ];
    let shape = prop::collection::vec(0_u64..4, 0..4);
    let one = (prop::sample::select(dtypes), shape, 0_u64..99);
    prop::collection::btree_map(name, one, 0..12).prop_map(|all| {
        let whole = |dtype: Dtype, mut shape: Vec<u64>| {
            if dtype.element_bytes().is_none() {
                shape.push(4);
            }
            shape
        };
        all.into_iter()
            .filter(|(name, _)| name != "__metadata__")
            .map(|(name, (dtype, shape, seed))| {
                let shape = whole(dtype, shape);
                let len = dtype.byte_len(shape.iter().product()).unwrap();
                tensor(&name, dtype, &shape, pattern(seed, len))
            })
            .collect()
    })
}

fn metadata() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[a-z\"é\\\\]{0,4}", ".{0,8}", 0..2)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_we_write_is_byte_for_byte_the_reference(
        mut list in tensors(), metadata in metadata(), seed in any::<u64>(),
    ) {
        let held: Vec<(String, RefDtype, Vec<usize>, Vec<u8>)> = list.iter().map(|t| {
            let shape = t.shape().iter().map(|d| *d as usize).collect();
            (t.name().to_owned(), reference(t.dtype()), shape, t.read().unwrap())
        }).collect();
        let views = held.iter().map(|(name, dtype, shape, bytes)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let info: HashMap<String, String> = metadata.clone().into_iter().collect();
        let expected = serialize(views, (!info.is_empty()).then_some(info)).unwrap();

        // The order in which tensors are given must not matter.
        if !list.is_empty() {
            let turn = (seed % list.len() as u64) as usize;
            list.rotate_left(turn);
        }
        let layout = layout_file(&list, &metadata, &WriteOptions::new()).unwrap();
        prop_assert_eq!(bytes_of(&layout), expected.clone());

        // And what the reference wrote reads back the same.
        let opened = open(expected).unwrap();
        opened.verify().unwrap();
        prop_assert_eq!(opened.metadata(), &metadata);
        let read = contents(opened.tensors());
        prop_assert_eq!(read.len(), list.len());
        for t in &list {
            let value = (t.dtype(), t.shape().to_vec(), t.read().unwrap());
            prop_assert_eq!(&read[t.name()], &value);
        }
    }

    #[test]
    fn the_reference_reads_every_order_and_alignment(
        list in tensors(), source_order in any::<bool>(), align in prop::sample::select(vec![8_u64, 24, 64, 4096]),
    ) {
        let mut options = WriteOptions::new();
        options.align = align;
        if source_order {
            options.order = Order::Source;
        }
        let many = map(&[("format", "pt"), ("a", "\"quoted\""), ("z", "é")]);
        let bytes = bytes_of(&layout_file(&list, &many, &options).unwrap());
        let opened = open(bytes.clone()).unwrap();
        prop_assert_eq!(opened.data_offset() % align, 0);
        prop_assert_eq!(opened.metadata(), &many);
        if source_order {
            let names: Vec<&str> = opened.infos().map(|i| i.name()).collect();
            let given: Vec<&str> = list.iter().map(|t| t.name()).collect();
            prop_assert_eq!(names, given);
        }
        let read = SafeTensors::deserialize(&bytes).unwrap();
        prop_assert_eq!(read.len(), list.len());
        for t in &list {
            let view = read.tensor(t.name()).unwrap();
            let shape: Vec<u64> = view.shape().iter().map(|d| *d as u64).collect();
            prop_assert_eq!(view.dtype(), reference(t.dtype()));
            prop_assert_eq!(&shape[..], t.shape());
            prop_assert_eq!(view.data(), t.read().unwrap());
        }
    }
}

/// Whatever we accept, the reference accepts and reads alike; we may refuse more.
#[test]
fn headers_that_we_accept_are_legal_to_the_reference() {
    let pieces = [
        r#""a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}"#,
        r#""b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}"#,
        r#""b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}"#,
        r#""c":{"dtype":"I16","shape":[1],"data_offsets":[0,2],"extra":1}"#,
        r#""d":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}"#,
        r#""e":["U8",[2],[0,2]]"#,
        r#""__metadata__":{"k":"v"}"#,
        r#""__metadata__":null"#,
    ];
    let mut accepted = 0;
    for set in 0..1_u32 << pieces.len() {
        let chosen: Vec<&str> =
            (0..pieces.len()).filter(|i| set >> i & 1 == 1).map(|i| pieces[i]).collect();
        for data in 0..5 {
            let bytes = common::file(format!("{{{}}}", chosen.join(",")), &[7; 5][..data]);
            if let Ok(ours) = open(bytes.clone()) {
                accepted += 1;
                let theirs = SafeTensors::deserialize(&bytes).unwrap();
                assert_eq!(theirs.len(), ours.infos().count());
            }
        }
    }
    assert!(accepted > 10, "{accepted}");
}

/// Text that is nearly a header: valid parts in any order, with anything between them.
fn nearly_a_header() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        8 => prop::sample::select(vec![
            r#""a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}"#,
            r#""b":{"shape":[],"data_offsets":[2,4],"dtype":"I16"}"#,
            r#""c":{"dtype":"F32","shape":[0,9],"data_offsets":[4,4],"x":[1,{}]}"#,
            r#""__metadata__":{"k":"v"}"#,
            r#""\u0061":{"dtype":"BOOL","shape":[1,1],"data_offsets":[4,5]}"#,
        ]),
        2 => prop::sample::select(vec![",", "{", "}", " ", "\"", ":", "[", "]", "null", "0", "-1"]),
    ];
    (prop::collection::vec(token, 0..6), any::<prop::sample::Index>(), any::<Option<u8>>())
        .prop_map(|(tokens, at, change)| {
            let mut text = format!("{{{}}}", tokens.join(",")).into_bytes();
            if let Some(change) = change {
                let at = at.index(text.len());
                text[at] = change;
            }
            String::from_utf8_lossy(&text).into_owned()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_we_read_the_reference_reads(header in nearly_a_header(), data in 0_usize..6) {
        let bytes = common::file(&header, &[1, 2, 3, 4, 5][..data.min(5)]);
        let Ok(ours) = open(bytes.clone()) else { return Ok(()) };
        if ours.verify().is_err() {
            return Ok(()); // an unknown dtype, for which the reference refuses the file
        }
        let theirs = SafeTensors::deserialize(&bytes);
        prop_assert!(theirs.is_ok(), "{header} {:?}", theirs.err());
        let theirs = theirs.unwrap();
        prop_assert_eq!(theirs.len(), ours.entries().len());
        for t in ours.tensors() {
            let t = t.unwrap();
            prop_assert_eq!(theirs.tensor(t.name()).unwrap().data(), t.read().unwrap());
        }
    }
}
