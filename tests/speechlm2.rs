//! Training checkpoints of SpeechLM2 models as the directories that NeMo's `from_pretrained` loads,
//! against one that its `save_pretrained` wrote.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use ckptkit::core::Region;
use ckptkit::lightning::NewCkpt;
use ckptkit::nemo::{Builder, Config};
use ckptkit::torch::{Document, WriteOptions};
use ckptkit::{
    Checkpoint, Convert, CopyOptions, Dtype, Error, ErrorKind, Existing, Json, Report, Target,
    Tensor, Value,
};
use ckptkit_tests::fixture;
use serde_json::{Value as Parsed, json};

const SECTIONS: [&str; 2] = ["preprocessor", "encoder"];

/// The directory by `save_pretrained`, and its config.
fn saved() -> (PathBuf, Parsed) {
    let path = fixture::one("nemo/speechlm2").path;
    let config = config_of(&path);
    (path, config)
}

fn config_of(directory: &Path) -> Parsed {
    serde_json::from_slice(&std::fs::read(directory.join("config.json")).unwrap()).unwrap()
}

fn convert(from: &Path, to: &Path, change: impl FnOnce(&mut Convert)) -> Result<Report, Error> {
    let mut wish = Convert::new(Target::of(to));
    change(&mut wish);
    let plan = wish.plan(&Checkpoint::open(from)?, to)?;
    plan.write_verified(Existing::Refuse, &CopyOptions::default())
}

/// What Lightning writes of the model while it trains: the config as it was given, without what
/// NeMo's `SALM` takes from the archive of the ASR model and from the language model.
fn training(directory: &Path, to: &Path) {
    let source = Checkpoint::open(directory).unwrap();
    let mut config = source.config().unwrap().unwrap().value;
    let Value::Dict(pairs) = &mut config else { panic!("no mapping") };
    pairs.retain(|(key, _)| !matches!(key.as_str(), Some("architectures" | "model_type")));
    for (key, value) in pairs {
        if key.as_str() != Some("perception") {
            continue;
        }
        let Value::Dict(sections) = value else { panic!("no mapping") };
        sections.retain(|(key, _)| !SECTIONS.contains(&key.as_str().unwrap()));
        for (key, value) in sections.iter_mut() {
            if key.as_str() == Some("output_dim") {
                *value = Value::Int(7);
            }
        }
        // One value of the user's own, and one that is left to the archive.
        let own = [("dropout_att", Value::Float(0.1)), ("d_model", Value::None)];
        let own = own.map(|(key, value)| (Value::Str(key.into()), value));
        sections.push((Value::Str("encoder".into()), Value::Dict(own.into())));
    }
    let mut document = Document::new();
    let tensors: Vec<Tensor> = source.tensors().cloned().collect();
    let mut new = NewCkpt::new(document.state_dict(&tensors).unwrap());
    let arguments = Value::Dict(vec![(Value::Str("cfg".into()), config)]);
    new.hyper_parameters = Some(document.builder().value(&arguments).unwrap());
    let root = new.build(document.builder());
    document.set_root(root);
    let file = document.layout(&WriteOptions::new()).unwrap();
    let layout = ckptkit::core::Layout::file(file);
    layout.write(to, Existing::Refuse, &CopyOptions::default()).unwrap();
}

/// The archive that the run began with: the two sections, another value where the user set one,
/// and the encoder's tensors.
fn asr(directory: &Path, to: &Path, rows: u64) {
    let source = Checkpoint::open(directory).unwrap();
    let config = source.config().unwrap().unwrap().value;
    let mut sections = json!({"target": "nemo.collections.asr.models.EncDecCTCModel"});
    for key in SECTIONS {
        let section = config.get(&format!("perception.{key}")).unwrap();
        sections[key] = serde_json::to_value(Json(section)).unwrap();
    }
    sections["encoder"]["dropout_att"] = json!(0.5);
    let tensors: Vec<Tensor> = source
        .tensors()
        .filter(|t| t.name().starts_with("perception.encoder."))
        .map(|t| t.renamed(t.name().trim_start_matches("perception.").to_owned()))
        .map(|t| {
            let shape = t.shape().to_vec();
            let sizes: Vec<u64> = shape.iter().map(|n| (*n).min(rows)).collect();
            t.region(&Region { offsets: vec![0; shape.len()], sizes }).unwrap()
        })
        .collect();
    let mut document = Document::new();
    let root = document.state_dict(&tensors).unwrap();
    document.set_root(root);
    let mut builder = Builder::new(Config::parse(sections.to_string().as_bytes()).unwrap());
    builder.weights(document.layout(&WriteOptions::new()).unwrap()).unwrap();
    let archive = builder.layout(&ckptkit::nemo::WriteOptions::new()).unwrap();
    archive.write(to, Existing::Refuse, &CopyOptions::default()).unwrap();
}

#[test]
fn a_training_checkpoint_becomes_what_save_pretrained_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (directory, expected) = saved();
    let (run, archive) = (dir.path().join("run.ckpt"), dir.path().join("asr.nemo"));
    training(&directory, &run);
    asr(&directory, &archive, u64::MAX);
    for (name, distributed) in [("single", false), ("distributed", true)] {
        let source = if distributed { dir.path().join("step") } else { run.clone() };
        if distributed {
            convert(&run, &source, |wish| {
                wish.target = Target::Distcp;
                wish.ranks = 2;
            })
            .unwrap();
        }
        let to = dir.path().join(name);
        let report = convert(&source, &to, |w| w.asr = Some(archive.clone())).unwrap();
        assert_eq!(config_of(&to), expected, "{name}");
        assert_eq!(report.files, 2);
        assert!(!report.notes.iter().any(|note| note.contains("--asr")), "{:?}", report.notes);
        let digests = [&to, &directory].map(|path| {
            let checkpoint = Checkpoint::open(path).unwrap();
            ckptkit::digest(checkpoint.tensors(), &|_| true).unwrap().digest.unwrap()
        });
        assert_eq!(digests[0], digests[1], "{name}");

        // The type that the weights were cast to is told as NeMo's export tells it.
        let half = dir.path().join(format!("{name}_half"));
        convert(&source, &half, |w| {
            w.asr = Some(archive.clone());
            w.dtype = Some(Dtype::Bf16);
        })
        .unwrap();
        let mut with_dtype = expected.clone();
        with_dtype["torch_dtype"] = json!("bfloat16");
        assert_eq!(config_of(&half), with_dtype, "{name}");
    }
}

#[test]
fn what_is_missing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (directory, _) = saved();
    let run = dir.path().join("run.ckpt");
    training(&directory, &run);
    let report = convert(&run, &dir.path().join("out"), |_| {}).unwrap();
    let note = report.notes.iter().find(|note| note.contains("--asr")).unwrap();
    assert!(note.contains("preprocessor and encoder"), "{note}");
    assert!(note.contains("asr_ctc_bpe.nemo"), "{note}");
}

#[test]
fn the_way_back_keeps_the_argument() {
    let dir = tempfile::tempdir().unwrap();
    let (directory, expected) = saved();
    let (back, again) = (dir.path().join("back.ckpt"), dir.path().join("again"));
    convert(&directory, &back, |_| {}).unwrap();
    let cfg = Checkpoint::open(&back).unwrap().value("hyper_parameters.cfg").unwrap();
    assert_eq!(serde_json::to_value(Json(&cfg)).unwrap(), expected);
    convert(&back, &again, |_| {}).unwrap();
    assert_eq!(config_of(&again), expected);
    // A directory that says all is copied as it is.
    let copy = dir.path().join("copy");
    convert(&directory, &copy, |_| {}).unwrap();
    let text = |path: &Path| std::fs::read(path.join("config.json")).unwrap();
    assert_eq!(text(&copy), text(&directory));
}

#[test]
fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    let (directory, _) = saved();
    let run = dir.path().join("run.ckpt");
    training(&directory, &run);
    let refused = |source: &Path, to: &str, archive: &Path| {
        let to = dir.path().join(to);
        let error = convert(source, &to, |w| w.asr = Some(archive.to_path_buf())).unwrap_err();
        assert!(!to.exists());
        error
    };
    // Another encoder.
    let other = dir.path().join("other.nemo");
    asr(&directory, &other, 3);
    let error = refused(&run, "a", &other);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("encoder."), "{error}");
    assert!(error.to_string().contains("other.nemo"), "{error}");
    // An archive without the sections.
    let (nested, adam) = (fixture::one("nemo/nested.nemo"), fixture::one("lightning/adam.ckpt"));
    let error = refused(&run, "b", &nested.path);
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    // No SpeechLM2 model, and no directory.
    let error = refused(&adam.path, "c", &other);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let error = refused(&run, "d.safetensors", &other);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}
