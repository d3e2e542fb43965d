//! What is measured: the rows of the target table, each as one case or a few.

use super::measure::Cache;
use super::peers::{self, Peer};

/// What a case is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Against {
    /// `cp`, or `cp -r`, of the source.
    Copy,
    /// The same, and what it wrote forced to the disk.
    CopySynced,
    /// `cp` that copies bytes where it could share extents.
    CopyUnshared,
    /// SHA-256 of as many bytes on two threads, from the processor's cache.
    Sha256,
    /// Reading source and output on two threads from the page cache. The case counts without what
    /// the same conversion takes when it verifies nothing.
    PageCache,
    /// Nothing: the limit is a time.
    Nothing,
}

impl Against {
    /// Whether the case writes as much as it reads.
    pub(super) fn is_written(self) -> bool {
        !matches!(self, Self::Sha256 | Self::Nothing)
    }
}

/// What an output must hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    /// Nothing was written.
    Nothing,
    /// Every weight, in this dtype, its name after this prefix.
    Weights(&'static str, &'static str),
    /// The weights, and archives whose checksums are right.
    Archive(&'static str),
    /// The one large tensor.
    One,
}

/// Target, and what a case must not exceed: ratios, or seconds where it is held against nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(pub(super) f64, pub(super) f64);

/// Where a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Below `target/bench`.
    Here,
    /// On a file system that shares extents.
    Shared,
}

pub(super) struct Case {
    pub(super) name: &'static str,
    /// The row of the target table.
    pub(super) row: &'static str,
    /// An input, as `bench_inputs.py` names it.
    pub(super) source: &'static str,
    /// The program's arguments; `{src}`, `{out}` and `{in}` stand for the source, the output and
    /// the folder of inputs, `{third}` for a third of the bytes.
    pub(super) run: &'static str,
    /// Name of the output.
    pub(super) output: &'static str,
    pub(super) against: Against,
    pub(super) cache: Cache,
    pub(super) place: Place,
    pub(super) limit: Limit,
    pub(super) check: Check,
    /// The same in a process of `probe`. Without it, the program says with `--verbose` how long it
    /// took inside.
    pub(super) inside: Option<&'static str>,
    pub(super) peers: &'static [Peer],
}

/// The tensor that is large in every input.
pub(super) const LARGE: &str = "encoder.embed.weight";
const F32: Check = Check::Weights("F32", "");
const BF16: Check = Check::Weights("BF16", "");
const ONE_FILE: &str = "out.safetensors";

/// A conversion whose source is warm.
const fn warm(
    name: &'static str,
    row: &'static str,
    source: &'static str,
    run: &'static str,
    output: &'static str,
    limit: Limit,
    check: Check,
) -> Case {
    let (against, cache, place) = (Against::Copy, Cache::Warm, Place::Here);
    Case {
        name,
        row,
        source,
        run,
        output,
        against,
        cache,
        place,
        limit,
        check,
        inside: None,
        peers: &[],
    }
}

const fn beside(mut case: Case, peers: &'static [Peer]) -> Case {
    case.peers = peers;
    case
}

const fn synced(name: &'static str, source: &'static str, output: &'static str) -> Case {
    let run = "convert {src} {out} --fsync";
    let mut case = warm(name, "with --fsync", source, run, output, Limit(0.9, 1.1), F32);
    case.against = Against::CopySynced;
    case
}

const fn cold(name: &'static str, source: &'static str, output: &'static str) -> Case {
    let row = "source not in the page cache";
    let mut case = warm(name, row, source, CONVERT, output, Limit(0.85, 1.0), F32);
    case.cache = Cache::Cold;
    case
}

const fn shared(name: &'static str, source: &'static str, run: &'static str, c: Check) -> Case {
    let row = "extents shared";
    let mut case = warm(name, row, source, run, ONE_FILE, Limit(0.03, 0.1), c);
    case.against = Against::CopyUnshared;
    case.place = Place::Shared;
    case
}

const fn listing(name: &'static str, row: &'static str, source: &'static str, l: Limit) -> Case {
    let mut case = warm(name, row, source, "ls {src}", "", l, Check::Nothing);
    case.against = Against::Nothing;
    case.inside = Some("list {src}");
    case
}

const fn one(name: &'static str, source: &'static str) -> Case {
    let run = "convert {src} {out} --select encoder.embed.weight";
    let limit = Limit(0.010, 0.020);
    let mut case = warm(name, "one 16 MB tensor", source, run, ONE_FILE, limit, Check::One);
    case.against = Against::Nothing;
    case.inside = Some("tensor {src} encoder.embed.weight");
    case
}

const fn digesting(name: &'static str, source: &'static str) -> Case {
    let (run, limit) = ("digest {src} --weights", Limit(1.0, 1.0 / 0.7));
    let mut case = warm(name, "digest", source, run, "", limit, Check::Nothing);
    case.against = Against::Sha256;
    case.inside = Some("digest {src}");
    case
}

/// What `--verify` adds: read back and compared, within a process that converts before.
const fn verifying(name: &'static str, source: &'static str) -> Case {
    let run = "convert {src} {out} --verify";
    let limit = Limit(1.0, 1.0 / 0.7);
    let mut case = warm(name, "convert --verify", source, run, ONE_FILE, limit, F32);
    case.against = Against::PageCache;
    case.inside = Some("verify {src} {out}");
    case
}

const CONVERT: &str = "convert {src} {out}";
const TO_BF16: &str = "convert {src} {out} --dtype bf16";
const BOX: &str = "distributed, column or 2-D shards → safetensors";
const SAME: &str = "safetensors → safetensors";
const CAST: &str = "fp32 → bf16 on the way";
const SPLIT: &str = ".ckpt → distributed, 4 ranks";
const RESHARD: &str = "distributed, 4 ranks → 3";

pub(super) const CASES: &[Case] = &[
    beside(
        warm(
            "ckpt-to-safetensors",
            ".ckpt → safetensors",
            "last.ckpt",
            CONVERT,
            ONE_FILE,
            Limit(0.85, 1.1),
            F32,
        ),
        peers::FROM_CKPT,
    ),
    warm(
        "nemo-to-safetensors",
        ".nemo → safetensors",
        "model.nemo",
        CONVERT,
        ONE_FILE,
        Limit(0.9, 1.1),
        F32,
    ),
    beside(
        warm(
            "rows-to-safetensors",
            "distributed by dimension 0 → safetensors",
            "rows",
            CONVERT,
            ONE_FILE,
            Limit(0.9, 1.15),
            F32,
        ),
        peers::FROM_ROWS,
    ),
    warm("columns-to-safetensors", BOX, "columns", CONVERT, ONE_FILE, Limit(1.3, 1.6), F32),
    warm("mesh-to-safetensors", BOX, "mesh", CONVERT, ONE_FILE, Limit(1.3, 1.6), F32),
    beside(
        warm(
            "shards-to-safetensors",
            "Hugging Face sharded DCP → safetensors",
            "shards",
            CONVERT,
            ONE_FILE,
            Limit(0.9, 1.15),
            F32,
        ),
        peers::FROM_SHARDS,
    ),
    beside(
        warm(
            "safetensors-to-ckpt",
            "safetensors → .ckpt",
            "model.safetensors",
            CONVERT,
            "out.ckpt",
            Limit(0.95, 1.15),
            Check::Archive("F32"),
        ),
        peers::TO_CKPT,
    ),
    warm(
        "safetensors-to-nemo",
        "safetensors → .nemo",
        "model.safetensors",
        "convert {src} {out} --like {in}/model.nemo",
        "out.nemo",
        Limit(0.95, 1.15),
        Check::Archive("F32"),
    ),
    warm(
        "nemo-repack",
        ".nemo repack, config edit",
        "model.nemo",
        CONVERT,
        "out.nemo",
        Limit(0.85, 1.05),
        Check::Archive("F32"),
    ),
    warm(
        "nemo-edit",
        ".nemo repack, config edit",
        "model.nemo",
        "nemo set {src} -o {out} optim.lr=1e-4",
        "out.nemo",
        Limit(0.85, 1.05),
        Check::Archive("F32"),
    ),
    beside(
        warm(
            "rows-to-ckpt",
            "distributed → .ckpt",
            "rows",
            CONVERT,
            "out.ckpt",
            Limit(0.95, 1.15),
            Check::Archive("F32"),
        ),
        peers::ROWS_TO_CKPT,
    ),
    beside(
        warm(
            "ckpt-to-rows",
            SPLIT,
            "last.ckpt",
            "convert {src} {out} --to distcp --ranks 4",
            "out",
            Limit(1.0, 1.2),
            F32,
        ),
        peers::TO_ROWS,
    ),
    warm(
        "rows-4-to-3",
        RESHARD,
        "rows",
        "convert {src} {out} --to distcp --ranks 3",
        "out",
        Limit(1.0, 1.3),
        F32,
    ),
    beside(
        warm(
            "safetensors-rename",
            SAME,
            "model.safetensors",
            "convert {src} {out} --add-prefix model.",
            ONE_FILE,
            Limit(0.85, 1.1),
            Check::Weights("F32", "model."),
        ),
        peers::RENAME,
    ),
    warm(
        "safetensors-reshard",
        SAME,
        "sharded",
        "convert {src} {out} --max-shard-size {third}",
        "out",
        Limit(0.85, 1.1),
        F32,
    ),
    warm("safetensors-merge", SAME, "sharded", CONVERT, ONE_FILE, Limit(0.85, 1.1), F32),
    beside(
        warm(
            "ckpt-to-safetensors-bf16",
            CAST,
            "last.ckpt",
            TO_BF16,
            ONE_FILE,
            Limit(0.8, 1.0),
            BF16,
        ),
        peers::CAST,
    ),
    warm(
        "safetensors-to-ckpt-bf16",
        CAST,
        "model.safetensors",
        TO_BF16,
        "out.ckpt",
        Limit(0.8, 1.0),
        Check::Archive("BF16"),
    ),
    warm("rows-to-safetensors-bf16", CAST, "rows", TO_BF16, ONE_FILE, Limit(0.8, 1.0), BF16),
    synced("ckpt-to-safetensors-fsync", "last.ckpt", ONE_FILE),
    synced("rows-to-safetensors-fsync", "rows", ONE_FILE),
    synced("safetensors-to-ckpt-fsync", "model.safetensors", "out.ckpt"),
    cold("ckpt-to-safetensors-cold", "last.ckpt", ONE_FILE),
    cold("rows-to-safetensors-cold", "rows", ONE_FILE),
    cold("safetensors-to-ckpt-cold", "model.safetensors", "out.ckpt"),
    shared("ckpt-to-safetensors-shared", "aligned.ckpt", "convert {src} {out} --align 4096", F32),
    shared(
        "safetensors-rename-shared",
        "aligned.safetensors",
        "convert {src} {out} --align 4096 --add-prefix model.",
        Check::Weights("F32", "model."),
    ),
    listing(
        "list-safetensors",
        "list 10 000 tensors: safetensors",
        "many.safetensors",
        Limit(0.005, 0.010),
    ),
    listing("list-ckpt", "list 10 000 tensors: .ckpt", "many.ckpt", Limit(0.012, 0.024)),
    listing(
        "list-nemo",
        "list 10 000 tensors: .nemo (no row of its own; as .ckpt)",
        "many.nemo",
        Limit(0.012, 0.024),
    ),
    listing("list-chunks", "list .metadata of 10 000 chunks", "many_chunks", Limit(0.020, 0.040)),
    listing(
        "list-million-chunks",
        ".metadata of 1 000 000 chunks: open and list",
        "million_chunks",
        Limit(1.5, 3.0),
    ),
    one("one-from-safetensors", "model.safetensors"),
    one("one-from-ckpt", "last.ckpt"),
    one("one-from-nemo", "model.nemo"),
    one("one-from-rows", "rows"),
    one("one-from-columns", "columns"),
    one("one-from-shards", "shards"),
    digesting("digest-ckpt", "last.ckpt"),
    digesting("digest-rows", "rows"),
    verifying("verify-ckpt", "last.ckpt"),
    verifying("verify-rows", "rows"),
];

/// Bytes that the index of a million chunks may take in memory, per chunk.
pub(super) const CHUNK_BYTES: (&str, f64, Limit) =
    ("list-million-chunks", 1e6, Limit(400.0, 1000.0));

/// The most memory of any case: bytes, and bytes a tensor, as target and as bound.
pub(super) const ANONYMOUS: [(f64, f64); 2] = [(32e6, 200.0), (64e6, 1000.0)];
pub(super) const RESIDENT: Limit = Limit(64e6, 128e6);
