//! The command line.

use std::path::{Path, PathBuf};

use ckptkit::{Checkpoint, Dtype, OpenOptions};
use clap::{Parser, Subcommand, ValueEnum};

use crate::dtype;
use crate::verbs::lightning::Lightning;
use crate::verbs::nemo::Nemo;

/// Open, look into and convert model checkpoints: .nemo archives, Lightning .ckpt, torch.save
/// files, safetensors and distributed checkpoints. Runs no code from a file, reads only the bytes
/// it must.
///
/// PATH is anything that holds a checkpoint, a file or a directory; its content decides what it
/// is, never its suffix. Exit codes: 0 done, 2 wrong usage, bad input or failure.
#[derive(Debug, Parser)]
#[command(name = "ckptkit", version, max_term_width = 100)]
pub(crate) struct Args {
    /// No progress and no report; errors are still told
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// What this is: format, tensors, parameters, config, training state, warnings
    Inspect(Inspect),
    /// The tensors: name, dtype, shape, bytes
    Ls(Ls),
    /// One value: a config key, a hyper-parameter, an artifact's text, a tensor's first elements
    Show(Show),
    /// SHA-256 of each tensor and of the whole, equal across formats
    Digest(Digest),
    /// Write a checkpoint in another format, or anew in its own
    Convert(Box<Convert>),
    /// Smaller and plainer copies of a Lightning .ckpt
    #[command(subcommand)]
    Lightning(Lightning),
    /// Edit a .nemo archive; its weights are copied as they are
    #[command(subcommand)]
    Nemo(Nemo),
    /// Completions for a shell, on stdout
    Completions(Completions),
    /// The manual page, on stdout
    Man,
}

/// How a checkpoint is opened.
#[derive(Debug, clap::Args)]
pub(crate) struct Open {
    /// Read what no rank has saved of a distributed checkpoint's tensor as zeros, and say where
    #[arg(long)]
    pub(crate) allow_partial: bool,
}

impl Open {
    /// Opens what a verb works on, for as long as the process lives. A checkpoint holds only memory
    /// and open files, which the process's end takes back at once; giving back thousands of names
    /// and tensors one by one right before it would take longer than printing them.
    pub(crate) fn checkpoint(&self, path: &Path) -> ckptkit::Result<&'static Checkpoint> {
        let mut options = OpenOptions::new();
        options.allow_partial = self.allow_partial;
        options.open(path).map(|checkpoint| &*Box::leak(Box::new(checkpoint)))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// The checkpoint
    pub(crate) path: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ls {
    /// The checkpoint
    pub(crate) path: PathBuf,
    /// Only names that match one of these (`*` stays between dots, `**` crosses them)
    pub(crate) globs: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Only the model's weights, under their weight names
    #[arg(long)]
    pub(crate) weights: bool,
    /// The key that the weights stand under, where the rules cannot decide
    #[arg(long, value_name = "KEY")]
    pub(crate) weights_key: Option<String>,
    /// As a tree of the parts of the names, with sums
    #[arg(long, conflicts_with_all = ["json", "sort"])]
    pub(crate) tree: bool,
    /// The order of the lines; the file's own where nothing is said
    #[arg(long, value_enum)]
    pub(crate) sort: Option<Sort>,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    Name,
    Bytes,
    Dtype,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The checkpoint
    pub(crate) path: PathBuf,
    /// A tensor's name, or the dotted path of a value; the whole tree of values where it is left out
    pub(crate) key: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Digest {
    /// The checkpoint
    pub(crate) path: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Only the model's weights, under their weight names
    #[arg(long)]
    pub(crate) weights: bool,
    /// The key that the weights stand under, where the rules cannot decide
    #[arg(long, value_name = "KEY")]
    pub(crate) weights_key: Option<String>,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Convert {
    /// The checkpoint to read
    pub(crate) src: PathBuf,
    /// What to write: the suffix decides (.safetensors, .nemo, .ckpt, .pt, .pth, .bin); any other name is
    /// a directory of safetensors
    pub(crate) dst: PathBuf,
    /// The format to write, where the name of DST should not decide
    #[arg(long, value_enum)]
    pub(crate) to: Option<To>,
    /// The whole tree under its full names, and not the weights alone
    #[arg(long, conflicts_with_all = ["select", "exclude", "rename", "strip_prefix", "add_prefix"])]
    pub(crate) all: bool,
    /// Only tensors whose names match (repeatable; `*` stays between dots, `**` crosses them)
    #[arg(long, value_name = "GLOB")]
    pub(crate) select: Vec<String>,
    /// Leave out tensors whose names match (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Replace what matches in every name, `$1` being the first group (repeatable, in order)
    #[arg(long, value_name = "REGEX=TO")]
    pub(crate) rename: Vec<String>,
    /// Remove this from the beginning of names
    #[arg(long, value_name = "PREFIX")]
    pub(crate) strip_prefix: Option<String>,
    /// Put this before every name
    #[arg(long, value_name = "PREFIX")]
    pub(crate) add_prefix: Option<String>,
    /// The key that the weights stand under, where the rules cannot decide
    #[arg(long, value_name = "KEY")]
    pub(crate) weights_key: Option<String>,
    /// Cast floating-point tensors to this type, rounding as torch does: f32, bf16, f16, …
    #[arg(long, value_name = "DTYPE", value_parser = dtype::parse)]
    pub(crate) dtype: Option<Dtype>,
    /// What becomes of several names of one tensor: the first is written and the others recorded
    /// (drop), each is written (copy), or the conversion refuses (error)
    #[arg(long, value_enum, default_value = "drop")]
    pub(crate) aliases: AliasPolicy,
    /// The config of a .nemo archive, instead of the source's
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Take config and artifacts of a .nemo archive from this one, whose tensors must be the same
    #[arg(long, value_name = "OTHER.nemo")]
    pub(crate) like: Option<PathBuf>,
    /// With --all to a directory: call the tensors of optimizer states by their parameters,
    /// optimizer.exp_avg.encoder.weight, where these are known
    #[arg(long, requires = "all")]
    pub(crate) optimizer_names: bool,
    /// The names of the parameters that optimizer states number: one a line, all of the model in
    /// the order of `named_parameters()`; or JSON, a list of lists for all optimizers
    #[arg(long, value_name = "FILE")]
    pub(crate) param_names: Option<PathBuf>,
    /// The ASR archive that a SpeechLM2 model was trained from, which completes the config.json of
    /// a directory: the checkpoint lacks the config of the encoder
    #[arg(long, value_name = "FILE.nemo")]
    pub(crate) asr: Option<PathBuf>,
    /// Ranks that a distributed checkpoint is cut for
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) ranks: u32,
    /// Cut along two dimensions, for a mesh of this shape: 2x4
    #[arg(long, value_name = "RxC", value_parser = mesh)]
    pub(crate) mesh: Option<Mesh>,
    /// What a distributed checkpoint is made of: archives of torch.save with their index, or
    /// safetensors shards as torch's Hugging Face writer makes them
    #[arg(long, value_enum, default_value = "torch")]
    pub(crate) form: Form,
    /// Bytes of tensors in one shard of a directory: 5GB, 500MB, 2GiB
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    pub(crate) max_shard_size: String,
    /// Start the tensors' data at a multiple of this many bytes (safetensors: 8, torch: 64)
    #[arg(long, value_name = "BYTES")]
    pub(crate) align: Option<u64>,
    /// The order of tensors in a file: the reference writer's, or that of the source
    #[arg(long, value_enum, default_value = "reference")]
    pub(crate) order: Order,
    /// Threads that move bytes; 0 chooses
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Say on stderr how long it took, and how the bytes were moved: through the page cache, past it,
    /// or shared
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Force the output to the disk before it appears
    #[arg(long)]
    pub(crate) fsync: bool,
    /// Replace DST: a file, or a directory that holds a checkpoint and nothing else
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Say what would be done, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Read the output back and compare it with the source before saying that it is done
    #[arg(long)]
    pub(crate) verify: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    Safetensors,
    Ckpt,
    Torch,
    Nemo,
    Distcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    Torch,
    Safetensors,
}

/// The shape of a mesh of ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mesh(pub(crate) Vec<u32>);

fn mesh(text: &str) -> Result<Mesh, String> {
    let dims: Option<Vec<u32>> = text.split('x').map(|n| n.parse().ok()).collect();
    dims.map(Mesh).ok_or_else(|| "numbers with x between them are wanted, such as 2x4".into())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AliasPolicy {
    Drop,
    Copy,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    Reference,
    Source,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}
