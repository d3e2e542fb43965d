//! What `cargo xtask bench` cannot see of the program from outside, and cannot time without a crate
//! of ours: one measurement a process, printed as JSON.
//!
//! ```text
//! probe list PATH           opens and lists: seconds, tensors, anonymous bytes that stay
//! probe tensor PATH NAME    opens and reads one tensor
//! probe digest PATH             opens, hashes the weights
//! probe sha256 BYTES        the rate that `digest` could have: two threads, from the cache
//! probe verify SOURCE OUTPUT    converts, verifies: seconds from the last byte's being written
//! probe read FILE…          the rate that `--verify` could have: two threads, page cache
//! probe rewrite SOURCE OUTPUT PREFIX           the safetensors crate: mapped, renamed, written
//! probe hollow FORMAT PATH TENSORS ELEMENTS    a large checkpoint that is nearly all hole
//! ```
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot run is to stop")]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ckptkit::core::{CopyOptions, CopyReport, Existing, Observer, Progress, Section};
use ckptkit::{Checkpoint, Convert, Target};
use ckptkit_tests::large::{self, Size};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const THREADS: u64 = 2;
/// Stays in a core's second cache.
const BUFFER: usize = 256 << 10;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let said = match args.as_slice() {
        ["list", path] => list(path.as_ref()),
        ["tensor", path, name] => tensor(path.as_ref(), name),
        ["digest", path] => digest(path.as_ref()),
        ["verify", source, output] => verify(source.as_ref(), output.as_ref()),
        ["sha256", bytes] => sha256(bytes.parse().unwrap()),
        ["read", files @ ..] => read(files),
        ["rewrite", source, output, prefix] => rewrite(source.as_ref(), output.as_ref(), prefix),
        ["hollow", format, path, tensors, elements] => {
            let size =
                Size { tensors: tensors.parse().unwrap(), elements: elements.parse().unwrap() };
            hollow(format, path.as_ref(), size)
        }
        _ => panic!("no such measurement: {args:?}"),
    };
    println!("{said}");
}

fn list(path: &Path) -> Value {
    let before = anonymous();
    let start = Instant::now();
    let checkpoint = Checkpoint::open(path).unwrap();
    let (tensors, bytes) = checkpoint
        .tensors()
        .fold((0_u64, 0_u64), |(n, bytes), t| (n + 1, bytes + black_box(t).byte_len()));
    let seconds = start.elapsed().as_secs_f64();
    let anonymous = anonymous().saturating_sub(before);
    json!({"seconds": seconds, "tensors": tensors, "bytes": bytes, "anonymous": anonymous})
}

fn tensor(path: &Path, name: &str) -> Value {
    let start = Instant::now();
    let bytes = Checkpoint::open(path).unwrap().weights().unwrap().tensors;
    let found = bytes.iter().find(|t| t.name() == name).unwrap_or_else(|| panic!("no {name}"));
    let bytes = black_box(found.read().unwrap()).len();
    json!({"seconds": start.elapsed().as_secs_f64(), "bytes": bytes})
}

fn digest(path: &Path) -> Value {
    let start = Instant::now();
    let checkpoint = Checkpoint::open(path).unwrap();
    let tensors = checkpoint.weights().unwrap().tensors;
    let digest = ckptkit::digest(tensors.iter(), &|_| true).unwrap();
    assert!(digest.failures.is_empty());
    black_box(digest.lines());
    json!({"seconds": start.elapsed().as_secs_f64()})
}

/// When the output stood at its destination.
struct Written(OnceLock<Instant>);

impl Observer for Written {
    fn on_progress(&self, _: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn on_written(&self, _: &CopyReport) {
        let _ = self.0.set(Instant::now());
    }
}

fn verify(source: &Path, output: &Path) -> Value {
    let checkpoint = Checkpoint::open(source).unwrap();
    let plan = Convert::new(Target::SafetensorsFile).plan(&checkpoint, output).unwrap();
    let written = Written(OnceLock::new());
    let mut options = CopyOptions::default();
    options.observer = &written;
    plan.write_verified(Existing::Refuse, &options).unwrap();
    json!({"seconds": written.0.get().unwrap().elapsed().as_secs_f64()})
}

fn sha256(total: u64) -> Value {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(move || {
                let buffer = vec![0x5A_u8; BUFFER];
                let mut hash = Sha256::new();
                for _ in 0..(total / THREADS).div_ceil(BUFFER as u64) {
                    hash.update(black_box(&buffer));
                }
                black_box(hash.finalize());
            });
        }
    });
    json!({"seconds": start.elapsed().as_secs_f64()})
}

fn read(files: &[&str]) -> Value {
    const PIECE: u64 = 8 << 20;
    let files: Vec<Section> = files.iter().map(|f| Section::open(f).unwrap()).collect();
    let lens: Vec<u64> = files.iter().map(Section::len).collect();
    let pieces: Vec<(usize, u64)> = lens
        .iter()
        .enumerate()
        .flat_map(|(i, len)| (0..len.div_ceil(PIECE)).map(move |piece| (i, piece * PIECE)))
        .collect();
    let next = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut buffer = vec![0_u8; BUFFER];
                loop {
                    let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
                    let Some(&(file, start)) = pieces.get(at) else { break };
                    let (mut at, end) = (start, lens[file].min(start + PIECE));
                    while at < end {
                        let len = buffer.len().min(usize::try_from(end - at).unwrap());
                        files[file].read_at(at, &mut buffer[..len]).unwrap();
                        black_box(&buffer);
                        at += len as u64;
                    }
                }
            });
        }
    });
    json!({"seconds": start.elapsed().as_secs_f64(), "bytes": lens.iter().sum::<u64>()})
}

fn rewrite(source: &Path, output: &Path, prefix: &str) -> Value {
    let start = Instant::now();
    let section = Section::open_mapped(source).unwrap();
    let tensors = SafeTensors::deserialize(section.as_slice().unwrap()).unwrap();
    let named = tensors.iter().map(|(name, view)| (format!("{prefix}{name}"), view));
    safetensors::serialize_to_file(named, None, output).unwrap();
    json!({"seconds": start.elapsed().as_secs_f64()})
}

fn hollow(format: &str, path: &Path, size: Size) -> Value {
    match format {
        "safetensors" => large::safetensors(path, size),
        "ckpt" => large::ckpt(path, size),
        "nemo" => large::nemo(path, size),
        "distcp" => large::distcp(path, size),
        _ => panic!("no such format: {format}"),
    }
    json!({})
}

/// Bytes of this process's anonymous memory.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}
