//! What `torch.load(weights_only=True)` accepts: the default since torch 2.6, and Lightning's since
//! 2.6.
//!
//! torch then unpickles with a machine of its own. It knows 34 opcodes, builds objects of the
//! classes on a list and calls the functions on it, and nothing else. [`standing`] says what it
//! makes of a name, [`opcodes`] what of the bytes of a pickle, and [`refusals`] what of the object
//! in it, however it is spelled. What only the bytes keep from loading, writing the object again
//! heals; the rest is what [`TorchFile::sanitize`](crate::TorchFile::sanitize) makes plain.
//!
//! Calls are judged by the number and kind of their arguments. Whether a tensor's geometry fits its
//! storage is another question, which [`TorchFile::tensors`](crate::TorchFile::tensors) answers.

mod cycles;
mod globals;
mod judge;
mod opcodes;
mod signatures;

use std::collections::HashMap;

use ckptkit_core::{Result, ResultExt};

use crate::container::Container;
use crate::file::TorchFile;
use crate::pickle::{Graph, NodeId, NodeRef};
use crate::trail::{self, ROOT, Trail};

pub(crate) use cycles::immutable_in_itself;
pub use globals::{Standing, TORCH, standing};
pub(crate) use judge::{Checked, judge, unhashable, what};
pub use opcodes::{Opcode, opcodes};

/// What kind of thing torch refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The container: TorchScript, or the tar archives of the first releases.
    Container,
    /// An opcode that it has no case for.
    Opcode,
    /// A class or function that is not on the list.
    Global,
    /// A call of what is no name, or with arguments that do not fit.
    Call,
    /// A state, given to an object that takes none.
    State,
    /// Items, put into an object that takes none.
    Items,
    /// A key or an item of a set that cannot be hashed.
    Key,
    /// A persistent id that is no storage.
    PersistentId,
    /// An integer that is too long.
    Integer,
    /// A tuple that holds itself, or a call that is one of its own arguments.
    Cycle,
}

/// One thing that torch refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Where it stands in the object: keys joined with dots, empty for the whole.
    pub path: String,
    /// What kind of thing it is.
    pub kind: RefusalKind,
    /// The class, the function or the opcode.
    pub what: String,
    /// Why it is refused.
    pub why: String,
}

/// Everything in an object that torch refuses, in the order of the file: classes and functions that
/// are not on the list, calls with arguments that do not fit, states and items on objects that take
/// none. Costs time linear in the graph.
///
/// ```
/// use ckptkit_core::Limits;
/// use torch_save::{Graph, weights_only};
///
/// # fn main() -> ckptkit_core::Result<()> {
/// // pickle.dumps({"hparams": argparse.Namespace(lr=0.1)}, protocol=2)
/// let pickle = b"\x80\x02}X\x07\0\0\0hparamscargparse\nNamespace\n)\x81}X\x02\0\0\0lrG\x3f\xb9\x99\x99\x99\x99\x99\x9asbs.";
/// let graph = Graph::parse(*pickle, &Limits::default())?;
/// let refused = weights_only::refusals(&graph);
/// assert_eq!((refused[0].path.as_str(), refused[0].what.as_str()), ("hparams", "argparse.Namespace"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn refusals(graph: &Graph) -> Vec<Refusal> {
    refusals_from(graph.root(), usize::MAX)
}

/// Whether an object has nothing that torch refuses.
pub(crate) fn accepts(root: NodeRef<'_>) -> bool {
    refusals_from(root, 1).is_empty()
}

/// Those that `root` reaches, up to `most`.
pub(crate) fn refusals_from(root: NodeRef<'_>, most: usize) -> Vec<Refusal> {
    let mut out = Vec::new();
    let mut trail = Trail::default();
    let mut checked = Checked::new();
    // Where every node was met first.
    let mut seen: HashMap<NodeId, u32> = HashMap::new();
    let mut pending = vec![(root.id(), ROOT)];
    while let Some((id, at)) = pending.pop() {
        if seen.contains_key(&id) {
            continue;
        }
        seen.insert(id, at);
        let node = root.other(id);
        let mut reported = None;
        if let Err((kind, what, why)) = judge(node, &mut checked) {
            if kind == RefusalKind::Global {
                reported = Some(what.clone());
            }
            out.push(Refusal { path: trail.path(at, root), kind, what, why });
            if out.len() >= most {
                return out;
            }
        }
        let before = pending.len();
        trail::parts(node, &mut |by, part| {
            // The class that a tensor is cast to stands for the whole of it.
            let is_reported = reported.is_some()
                && part.as_global().is_some_and(|g| Some(g.to_string()) == reported);
            if !trail::is_atom(part) && !seen.contains_key(&part.id()) && !is_reported {
                pending.push((part.id(), trail.step(at, by)));
            }
        });
        pending[before..].reverse();
    }
    for id in immutable_in_itself(root) {
        let node = root.other(id);
        out.push(Refusal {
            path: trail.path(seen.get(&id).copied().unwrap_or(ROOT), root),
            kind: RefusalKind::Cycle,
            what: what(node),
            why: "it holds itself, which takes opcodes that torch does not know".into(),
        });
    }
    out
}

impl TorchFile {
    /// Everything that keeps `torch.load(weights_only=True)` from loading the file; empty where
    /// nothing does. Costs time linear in the pickle.
    ///
    /// # Errors
    /// Whatever keeps the pickle from being read once more.
    ///
    /// ```
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
    /// let file = torch_save::TorchFile::open(format!("{fixtures}/torch/protocol_4.pt"))?;
    /// let refused = file.weights_only()?;
    /// assert_eq!(refused[0].what, "FRAME");
    /// # Ok(())
    /// # }
    /// ```
    pub fn weights_only(&self) -> Result<Vec<Refusal>> {
        let mut out = Vec::new();
        if matches!(
            self.container(),
            Container::TorchScript | Container::TorchExport | Container::TarEra
        ) {
            out.push(Refusal {
                path: String::new(),
                kind: RefusalKind::Container,
                what: self.container().name().into(),
                why: "torch opens it in another way only".into(),
            });
        }
        out.extend(self.refused_opcodes()?.into_iter().map(|opcode| Refusal {
            path: String::new(),
            kind: RefusalKind::Opcode,
            what: opcode.name.into(),
            why: format!("the opcode, first at offset {}, is not known", opcode.offset),
        }));
        out.extend(refusals(self.graph()));
        Ok(out)
    }

    /// The opcodes of its pickle that torch has no case for.
    pub(crate) fn refused_opcodes(&self) -> Result<Vec<Opcode>> {
        let pickle = self.opened().pickle.read(u64::MAX).in_file(self.section().name())?;
        Ok(opcodes(&pickle))
    }
}
