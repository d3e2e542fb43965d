//! Other programs that do the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::measure::Call;
use crate::python;
use crate::root;

/// Something else that makes a case's output from its source.
pub(super) struct Peer {
    pub(super) name: &'static str,
    by: By,
    /// Name of the output, where its suffix or kind is another than ours.
    pub(super) output: &'static str,
    /// What its tensors are called before their names.
    pub(super) prefix: &'static str,
}

enum By {
    /// A function of `bench_peer.py`.
    Python(&'static str),
    /// A crate, by `xtask/peers`.
    Crate(&'static str),
    /// The safetensors crate, by `probe`, which can map a file.
    Rewrite,
}

const fn peer(name: &'static str, by: By, output: &'static str) -> Peer {
    Peer { name, by, output, prefix: "" }
}

const fn prefixed(name: &'static str, by: By) -> Peer {
    Peer { name, by, output: "peer.safetensors", prefix: "model." }
}

pub(super) const FROM_CKPT: &[Peer] = &[
    peer("torch.load + save_file", By::Python("torch_load_save_file"), "peer.safetensors"),
    peer(
        "torch.load(mmap) + save_file",
        By::Python("torch_load_mmap_save_file"),
        "peer.safetensors",
    ),
    peer("candle-core", By::Crate("candle"), "peer.safetensors"),
    peer("pytorch-reader + safetensors", By::Crate("pytorch-reader"), "peer.safetensors"),
];
pub(super) const FROM_ROWS: &[Peer] =
    &[peer("DCP load + save_file", By::Python("dcp_load_save_file"), "peer.safetensors")];
pub(super) const FROM_SHARDS: &[Peer] =
    &[peer("consolidate_safetensors_files", By::Python("consolidate_safetensors_files"), "peer")];
pub(super) const TO_CKPT: &[Peer] =
    &[peer("load_file + torch.save", By::Python("load_file_torch_save"), "peer.ckpt")];
pub(super) const ROWS_TO_CKPT: &[Peer] = &[
    peer("dcp_to_torch_save", By::Python("dcp_to_torch_save"), "peer.pt"),
    peer("Lightning's consolidate_checkpoint", By::Python("lightning_consolidate"), "peer.ckpt"),
];
pub(super) const TO_ROWS: &[Peer] =
    &[peer("torch_save_to_dcp", By::Python("torch_save_to_dcp"), "peer")];
pub(super) const RENAME: &[Peer] = &[
    prefixed("safetensors crate", By::Rewrite),
    prefixed("load_file + save_file", By::Python("load_file_save_file")),
];
pub(super) const CAST: &[Peer] = &[peer(
    "torch.load(mmap), to(bfloat16), save_file",
    By::Python("torch_load_cast_save_file"),
    "peer.safetensors",
)];

impl Peer {
    pub(super) fn call(&self, probe: &Path, source: &Path, output: &Path) -> Call {
        let start: Vec<String> = match self.by {
            By::Python(function) => vec![
                python::TORCH.python().display().to_string(),
                "-W".into(),
                "ignore".into(),
                root().join("xtask/python/bench_peer.py").display().to_string(),
                function.into(),
            ],
            By::Crate(name) => vec![program().display().to_string(), name.into()],
            By::Rewrite => vec![probe.display().to_string(), "rewrite".into()],
        };
        let paths = [source.display().to_string(), output.display().to_string()];
        let last = matches!(self.by, By::Rewrite).then(|| self.prefix.to_owned());
        start.into_iter().chain(paths).chain(last).collect()
    }

    /// Whether `xtask/peers` has to be built for it.
    pub(super) fn is_crate(&self) -> bool {
        matches!(self.by, By::Crate(_))
    }
}

fn folder() -> PathBuf {
    root().join("target/bench/peers")
}

fn program() -> PathBuf {
    folder().join("target/release/bench-peers")
}

/// Builds the peers that are crates, apart from the workspace: what they bring stays out of its
/// lock file.
pub(super) fn build() -> Result<(), String> {
    let files = [
        ("Cargo.toml", include_str!("../../peers/Cargo.toml")),
        ("src/main.rs", include_str!("../../peers/src/main.rs")),
    ];
    std::fs::create_dir_all(folder().join("src"))
        .map_err(|e| format!("target/bench/peers: {e}"))?;
    for (name, text) in files {
        let path = folder().join(name);
        if std::fs::read_to_string(&path).is_ok_and(|had| had == text) {
            continue;
        }
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    python::call(
        Command::new(cargo)
            .args(["build", "--quiet", "--release"])
            .env_remove("CARGO_TARGET_DIR")
            .current_dir(folder()),
    )
}
