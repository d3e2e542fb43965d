//! Lazy tensors: a name, a dtype, a shape and the address of the bytes.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use crate::dims::Dims;
use crate::dtype::Dtype;
use crate::error::{Error, Result, ResultExt};
use crate::limits::Limits;
use crate::region;
use crate::section::Section;
use crate::shape::{self, Region};

/// Identity of a storage within one opened checkpoint: tensors with equal ids share memory in the
/// program that saved them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorageId {
    /// Which file or item of the checkpoint, counted by its reader.
    pub container: u32,
    /// Which storage in it, in order of first reference.
    pub index: u32,
}

/// What a tensor is before its bytes are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Shared by the tensor's boxes.
    name: Arc<str>,
    dtype: Dtype,
    shape: Dims,
    numel: u64,
    byte_len: u64,
    storage: Option<StorageId>,
}

impl TensorInfo {
    /// Describes a tensor; the shape counts elements, `[]` is a scalar.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) when the shape has more elements or bytes than
    /// can be counted (see [`shape::numel`]).
    pub fn new(name: impl Into<Arc<str>>, dtype: Dtype, shape: impl AsRef<[u64]>) -> Result<Self> {
        Self::named(name.into(), dtype, shape.as_ref())
    }

    fn named(name: Arc<str>, dtype: Dtype, shape: &[u64]) -> Result<Self> {
        let shape = Dims::new(shape);
        let numel = shape::numel(&shape).within(|| format!("tensor {name}"))?;
        let byte_len = dtype.byte_len(numel).ok_or_else(|| {
            Error::malformed(format!(
                "shape {shape:?} of {dtype} has more bytes than can be counted"
            ))
            .within(format_args!("tensor {name}"))
        })?;
        Ok(Self { name, dtype, shape, numel, byte_len, storage: None })
    }

    /// The same in another shape.
    pub(crate) fn reshaped(&self, shape: impl AsRef<[u64]>) -> Result<Self> {
        let other = Self::named(Arc::clone(&self.name), self.dtype, shape.as_ref())?;
        Ok(Self { storage: self.storage, ..other })
    }

    /// Says which storage the tensor lives in.
    #[must_use]
    pub fn in_storage(mut self, id: StorageId) -> Self {
        self.storage = Some(id);
        self
    }

    /// The name, unique within the checkpoint.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name, to be kept without a copy: as a key of a map.
    #[must_use]
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Elements in every dimension; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        self.shape.as_slice()
    }

    /// The number of elements.
    #[must_use]
    pub fn numel(&self) -> u64 {
        self.numel
    }

    /// Bytes of the contiguous tensor.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.byte_len
    }

    /// The storage it lives in: equal for tensors that share memory.
    #[must_use]
    pub fn storage(&self) -> Option<StorageId> {
        self.storage
    }
}

/// What must be done to stored elements to get the tensor's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transform {
    /// The stored bytes are big-endian.
    pub swap: bool,
    /// The value is the complex conjugate of what is stored.
    pub conj: bool,
    /// The value is the negation of what is stored.
    pub neg: bool,
}

impl Transform {
    /// Whether stored bytes are the values.
    #[must_use]
    pub fn is_identity(self) -> bool {
        self == Self::default()
    }
}

/// A view of a storage: which elements, in what order.
#[derive(Clone, Debug)]
pub struct Strided {
    /// The stored bytes.
    pub storage: Section,
    /// The first element, in elements (in bytes for packed dtypes).
    pub offset: u64,
    /// One stride a dimension, in elements (in bytes for packed dtypes).
    pub strides: Vec<u64>,
}

/// A box of a larger tensor and the tensor that holds it.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Where the box lies in the larger tensor.
    pub region: Region,
    /// Its values, of shape `region.sizes`.
    pub tensor: Tensor,
}

/// Finds where bytes lie when they are first wanted: an item of a distributed checkpoint is an
/// archive of its own, which listing must not open.
pub trait Resolve: Send + Sync {
    /// Where the bytes of the tensor that `info` describes lie, and what must be done to them.
    /// Gives the same whenever it is called; never [`TensorBytes::Deferred`].
    ///
    /// # Errors
    /// Whatever keeps the tensor from being read.
    fn resolve(&self, info: &TensorInfo) -> Result<(TensorBytes, Transform)>;
}

/// Bytes that are found when they are first wanted; see [`Resolve`].
#[derive(Clone)]
pub struct Deferred {
    resolver: Arc<dyn Resolve>,
    found: Arc<OnceLock<Result<Tensor>>>,
}

impl Deferred {
    /// Defers to `resolver`.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self { resolver, found: Arc::default() }
    }

    fn find(&self, info: &TensorInfo) -> Result<Tensor> {
        let (bytes, transform) =
            self.resolver.resolve(info).within(|| format!("tensor {}", info.name))?;
        if matches!(bytes, TensorBytes::Deferred(_)) {
            return Err(Error::invalid("bytes were deferred twice"));
        }
        Tensor::with_transform(info.clone(), bytes, transform)
    }
}

impl std::fmt::Debug for Deferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Deferred").field(&self.found.get()).finish()
    }
}

/// Where a tensor's bytes lie.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TensorBytes {
    /// One run of bytes, row-major.
    Range(Section),
    /// A view of a storage.
    Strided(Strided),
    /// Boxes that tile the tensor.
    Chunks(Arc<[Chunk]>),
    /// The values of a tensor of another floating-point type, cast when they are read; see
    /// [`Tensor::cast`].
    Cast(Box<Tensor>),
    /// Not known until someone asks.
    Deferred(Deferred),
    /// The entry has no bytes of its own: a meta tensor, or one made of others that are listed
    /// under it. The text says which.
    None(Cow<'static, str>),
    /// The entry cannot be read; everything else in the file can.
    Broken(Error),
}

struct Inner {
    info: TensorInfo,
    bytes: TensorBytes,
    transform: Transform,
}

/// A tensor that has not been read: what it is, and the address of its bytes. Cheap to clone,
/// shareable between threads, keeps its source open.
#[derive(Clone)]
pub struct Tensor(Arc<Inner>);

impl Tensor {
    /// A tensor whose bytes lie as `bytes` says.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) when the bytes cannot be those of the shape: a
    /// range of another length, a view that leaves its storage, chunks of another rank.
    pub fn new(info: TensorInfo, bytes: TensorBytes) -> Result<Self> {
        Self::with_transform(info, bytes, Transform::default())
    }

    /// As [`Tensor::new`], with stored elements that are not yet the values.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn with_transform(
        info: TensorInfo,
        bytes: TensorBytes,
        transform: Transform,
    ) -> Result<Self> {
        let bytes =
            check(&info, bytes).map_err(|e| e.within(format_args!("tensor {}", info.name)))?;
        Ok(Self(Arc::new(Inner { info, bytes, transform })))
    }

    /// The same tensor under another name.
    #[must_use]
    pub fn renamed(&self, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        if name == self.0.info.name {
            return self.clone();
        }
        let info = TensorInfo { name, ..self.0.info.clone() };
        let bytes = match &self.0.bytes {
            // What is deferred is found by the name that its source knows.
            TensorBytes::Deferred(_) => region::deferred(self, Region::whole(self.shape())),
            bytes => bytes.clone(),
        };
        Self(Arc::new(Inner { info, bytes, transform: self.0.transform }))
    }

    /// The same tensor with nothing said of the storage that it shares.
    #[must_use]
    pub fn unshared(mut self) -> Self {
        if self.0.info.storage.is_none() {
            return self;
        }
        if let Some(own) = Arc::get_mut(&mut self.0) {
            own.info.storage = None;
            return self;
        }
        let info = TensorInfo { storage: None, ..self.0.info.clone() };
        Self(Arc::new(Inner { info, bytes: self.0.bytes.clone(), transform: self.0.transform }))
    }

    /// What it is.
    #[must_use]
    pub fn info(&self) -> &TensorInfo {
        &self.0.info
    }

    /// The name; see [`TensorInfo::name`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.info.name
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.0.info.dtype
    }

    /// Elements in every dimension.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        self.0.info.shape()
    }

    /// Bytes of the contiguous tensor.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.0.info.byte_len
    }

    /// Where the bytes lie, as far as it is known; [`Tensor::resolve`] finds out.
    #[must_use]
    pub fn bytes(&self) -> &TensorBytes {
        &self.0.bytes
    }

    /// This tensor with bytes that are not [`TensorBytes::Deferred`].
    ///
    /// # Errors
    /// Those of finding them.
    pub fn resolve(&self) -> Result<Self> {
        match &self.0.bytes {
            TensorBytes::Deferred(deferred) => {
                deferred.found.get_or_init(|| deferred.find(&self.0.info)).clone()
            }
            _ => Ok(self.clone()),
        }
    }

    /// As [`Tensor::resolve`], for a caller that keeps what is found: the tensor does not.
    pub(crate) fn find(&self) -> Result<Self> {
        match &self.0.bytes {
            TensorBytes::Deferred(deferred) => match deferred.found.get() {
                Some(found) => found.clone(),
                None => deferred.find(&self.0.info),
            },
            _ => Ok(self.clone()),
        }
    }

    /// Whether both are one tensor, and not two that are alike.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What must be done to stored elements.
    #[must_use]
    pub fn transform(&self) -> Transform {
        self.0.transform
    }

    /// Whether there are bytes to read: not for meta tensors, for those made of others, and for
    /// entries that cannot be read.
    #[must_use]
    pub fn has_bytes(&self) -> bool {
        !matches!(self.0.bytes, TensorBytes::None(_) | TensorBytes::Broken(_))
    }

    /// Whether both are the same elements of the same storage, in the same order: tied weights.
    #[must_use]
    pub fn is_tied_with(&self, other: &Self) -> bool {
        let (a, b) = (&*self.0, &*other.0);
        if a.info.storage.is_none()
            || a.info.storage != b.info.storage
            || a.info.dtype != b.info.dtype
            || a.info.shape != b.info.shape
            || a.info.numel == 0
            || a.transform != b.transform
        {
            return false;
        }
        match (&a.bytes, &b.bytes) {
            (TensorBytes::Range(x), TensorBytes::Range(y)) => x.offset() == y.offset(),
            (TensorBytes::Cast(x), TensorBytes::Cast(y)) => x.is_tied_with(y),
            (TensorBytes::Strided(x), TensorBytes::Strided(y)) => {
                x.offset == y.offset && x.strides == y.strides
            }
            _ => false,
        }
    }

    /// The one run of bytes that is the tensor, where there is one and nothing must be done to it.
    #[must_use]
    pub fn contiguous(&self) -> Option<&Section> {
        match &self.0.bytes {
            TensorBytes::Range(s) if self.0.transform.is_identity() => Some(s),
            TensorBytes::Deferred(deferred) => deferred.found.get()?.as_ref().ok()?.contiguous(),
            _ => None,
        }
    }

    /// The tensor's bytes without a copy, where they are contiguous and in memory (for deferred
    /// ones: once they are resolved). They need not be aligned to the element size.
    #[must_use]
    pub fn as_slice(&self) -> Option<&[u8]> {
        self.contiguous()?.as_slice()
    }

    /// Refuses a view that would become far larger than what is stored (an expand bomb).
    ///
    /// # Errors
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded), naming the tensor.
    pub fn check_expansion(&self, limits: &Limits) -> Result<()> {
        let view = match &self.0.bytes {
            TensorBytes::Strided(view) => view,
            TensorBytes::Cast(source) => return source.check_expansion(limits),
            _ => return Ok(()),
        };
        let (logical, stored) = (self.byte_len(), view.storage.len());
        if logical > limits.expansion_floor && logical / limits.expansion.max(1) > stored {
            return Err(Error::limit(format!(
                "a view of {stored} stored bytes would become {logical} bytes when made contiguous"
            ))
            .within(format_args!("tensor {}", self.name()))
            .hint("leave it out, or raise the limit on expansion"));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({} {} {:?})", self.name(), self.dtype(), self.shape())
    }
}

fn check(info: &TensorInfo, bytes: TensorBytes) -> Result<TensorBytes> {
    match bytes {
        TensorBytes::Range(section) if section.len() != info.byte_len => {
            Err(Error::malformed(format!(
                "{} bytes are stored, {} of shape {:?} needs {}",
                section.len(),
                info.dtype,
                info.shape,
                info.byte_len
            ))
            .in_file(section.name()))
        }
        TensorBytes::Strided(view) => simplify(info, view),
        TensorBytes::Chunks(chunks) => {
            for chunk in chunks.iter() {
                let fits = chunk.region.offsets.len() == info.shape.len()
                    && chunk.region.sizes == chunk.tensor.shape()
                    && (chunk.region.offsets.iter().zip(&chunk.region.sizes).zip(info.shape()))
                        .all(|((&o, &s), &dim)| o.checked_add(s).is_some_and(|end| end <= dim));
                let packed = info.dtype.element_bytes().is_none();
                let whole_bytes =
                    |dims: &[u64]| dims.last().is_some_and(|&n| info.dtype.fills_bytes(n));
                let parts = [&chunk.region.offsets[..], &chunk.region.sizes, info.shape()];
                let fits = fits && (!packed || parts.iter().all(|dims| whole_bytes(dims)));
                if !fits || chunk.tensor.dtype() != info.dtype {
                    return Err(Error::malformed(format!(
                        "chunk of {} {:?} at {:?} does not lie in {} {:?}",
                        chunk.tensor.dtype(),
                        chunk.tensor.shape(),
                        chunk.region.offsets,
                        info.dtype,
                        info.shape
                    )));
                }
            }
            Ok(TensorBytes::Chunks(chunks))
        }
        other => Ok(other),
    }
}

/// Checks a view against its storage; a view that is one run becomes one.
fn simplify(info: &TensorInfo, view: Strided) -> Result<TensorBytes> {
    let out_of_storage = |needs: u64| {
        Error::malformed(format!(
            "the view (shape {:?}, strides {:?}, offset {}) needs {needs} bytes, its storage has {}",
            info.shape,
            view.strides,
            view.offset,
            view.storage.len()
        ))
        .in_file(view.storage.name())
    };
    if info.numel == 0 {
        return Ok(TensorBytes::Range(view.storage.slice(0, 0)?));
    }
    let Some(unit) = info.dtype.element_bytes() else {
        // Packed elements: only a whole run can be read, since an element need not start a byte.
        if !shape::is_row_major(&info.shape, &view.strides) && info.shape.len() > 1 {
            return Ok(TensorBytes::Broken(Error::unsupported(format!(
                "a view of packed {} elements with strides {:?} cannot be read",
                info.dtype, view.strides
            ))));
        }
        let end = view.offset.checked_add(info.byte_len).ok_or_else(|| out_of_storage(u64::MAX))?;
        if end > view.storage.len() {
            return Err(out_of_storage(end));
        }
        return Ok(TensorBytes::Range(view.storage.slice(view.offset, info.byte_len)?));
    };
    let extent = shape::view_extent(view.offset, &info.shape, &view.strides)?;
    let needs = extent.checked_mul(unit).ok_or_else(|| out_of_storage(u64::MAX))?;
    if needs > view.storage.len() {
        return Err(out_of_storage(needs));
    }
    if shape::is_row_major(&info.shape, &view.strides) {
        return Ok(TensorBytes::Range(view.storage.slice(view.offset * unit, info.byte_len)?));
    }
    Ok(TensorBytes::Strided(view))
}
