//! The end records, which say where the directory is.

use std::borrow::Cow;
use std::io;
use std::ops::Range;

use ckptkit_core::{Error, Limits, Result, Section};
use rawzip::{ErrorKind as ZipErrorKind, ZipArchive, ZipLocator};

/// What is read from the end at first: the end records, and the directory of a small archive.
const TAIL: usize = 4096;
/// The longest end record is 22 bytes and a comment of 65535.
const END_SEARCH: u64 = 22 + 65_535;
/// A record of the directory without its name, extra fields and comment.
pub(super) const CENTRAL: usize = 46;

pub(super) const COPY_AGAIN: &str = "the file is cut short or damaged: copy it again";

/// What `rawzip` took from the end records.
pub(super) struct Ends {
    /// Where the end record starts.
    pub(super) record: u64,
    /// Where the directory starts.
    directory: u64,
    pub(super) members: u64,
}

impl Ends {
    /// Looks for the end records; what they say is not checked yet.
    pub(super) fn find(section: &Section) -> Result<(ZipArchive<Tail<'_>>, Self)> {
        let tail = Tail::read(section)?;
        let mut buffer = [0; TAIL];
        let zip = ZipLocator::new()
            .max_search_space(END_SEARCH)
            .locate_in_reader(tail, &mut buffer, section.len())
            .map_err(|(_, e)| from_rawzip(e))?;
        let ends = Self {
            record: zip.eocd_offset(),
            directory: zip.directory_offset(),
            members: zip.entries_hint(),
        };
        if ends.members == 0 {
            return Err(Error::malformed("the archive has no members"));
        }
        Ok((zip, ends))
    }

    /// Holds all end records against each other, against `rawzip`'s reading of them and against
    /// the length of the whole; gives the range of the directory.
    pub(super) fn check(&self, tail: &Tail<'_>) -> Result<Range<u64>> {
        let end = tail.array::<22>(self.record)?;
        let stop = self.record + 22 + u64::from(le16(&end, 20));
        let len = tail.section.len();
        if stop != len {
            return Err(Error::malformed(format!(
                "the end record ends at offset {stop}, but {len} bytes are there"
            ))
            .at(self.record)
            .hint("bytes were appended or lost: copy the file again"));
        }
        let locator = match self.record.checked_sub(20) {
            Some(at) => {
                Some((at, tail.array::<20>(at)?)).filter(|(_, l)| le32(l, 0) == 0x0706_4b50)
            }
            None => None,
        };
        let wide = locator.is_some();
        let disk = |at| matches!((le16(&end, at), wide), (0, _) | (u16::MAX, true));
        if !disk(4) || !disk(6) || le16(&end, 8) != le16(&end, 10) {
            return Err(several_disks().at(self.record));
        }
        let contradict = |at| {
            Err(Error::malformed("the end records contradict each other").at(at).hint(COPY_AGAIN))
        };
        let fits = |field: u64, max: u64, value: u64| field == value || (wide && field == max);
        let (mut size, mut stop) = (u64::from(le32(&end, 12)), self.record);
        if let Some((at, locator)) = locator {
            if le32(&locator, 4) != 0 || le32(&locator, 16) > 1 {
                return Err(several_disks().at(at));
            }
            stop = le64(&locator, 8);
            if stop > at.saturating_sub(56) {
                return contradict(at);
            }
            let record = tail.array::<56>(stop)?;
            if le32(&record, 0) != 0x0606_4b50
                || le64(&record, 4).checked_add(stop + 12) != Some(at)
            {
                return contradict(stop);
            }
            if le32(&record, 16) != 0
                || le32(&record, 20) != 0
                || le64(&record, 24) != le64(&record, 32)
            {
                return Err(several_disks().at(stop));
            }
            let narrow = size;
            size = le64(&record, 40);
            if !fits(narrow, u64::from(u32::MAX), size)
                || le64(&record, 32) != self.members
                || le64(&record, 48) != self.directory
            {
                return contradict(stop);
            }
        }
        if !fits(u64::from(le16(&end, 10)), u64::from(u16::MAX), self.members) {
            return contradict(self.record);
        }
        let start = u64::from(le32(&end, 16));
        if !fits(start, u64::from(u32::MAX), self.directory)
            || self.directory.checked_add(size) != Some(stop)
        {
            return Err(Error::malformed(format!(
                "the directory is said to be {size} bytes at offset {start}, and must end at offset {stop}"
            ))
            .at(self.record)
            .hint("bytes were put in front or lost: copy the file again"));
        }
        Ok(self.directory..stop)
    }

    /// The number of members, which the directory must have room for.
    pub(super) fn count(&self, directory: &Range<u64>, limits: &Limits) -> Result<u32> {
        let len = directory.end - directory.start;
        if self.members > len / CENTRAL as u64 {
            return Err(Error::malformed(format!(
                "{} members cannot be in a directory of {len} bytes",
                self.members
            ))
            .at(self.record)
            .hint(COPY_AGAIN));
        }
        let above = |what: &str, found: u64, limit: u64| {
            Error::limit(format!("{found} {what} are more than the limit of {limit}"))
                .hint("raise the limit if the file is to be trusted")
        };
        if len > limits.header_bytes {
            return Err(above("bytes of directory", len, limits.header_bytes));
        }
        match u32::try_from(self.members) {
            Ok(count) if self.members <= limits.members => Ok(count),
            _ => Err(above("members", self.members, limits.members)),
        }
    }
}

/// The end of a section, read once.
pub(super) struct Tail<'a> {
    section: &'a Section,
    start: u64,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Tail<'a> {
    fn read(section: &'a Section) -> Result<Self> {
        if let Some(all) = section.as_slice() {
            return Ok(Self { section, start: 0, bytes: all.into() });
        }
        let mut tail = Self { section, start: section.len(), bytes: Vec::new().into() };
        tail.reach(section.len().saturating_sub(TAIL as u64))?;
        Ok(tail)
    }

    /// Reads what is missing from `start` on.
    pub(super) fn reach(&mut self, start: u64) -> Result<()> {
        let Some(missing) = self.start.checked_sub(start).filter(|&n| n > 0) else { return Ok(()) };
        let missing = usize::try_from(missing)
            .map_err(|_| Error::limit("the directory is more than this machine can address"))?;
        let mut bytes = vec![0; missing + self.bytes.len()];
        let (new, old) = bytes.split_at_mut(missing);
        self.section.read_at(start, new)?;
        old.copy_from_slice(&self.bytes);
        (self.start, self.bytes) = (start, bytes.into());
        Ok(())
    }

    fn get(&self, at: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(len)?)
    }

    fn fill(&self, at: u64, out: &mut [u8]) -> Result<()> {
        match self.get(at, out.len()) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => self.section.read_at(at, out)?,
        }
        Ok(())
    }

    pub(super) fn array<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.fill(at, &mut out)?;
        Ok(out)
    }
}

impl rawzip::ReaderAt for Tail<'_> {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        let left = usize::try_from(self.section.len().saturating_sub(at)).unwrap_or(usize::MAX);
        let len = left.min(out.len());
        if len == 0 {
            return Ok(0);
        }
        self.fill(at, &mut out[..len]).map_err(io::Error::other)?;
        Ok(len)
    }
}

pub(super) fn several_disks() -> Error {
    Error::unsupported("the archive is one part of several").hint("join the parts first")
}

pub(super) fn from_rawzip(error: rawzip::Error) -> Error {
    let text = match error.into_kind() {
        ZipErrorKind::IO(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            return Error::malformed("the archive ends too early").hint(COPY_AGAIN);
        }
        ZipErrorKind::IO(e) => {
            return e.downcast::<Error>().unwrap_or_else(|e| Error::io("read the directory", e));
        }
        ZipErrorKind::MissingEndOfCentralDirectory => "there is no end record".into(),
        ZipErrorKind::Eof | ZipErrorKind::BufferTooSmall { .. } => {
            "a record reaches past the end".into()
        }
        ZipErrorKind::InvalidEndOfCentralDirectory => "the directory starts after its end".into(),
        ZipErrorKind::InvalidSignature { expected, actual } => format!(
            "expected a record that starts with {:08x}, found {:08x}",
            expected.swap_bytes(),
            actual.swap_bytes()
        ),
        other => other.to_string(),
    };
    Error::malformed(text).hint(COPY_AGAIN)
}

/// The bytes at `at`; zeros where there are too few, which no caller meets.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..).and_then(|b| b.first_chunk());
    found.copied().unwrap_or([0; N])
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}
