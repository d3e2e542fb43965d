//! `ckptkit nemo`: edits of `.nemo` archives.

mod artifacts;
mod config;
mod folder;
mod output;
mod tokenizer;

use clap::Subcommand;

use crate::exit::Run;

/// What is done to an archive.
#[derive(Debug, Subcommand)]
pub(crate) enum Nemo {
    /// The members as files in a directory
    Unpack(folder::Unpack),
    /// An archive from an unpacked directory
    Pack(folder::Pack),
    /// The config, or one value of it, as it is written
    Get(config::Get),
    /// Set values of the config, touching no other byte of it
    Set(config::Set),
    /// Delete values of the config
    Del(config::Del),
    /// Give artifacts other content, or the model other weights
    Replace(artifacts::Replace),
    /// Add artifacts
    Add(artifacts::Add),
    /// Remove artifacts that no key refers to
    Rm(artifacts::Rm),
    /// Swap the tokenizer: its files, and the copies of its vocabulary in the config
    Tokenizer(tokenizer::Tokenizer),
}

pub(crate) fn run(verb: &Nemo, quiet: bool) -> Run {
    match verb {
        Nemo::Unpack(args) => folder::unpack(args, quiet),
        Nemo::Pack(args) => folder::pack(args, quiet),
        Nemo::Get(args) => config::get(args),
        Nemo::Set(args) => config::set(args, quiet),
        Nemo::Del(args) => config::del(args, quiet),
        Nemo::Replace(args) => artifacts::replace(args, quiet),
        Nemo::Add(args) => artifacts::add(args, quiet),
        Nemo::Rm(args) => artifacts::rm(args, quiet),
        Nemo::Tokenizer(args) => tokenizer::run(args, quiet),
    }
}
