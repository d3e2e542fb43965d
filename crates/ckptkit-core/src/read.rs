//! Reading tensors: whole, in part, as a stream.

use std::io::Write;

use crate::error::{Error, Result};
use crate::gather::Gather;
use crate::limits::Limits;
use crate::tensor::{Tensor, TensorBytes};

impl Tensor {
    /// All bytes: row-major, little-endian, contiguous. Allocates the whole tensor.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) and [`Malformed`](crate::ErrorKind::Malformed) from the source;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where there are no bytes;
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) for an expand bomb.
    pub fn read(&self) -> Result<Vec<u8>> {
        // What cannot be read must not cost the memory that its shape claims.
        let found = self.resolve()?;
        if let TensorBytes::Broken(e) = found.bytes() {
            return Err(e.clone().within(format_args!("tensor {}", self.name())));
        }
        found.check_expansion(&Limits::default())?;
        let len = usize::try_from(self.byte_len())
            .map_err(|_| Error::limit("the tensor is larger than this machine's memory can be"))?;
        let mut out = Vec::new();
        out.try_reserve_exact(len).map_err(|_| {
            Error::limit(format!("no memory for {len} bytes"))
                .within(format_args!("tensor {}", self.name()))
        })?;
        out.resize(len, 0);
        self.read_into(0, &mut out)?;
        Ok(out)
    }

    /// Fills `out` with the contiguous tensor's bytes from byte `start`; allocates at most a few
    /// MiB, whatever the tensor's size.
    ///
    /// # Errors
    /// As [`Tensor::read`]; [`InvalidArgument`](crate::ErrorKind::InvalidArgument) when the range
    /// leaves the tensor.
    pub fn read_into(&self, start: u64, out: &mut [u8]) -> Result<()> {
        Gather::default().read(self, start, out)
    }

    /// Writes all bytes to `to`, a few MiB at a time.
    ///
    /// # Errors
    /// As [`Tensor::read`], and those of the writer.
    pub fn copy_to(&self, to: &mut dyn Write) -> Result<()> {
        self.check_expansion(&Limits::default())?;
        let mut gather = Gather::default();
        let mut buffer = vec![0; usize::try_from(self.byte_len().min(1 << 20)).unwrap_or(1 << 20)];
        let mut at = 0;
        while at < self.byte_len() {
            let n = usize::try_from((self.byte_len() - at).min(buffer.len() as u64))
                .unwrap_or(buffer.len());
            gather.read(self, at, &mut buffer[..n])?;
            to.write_all(&buffer[..n]).map_err(|e| Error::io("write tensor bytes", e))?;
            at += n as u64;
        }
        Ok(())
    }
}
