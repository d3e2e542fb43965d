//! `ckptkit lightning`: smaller and plainer copies of Lightning checkpoints.

mod output;
mod sanitize;
mod slim;

use clap::Subcommand;

use crate::exit::Run;

/// What becomes of a checkpoint.
#[derive(Debug, Subcommand)]
pub(crate) enum Lightning {
    /// Weights and hyper-parameters only, as Lightning keeps them with save_weights_only=True
    Slim(slim::Slim),
    /// A copy that torch.load(weights_only=True) loads: what it refuses is made plain
    Sanitize(sanitize::Sanitize),
}

pub(crate) fn run(verb: &Lightning, quiet: bool) -> Run {
    match verb {
        Lightning::Slim(args) => slim::run(args, quiet),
        Lightning::Sanitize(args) => sanitize::run(args, quiet),
    }
}
