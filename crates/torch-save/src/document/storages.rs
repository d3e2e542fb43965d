//! The storages of a document, one by one.

use std::fmt;
use std::io;
use std::sync::Arc;

use ckptkit_core::{
    Dtype, Error, ReadAt, Result, ResultExt, Section, Tensor, TensorBytes, TensorInfo,
};

use super::{Body, Document, Stored};
use crate::pickle::NodeId;
use crate::storage;

/// A storage that a document refers to.
#[derive(Clone, Copy)]
pub struct StorageView<'a> {
    index: usize,
    stored: &'a Stored,
}

impl fmt::Debug for StorageView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stored { dtype, location, numel, .. } = self.stored;
        write!(f, "StorageView({}, {dtype:?}, {numel}, {location})", self.index)
    }
}

impl<'a> StorageView<'a> {
    /// Its number in the document, equal for nodes that refer to one storage. It says nothing of
    /// the order in which storages are written.
    #[must_use]
    pub fn index(self) -> usize {
        self.index
    }

    /// The element type of its class; `None` for untyped bytes.
    #[must_use]
    pub fn dtype(self) -> Option<Dtype> {
        self.stored.dtype
    }

    /// Elements; bytes where it is untyped or packed.
    #[must_use]
    pub fn numel(self) -> u64 {
        self.stored.numel
    }

    /// Where it lived: `cpu`, `cuda:0`, …
    #[must_use]
    pub fn location(self) -> &'a str {
        &self.stored.location
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// Whatever keeps it from being read;
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) for more bytes than can be counted.
    pub fn byte_len(self) -> Result<u64> {
        if let Err(e) = &self.stored.body {
            return Err(e.clone());
        }
        byte_len(self.stored.dtype, self.stored.numel)
    }

    /// Its bytes as a tensor of one dimension: of its own dtype, or of bytes where it has none or
    /// `bytes` asks for them. Reads nothing.
    ///
    /// # Errors
    /// Whatever keeps it from being read.
    pub fn tensor(self, name: &str, bytes: bool) -> Result<Tensor> {
        let section = self.stored.section()?;
        let dtype = self.stored.dtype.filter(|d| !bytes && d.element_bytes().is_some());
        let dtype = dtype.unwrap_or(Dtype::U8);
        let numel = section.len() / dtype.element_bytes().unwrap_or(1);
        Tensor::new(TensorInfo::new(name, dtype, [numel])?, TensorBytes::Range(section))
    }
}

impl Document {
    /// The storage that a node is; `None` for a node that is none.
    #[must_use]
    pub fn storage(&self, node: NodeId) -> Option<StorageView<'_>> {
        let (index, stored) = self.stored_at(self.node(node))?;
        Some(StorageView { index, stored })
    }

    /// Adds a storage that holds the values of `tensors`, one after the other; gives the node that
    /// refers to it, for [`Document::rebuild`]. `numel` counts elements, or bytes where there is no
    /// dtype or it is packed.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) when the tensors have more or
    /// fewer bytes than that, and for a dtype that torch has no class of storages for (those lie
    /// in untyped ones);
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for a tensor without bytes.
    pub fn add_storage(
        &mut self,
        dtype: Option<Dtype>,
        numel: u64,
        location: &str,
        tensors: &[Tensor],
    ) -> Result<NodeId> {
        if let Some(dtype) = dtype.filter(|d| !storage::is_typed(*d)) {
            return Err(Error::invalid(format!("torch has no class for storages of {dtype}"))
                .hint("add an untyped storage"));
        }
        let mut found = 0_u64;
        for tensor in tensors {
            super::tensors::readable(tensor).within(|| format!("tensor {}", tensor.name()))?;
            found = found.saturating_add(tensor.byte_len());
        }
        let wanted = byte_len(dtype, numel)?;
        if found != wanted {
            return Err(Error::invalid(format!(
                "{found} bytes are given for a storage of {wanted} bytes ({numel} elements)"
            )));
        }
        let body = match tensors {
            [one] => Body::of(one),
            many => Body::Tensors(many.to_vec()),
        };
        let location = location.into();
        Ok(self.store(Stored { dtype, location, numel, body: Ok(body) }))
    }
}

impl Body {
    /// A tensor's values, as the bytes that they are where they lie in one run.
    pub(super) fn of(tensor: &Tensor) -> Self {
        match tensor.contiguous() {
            Some(section) => Self::Section(section.clone(), None),
            None => Self::Tensors(vec![tensor.clone()]),
        }
    }
}

fn byte_len(dtype: Option<Dtype>, numel: u64) -> Result<u64> {
    let unit = dtype.and_then(Dtype::element_bytes).unwrap_or(1);
    numel.checked_mul(unit).ok_or_else(|| {
        Error::malformed(format!("a storage of {numel} elements of {unit} bytes is too large"))
    })
}

/// Values of tensors as one run of bytes; computed when they are read, where they must be.
pub(super) fn joined(tensors: &[Tensor]) -> Result<Section> {
    if let [one] = tensors {
        if let Some(section) = one.contiguous() {
            return Ok(section.clone());
        }
    }
    let mut parts = Vec::with_capacity(tensors.len());
    let mut end = 0_u64;
    for tensor in tensors {
        tensor.check_expansion(&ckptkit_core::Limits::default())?;
        parts.push((end, tensor.clone()));
        let next = end.checked_add(tensor.byte_len());
        end = next.ok_or_else(|| Error::malformed("a storage is too large"))?;
    }
    Ok(Section::new(Arc::new(Joined { parts, end })))
}

/// Tensors one after the other, each with where it starts.
struct Joined {
    parts: Vec<(u64, Tensor)>,
    end: u64,
}

impl ReadAt for Joined {
    fn size(&self) -> u64 {
        self.end
    }

    fn read_exact_at(&self, offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        let mut next = self.parts.partition_point(|(start, _)| *start <= offset).saturating_sub(1);
        while !out.is_empty() {
            let (start, tensor) = self.parts.get(next).ok_or(io::ErrorKind::UnexpectedEof)?;
            let left = (start + tensor.byte_len()).saturating_sub(at);
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
            let (now, later) = out.split_at_mut(n);
            if n > 0 {
                tensor.read_into(at - start, now).map_err(io::Error::other)?;
            }
            at += n as u64;
            out = later;
            next += 1;
        }
        Ok(())
    }

    fn name(&self) -> &str {
        self.parts.first().map_or("nothing", |(_, tensor)| tensor.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(name: &str, bytes: &[u8]) -> Tensor {
        let info = TensorInfo::new(name, Dtype::U8, [bytes.len() as u64]).unwrap();
        Tensor::new(info, TensorBytes::Range(Section::from_bytes(bytes, name))).unwrap()
    }

    #[test]
    fn parts_are_read_as_one() {
        let mut document = Document::new();
        let parts = [bytes("a", &[1, 2, 3]), bytes("b", &[]), bytes("c", &[4, 5, 6, 7, 8])];
        let node = document.add_storage(Some(Dtype::I16), 4, "cuda:1", &parts).unwrap();
        let storage = document.storage(node).unwrap();
        assert_eq!((storage.byte_len().unwrap(), storage.location()), (8, "cuda:1"));
        let whole = storage.tensor("whole", false).unwrap();
        assert_eq!((whole.dtype(), whole.shape()), (Dtype::I16, &[4][..]));
        for start in 0..8_u64 {
            for end in start..8 {
                let mut out = vec![0; usize::try_from(end - start).unwrap()];
                whole.read_into(start, &mut out).unwrap();
                let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
                let expected = &[1_u8, 2, 3, 4, 5, 6, 7, 8][range];
                assert_eq!(out, expected);
            }
        }
        assert_eq!(storage.tensor("raw", true).unwrap().shape(), [8]);
    }

    #[test]
    fn sizes_and_dtypes_must_fit() {
        let mut document = Document::new();
        let one = [bytes("a", &[0; 6])];
        for (dtype, numel) in
            [(Some(Dtype::F32), 1), (None, 5), (Some(Dtype::F8E4M3), 6), (None, u64::MAX)]
        {
            let e = document.add_storage(dtype, numel, "cpu", &one).unwrap_err();
            assert_eq!(e.kind(), ckptkit_core::ErrorKind::InvalidArgument, "{e}");
        }
        assert!(document.add_storage(Some(Dtype::F64), u64::MAX, "cpu", &one).is_err());
        assert!(document.storage(document.root().id()).is_none());
    }
}
