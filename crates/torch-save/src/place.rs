//! From a tensor's description to the address of its bytes.

use std::borrow::Cow;
use std::sync::Arc;

use ckptkit_core::hash::HashMap;
use ckptkit_core::{
    Dtype, Error, Result, ResultExt, Section, StorageId, Strided, Tensor, TensorBytes, TensorInfo,
    Transform, shape,
};

use crate::container::{Located, Opened};
use crate::rebuild::{Form, Spec, TensorKind};
use crate::storage::StorageRef;

/// The location of storages without bytes.
const META: &str = "meta";

/// A tensor with its address.
pub(crate) struct Placed {
    pub(crate) tensor: Tensor,
    pub(crate) kind: TensorKind,
    pub(crate) requires_grad: bool,
    pub(crate) class: Option<Arc<str>>,
    pub(crate) location: Option<Arc<str>>,
}

/// Finds storages in the container, each once.
pub(crate) struct Placer<'a> {
    opened: &'a Opened,
    parts: Vec<Part<'a>>,
    /// The storages in order of first reference.
    found: Vec<Result<Section>>,
    /// The last one: most tensors of a file come from one place.
    location: Arc<str>,
    pub(crate) notes: Vec<String>,
    noted_endian: bool,
}

/// The storages of one of the container's objects, as positions in [`Placer::found`].
struct Part<'a> {
    located: Located,
    /// Of those that are members of an archive by the member's number, [`NOT_FOUND`] at first.
    members: Vec<u32>,
    /// Of the others by their keys.
    others: HashMap<Cow<'a, str>, u32>,
}

const NOT_FOUND: u32 = u32::MAX;

impl Part<'_> {
    fn new(located: Located) -> Self {
        Self { members: vec![NOT_FOUND; located.len()], located, others: HashMap::default() }
    }
}

impl<'a> Placer<'a> {
    pub(crate) fn new(opened: &'a Opened) -> Self {
        let parts = 0..opened.objects.len();
        let parts: Vec<_> = parts.map(|part| Part::new(opened.locate(part))).collect();
        let mut placer = Self {
            opened,
            found: Vec::new(),
            parts,
            location: META.into(),
            notes: Vec::new(),
            noted_endian: false,
        };
        placer.found.reserve(placer.storages());
        placer
    }

    /// How many storages the container has, as far as that is known before they are asked for.
    pub(crate) fn storages(&self) -> usize {
        self.parts.iter().map(|part| part.located.len()).sum()
    }

    pub(crate) fn place(&mut self, part: usize, name: &Arc<str>, spec: Spec<'a>) -> Result<Placed> {
        let mut location = None;
        let shape = shape_in_elements(spec.dtype, &spec.shape);
        let mut info = TensorInfo::new(Arc::clone(name), spec.dtype, shape)?;
        let mut transform = Transform::default();
        let mut kind = spec.kind;
        let bytes = match spec.form {
            Form::Strided { storage, offset, strides, conj, neg } => {
                location = Some(self.location(&storage));
                transform = Transform { swap: self.swaps(name, &storage), conj, neg };
                let (id, section) = self.storage(part, &storage);
                info = info.in_storage(id);
                if storage.location == META {
                    kind = TensorKind::Meta;
                    TensorBytes::None("a meta tensor was saved without values".into())
                } else {
                    match section
                        .and_then(|s| view(&info, &spec.shape, s, &storage, offset, strides))
                    {
                        Ok(bytes) => bytes,
                        Err(e) => TensorBytes::Broken(e),
                    }
                }
            }
            Form::Inline(data) => {
                TensorBytes::Range(Section::from_bytes(data, format!("{name} (in the pickle)")))
            }
            Form::Persistent => {
                return Err(Error::unsupported(
                    "a parameter's data is a persistent id that no container resolves",
                ));
            }
            Form::None(why) => TensorBytes::None(why.into()),
            Form::Broken(e) => TensorBytes::Broken(e),
        };
        let broken = |e: Error| e.within(format_args!("tensor {name}")).in_file(self.opened.name());
        let bytes = match bytes {
            TensorBytes::Broken(e) => TensorBytes::Broken(broken(e)),
            bytes => bytes,
        };
        let tensor = Tensor::with_transform(info.clone(), bytes, transform)
            .or_else(|e| Tensor::new(info, TensorBytes::Broken(e.in_file(self.opened.name()))))?;
        Ok(Placed { tensor, kind, requires_grad: spec.requires_grad, class: spec.class, location })
    }

    /// torch swaps a big-endian storage by the element size of its class, so untyped ones stay as
    /// they are, whatever dtype the tensor has.
    fn swaps(&mut self, name: &str, storage: &StorageRef<'_>) -> bool {
        if self.opened.big_endian && storage.dtype.is_none() && !self.noted_endian {
            self.noted_endian = true;
            self.notes.push(format!("tensor {name} lies in an untyped storage of a big-endian file: its bytes are not swapped, as in torch"));
        }
        self.opened.big_endian && storage.dtype.is_some()
    }

    fn location(&mut self, storage: &StorageRef<'_>) -> Arc<str> {
        if *self.location != *storage.location {
            self.location = (&*storage.location).into();
        }
        Arc::clone(&self.location)
    }

    fn storage(&mut self, part: usize, storage: &StorageRef<'a>) -> (StorageId, Result<Section>) {
        let container = u32::try_from(part).unwrap_or(u32::MAX);
        let of_part = &mut self.parts[part];
        let member = self.opened.member(part, &storage.key, &of_part.located);
        let slot = match member.and_then(|member| of_part.members.get_mut(member)) {
            Some(slot) => slot,
            None => of_part.others.entry(storage.key.clone()).or_insert(NOT_FOUND),
        };
        if *slot == NOT_FOUND {
            // A graph has fewer nodes than that.
            *slot = u32::try_from(self.found.len()).unwrap_or(u32::MAX);
            let located = &mut of_part.located;
            let taken = member.and_then(|member| located.take(member));
            self.found.push(match taken {
                _ if storage.location == META => Ok(Section::from_bytes([], META)),
                Some(found) => found,
                None => self.opened.storage(part, &storage.key, located),
            });
        }
        let index = *slot;
        let found = self.found[index as usize].clone();
        let found = found.within(|| format!("storage {}", storage.key));
        (StorageId { container, index }, whole(found, storage))
    }
}

/// A storage that is as long as this reference to it says; others may say otherwise.
fn whole(found: Result<Section>, storage: &StorageRef<'_>) -> Result<Section> {
    let section = found?;
    if storage.byte_len() == Some(section.len()) || storage.location == META {
        return Ok(section);
    }
    Err(Error::malformed(format!(
        "{} bytes are stored, the tensor says {} elements of {} bytes",
        section.len(),
        storage.numel,
        storage.unit_bytes()
    ))
    .hint("the file is damaged, or was made to mislead torch")
    .within(format_args!("storage {}", storage.key)))
}

/// torch counts pairs of 4-bit floats; here a shape counts elements.
fn shape_in_elements(dtype: Dtype, torch_shape: &[u64]) -> Cow<'_, [u64]> {
    let mut shape = Cow::Borrowed(torch_shape);
    if dtype == Dtype::F4 {
        let shape = shape.to_mut();
        match shape.last_mut() {
            Some(last) => *last = last.saturating_mul(2),
            None => shape.push(2),
        }
    }
    shape
}

fn view(
    info: &TensorInfo,
    torch_shape: &[u64],
    section: Section,
    storage: &StorageRef<'_>,
    offset: u64,
    strides: Vec<u64>,
) -> Result<TensorBytes> {
    let mut offset = offset;
    if let Some((start, numel)) = &storage.view {
        // The tensor counts from the view's start, and must not leave it.
        let end = shape::view_extent(offset, torch_shape, &strides)?;
        let inside = end <= *numel && start.checked_add(*numel).is_some_and(|e| e <= storage.numel);
        offset = offset
            .checked_add(*start)
            .filter(|_| inside)
            .ok_or_else(|| Error::malformed("the tensor leaves its view of the storage"))?;
    }
    if info.numel() == 0 {
        return Ok(TensorBytes::Range(section.slice(0, 0)?));
    }
    if info.dtype().element_bytes().is_some() {
        return Ok(TensorBytes::Strided(Strided { storage: section, offset, strides }));
    }
    // Packed elements: strides count bytes for 4-bit floats and elements for quantized types.
    if !shape::is_row_major(torch_shape, &strides) {
        return Err(Error::unsupported(format!(
            "a view of packed {} elements with strides {strides:?} cannot be read",
            info.dtype()
        )));
    }
    let bits = if info.dtype() == Dtype::F4 { 8 } else { u64::from(info.dtype().bits()) };
    let start =
        offset.checked_mul(bits).ok_or_else(|| Error::malformed("a storage offset overflows"))?;
    if start % 8 != 0 {
        return Err(Error::unsupported("a view of packed elements starts inside a byte"));
    }
    Ok(TensorBytes::Range(section.slice(start / 8, info.byte_len())?))
}
