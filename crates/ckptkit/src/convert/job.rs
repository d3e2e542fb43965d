//! A conversion while it is laid out, and what its steps hand on.

use std::collections::HashSet;
use std::sync::Arc;

use ckptkit_core::{Layout, Tensor};

use super::report::{Kind, LeftOut, Report};
use super::wish::{Aliases, Convert};
use crate::checkpoint::Checkpoint;

/// A conversion while it is laid out.
pub(super) struct Job<'a> {
    pub(super) wish: &'a Convert,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) report: Report,
    /// Tensors that are kept as objects for the sake of their attributes.
    pub(super) attributes: HashSet<String>,
}

/// The files, and the tensors that are in them.
pub(super) struct LaidOut {
    pub(super) layout: Layout,
    pub(super) tensors: Vec<Tensor>,
    /// The key that a reader finds them under, by their names; all names are whole without it.
    pub(super) under: Option<&'static str>,
}

impl LaidOut {
    /// Files in which a reader finds the tensors by their names.
    pub(super) fn new(layout: Layout, tensors: Vec<Tensor>) -> Self {
        Self { layout, tensors, under: None }
    }
}

/// A tensor as it is written.
pub(super) struct Chosen {
    /// Under its new name, cast where that is wished for.
    pub(super) tensor: Tensor,
    /// Its name in the whole source.
    pub(super) full: Arc<str>,
    /// It is an object of other tensors, or of no bytes, that is taken from the source's file.
    pub(super) object: bool,
}

/// What a tensor is in the file that it comes from.
pub(super) enum Object {
    /// Bytes of its own.
    No,
    /// Made of others, or of nothing: only the object says all of it.
    Whole,
    /// A part of the one with this name.
    Part(String),
}

impl Job<'_> {
    /// Whether all weights are wanted, as they are and under their names.
    pub(super) fn keeps_weights(&self) -> bool {
        let wish = self.wish;
        !wish.selection.selects()
            && !wish.selection.renames()
            && wish.dtype.is_none()
            && wish.aliases != Aliases::Copy
    }

    pub(super) fn left_out(&mut self, path: &str, kind: Kind, why: impl Into<String>) {
        self.report.left_out.push(LeftOut { path: path.to_owned(), kind, why: why.into() });
    }
}
