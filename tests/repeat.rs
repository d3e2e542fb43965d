//! The same input gives the same bytes, in every file, whatever the number of threads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use ckptkit::{Checkpoint, Convert, CopyOptions, Dtype, Existing, Scope, Target};
use ckptkit_tests::fixture::{self, Fixture, each};
use ckptkit_tests::{obedient, tree};

/// Every target, and the forms that it has.
fn wishes() -> Vec<(&'static str, Convert)> {
    let of = |target| {
        let mut wish = Convert::new(target);
        wish.max_shard_bytes = 200;
        wish.ranks = 3;
        wish
    };
    let all = |target| {
        let mut wish = of(target);
        wish.scope = Scope::All;
        wish
    };
    let mut shards = of(Target::Distcp);
    shards.form = ckptkit::distcp::Form::Safetensors;
    let mut cast = of(Target::SafetensorsFile);
    cast.dtype = Some(Dtype::Bf16);
    vec![
        ("model.safetensors", of(Target::SafetensorsFile)),
        ("directory", of(Target::SafetensorsDirectory)),
        ("weights.ckpt", of(Target::LightningCkpt)),
        ("weights.pt", of(Target::Torch)),
        ("model.nemo", of(Target::Nemo)),
        ("sharded", of(Target::Distcp)),
        ("shards", shards),
        ("cast.safetensors", cast),
        ("whole", all(Target::SafetensorsDirectory)),
        ("whole.pt", all(Target::Torch)),
        ("whole_sharded", all(Target::Distcp)),
    ]
}

/// Converts as far as the target holds the fixture; the conversion that worked.
fn first(f: &Fixture, wish: Convert, to: &Path) -> Option<Convert> {
    if wish.scope == Scope::Auto && wish.form == ckptkit::distcp::Form::TorchSave {
        return obedient::convert(f, wish, to).map(|(wish, _)| wish);
    }
    let plan = wish.plan(&Checkpoint::open(&f.path).unwrap(), to).ok()?;
    let mut options = CopyOptions::default();
    options.threads = 1;
    plan.write(Existing::Refuse, &options).unwrap();
    Some(wish)
}

#[test]
fn conversions_are_repeatable() {
    let compared = Cell::new(0);
    each(&fixture::readable(), |f| {
        let dir = tempfile::tempdir().unwrap();
        for (name, wish) in wishes() {
            let [once, again] = ["once", "again"].map(|step| dir.path().join(step).join(name));
            std::fs::create_dir_all(once.parent().unwrap()).unwrap();
            std::fs::create_dir_all(again.parent().unwrap()).unwrap();
            let Some(wish) = first(f, wish, &once) else { continue };
            let mut options = CopyOptions::default();
            options.threads = 3;
            let source = Checkpoint::open(&f.path).unwrap();
            wish.plan(&source, &again).unwrap().write(Existing::Refuse, &options).unwrap();
            assert!(files(&once) == files(&again), "{name} differs");
            compared.set(compared.get() + 1);
        }
    });
    println!("{} conversions", compared.get());
    assert!(compared.get() >= 1600, "{}", compared.get());
}

/// The content of every file of an output.
fn files(at: &Path) -> BTreeMap<String, Vec<u8>> {
    if at.is_dir() {
        return tree(at);
    }
    BTreeMap::from([(String::new(), std::fs::read(at).unwrap())])
}
