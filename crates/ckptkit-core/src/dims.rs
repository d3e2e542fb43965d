//! Elements in every dimension, in the tensor's own memory while they are few.

use std::fmt;

/// Of matrices and one-dimensional convolutions; others are few.
const INLINE: usize = 3;

#[derive(Clone)]
pub(crate) enum Dims {
    Inline(u8, [u64; INLINE]),
    Boxed(Box<[u64]>),
}

impl Dims {
    pub(crate) fn new(dims: &[u64]) -> Self {
        let mut inline = [0; INLINE];
        match (inline.get_mut(..dims.len()), u8::try_from(dims.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(dims);
                Self::Inline(len, inline)
            }
            _ => Self::Boxed(dims.into()),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u64] {
        match self {
            Self::Inline(len, dims) => &dims[..usize::from(*len)],
            Self::Boxed(dims) => dims,
        }
    }
}

impl std::ops::Deref for Dims {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        self.as_slice()
    }
}

impl PartialEq for Dims {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Dims {}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_dimensions_read_alike() {
        for dims in [&[][..], &[7], &[1, 2, 3], &[1, 2, 3, 4], &[5; 64]] {
            assert_eq!(Dims::new(dims).as_slice(), dims);
            assert_eq!(format!("{:?}", Dims::new(dims)), format!("{dims:?}"));
        }
        assert_ne!(Dims::new(&[1, 0]), Dims::new(&[1]));
    }
}
