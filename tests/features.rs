//! What a build says of the formats that it leaves out. Runs with any set of them:
//! `cargo test -p ckptkit-tests --no-default-features --features nemo --test features`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use ckptkit::{Checkpoint, ErrorKind, Format};
use ckptkit_tests::fixture;

/// A fixture of a format opens with the feature and is refused by name without it.
fn check(name: &str, format: &str, built: bool) {
    let f = fixture::one(name);
    match Checkpoint::open(&f.path) {
        Ok(checkpoint) => {
            assert!(built, "{name}");
            assert_eq!(checkpoint.tensors().count(), f.manifest.tensors.len(), "{name}");
            assert_eq!(checkpoint.format().name(), format);
        }
        Err(e) => {
            assert!(!built, "{name}: {e}");
            assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
            assert!(e.to_string().contains("this build leaves the format"), "{e}");
            assert!(e.to_string().contains("feature"), "{e}");
        }
    }
}

#[test]
fn each_format_opens_where_it_is_built() {
    let torch = cfg!(feature = "torch");
    // A build without Lightning's crate sees what torch.save has written.
    let lightning = if cfg!(feature = "lightning") { "lightning-ckpt" } else { "torch" };
    check("safetensors/dtypes.safetensors", "safetensors", cfg!(feature = "safetensors"));
    check("safetensors/hf_sharded", "safetensors", cfg!(feature = "safetensors"));
    check("torch/tied.pt", "torch", torch);
    check("lightning/adam.ckpt", lightning, torch);
    check("nemo/ctc_char.nemo", "nemo", cfg!(feature = "nemo"));
    check("nemo/unpacked", "nemo", cfg!(feature = "nemo"));
    check("distcp/tp_2", "distcp", cfg!(feature = "distcp"));
}

#[test]
fn detection_needs_no_format() {
    for (name, format) in [
        ("safetensors/dtypes.safetensors", Format::Safetensors),
        ("torch/tied.pt", Format::Torch),
        ("lightning/adam.ckpt", Format::Torch),
        ("nemo/ctc_char.nemo", Format::Nemo),
        ("nemo/gzip.nemo", Format::Nemo),
        ("distcp/tp_2", Format::Distcp),
    ] {
        assert_eq!(Format::detect(fixture::one(name).path).unwrap(), format, "{name}");
    }
}
