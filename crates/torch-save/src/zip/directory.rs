//! The central directory: its records, and what must hold between them.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::ops::Range;

use ckptkit_core::hash::RandomState;
use ckptkit_core::{Error, Limits, Positions, Result, ResultExt, Section};
use rawzip::CompressionMethod;

use super::ends::{CENTRAL, COPY_AGAIN, Ends, from_rawzip, le16, le32, several_disks};
use super::{LOCAL, REFUSED_FLAGS};

/// No deflated byte can stand for more than this many.
const DEFLATE_RATIO: u64 = 1032;
/// The end of the pickle's name.
const PICKLE: &str = "/data.pkl";
const NOT_TORCH: &str =
    "torch.save never writes this: save the checkpoint again where it came from";

/// What an archive's handles share.
pub(super) struct Inner {
    pub(super) section: Section,
    pub(super) root: String,
    /// All names, one after another; [`Record::name`] points here.
    pub(super) names: String,
    /// In the directory's order.
    pub(super) records: Vec<Record>,
    pub(super) index: Index,
    pub(super) notes: Vec<String>,
}

/// What the directory says of a member.
pub(super) struct Record {
    pub(super) name: Range<u32>,
    pub(super) flags: u16,
    pub(super) method: CompressionMethod,
    pub(super) crc: u32,
    /// Stored length and length.
    pub(super) packed: u64,
    pub(super) size: u64,
    /// Where its local header starts, and where the next thing does: another member's local
    /// header, or the directory.
    pub(super) header: u64,
    pub(super) end: u64,
}

impl Record {
    pub(super) fn name<'a>(&self, names: &'a str) -> &'a str {
        names.get(self.name.start as usize..self.name.end as usize).unwrap_or_default()
    }

    pub(super) fn header_len(&self) -> usize {
        LOCAL + self.name.len()
    }

    pub(super) fn encrypted(&self) -> bool {
        self.flags & REFUSED_FLAGS != 0
    }

    pub(super) fn is_folder(&self, names: &str) -> bool {
        self.size == 0 && self.name(names).ends_with('/')
    }
}

impl Inner {
    pub(super) fn name(&self, i: u32) -> &str {
        self.records.get(i as usize).map(|r| r.name(&self.names)).unwrap_or_default()
    }

    pub(super) fn read(section: &Section, limits: &Limits) -> Result<Self> {
        let (mut zip, ends) = Ends::find(section)?;
        let directory = ends.check(zip.get_ref())?;
        let count = ends.count(&directory, limits)?;
        zip.get_mut().reach(directory.start)?;

        let mut inner = Self {
            section: section.clone(),
            root: String::new(),
            names: String::new(),
            records: Vec::with_capacity(count as usize),
            index: Index::with_capacity(count as usize),
            notes: Vec::new(),
        };
        let mut buffer = {
            let len = usize::try_from(directory.end - directory.start).unwrap_or(usize::MAX);
            vec![0; len.clamp(CENTRAL, rawzip::MAX_CENTRAL_DIRECTORY_RECORD_SIZE)]
        };
        let mut entries = zip.entries(&mut buffer);
        let mut at = directory.start;
        while let Some(entry) = entries.next_entry().map_err(|e| from_rawzip(e).at(at))? {
            let header = zip.get_ref().array::<CENTRAL>(at)?;
            inner.push(&entry, &header).map_err(|e| e.at(at))?;
            let vary = [28, 30, 32].map(|field| u64::from(le16(&header, field)));
            at += CENTRAL as u64 + vary.iter().sum::<u64>();
        }
        if at != directory.end || inner.records.len() as u64 != ends.members {
            return Err(Error::malformed(format!(
                "the end record gives {} members until offset {}, the directory holds {} until {at}",
                ends.members,
                directory.end,
                inner.records.len(),
            ))
            .hint(COPY_AGAIN));
        }
        inner.lay_out(directory.start)?;
        inner.find_root()?;
        inner.note_checksums();
        match section.len() - ends.record {
            22 => {}
            n => inner.notes.push(format!("the archive has a comment of {} bytes", n - 22)),
        }
        Ok(inner)
    }

    /// Takes a record of the directory, which starts with the bytes `header`.
    fn push(&mut self, entry: &rawzip::ZipFileHeaderRecord<'_>, header: &[u8]) -> Result<()> {
        let path = entry.file_path();
        let raw: &[u8] = path.as_ref();
        let lossy = || String::from_utf8_lossy(raw).into_owned();
        let name = std::str::from_utf8(raw).map_err(|_| {
            Error::unsupported(format!("a member's name is not UTF-8: {:?}", lossy()))
                .hint("rename the archive's top folder in ASCII and pack it again")
        })?;
        self.check(name, entry, header).within(|| format!("member {name:?}"))?;
        let from = self.names.len();
        self.names.push_str(name);
        let range = u32::try_from(from).ok().zip(u32::try_from(self.names.len()).ok());
        let (start, end) = range.ok_or_else(|| Error::limit("the names exceed 4 GiB"))?;
        // The number fits: the caller has bounded the count.
        let i = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        let (names, records) = (&self.names, &self.records);
        let known = |i: u32| records.get(i as usize).map(|r| r.name(names)).unwrap_or_default();
        if let Some(other) = self.index.insert(name, i, known) {
            return Err(Error::malformed(format!(
                "the name is there twice, as {:?} and {name:?}: readers differ in which they take",
                known(other)
            ))
            .hint(NOT_TORCH));
        }
        self.records.push(Record {
            name: start..end,
            flags: entry.flags().bits(),
            method: entry.compression_method(),
            crc: entry.crc32(),
            packed: entry.compressed_size_hint(),
            size: entry.uncompressed_size_hint(),
            header: entry.local_header_offset(),
            end: 0,
        });
        Ok(())
    }

    /// What can be said of a member from the directory alone.
    fn check(
        &self,
        name: &str,
        entry: &rawzip::ZipFileHeaderRecord<'_>,
        header: &[u8],
    ) -> Result<()> {
        if name.contains('\0') {
            return Err(Error::malformed("the name holds a NUL").hint(NOT_TORCH));
        }
        // What does not fit in its field is in the zip64 field, in this order.
        let wide = |at| usize::from(le32(header, at) == u32::MAX) * 8;
        let disk = le16(header, 34);
        let need = wide(24) + wide(20) + wide(42) + usize::from(disk == u16::MAX) * 4;
        let zip64 = entry.extra_fields().find(|(id, _)| id.as_u16() == 1).map_or(&[][..], |f| f.1);
        if zip64.len() < need {
            return Err(Error::malformed(format!(
                "its sizes need a zip64 field of {need} bytes, found {}",
                zip64.len()
            ))
            .hint(COPY_AGAIN));
        }
        if disk != 0 && (disk != u16::MAX || le32(zip64, need - 4) != 0) {
            return Err(several_disks());
        }
        let (packed, size) = (entry.compressed_size_hint(), entry.uncompressed_size_hint());
        let encrypted = entry.flags().bits() & REFUSED_FLAGS != 0;
        if entry.compression_method() == CompressionMethod::STORE && packed != size && !encrypted {
            return Err(Error::malformed(format!(
                "it is stored, but its packed size is {packed} bytes and its size {size}"
            ))
            .hint(COPY_AGAIN));
        }
        if entry.compression_method() == CompressionMethod::DEFLATE && size / DEFLATE_RATIO > packed
        {
            return Err(Error::malformed(format!(
                "{packed} deflated bytes cannot inflate to the {size} that the directory gives"
            )));
        }
        Ok(())
    }

    /// Finds where each member must end, and that none reaches into another.
    fn lay_out(&mut self, directory: u64) -> Result<()> {
        let mut order: Vec<u32> = (0..).take(self.records.len()).collect();
        if !self.records.is_sorted_by_key(|r| r.header) {
            order.sort_by_key(|&i| self.records[i as usize].header);
        }
        for (n, &i) in order.iter().enumerate() {
            let next = order.get(n + 1).copied();
            let end = next.map_or(directory, |next| self.records[next as usize].header);
            let record = &self.records[i as usize];
            let least = record.packed.checked_add(record.header_len() as u64);
            if least.and_then(|len| record.header.checked_add(len)).is_none_or(|e| e > end) {
                let what = next.map_or(Cow::Borrowed("the directory"), |next| {
                    format!("member {:?}", self.name(next)).into()
                });
                return Err(Error::malformed(format!(
                    "member {:?} of {} bytes at offset {} reaches into {what} at offset {end}",
                    self.name(i),
                    record.packed,
                    record.header,
                ))
                .hint(COPY_AGAIN));
            }
            self.records[i as usize].end = end;
        }
        if let Some(&first) = order.first() {
            let before = self.records[first as usize].header;
            if before > 0 {
                self.notes.push(format!("{before} bytes before the first member belong to none"));
            }
        }
        Ok(())
    }

    /// Torch takes the folder of the directory's first member for the root. A unique `*/data.pkl`
    /// says the same more reliably, and also when a tool has sorted the members or added its own.
    fn find_root(&mut self) -> Result<()> {
        let all = || self.records.iter().map(|r| r.name(&self.names));
        let Some(first) = all().next() else {
            return Err(Error::malformed("the archive has no members"));
        };
        let mut pickles = all().filter(|name| {
            let cut = name.len().checked_sub(PICKLE.len());
            let (folder, file) = cut.and_then(|cut| name.split_at_checked(cut)).unwrap_or_default();
            file.eq_ignore_ascii_case(PICKLE) && !folder.is_empty() && !folder.contains('/')
        });
        let pickle = pickles.next();
        if let Some((one, two)) = pickle.zip(pickles.next()) {
            return Err(Error::malformed(format!(
                "two members could be the pickle, {one:?} and {two:?}"
            ))
            .hint("split the archive into one for each checkpoint"));
        }
        let folder = |name: &str| name.split_once('/').map(|(folder, _)| folder.to_owned());
        let of_first = folder(first).filter(|f| !f.is_empty());
        let Some(root) = pickle.and_then(folder).or_else(|| of_first.clone()) else {
            return Err(Error::malformed(format!(
                "the first member, {first:?}, is in no folder, and there is no */data.pkl: \
                 torch.save has not written this archive"
            ))
            .hint("open it as what it is, for example numpy.load for .npz"));
        };
        let mut outside = self
            .records
            .iter()
            .filter(|r| !r.is_folder(&self.names))
            .map(|r| r.name(&self.names))
            .filter(|name| below(name, &root).is_none());
        let example = outside.next();
        let count = 1 + outside.count();
        if let Some(example) = example {
            self.notes.push(format!(
                "members outside the folder {root:?}: {count}, the first is {example:?}; torch \
                 refuses such archives"
            ));
        }
        self.root = root;
        Ok(())
    }

    fn note_checksums(&mut self) {
        let full = || self.records.iter().filter(|r| r.size > 0);
        match (full().filter(|r| r.crc == 0).count(), full().count()) {
            (0, _) => {}
            (none, all) if none == all => self.notes.push("no checksums are recorded".into()),
            (none, all) => {
                self.notes.push(format!("no checksum is recorded for {none} of {all} members"));
            }
        }
    }
}

/// The part of `name` below the folder `root`, which has no slash.
pub(crate) fn below<'a>(name: &'a str, root: &str) -> Option<&'a str> {
    let rest = name.get(root.len()..)?.strip_prefix('/')?;
    let folder = &name[..root.len()];
    let is_root = folder == root || folder.eq_ignore_ascii_case(root);
    (is_root && !rest.is_empty()).then_some(rest)
}

/// Finds members by name, without regard to ASCII case and without keeping the names twice.
pub(super) struct Index {
    positions: Positions,
    hasher: RandomState,
}

/// Names are rarely longer.
const SHORT: usize = 128;

impl Index {
    fn with_capacity(count: usize) -> Self {
        Self { positions: Positions::with_capacity(count), hasher: RandomState::default() }
    }

    fn hash(&self, name: &str) -> u64 {
        let mut short = [0; SHORT];
        let Some(lower) = short.get_mut(..name.len()) else {
            return self.hasher.hash_one(name.to_ascii_lowercase().as_bytes());
        };
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        self.hasher.hash_one(&*lower)
    }

    /// Adds the name of record `i`, or gives the record that has it already.
    fn insert<'a>(&mut self, name: &str, i: u32, names: impl Fn(u32) -> &'a str) -> Option<u32> {
        let hash = self.hash(name);
        self.positions.insert(hash, i, |other| names(other).eq_ignore_ascii_case(name))
    }

    pub(super) fn find<'a>(&self, name: &str, names: impl Fn(u32) -> &'a str) -> Option<u32> {
        self.positions.find(self.hash(name), |i| names(i).eq_ignore_ascii_case(name))
    }
}
