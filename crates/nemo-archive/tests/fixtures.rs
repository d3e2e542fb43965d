//! The archives that NeMo itself has written, where the workspace with them is at hand.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use ckptkit_core::{ErrorKind, TensorSource};
use nemo_archive::NemoArchive;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/nemo")
}

#[test]
fn every_archive_of_nemo_is_read() {
    let Ok(files) = std::fs::read_dir(fixtures()) else { return };
    for path in files.map(|f| f.unwrap().path()) {
        if path.extension().is_none_or(|e| e != "nemo") {
            continue;
        }
        let archive = match NemoArchive::open(&path) {
            Err(e) if e.kind() == ErrorKind::Unsupported && e.to_string().contains("feature") => {
                continue;
            }
            opened => opened.unwrap(),
        };
        assert!(archive.config().unwrap().target().is_some(), "{}", path.display());
        assert!(archive.infos().count() > 0, "{}", path.display());
        for info in archive.infos() {
            let bytes = archive.tensor(info.name()).unwrap().read().unwrap();
            assert_eq!(bytes.len() as u64, info.byte_len());
        }
        for artifact in archive.artifacts().unwrap() {
            assert!(artifact.is_referenced(), "{}: {}", path.display(), artifact.name());
        }
        // A model of the generator's own is the only thing to be said.
        let notes = archive.notes();
        assert!(notes.iter().all(|n| n.starts_with("key target names code")), "{notes:?}");
    }
}

#[cfg(feature = "distcp")]
#[test]
fn a_distributed_checkpoint_is_read_inside_the_archive() {
    let Ok(archive) = NemoArchive::open(fixtures().join("dist_checkpoint.nemo")) else { return };
    let weights = archive.weights().unwrap();
    assert_eq!(weights.layout(), nemo_archive::WeightsLayout::Distributed);
    assert_eq!(weights.distributed().unwrap().variant(), "megatron");
    assert_eq!(archive.tensor("model.l0_qkv").unwrap().shape(), [8, 4]);
    // Its files are weights, not artifacts.
    let artifacts = archive.artifacts().unwrap();
    assert!(artifacts.iter().all(|a| !a.name().starts_with("model_weights")));
}
