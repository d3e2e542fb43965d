//! What is read, from every container and in every layout.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use ckptkit_core::{ErrorKind, Section, TensorSource};
use common::{CONFIG, Header, Tar, checkpoint, floats, names, open, weights};
use nemo_archive::{NemoArchive, OpenOptions, Variant, WeightsLayout};

/// The model of [`Tar::model`], whatever is around it.
#[track_caller]
fn check(archive: &NemoArchive) {
    assert_eq!(names(archive), ["encoder.w", "decoder.b"]);
    assert_eq!(floats(archive, "encoder.w"), [1.0, 2.0, 3.0]);
    assert_eq!(floats(archive, "decoder.b"), [4.0]);
    assert_eq!(archive.config_text().unwrap(), CONFIG);
    assert_eq!(archive.config().unwrap().nemo_version(), Some("2.0.0"));
    assert_eq!(archive.weights().unwrap().layout(), WeightsLayout::File);
}

#[test]
fn a_plain_tar_is_read_in_place() {
    let bytes = Tar::model().end();
    let section = Section::from_bytes(bytes, "x.nemo");
    let archive = NemoArchive::from_section(section.clone()).unwrap();
    check(&archive);
    assert_eq!(archive.variant(), Variant::Tar);
    assert_eq!(archive.notes(), Vec::<String>::new());
    // Every tensor is a window of the archive itself.
    let whole = section.as_slice().unwrap().as_ptr_range();
    for name in names(&archive) {
        let tensor = archive.tensor(name).unwrap();
        assert!(whole.contains(&tensor.as_slice().unwrap().as_ptr()));
    }
}

#[test]
fn every_dialect_of_headers_is_read() {
    let config = CONFIG.as_bytes();
    let ckpt = weights();
    let (c, w) = (config.len() as u64, ckpt.len() as u64);
    let base256 = |n: u64| {
        let mut f = [0; 12];
        f[0] = 0x80;
        f[4..].copy_from_slice(&n.to_be_bytes());
        f
    };
    let long = format!("{}/t.model", "d".repeat(120));
    let start = || Tar::default().file("model_config.yaml", config);
    let mtime = [("mtime", "1700000000.25")];
    let cases = [
        ("ustar", start().file("model_weights.ckpt", &ckpt)),
        ("any order, dots and slashes", {
            Tar::default()
                .file("././/model_weights.ckpt", &ckpt)
                .file("././model_config.yaml", config)
        }),
        ("v7", {
            Tar::default()
                .raw(Header::v7(b"./", 0, 0), b"")
                .raw(Header::v7(b"./model_config.yaml", 0, c), config)
                .raw(Header::v7(b"./model_weights.ckpt", 0, w), &ckpt)
        }),
        ("gnu, base-256", {
            Tar::default()
                .raw(Header::gnu(b"model_config.yaml", b'0', c), config)
                .raw(Header::gnu(b"model_weights.ckpt", b'0', 0).field(124, &base256(w)), &ckpt)
        }),
        ("gnu long name", {
            start()
                .raw(
                    Header::gnu(b"././@LongLink", b'L', long.len() as u64 + 1),
                    format!("{long}\0").as_bytes(),
                )
                .raw(Header::gnu(&long.as_bytes()[..100], b'0', 1), b"t")
                .file("model_weights.ckpt", &ckpt)
        }),
        ("ustar prefix", {
            start()
                .raw(Header::ustar(b"t.model", b'0', 1).field(345, &[b'd'; 120]), b"t")
                .file("model_weights.ckpt", &ckpt)
        }),
        ("pax", {
            Tar::default()
                .pax(b'g', &[("comment", "x")])
                .pax(b'x', &mtime)
                .dir("./")
                .pax(b'x', &mtime)
                .file("./model_config.yaml", config)
                .pax(b'x', &[("path", &long), ("size", "1")])
                .file("short", b"t")
                .pax(b'x', &[("path", "./model_weights.ckpt")])
                .file("other", &ckpt)
        }),
        ("pax size of a member whose own field is full", {
            let full = Header::ustar(b"model_weights.ckpt", b'0', w);
            start().pax(b'x', &[("size", &w.to_string())]).raw(full, &ckpt)
        }),
        ("contiguous file, volume label", {
            Tar::default()
                .raw(Header::gnu(b"label", b'V', 0), b"")
                .raw(Header::ustar(b"model_config.yaml", b'7', c), config)
                .file("model_weights.ckpt", &ckpt)
        }),
    ];
    for (what, tar) in cases {
        let archive = open(tar.end()).unwrap_or_else(|e| panic!("{what}: {e}"));
        check(&archive);
        if archive.entry("t.model").is_err() {
            if let Ok(entry) = archive.entry(&long) {
                assert_eq!(entry.read(10).unwrap(), b"t", "{what}");
            }
        }
    }
}

#[test]
fn missing_ends_and_garbage_are_noted() {
    let plain = Tar::model().0;
    for (bytes, says) in [
        (plain.clone(), "no end blocks"),
        ([&plain[..], &[0; 100]].concat(), "no whole end block"),
        ([&plain[..], &[0; 1024], b"garbage"].concat(), "bytes follow"),
    ] {
        let archive = open(bytes).unwrap();
        check(&archive);
        assert!(archive.notes().iter().any(|n| n.contains(says)), "{:?}", archive.notes());
    }
    // The padding of the last member may be missing too.
    let data = plain.len() - 512 + weights().len() % 512;
    check(&open(&plain[..data]).unwrap());
}

#[cfg(feature = "gzip")]
#[test]
fn gzip_is_decompressed_once() {
    let tar = Tar::model().end();
    let two = [common::gzip(&tar[..3000]), common::gzip(&tar[3000..])].concat();
    let padded = [common::gzip(&tar), vec![0; 100]].concat();
    for bytes in [common::gzip(&tar), two, padded] {
        let archive = open(bytes).unwrap();
        check(&archive);
        assert_eq!(archive.variant(), Variant::Gzip);
        assert_eq!(archive.notes(), Vec::<String>::new());
    }
    let archive = open([common::gzip(&tar), b"garbage".to_vec()].concat()).unwrap();
    assert!(archive.notes()[0].contains("follow the gzip stream"));
}

#[cfg(not(feature = "gzip"))]
#[test]
fn gzip_needs_its_feature() {
    let e = common::refuse(common::gzip(&Tar::model().end()));
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("feature gzip"), "{e}");
}

#[test]
fn a_directory_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("model_config.yaml"), CONFIG).unwrap();
    std::fs::write(at("model_weights.ckpt"), weights()).unwrap();
    std::fs::create_dir(at("tok")).unwrap();
    std::fs::write(at("tok/x.model"), "t").unwrap();
    let archive = NemoArchive::open(dir.path()).unwrap();
    check(&archive);
    assert_eq!(archive.variant().as_str(), "directory");
    assert_eq!(archive.entry("./tok//x.model").unwrap().read(9).unwrap(), b"t");
    check(&NemoArchive::open_dir(dir.path()).unwrap());
    #[cfg(feature = "mmap")]
    {
        let mapped = NemoArchive::open_mapped(dir.path()).unwrap();
        assert!(mapped.tensor("encoder.w").unwrap().as_slice().is_some());
    }
    std::fs::remove_file(at("model_config.yaml")).unwrap();
    let e = NemoArchive::open(dir.path()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("model_weights.ckpt"), "{e}");
    std::fs::create_dir(at("context")).unwrap();
    std::fs::create_dir(at("weights")).unwrap();
    assert!(NemoArchive::open(dir.path()).unwrap_err().to_string().contains("NeMo 2"));
}

#[cfg(feature = "mmap")]
#[test]
fn a_mapped_archive_lends_its_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    std::fs::write(&path, Tar::model().end()).unwrap();
    let archive = NemoArchive::open_mapped(&path).unwrap();
    check(&archive);
    assert_eq!(archive.tensor("decoder.b").unwrap().as_slice().unwrap(), 4.0_f32.to_le_bytes());
}

#[test]
fn one_directory_around_everything_falls_away() {
    let tar = Tar::default()
        .dir("mymodel/")
        .file("mymodel/model_config.yaml", CONFIG.as_bytes())
        .file("mymodel/model_weights.ckpt", &weights());
    let archive = open(tar.end()).unwrap();
    check(&archive);
    assert!(archive.notes()[0].contains("mymodel"));
    assert_eq!(archive.entry("model_config.yaml").unwrap().raw_name(), "mymodel/model_config.yaml");
}

#[test]
fn rank_directories_name_their_tensors() {
    let rank = |i: f32| checkpoint(&[("w", &[i])]);
    let config = "tensor_model_parallel_size: 2\npipeline_model_parallel_size: ${tensor_model_parallel_size}\n";
    let tar = Tar::default()
        .file("model_config.yaml", config.as_bytes())
        .file("mp_rank_01/model_weights.ckpt", &rank(1.0))
        .file("mp_rank_00/model_weights.ckpt", &rank(0.0));
    let archive = open(tar.end()).unwrap();
    assert_eq!(names(&archive), ["mp_rank_00/w", "mp_rank_01/w"]);
    assert_eq!(floats(&archive, "mp_rank_01/w"), [1.0]);
    let weights = archive.weights().unwrap();
    assert_eq!((weights.layout(), weights.ranks()), (WeightsLayout::Ranks, 2));
    let [a, b] = weights.tensors() else { panic!("two tensors") };
    assert_ne!(a.info().storage(), b.info().storage());
    // The pipeline disagrees, the tensor-parallel size does not.
    let notes = archive.notes().join("\n");
    assert!(
        notes.contains("pipeline_model_parallel_size is 2") && !notes.contains("tensor_m"),
        "{notes}"
    );
    assert!(archive.artifacts().unwrap().is_empty());

    let tar = Tar::default()
        .file("model_config.yaml", b"a: 1\n")
        .file("tp_rank_00_pp_rank_001/model_weights.ckpt", &rank(1.0))
        .file("tp_rank_00_pp_rank_000/model_weights.ckpt", &rank(0.0));
    let archive = open(tar.end()).unwrap();
    assert_eq!(names(&archive), ["tp_rank_00_pp_rank_000/w", "tp_rank_00_pp_rank_001/w"]);
}

#[test]
fn a_missing_rank_is_an_error() {
    let w = weights();
    for (folders, says) in [
        (&["mp_rank_00", "mp_rank_02"][..], "mp_rank_01"),
        (&["mp_rank_01"], "mp_rank_00"),
        (&["mp_rank_18446744073709551615"], "mp_rank_00"),
        (&["tp_rank_00_pp_rank_000", "tp_rank_01_pp_rank_001"], "tp_rank_01_pp_rank_000"),
        (&["mp_rank_00", "tp_rank_00_pp_rank_000"], "side by side"),
        (&["mp_rank_00", "mp_rank_000"], "of one rank"),
    ] {
        let mut tar = Tar::default().file("model_config.yaml", b"a: 1\n");
        for folder in folders {
            tar = tar.file(&format!("{folder}/model_weights.ckpt"), &w);
        }
        let e = common::refuse(tar.clone().end());
        assert_eq!(e.kind(), ErrorKind::Malformed);
        assert!(e.to_string().contains(says), "{folders:?}: {e}");
        // What is there can still be looked at.
        let options = OpenOptions::new().members_only(true);
        let section = Section::from_bytes(tar.end(), "x");
        let archive = options.open_section(section).unwrap();
        assert!(archive.config().is_ok() && archive.weights().is_err());
        assert_eq!(archive.infos().count(), 0);
        assert!(archive.tensor("w").unwrap_err().to_string().contains(says));
    }
}

#[test]
fn release_0_11_has_a_file_for_each_module() {
    let tar = Tar::default()
        .dir(".nemo_tmp/")
        .file(".nemo_tmp/header.content", b"nemo_file_version: 1")
        .file(".nemo_tmp/module.yaml", b"init_params: {vocabulary: [a, b]}\n")
        .file(".nemo_tmp/JasperEncoder.pt", &checkpoint(&[("conv.weight", &[1.0])]))
        .file(".nemo_tmp/JasperDecoder.pt", &checkpoint(&[("conv.weight", &[2.0])]));
    let archive = open(tar.end()).unwrap();
    assert_eq!(names(&archive), ["JasperEncoder/conv.weight", "JasperDecoder/conv.weight"]);
    assert_eq!(floats(&archive, "JasperDecoder/conv.weight"), [2.0]);
    assert_eq!(archive.weights().unwrap().layout(), WeightsLayout::Modules);
    assert!(archive.config().unwrap().get("init_params.vocabulary.1").is_some());
}

#[test]
fn a_diarizer_lists_the_tensors_of_its_models() {
    let inner = Tar::model().end();
    let tar = Tar::default()
        .file(
            "./model_config.yaml",
            b"diarizer: {speaker_embeddings: {model_path: speaker_model.nemo}}\n",
        )
        .file("./speaker_model.nemo", &inner)
        .file("./vad_model.nemo", &inner);
    let archive = open(tar.clone().end()).unwrap();
    assert_eq!(archive.weights().unwrap().layout(), WeightsLayout::Nested);
    assert_eq!(
        names(&archive),
        [
            "speaker_model/encoder.w",
            "speaker_model/decoder.b",
            "vad_model/encoder.w",
            "vad_model/decoder.b"
        ]
    );
    assert_eq!(floats(&archive, "vad_model/decoder.b"), [4.0]);
    let nested: Vec<&str> = archive.nested_names().collect();
    assert_eq!(nested, ["speaker_model.nemo", "vad_model.nemo"]);
    let speaker = archive.nested("speaker_model.nemo").unwrap();
    check(&speaker);
    assert_eq!(speaker.name(), "test.nemo!/speaker_model.nemo");
    // Two levels are read, three are not.
    let around = |inner: &[u8]| {
        Tar::default().file("model_config.yaml", b"a: 1\n").file("in.nemo", inner).end()
    };
    let two = around(&tar.end());
    assert_eq!(names(&open(two.clone()).unwrap())[0], "in/speaker_model/encoder.w");
    let e = common::refuse(around(&two));
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    assert!(
        e.to_string()
            .contains("test.nemo!/in.nemo!/in.nemo: member speaker_model.nemo: archives nest"),
        "{e}"
    );
}

#[test]
fn adapter_weights_are_told_apart() {
    let adapters = checkpoint(&[("model.layers.0.adapter_layer.lora.w", &[1.0])]);
    let tar = Tar::default()
        .file("model_config.yaml", b"peft: {peft_scheme: lora}\n")
        .file("model_weights.ckpt", &adapters);
    let archive = open(tar.end()).unwrap();
    assert!(archive.is_adapter_only());
    assert!(archive.notes().iter().any(|n| n.contains("base model")));
    assert!(!open(Tar::model().end()).unwrap().is_adapter_only());
}

#[test]
fn artifacts_are_found_by_uri_and_by_base_name() {
    const HEX: &str = "0123456789abcdef0123456789abcdef";
    let config = format!(
        "target: my.own.Model\ntokenizer:\n  model_path: nemo:{HEX}_tokenizer.model\n  again: nemo:{HEX}_tokenizer.model\n  \
         vocab_path: /old/train/vocab.txt\n  gone: nemo:gone.txt\nsub: {{_target_: os.system}}\nsafe: {{_target_: torch.optim.AdamW}}\n"
    );
    let tar = Tar::default()
        .file("./model_config.yaml", config.as_bytes())
        .file(&format!("./{HEX}_tokenizer.model"), b"tok")
        .file("./vocab.txt", b"v")
        .file("./extra.bin", b"x")
        .file("./model_weights.ckpt", &weights());
    let archive = open(tar.end()).unwrap();
    let artifacts = archive.artifacts().unwrap();
    let found: Vec<(&str, &[String])> =
        artifacts.iter().map(|a| (a.base_name(), a.keys())).collect();
    let keys = |k: &[&str]| k.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        found,
        [
            ("tokenizer.model", &keys(&["tokenizer.model_path", "tokenizer.again"])[..]),
            ("vocab.txt", &keys(&["tokenizer.vocab_path"])),
            ("extra.bin", &[]),
        ]
    );
    assert!(!artifacts[2].is_referenced());
    assert_eq!(artifacts[0].section().unwrap().read(9).unwrap(), b"tok");
    assert_eq!(artifacts[0].size(), 3);
    let by_uri = archive.artifact(&format!("nemo:{HEX}_tokenizer.model")).unwrap();
    assert_eq!(by_uri.size(), 3);
    assert_eq!(archive.artifact("C:\\data\\vocab.txt").unwrap().read(9).unwrap(), b"v");
    for (uri, kind) in [
        ("nemo:gone.txt", ErrorKind::NotFound),
        ("/etc/passwd", ErrorKind::NotFound),
        ("model_config.yaml", ErrorKind::NotFound),
        ("", ErrorKind::NotFound),
        ("nemo:../x", ErrorKind::Denied),
        ("nemo:/etc/passwd", ErrorKind::Denied),
    ] {
        assert_eq!(archive.artifact(uri).unwrap_err().kind(), kind, "{uri}");
    }
    let notes = archive.notes().join("\n");
    for says in [
        "tokenizer.gone refers to \"nemo:gone.txt\"",
        "no key of the config refers to the member extra.bin",
        "key target names code outside the known packages: my.own.Model",
        "sub._target_ names code outside the known packages: os.system",
        "1 value of the config holds absolute paths of another machine (tokenizer.vocab_path: /old/train/vocab.txt)",
    ] {
        assert!(notes.contains(says), "{says}\n{notes}");
    }
    assert!(!notes.contains("AdamW"), "{notes}");
}

#[test]
fn members_are_listed_as_they_stand() {
    let archive = open(Tar::model().end()).unwrap();
    let listed: Vec<(&str, u64, bool)> =
        archive.entries().map(|e| (e.path().as_str(), e.size(), e.is_dir())).collect();
    assert_eq!(
        listed,
        [
            ("model_config.yaml", CONFIG.len() as u64, false),
            ("model_weights.ckpt", weights().len() as u64, false)
        ]
    );
    let entry = archive.entry("model_config.yaml").unwrap();
    assert_eq!((entry.raw_name(), entry.mtime()), ("./model_config.yaml", 0o14524664000));
    assert_eq!(entry.read(3).unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(archive.entry("nope").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(archive.entry("../x").unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(archive.tensor("encoder").unwrap_err().kind(), ErrorKind::NotFound);
    let folder = open(Tar::model().dir("./tok/").end()).unwrap();
    let e = folder.entry("tok").unwrap().section().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
}
