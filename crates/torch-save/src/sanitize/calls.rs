//! Calls as Python would make them, without the detours of old protocols.

use super::walk::Walk;
use crate::pickle::{Global, Kind, NodeId, NodeRef};
use crate::text::qualified;

/// Nothing that is known takes more arguments; a hostile tuple may be long and shared.
const MAX_ARGUMENTS: usize = 16;

/// An object that Python gets by a call.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) callable: NodeRef<'a>,
    /// Its arguments: a tuple or a list; of `copyreg.__newobj__` behind the class.
    pub(super) args: NodeRef<'a>,
    skip: usize,
    pub(super) kwargs: Option<NodeRef<'a>>,
    /// An object of the class is made, and no function called.
    pub(super) is_new: bool,
    /// What the object is a subclass's version of: `copyreg._reconstructor(class, dict, {…})`.
    pub(super) base: Option<NodeRef<'a>>,
}

impl<'a> Call<'a> {
    pub(super) fn of(node: NodeRef<'a>) -> Option<Self> {
        let (callable, args) = node.callable()?;
        let is_new = !matches!(node.kind(), Kind::Reduce { .. });
        let kwargs = match node.kind() {
            Kind::NewObjEx { kwargs, .. } => Some(node.other(kwargs)),
            _ => None,
        };
        let plain = Self { callable, args, skip: 0, kwargs, is_new, base: None };
        let Some(g) = callable.as_global().filter(|g| g.module == "copyreg") else {
            return Some(plain);
        };
        let mut parts = args.iter_items();
        let class = parts.next();
        match (g.name, class) {
            ("__newobj__", Some(callable)) => {
                Some(Self { callable, skip: 1, is_new: true, ..plain })
            }
            ("__newobj_ex__", Some(callable)) => {
                let (args, kwargs) = (parts.next()?, parts.next());
                Some(Self { callable, args, kwargs, is_new: true, ..plain })
            }
            ("_reconstructor", Some(callable)) => {
                let (base, state) = (parts.next()?, parts.next()?);
                let bare = base.as_global().is_some_and(|g| g.is("builtins", "object"));
                let base = (!bare || !state.is_none()).then_some(state);
                Some(Self { callable, skip: usize::MAX, is_new: true, base, ..plain })
            }
            _ => Some(plain),
        }
    }

    /// The class or function.
    pub(super) fn global(self) -> Option<Global<'a>> {
        self.callable.as_global()
    }

    /// The arguments, up to as many as anything known takes, and one more.
    pub(super) fn args(self) -> Vec<NodeRef<'a>> {
        let skip = self.skip.min(self.args.iter_items().take(2).count());
        let skip = if self.skip == usize::MAX { usize::MAX } else { skip };
        self.args.iter_items().skip(skip).take(MAX_ARGUMENTS + 1).collect()
    }

    /// Whether it is made of nothing but its class.
    pub(super) fn is_bare(self) -> bool {
        let no_keywords = self.kwargs.is_none_or(|k| k.iter_pairs().next().is_none());
        no_keywords && self.base.is_none() && self.args().is_empty()
    }

    /// The node that holds exactly the arguments.
    pub(super) fn whole_args(self) -> Option<NodeId> {
        (self.skip == 0 && matches!(self.args.kind(), Kind::Tuple(_))).then(|| self.args.id())
    }
}

impl Walk<'_> {
    /// The class or function that makes an object, `module.name`.
    pub(super) fn callee(&self, node: NodeRef<'_>) -> Option<String> {
        match node.kind() {
            Kind::Global(g) => Some(g.to_string()),
            _ => qualified(Call::of(node)?.callable),
        }
    }
}
