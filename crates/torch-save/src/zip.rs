//! The zip archive that `torch.save` writes: its directory, and windows on its members.
//!
//! Opening reads the end records and the central directory, nothing else; a member's local header
//! is read when its bytes are asked for. `rawzip` finds the end records and walks the directory.
//! What it leaves to its caller is checked here, because readers that disagree about an archive
//! are how one file comes to mean two things: disks, sizes that do not add up, duplicates, ranges
//! that overlap, local headers that contradict the directory. As in torch, the directory is what
//! counts, and names are looked up without regard to ASCII case.

mod directory;
mod ends;
pub(crate) mod layout;
#[cfg(test)]
mod tests;

#[cfg(feature = "deflate")]
use std::io;
use std::sync::Arc;

use ckptkit_core::{Error, Limits, Result, ResultExt, Section};
use rawzip::CompressionMethod;

pub(crate) use directory::below;
use directory::{Inner, Record};
use ends::{COPY_AGAIN, le16, le32};

/// A local header without its name.
const LOCAL: usize = 30;
/// How far [`Archive::sections`] reads at once, and up to which distance from one local header to
/// the next that is cheaper than one more call.
const AHEAD: u64 = 64 << 10;
const NEAR: u64 = 8 << 10;
/// Encrypted, patch data, strongly encrypted, masked.
const REFUSED_FLAGS: u16 = 1 | 1 << 5 | 1 << 6 | 1 << 13;

/// A zip archive with one top folder, the root; see the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Archive(Arc<Inner>);

impl Archive {
    /// Reads the directory.
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) for what is not one whole zip archive
    /// from the first byte of `section` to its last, or means different things to different
    /// readers; [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for directories above
    /// `limits.header_bytes` or `limits.members`.
    pub(crate) fn open(section: &Section, limits: &Limits) -> Result<Self> {
        let inner =
            Inner::read(section, limits).within(|| "zip directory").in_file(section.name())?;
        Ok(Self(Arc::new(inner)))
    }

    /// The top folder that holds the checkpoint, without a slash.
    #[cfg(test)]
    pub(crate) fn root(&self) -> &str {
        &self.0.root
    }

    /// How many members there are, with those that [`Archive::members`] leaves out.
    pub(crate) fn len(&self) -> usize {
        self.0.records.len()
    }

    /// The members below the root in the directory's order, without entries for folders.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.all().filter(|m| m.below_root().is_some())
    }

    /// The names of [`Archive::members`], as `data.pkl` or `data/0`.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.all().filter_map(Member::below_root)
    }

    /// The full names of members outside the root, without entries for folders. Torch refuses
    /// archives that have any.
    #[cfg(test)]
    pub(crate) fn outside(&self) -> impl Iterator<Item = &str> {
        self.all().filter(|m| !m.is_folder() && m.below_root().is_none()).map(Member::full_name)
    }

    fn all(&self) -> impl Iterator<Item = Member<'_>> {
        let numbered = self.0.records.iter().enumerate();
        numbered.map(|(number, record)| Member { archive: &self.0, record, number })
    }

    /// Looks a member up by its name below the root.
    pub(crate) fn get(&self, name: &str) -> Option<Member<'_>> {
        self.find([&self.0.root, name].join("/"))
    }

    /// As [`Archive::get`] of `folder/name`.
    pub(crate) fn get_in(&self, folder: &str, name: &str) -> Option<Member<'_>> {
        self.find([&self.0.root, folder, name].join("/"))
    }

    fn find(&self, full: String) -> Option<Member<'_>> {
        let number = self.0.index.find(&full, |i| self.0.name(i))? as usize;
        let record = self.0.records.get(number)?;
        Some(Member { archive: &self.0, record, number })
    }

    /// What is strange about the archive, but readable.
    pub(crate) fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// [`Member::section`] of each of `members`, best given in the file's order: local headers
    /// that lie near each other are read together.
    pub(crate) fn sections<'a>(
        &self,
        members: &[Member<'a>],
        mut found: impl FnMut(Member<'a>, Result<Section>),
    ) {
        if self.0.section.as_slice().is_some() {
            return members.iter().for_each(|m| found(*m, m.section()));
        }
        let mut ahead = Ahead { start: 0, bytes: Vec::new() };
        for (i, member) in members.iter().enumerate() {
            let first = member.record;
            if ahead.get(first).is_none() {
                let mut last = first;
                for next in members[i + 1..].iter().map(|m| m.record) {
                    let near = next.header > last.header && next.header - last.header <= NEAR;
                    if !near || next.header - first.header > AHEAD {
                        break;
                    }
                    last = next;
                }
                if ahead.read(&self.0.section, first, last).is_err() {
                    // The same read for this member alone gives the error its place.
                    ahead.bytes.clear();
                }
            }
            let section = ahead.get(first).map_or_else(|| member.section(), |h| member.window(h));
            found(*member, section);
        }
    }
}

/// Local headers that were read together, and what lies between them.
struct Ahead {
    start: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    fn get(&self, record: &Record) -> Option<&[u8]> {
        let from = usize::try_from(record.header.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(record.header_len())?)
    }

    /// Reads from the local header of `first` to that of `last`, which is at most [`AHEAD`] away.
    fn read(&mut self, section: &Section, first: &Record, last: &Record) -> Result<()> {
        let between = usize::try_from(last.header - first.header).unwrap_or_default();
        self.start = first.header;
        self.bytes.resize(between + last.header_len(), 0);
        section.read_at(first.header, &mut self.bytes)
    }
}

/// A file in the archive.
#[derive(Clone, Copy)]
pub(crate) struct Member<'a> {
    archive: &'a Inner,
    record: &'a Record,
    number: usize,
}

impl<'a> Member<'a> {
    /// Its position in the directory, from 0.
    pub(crate) fn number(self) -> usize {
        self.number
    }

    /// The name below the root; the full name for a member outside it.
    pub(crate) fn name(self) -> &'a str {
        self.below_root().unwrap_or_else(|| self.full_name())
    }

    /// The name with the root.
    pub(crate) fn full_name(self) -> &'a str {
        self.record.name(&self.archive.names)
    }

    fn below_root(self) -> Option<&'a str> {
        below(self.full_name(), &self.archive.root).filter(|_| !self.is_folder())
    }

    fn is_folder(self) -> bool {
        self.record.is_folder(&self.archive.names)
    }

    /// The length in bytes, inflated.
    #[cfg(test)]
    pub(crate) fn size(self) -> u64 {
        self.record.size
    }

    /// The checksum of the inflated bytes; `None` for the zero that torch writes when it is told
    /// to record none.
    pub(crate) fn crc(self) -> Option<u32> {
        (self.record.crc != 0 || self.record.size == 0).then_some(self.record.crc)
    }

    /// Whether the bytes are in the file as they are.
    #[cfg(any(test, feature = "export"))]
    pub(crate) fn is_stored(self) -> bool {
        self.record.method == CompressionMethod::STORE
    }

    /// A window on the member's bytes. Reads its local header; what is deflated is inflated while
    /// it is read, in bounded memory.
    ///
    /// # Errors
    /// `Malformed` when the local header contradicts the directory;
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for encrypted members and methods
    /// other than stored and, with the feature `deflate`, deflated; those of reading.
    pub(crate) fn section(&self) -> Result<Section> {
        let len = self.record.header_len();
        let local = self.archive.section.slice(self.record.header, len as u64)?;
        if let Some(bytes) = local.as_slice() {
            return self.window(bytes);
        }
        let mut room = [0; 256];
        let mut large = Vec::new();
        let bytes = match room.get_mut(..len) {
            Some(bytes) => bytes,
            None => {
                large.resize(len, 0);
                &mut large[..]
            }
        };
        local.read_at(0, bytes).within(|| format!("member {}", self.full_name()))?;
        self.window(bytes)
    }

    /// The window that a local header leads to.
    fn window(&self, local: &[u8]) -> Result<Section> {
        self.window_inner(local)
            .map_err(|e| e.at(self.record.header))
            .within(|| format!("member {}", self.full_name()))
            .in_file(self.archive.section.name())
    }

    fn window_inner(&self, local: &[u8]) -> Result<Section> {
        let record = self.record;
        if record.encrypted() {
            return Err(Error::unsupported("the member is encrypted")
                .hint("decrypt the archive with the tool that made it"));
        }
        let payload = self.check_local(local)?;
        let packed = self.archive.section.slice(payload, record.packed)?;
        match record.method {
            CompressionMethod::STORE => Ok(packed),
            CompressionMethod::DEFLATE => self.inflated(packed),
            other => Err(Error::unsupported(format!(
                "the member is packed with method {}{}, only stored and deflated members are read",
                other.as_u16(),
                other.name().map(|n| format!(" ({n})")).unwrap_or_default(),
            ))
            .hint("pack the archive again without compression (zip -0)")),
        }
    }

    /// Holds a local header against the directory and gives the offset of what follows it.
    fn check_local(&self, local: &[u8]) -> Result<u64> {
        let record = self.record;
        let differs =
            |what: &str, local: &dyn std::fmt::Display, central: &dyn std::fmt::Display| {
                Error::malformed(format!(
                    "the member's local header gives {what} {local}, the directory {central}"
                ))
                .hint("the archive was damaged or tampered with")
            };
        let (Some(header), Some(name)) = (local.get(..LOCAL), local.get(LOCAL..)) else {
            return Err(Error::malformed("the local header is cut short").hint(COPY_AGAIN));
        };
        if le32(header, 0) != 0x0403_4b50 {
            return Err(Error::malformed(format!(
                "expected a local header (504b0304), found {:08x}",
                le32(header, 0).swap_bytes()
            ))
            .hint(COPY_AGAIN));
        }
        let flags = le16(header, 6);
        if flags & REFUSED_FLAGS != record.flags & REFUSED_FLAGS {
            return Err(differs("flags", &hex(flags), &hex(record.flags)));
        }
        let method = le16(header, 8);
        if method != record.method.as_u16() {
            return Err(differs("method", &method, &record.method.as_u16()));
        }
        let (name_len, extra_len) = (le16(header, 26), le16(header, 28));
        if usize::from(name_len) != name.len() {
            return Err(differs("a name of bytes", &name_len, &name.len()));
        }
        if name != self.full_name().as_bytes() {
            let name = String::from_utf8_lossy(name);
            return Err(differs(
                "the name",
                &format_args!("{name:?}"),
                &format_args!("{:?}", self.full_name()),
            ));
        }
        // Zero stands for "in the descriptor", all ones for "in the zip64 field". Torch writes
        // zeros in both cases, and not always the zip64 field that would go with them, so that a
        // number only counts where there is one.
        for (what, at, central) in
            [("the packed size", 18, record.packed), ("the size", 22, record.size)]
        {
            let size = le32(header, at);
            if size != 0 && size != u32::MAX && u64::from(size) != central {
                return Err(differs(what, &size, &central));
            }
        }
        let crc = le32(header, 14);
        if crc != 0 && record.crc != 0 && crc != record.crc {
            return Err(differs(
                "the CRC",
                &format_args!("{crc:08x}"),
                &format_args!("{:08x}", record.crc),
            ));
        }
        let payload = record.header + (LOCAL as u64) + u64::from(name_len) + u64::from(extra_len);
        match payload.checked_add(record.packed) {
            Some(end) if end <= record.end => Ok(payload),
            _ => Err(Error::malformed(format!(
                "{} bytes from offset {payload} reach into what starts at offset {}",
                record.packed, record.end
            ))
            .hint(COPY_AGAIN)),
        }
    }

    #[cfg(feature = "deflate")]
    fn inflated(&self, packed: Section) -> Result<Section> {
        let size = self.record.size;
        let name = format!("{}: member {}", self.archive.section.name(), self.full_name());
        let open = move || {
            let input = io::BufReader::with_capacity(64 << 10, packed.reader());
            let inflate = flate2::bufread::DeflateDecoder::new(input);
            Ok(Box::new(Exactly { inner: inflate, left: size, size }) as Box<dyn io::Read + Send>)
        };
        Ok(Section::new(Arc::new(ckptkit_core::Sequential::new(name, size, open))))
    }

    #[cfg(not(feature = "deflate"))]
    fn inflated(&self, _: Section) -> Result<Section> {
        Err(Error::unsupported("the member is deflated, which this build does not read").hint(
            "build with the feature `deflate`, or pack the archive again without compression (zip -0)",
        ))
    }

    /// Whether the bytes have the recorded checksum; `true` when none is recorded. Reads them all
    /// in pieces.
    ///
    /// # Errors
    /// Those of [`Member::section`] and of reading.
    pub(crate) fn check_crc(&self) -> Result<bool> {
        let section = self.section()?;
        let Some(expected) = self.crc() else { return Ok(true) };
        if let Some(bytes) = section.as_slice() {
            return Ok(crc32fast::hash(bytes) == expected);
        }
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer =
            vec![0; usize::try_from(section.len()).unwrap_or(usize::MAX).min(256 << 10)];
        let mut at = 0;
        while at < section.len() {
            let left = usize::try_from(section.len() - at).unwrap_or(usize::MAX);
            let len = left.min(buffer.len());
            let piece = &mut buffer[..len];
            section.read_at(at, piece).within(|| format!("member {}", self.full_name()))?;
            hasher.update(piece);
            at += len as u64;
        }
        Ok(hasher.finalize() == expected)
    }
}

/// A stream that must hold exactly as many bytes as were promised.
#[cfg(feature = "deflate")]
struct Exactly<R> {
    inner: R,
    left: u64,
    size: u64,
}

#[cfg(feature = "deflate")]
impl<R: io::Read> io::Read for Exactly<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let fail = |how: &str| {
            let size = self.size;
            let text = format!("inflates to {how} bytes than the {size} that the directory gives");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        };
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        if len == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut out[..len])?;
        self.left -= read as u64;
        if read == 0 {
            return fail("fewer");
        }
        if self.left == 0 && self.inner.read(&mut [0])? != 0 {
            return fail("more");
        }
        Ok(read)
    }
}

fn hex(flags: u16) -> String {
    format!("{flags:#06x}")
}
