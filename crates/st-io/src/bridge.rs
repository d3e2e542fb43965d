//! To and from the types of the `safetensors` crate (feature `safetensors`).

use std::borrow::Cow;

use ckptkit_core::{Dtype, Error, Result, ResultExt, Section, Tensor, TensorBytes, TensorInfo};
use safetensors::tensor::{Dtype as StCrateDtype, TensorView, View};

/// Both names of a dtype, in the order of the format's own declaration.
const PAIRS: [(Dtype, StCrateDtype); 22] = [
    (Dtype::Bool, StCrateDtype::BOOL),
    (Dtype::F4, StCrateDtype::F4),
    (Dtype::F6E2M3, StCrateDtype::F6_E2M3),
    (Dtype::F6E3M2, StCrateDtype::F6_E3M2),
    (Dtype::U8, StCrateDtype::U8),
    (Dtype::I8, StCrateDtype::I8),
    (Dtype::F8E5M2, StCrateDtype::F8_E5M2),
    (Dtype::F8E4M3, StCrateDtype::F8_E4M3),
    (Dtype::F8E8M0, StCrateDtype::F8_E8M0),
    (Dtype::F8E4M3Fnuz, StCrateDtype::F8_E4M3FNUZ),
    (Dtype::F8E5M2Fnuz, StCrateDtype::F8_E5M2FNUZ),
    (Dtype::I16, StCrateDtype::I16),
    (Dtype::U16, StCrateDtype::U16),
    (Dtype::F16, StCrateDtype::F16),
    (Dtype::Bf16, StCrateDtype::BF16),
    (Dtype::I32, StCrateDtype::I32),
    (Dtype::U32, StCrateDtype::U32),
    (Dtype::F32, StCrateDtype::F32),
    (Dtype::C64, StCrateDtype::C64),
    (Dtype::F64, StCrateDtype::F64),
    (Dtype::I64, StCrateDtype::I64),
    (Dtype::U64, StCrateDtype::U64),
];

/// The `safetensors` crate's name of a dtype, or `None` where the format lacks it.
#[must_use]
pub fn to_dtype(dtype: Dtype) -> Option<StCrateDtype> {
    PAIRS.iter().find(|p| p.0 == dtype).map(|p| p.1)
}

/// The dtype that the `safetensors` crate names, or `None` for one that it added later.
#[must_use]
pub fn from_dtype(dtype: StCrateDtype) -> Option<Dtype> {
    PAIRS.iter().find(|p| p.1 == dtype).map(|p| p.0)
}

/// A tensor for the functions of the `safetensors` crate: borrowed where its bytes are mapped, read
/// otherwise.
#[derive(Debug)]
pub struct TensorAdapter<'a> {
    dtype: StCrateDtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> TensorAdapter<'a> {
    /// Takes the bytes of `tensor`, reading them where they are not in memory.
    ///
    /// # Errors
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for a dtype that the format lacks, and
    /// those of [`Tensor::read`].
    pub fn new(tensor: &'a Tensor) -> Result<Self> {
        let (dtype, shape) = describe(tensor)?;
        let bytes = match tensor.as_slice() {
            Some(bytes) => Cow::Borrowed(bytes),
            None => Cow::Owned(tensor.read()?),
        };
        Ok(Self { dtype, shape, bytes })
    }
}

impl View for TensorAdapter<'_> {
    fn dtype(&self) -> StCrateDtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// The crate's own view of a tensor, without a copy; `None` where its bytes are not one run in
/// memory (open the file mapped).
///
/// # Errors
/// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for a dtype that the format lacks.
pub fn view(tensor: &Tensor) -> Result<Option<TensorView<'_>>> {
    let (dtype, shape) = describe(tensor)?;
    let Some(bytes) = tensor.as_slice() else { return Ok(None) };
    TensorView::new(dtype, shape, bytes)
        .map(Some)
        .map_err(|e| Error::invalid(e.to_string()))
        .within(|| format!("tensor {}", tensor.name()))
}

/// A tensor of the bytes of a view, which are copied.
///
/// # Errors
/// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for a dtype that is not known here,
/// [`Malformed`](ckptkit_core::ErrorKind::Malformed) where the bytes are not those of the shape.
pub fn tensor(name: &str, view: &impl View) -> Result<Tensor> {
    let dtype = from_dtype(view.dtype()).ok_or_else(|| {
        Error::unsupported(format!("the dtype {:?} is not known", view.dtype()))
            .within(format_args!("tensor {name}"))
    })?;
    let shape: Vec<u64> = view.shape().iter().map(|d| *d as u64).collect();
    let info = TensorInfo::new(name, dtype, shape)?;
    Tensor::new(info, TensorBytes::Range(Section::from_bytes(view.data().into_owned(), "memory")))
}

fn describe(tensor: &Tensor) -> Result<(StCrateDtype, Vec<usize>)> {
    let place = |e: Error| e.within(format_args!("tensor {}", tensor.name()));
    let dtype = to_dtype(tensor.dtype()).ok_or_else(|| {
        place(Error::unsupported(format!("the safetensors format has no dtype {}", tensor.dtype())))
    })?;
    let shape = tensor.shape().iter().map(|d| usize::try_from(*d)).collect::<Result<_, _>>();
    Ok((dtype, shape.map_err(|_| place(Error::limit("a dimension is larger than memory")))?))
}
