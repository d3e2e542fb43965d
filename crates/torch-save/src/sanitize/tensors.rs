//! Tensors that torch refuses for their class or the function that rebuilds them.

use ckptkit_core::{Result, Section, Tensor, TensorBytes, TensorInfo};

use super::walk::{Form, Walk};
use crate::pickle::{Kind, NodeId, NodeRef};
use crate::rebuild;
use crate::weights_only::standing;

const TENSOR: &str = "torch.Tensor";
/// No construction of a tensor takes more arguments.
const MAX_ARGUMENTS: usize = 16;

impl Walk<'_> {
    /// The form of a tensor; `None` for what is none, or not known.
    pub(super) fn tensor(&mut self, id: NodeId) -> Result<Option<Form>> {
        let node = self.document.node(id);
        let Some(g) = node.class() else { return Ok(None) };
        let args: Vec<NodeId> = node.arguments(MAX_ARGUMENTS).iter().map(|a| a.id()).collect();
        Ok(match (g.module, g.name) {
            (_, "_rebuild_from_type" | "_rebuild_from_type_v2") => self.cast(&args),
            ("torch._utils", "_rebuild_nested_tensor") => {
                let names = ["buffer", "sizes", "strides", "offsets"];
                let fields: Vec<_> = names.into_iter().zip(args.iter().copied()).collect();
                Some(self.description("torch._utils._rebuild_nested_tensor", &fields))
            }
            ("torch._utils", "_rebuild_sparse_csr_tensor") => {
                let b = self.document.builder();
                let node = b.call("torch._utils", "_rebuild_sparse_tensor", &args);
                Some(Form::new(node, TENSOR))
            }
            ("torch._utils", "_rebuild_device_tensor_from_numpy" | "_rebuild_xla_tensor") => {
                self.device_array(id)?
            }
            ("torch.nn.parameter", "Buffer") | ("torch.autograd.variable", "Variable") => {
                args.first().map(|&data| Form::new(data, TENSOR))
            }
            ("torch.nn.parameter", "Parameter") if args.is_empty() => self.old_parameter(id),
            _ => None,
        })
    }

    /// `_rebuild_from_type_v2(function, class, arguments, state)` of a class that is not known.
    fn cast(&mut self, args: &[NodeId]) -> Option<Form> {
        let [function, class, inner, state] = *args else { return None };
        let made_by = self.node(function).as_global()?;
        let (module, name) = (made_by.module.to_owned(), made_by.name.to_owned());
        let allowed = standing(made_by).is_allowed();
        let class_name = self.node(class).as_global()?.to_string();
        if name == "_rebuild_wrapper_subclass" {
            let facts: Vec<NodeId> =
                self.node(inner).iter_items().take(3).map(NodeRef::id).collect();
            let [_, dtype, size] = facts[..] else { return None };
            let fields = [("dtype", dtype), ("size", size), ("state", state)];
            return Some(self.description(&class_name, &fields).was(class_name));
        }
        let dicts: Vec<NodeRef<'_>> = match self.node(state).kind() {
            Kind::Tuple(_) => self.node(state).iter_items().take(2).collect(),
            _ => vec![self.node(state)],
        };
        let has_state = dicts.iter().any(|d| d.iter_pairs().next().is_some());
        let is_state = dicts.iter().all(|d| matches!(d.kind(), Kind::Dict | Kind::None));
        let b = self.document.builder();
        if !allowed || !has_state || !is_state {
            let function = b.global(&module, &name);
            let form = Form::new(b.reduce(function, inner), TENSOR).was(class_name);
            let lost = has_state || !is_state;
            return Some(if lost { form.note("its attributes are left out") } else { form });
        }
        let class = if name.starts_with("_rebuild_parameter") {
            b.global("torch.nn.parameter", "Parameter")
        } else {
            b.global("torch", "Tensor")
        };
        let args = [function, class, inner, state];
        let node = b.call("torch._tensor", "_rebuild_from_type_v2", &args);
        Some(Form::new(node, TENSOR).was(class_name))
    }

    /// Devices without storages saved their tensors as NumPy arrays.
    fn device_array(&mut self, id: NodeId) -> Result<Option<Form>> {
        let Some(Ok(spec)) = rebuild::recognise(self.document.node(id)) else { return Ok(None) };
        let (dtype, shape, requires_grad) = (spec.dtype, spec.shape, spec.requires_grad);
        let rebuild::Form::Inline(data) = spec.form else { return Ok(None) };
        self.spend(data.len())?;
        let info = TensorInfo::new("array", dtype, shape)?;
        let section = Section::from_bytes(data, "array (in the pickle)");
        let node = self.document.tensor(&Tensor::new(info, TensorBytes::Range(section))?)?;
        self.require_grad(node, requires_grad);
        Ok(Some(Form::new(node, TENSOR)))
    }

    fn require_grad(&mut self, node: NodeId, requires_grad: bool) {
        let args = match self.node(node).kind() {
            Kind::Reduce { args, .. } if requires_grad => args,
            _ => return,
        };
        let b = self.document.builder();
        let yes = b.bool(true);
        b.replace_part(args, 4, yes);
    }

    /// A parameter of the first releases: its state is `(storage, offset, size, stride)`.
    fn old_parameter(&mut self, id: NodeId) -> Option<Form> {
        let state = self.document.node(id).state()?;
        let fields: Vec<NodeId> = state.iter_items().take(5).map(NodeRef::id).collect();
        let [..] = <[NodeId; 4]>::try_from(fields.clone()).ok()?;
        let b = self.document.builder();
        let data = b.call("torch._utils", "_rebuild_tensor", &fields);
        let node = self.document.parameter(data, true);
        Some(Form::new(node, "torch.nn.parameter.Parameter"))
    }
}
