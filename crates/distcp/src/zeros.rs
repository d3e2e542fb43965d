//! Bytes of value zero that are stored nowhere.

use std::io;
use std::sync::Arc;

use ckptkit_core::{ReadAt, Result, Section, Tensor, TensorBytes, TensorInfo};

struct Zeros(u64);

impl ReadAt for Zeros {
    fn size(&self) -> u64 {
        self.0
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.0) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.fill(0);
        Ok(())
    }

    fn name(&self) -> &str {
        "zeros for what is missing"
    }
}

/// A tensor of zeros; takes no memory.
pub(crate) fn tensor(info: TensorInfo) -> Result<Tensor> {
    let zeros = Section::new(Arc::new(Zeros(info.byte_len())));
    Tensor::new(info, TensorBytes::Range(zeros))
}
