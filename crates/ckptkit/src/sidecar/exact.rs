//! Calls that need no more than a tensor's name to be made again.

use torch_save::pickle::Kind;
use torch_save::{Document, NodeId, NodeRef, View};

use super::cover::Covers;

pub(super) struct Exact<'d> {
    pub(super) document: &'d Document,
    pub(super) covers: &'d Covers,
    /// How often nodes are referred to, by index.
    pub(super) references: Vec<u32>,
}

/// What such a call is.
pub(super) struct Named<'d> {
    pub(super) name: &'d str,
    /// The node of its storage.
    pub(super) storage: NodeId,
    pub(super) requires_grad: bool,
    /// An `nn.Parameter` around it.
    pub(super) parameter: bool,
}

impl<'d> Exact<'d> {
    pub(super) fn references(&self, id: NodeId) -> u32 {
        self.references.get(id.index()).copied().unwrap_or(0)
    }

    /// The tensor that a node is, where making it again from its name gives just this call.
    pub(super) fn tensor(&self, id: NodeId) -> Option<Named<'d>> {
        let node = self.document.node(id);
        if node.muts().next().is_some() {
            return None;
        }
        let (name, args) = self.torch_call(node)?;
        if name != "_rebuild_parameter" {
            return self.plain(node, name, &args);
        }
        let [data, requires_grad, hooks] = args[..] else { return None };
        let (inner, inner_args) = self.torch_call(data)?;
        let inner = self.plain(data, inner, &inner_args)?;
        let alone = self.is_part(data) && self.is_part(hooks) && !inner.requires_grad;
        if !alone || !is_empty_ordered_dict(hooks) {
            return None;
        }
        let requires_grad = bare(requires_grad)?.as_bool()?;
        Some(Named { requires_grad, parameter: true, ..inner })
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, OrderedDict())`, or the
    /// third form with its dtype, of the very view that a named tensor is.
    fn plain(&self, node: NodeRef<'d>, function: &str, args: &[NodeRef<'d>]) -> Option<Named<'d>> {
        let [storage, offset, size, stride, requires_grad, hooks, rest @ ..] = args else {
            return None;
        };
        let whole = self.document.storage(bare(*storage)?.id())?;
        let form = match (function, rest) {
            ("_rebuild_tensor_v2", []) => whole.dtype().is_some(),
            ("_rebuild_tensor_v3", [dtype]) => {
                let named = bare(*dtype)?.spelled_global()?;
                let view = self.document.view(node.id())?;
                whole.dtype().is_none()
                    && named.module == "torch"
                    && view.dtype.torch_name() == Some(named.name)
            }
            _ => false,
        };
        let exact = form
            && is_integer(*offset)
            && self.is_dims(*size)
            && self.is_dims(*stride)
            && self.is_part(*hooks)
            && is_empty_ordered_dict(*hooks);
        let requires_grad = bare(*requires_grad)?.as_bool()?;
        let view: View = self.document.view(node.id()).filter(|_| exact)?;
        let name = self.covers.name_of(whole.index(), &view)?;
        Some(Named { name, storage: storage.id(), requires_grad, parameter: false })
    }

    /// The name and the arguments of a call of a function in `torch._utils`.
    fn torch_call(&self, node: NodeRef<'d>) -> Option<(&'d str, Vec<NodeRef<'d>>)> {
        let Kind::Reduce { callable, args } = node.kind() else { return None };
        let function = bare(node.other(callable))?.spelled_global()?;
        let args = bare(node.other(args)).filter(|a| self.is_part(*a))?;
        let Kind::Tuple(items) = args.kind() else { return None };
        (function.module == "torch._utils" && items.len() <= 8)
            .then(|| (function.name, items.iter().map(|id| node.other(*id)).collect()))
    }

    /// Whether a node is referred to by what holds it and by nothing else.
    fn is_part(&self, node: NodeRef<'_>) -> bool {
        self.references(node.id()) <= 1
    }

    fn is_dims(&self, node: NodeRef<'_>) -> bool {
        match node.kind() {
            Kind::Tuple(items) => {
                node.muts().next().is_none()
                    && (items.is_empty() || self.is_part(node))
                    && items.iter().all(|id| is_integer(node.other(*id)))
            }
            _ => false,
        }
    }
}

/// A node that nothing happened to.
fn bare(node: NodeRef<'_>) -> Option<NodeRef<'_>> {
    node.muts().next().is_none().then_some(node)
}

fn is_integer(node: NodeRef<'_>) -> bool {
    bare(node).is_some_and(|n| matches!(n.kind(), Kind::Int(_)))
}

fn is_empty_ordered_dict(node: NodeRef<'_>) -> bool {
    let Some(Kind::Reduce { callable, args }) = bare(node).map(NodeRef::kind) else { return false };
    let named = bare(node.other(callable)).and_then(NodeRef::spelled_global);
    let args = bare(node.other(args)).map(NodeRef::kind);
    named.is_some_and(|g| g.is("collections", "OrderedDict"))
        && matches!(args, Some(Kind::Tuple([])))
}
