//! NumPy: arrays of numbers become tensors, which keep dtype and shape; scalars become numbers.

use ckptkit_core::{Result, Section, Tensor, TensorBytes, TensorInfo};

use super::walk::{Form, Walk};
use crate::numpy::{self, Scalar};
use crate::pickle::{Kind, NodeId, NodeRef};
use crate::weights_only::what;

const ARRAY: &str = "numpy.ndarray";
/// What a list costs.
const LIST_BYTES: usize = 32;

impl Walk<'_> {
    pub(super) fn numpy(&mut self, id: NodeId) -> Result<Option<Form>> {
        let node = self.document.node(id);
        if let Some((class, scalar)) = numpy::scalar(node) {
            return Ok(Some(self.scalar(scalar).was(class)));
        }
        if let Some(name) = numpy::dtype_name(node) {
            return Ok(Some(Form::new(self.text(&name), "str")));
        }
        if let Some(array) = numpy::array(node) {
            self.spend(array.data.len())?;
            return Ok(Some(self.array(array)?.was(ARRAY)));
        }
        Ok(self.objects(id)?.map(|form| form.was(ARRAY)))
    }

    fn scalar(&mut self, scalar: Scalar) -> Form {
        let b = self.document.builder();
        let (node, became) = match scalar {
            Scalar::Bool(v) => (b.bool(v), "bool"),
            Scalar::Int(v) => (b.int(v), "int"),
            Scalar::UInt(v) => (b.uint(v), "int"),
            Scalar::Float(v) => (b.float(v), "float"),
            Scalar::Complex(re, im) => {
                let args = [b.float(re), b.float(im)];
                (b.call("builtins", "complex", &args), "complex")
            }
            Scalar::Str(text) => (b.str(&text), "str"),
            Scalar::Bytes(bytes) => (b.bytes(&bytes), "bytes"),
        };
        Form::new(node, became)
    }

    fn array(&mut self, array: numpy::Array) -> Result<Form> {
        let numpy::Array { dtype, shape, data } = array;
        let is_date = dtype.starts_with("<M8") || dtype.starts_with("<m8");
        let number = if is_date { "<i8" } else { dtype.as_str() };
        if let Some(element) = numpy::dtype(number) {
            let info = TensorInfo::new("array", element, shape)?;
            let section = Section::from_bytes(data, "array (in the pickle)");
            let tensor = Tensor::new(info, TensorBytes::Range(section))?;
            let form = Form::new(self.document.tensor(&tensor)?, "torch.Tensor");
            return Ok(if is_date {
                form.note(format!("of counts: it was {dtype}"))
            } else {
                form
            });
        }
        let kind = dtype.as_bytes().get(1).copied().unwrap_or(b'V');
        let count = ckptkit_core::shape::numel(&shape)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.spend(count.saturating_mul(16))?;
        if let b'U' | b'S' = kind {
            let width = data.len().checked_div(count).unwrap_or(0);
            let items: Option<Vec<NodeId>> = (0..count)
                .map(|i| self.text_item(kind, &data[i * width..(i + 1) * width]))
                .collect();
            if let Some(items) = items {
                return Ok(Form::new(self.nested(&items, &shape)?, "list"));
            }
        }
        let b = self.document.builder();
        let dims: Vec<NodeId> = shape.iter().map(|&d| b.uint(d)).collect();
        let fields =
            [("dtype", b.str(&dtype)), ("shape", b.tuple(&dims)), ("data", b.bytes(&data))];
        Ok(self.description(ARRAY, &fields))
    }

    /// One text or bytes of an array, without the zeros behind it.
    fn text_item(&mut self, kind: u8, data: &[u8]) -> Option<NodeId> {
        if kind == b'S' {
            let end = data.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
            return Some(self.document.builder().bytes(&data[..end]));
        }
        let text: Option<String> = data
            .chunks_exact(4)
            .map(|c| char::from_u32(u32::from_le_bytes(c.try_into().ok()?)))
            .collect();
        Some(self.text(text?.trim_end_matches('\0')))
    }

    /// An array of objects, whose items are a list in its state.
    fn objects(&mut self, id: NodeId) -> Result<Option<Form>> {
        let node = self.document.node(id);
        let is_array = node.class().is_some_and(|g| g.name == "_reconstruct");
        let fields = node.state().map(|s| s.iter_items().take(6).collect::<Vec<_>>());
        let Some([_, shape, _, _, raw]) = fields.as_deref().filter(|_| is_array) else {
            return Ok(None);
        };
        let dims = shape.iter_items().take(ckptkit_core::shape::MAX_DIMS + 1);
        let shape: Option<Vec<u64>> = dims.map(NodeRef::as_u64).collect();
        let (Some(shape), Kind::List) = (shape, raw.kind()) else { return Ok(None) };
        let list = raw.id();
        let items: Vec<NodeId> = raw.iter_items().map(NodeRef::id).collect();
        self.spend(items.len().saturating_mul(8))?;
        if ckptkit_core::shape::numel(&shape).ok() != Some(items.len() as u64) {
            return Ok(None);
        }
        let new = if shape.len() == 1 { list } else { self.nested(&items, &shape)? };
        Ok(Some(Form::new(new, what(self.node(new)))))
    }

    /// Lists of lists of this shape; the item itself where there are no dimensions.
    fn nested(&mut self, items: &[NodeId], shape: &[u64]) -> Result<NodeId> {
        let mut level = items.to_vec();
        for (i, &width) in shape.iter().enumerate().rev() {
            let rows = shape[..i].iter().try_fold(1_u64, |n, d| n.checked_mul(*d));
            let rows = rows.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            // An array without elements may have any number of rows.
            self.spend(rows.saturating_mul(LIST_BYTES))?;
            let width = usize::try_from(width).unwrap_or(0);
            let b = self.document.builder();
            let mut lists = Vec::new();
            for row in 0..rows {
                let list = b.list();
                b.append(list, level.get(row * width..(row + 1) * width).unwrap_or_default());
                lists.push(list);
            }
            level = lists;
        }
        Ok(level.first().copied().unwrap_or_else(|| self.document.builder().list()))
    }
}
