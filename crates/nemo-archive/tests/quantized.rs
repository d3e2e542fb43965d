//! Quantized exports for TensorRT-LLM: found by their content, one safetensors file a rank.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use ckptkit_core::ErrorKind;
use common::{Tar, refuse};

/// A safetensors file of one tensor of two bytes.
fn rank() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header, &[1, 2]].concat()
}

fn export(config: &str, ranks: &[&str]) -> Tar {
    let start = Tar::default().dir("./").file("./config.json", config.as_bytes());
    ranks.iter().fold(start, |tar, name| tar.file(name, &rank()))
}

#[cfg(feature = "safetensors")]
mod with_its_feature {
    use super::*;
    use ckptkit_core::TensorSource;
    use common::{names, open};
    use nemo_archive::{NemoArchive, WeightsLayout};

    #[track_caller]
    fn check(tar: Tar, expected: &[&str]) -> NemoArchive {
        let archive = open(tar.end()).unwrap();
        assert_eq!(names(&archive), expected);
        let weights = archive.weights().unwrap();
        assert_eq!(weights.layout(), WeightsLayout::Quantized);
        assert_eq!(weights.ranks(), expected.len());
        assert_eq!(weights.safetensors().len(), expected.len());
        for name in expected {
            assert_eq!(archive.tensor(name).unwrap().read().unwrap(), [1, 2]);
        }
        archive
    }

    #[test]
    fn names_carry_their_rank_where_there_are_several() {
        let one = check(export("{}", &["./rank0.safetensors"]), &["w"]);
        assert_eq!(one.notes(), Vec::<String>::new());
        assert_eq!(one.config_name(), "config.json");
        let single = r#"{"mapping": {"world_size": 1}}"#;
        check(export(single, &["./rank0.safetensors"]), &["w"]);
        // In any order, and ranks are numbers.
        let many: Vec<String> = (0..12).rev().map(|i| format!("rank{i}.safetensors")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let names: Vec<String> = (0..12).map(|i| format!("rank{i}/w")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        check(export(r#"{"mapping": {"tp_size": 4, "pp_size": 3}}"#, &many), &names);
    }

    #[test]
    fn the_config_may_disagree_with_the_files() {
        let two = r#"{"mapping": {"world_size": 2}}"#;
        let archive = check(export(two, &["./rank0.safetensors"]), &["rank0/w"]);
        assert!(archive.notes()[0].contains("mapping.world_size is 2"), "{:?}", archive.notes());
    }

    #[test]
    fn files_that_are_not_tensors_are_artifacts() {
        let tar = export("{}", &["rank0.safetensors"])
            .file("tokenizer_config.yaml", b"model: t.model\n")
            .file("nemo_context/model.yaml", b"a: 1\n")
            .file("sub/rank1.safetensors", b"");
        let archive = check(tar, &["w"]);
        let artifacts = archive.artifacts().unwrap();
        let names: Vec<&str> = artifacts.iter().map(nemo_archive::Artifact::name).collect();
        assert_eq!(
            names,
            ["tokenizer_config.yaml", "nemo_context/model.yaml", "sub/rank1.safetensors"]
        );
        assert_eq!(archive.notes(), Vec::<String>::new());
    }

    #[test]
    fn a_wrapping_folder_falls_away() {
        let tar = Tar::default()
            .dir("export/")
            .file("export/config.json", b"{}")
            .file("export/rank0.safetensors", &rank());
        assert!(check(tar, &["w"]).notes()[0].contains("\"export\""));
    }

    #[test]
    fn a_model_with_its_own_config_is_no_export() {
        let tar = Tar::model().file("config.json", b"{}").file("rank0.safetensors", &rank());
        let archive = open(tar.end()).unwrap();
        assert_eq!(names(&archive), ["encoder.w", "decoder.b"]);
        assert_eq!(archive.artifacts().unwrap().len(), 2);
    }

    #[test]
    fn damage_names_the_member() {
        let tar = Tar::default().file("config.json", b"{}").file("rank0.safetensors", b"short");
        let error = refuse(tar.end()).to_string();
        assert!(error.contains("member rank0.safetensors"), "{error}");
    }

    #[test]
    fn a_directory_is_an_export_too() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        };
        write("rank0.safetensors", &rank());
        let error = NemoArchive::open(folder.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        write("config.json", b"{}");
        let archive = NemoArchive::open(folder.path()).unwrap();
        assert_eq!(archive.tensor("w").unwrap().read().unwrap(), [1, 2]);
    }
}

#[test]
fn every_rank_must_be_there() {
    for ranks in [&["rank1.safetensors"][..], &["rank0.safetensors", "rank2.safetensors"]] {
        let error = refuse(export("{}", ranks).end());
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
        assert!(error.to_string().contains("incomplete"), "{error}");
    }
}

#[cfg(not(feature = "safetensors"))]
#[test]
fn a_build_without_the_feature_says_so() {
    let error = refuse(export("{}", &["rank0.safetensors"]).end());
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("feature safetensors"), "{error}");
}
