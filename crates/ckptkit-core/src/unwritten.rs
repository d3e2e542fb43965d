//! An output file that is read before it is written.

use std::io;
use std::sync::Arc;

use crate::gather::Gather;
use crate::layout::OutputFile;
use crate::read_at::ReadAt;
use crate::section::Section;

impl OutputFile {
    /// The bytes of the file as they would be written, to be read where they come from. The places
    /// of checksums, which only writing tells, are zeros. `name` is what messages call it.
    ///
    /// ```
    /// use ckptkit_core::{OutputFile, Section, Segment};
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// let source = Section::from_bytes(*b"weights", "source");
    /// let mut file = OutputFile::default();
    /// file.push(Segment::Literal(b"head".to_vec()))?;
    /// file.push(Segment::Section(source))?;
    /// let file = file.into_section("file");
    /// assert_eq!(file.read(100)?, b"headweights");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_section(self, name: impl Into<String>) -> Section {
        Section::new(Arc::new(Unwritten { file: self, name: name.into() }))
    }
}

struct Unwritten {
    file: OutputFile,
    name: String,
}

impl ReadAt for Unwritten {
    fn size(&self) -> u64 {
        self.file.len()
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.file.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_at(&mut Gather::default(), offset, out).map_err(io::Error::other)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::layout::Segment;
    use crate::tensor::{Tensor, TensorBytes, TensorInfo};

    #[test]
    fn every_cut_gives_the_bytes_that_are_written() {
        let section = |bytes: Vec<u8>| Section::from_bytes(bytes, "source");
        let info = TensorInfo::new("t", Dtype::I16, [2]).unwrap();
        let tensor = Tensor::new(info, TensorBytes::Range(section((10..14).collect()))).unwrap();
        let mut file = OutputFile::default();
        file.push(Segment::Literal(vec![0, 1, 2])).unwrap();
        file.push(Segment::Section(section(vec![3, 4, 5]))).unwrap();
        file.push(Segment::Fill { byte: 9, len: 3 }).unwrap();
        file.push(Segment::Tensor(tensor)).unwrap();
        let sum = file.checksum(0).unwrap();
        file.push_checksum(sum).unwrap();
        let expected = [0, 1, 2, 3, 4, 5, 9, 9, 9, 10, 11, 12, 13, 0, 0, 0, 0];
        let file = file.into_section("file");
        assert_eq!(file.len(), expected.len() as u64);
        for start in 0..expected.len() {
            for end in start..=expected.len() {
                let window = file.slice(start as u64, (end - start) as u64).unwrap();
                assert_eq!(window.read(100).unwrap(), expected[start..end]);
            }
        }
        let mut over = [0; 2];
        let end = file.source().read_exact_at(16, &mut over).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }
}
