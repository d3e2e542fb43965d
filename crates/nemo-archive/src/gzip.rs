//! Archives inside gzip: decompressed once, to a file without a name.
//!
//! A gzip stream can only be read from its start, and tensors are wanted from anywhere; so the
//! stream is spilled once. The file is unlinked before anything is written to it, so that nothing
//! stays behind whatever happens.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use ckptkit_core::{Error, Result, Section, SectionReader};
use flate2::bufread::GzDecoder;

use crate::detect;
use crate::limits::ArchiveLimits;

const BUFFER: usize = 256 << 10;

/// The tar inside the gzip stream that `archive` holds; oddities go to `notes`.
pub(crate) fn spill(
    archive: &Section,
    limits: &ArchiveLimits,
    notes: &mut Vec<String>,
) -> Result<Section> {
    spill_inner(archive, limits, notes).map_err(|e| e.within("gzip stream").in_file(archive.name()))
}

fn spill_inner(
    archive: &Section,
    limits: &ArchiveLimits,
    notes: &mut Vec<String>,
) -> Result<Section> {
    let mut input = BufReader::with_capacity(64 << 10, archive.reader());
    let mut out = Spill { limits, file: None, written: 0, head: Vec::new() };
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut decoder = GzDecoder::new(input);
        loop {
            let n = decoder.read(&mut buffer).map_err(|e| damaged(&e))?;
            if n == 0 {
                break;
            }
            out.push(&buffer[..n], decoder.get_ref())?;
        }
        input = decoder.into_inner();
        let left = input.fill_buf().map_err(|e| Error::io("read the compressed file", e))?;
        // Streams may follow each other; anything else behind them is padding or garbage, which
        // NeMo's readers never reach.
        if left.is_empty() {
            break;
        }
        if !left.starts_with(b"\x1f\x8b") {
            if left.iter().any(|&b| b != 0) {
                notes.push("bytes follow the gzip stream and are ignored".into());
            }
            break;
        }
    }
    let Some(file) = out.file else {
        detect::tar(&out.head, out.head.len() as u64)?;
        return Err(Error::malformed("decompresses to less than one tar header"));
    };
    let name = archive.name().to_owned();
    Section::from_file(file, name)
}

fn damaged(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::malformed("ends early").hint("the file is cut short: copy it again")
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Error::malformed(format!("is damaged: {error}")).hint("copy the file again")
        }
        _ => Error::new(ckptkit_core::ErrorKind::Io, format!("cannot be read: {error}")),
    }
}

struct Spill<'a> {
    limits: &'a ArchiveLimits,
    /// Opened once the first bytes look right.
    file: Option<File>,
    written: u64,
    head: Vec<u8>,
}

impl Spill<'_> {
    fn push(&mut self, bytes: &[u8], input: &BufReader<SectionReader>) -> Result<()> {
        self.written += bytes.len() as u64;
        let consumed = input.get_ref().position();
        if self.written > self.limits.gzip_floor
            && self.written / self.limits.gzip_ratio.max(1) > consumed
        {
            return Err(Error::limit(format!(
                "{consumed} bytes grew to more than {} bytes, more than {} times their size",
                self.written, self.limits.gzip_ratio
            ))
            .hint("raise the limit if the archive is to be trusted"));
        }
        if let Some(file) = &mut self.file {
            return write(file, bytes);
        }
        self.head.extend_from_slice(bytes);
        if self.head.len() >= detect::HEAD {
            if self.head.starts_with(b"\x1f\x8b") {
                return Err(Error::unsupported("holds another gzip stream, expected a tar")
                    .hint("decompress it once by hand"));
            }
            detect::tar(&self.head[..detect::HEAD], self.head.len() as u64)?;
            let mut file = tempfile::tempfile()
                .map_err(|e| Error::io("create a temporary file", e).hint("set TMPDIR"))?;
            write(&mut file, &self.head)?;
            self.head = Vec::new();
            self.file = Some(file);
        }
        Ok(())
    }
}

fn write(file: &mut File, bytes: &[u8]) -> Result<()> {
    file.write_all(bytes).map_err(|e| {
        Error::io("write the decompressed archive to a temporary file", e)
            .hint("free space there, or set TMPDIR to a larger disk")
    })
}
