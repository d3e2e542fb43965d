//! `ckptkit nemo tokenizer`.

use std::path::PathBuf;

use ckptkit::nemo::{Swap, TokenizerFiles};

use super::output::{Output, edit};
use crate::exit::Run;

#[derive(Debug, clap::Args)]
pub(crate) struct Tokenizer {
    /// The archive, or an unpacked directory
    src: PathBuf,
    /// The directory of the new tokenizer: `tokenizer.model`, with `tokenizer.vocab` and
    /// `vocab.txt`, which are made from it where they are missing
    dir: PathBuf,
    /// Which tokenizer of an aggregate one
    #[arg(long)]
    lang: Option<String>,
    /// The section of the config, where a nested model's tokenizer is meant
    #[arg(long, value_name = "KEY", default_value = "tokenizer")]
    section: String,
    /// Another number of pieces is allowed: the sizes in the config follow, the weights must too
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(args: &Tokenizer, quiet: bool) -> Run {
    edit(&args.src, &args.output, quiet, |editor| {
        let mut swap = Swap::new();
        swap.section.clone_from(&args.section);
        swap.lang.clone_from(&args.lang);
        swap.force = args.force;
        editor.tokenizer(&TokenizerFiles::open(&args.dir)?, &swap)
    })
}
