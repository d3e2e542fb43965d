//! One walk over a tar's headers: each member's name, offset and size; no data is read.
//!
//! The walk is ours because `tar`'s iterator cannot give the refusals that are wanted here: it
//! applies long names and PAX records without showing them, passes over global headers, does not
//! compare a PAX size with the header's, reads extension data of any length, and reports a sparse
//! member as an ordinary one.

mod header;
mod pax;

use ckptkit_core::{EntryPath, Error, Result, Section};

use crate::limits::ArchiveLimits;

pub(crate) use header::is_header;
use header::{BLOCK, BLOCK_LEN, shown};

/// From this size on, PAX writers may put anything into the header's own size field.
const OCTAL_MAX: u64 = 1 << 33;
/// How much of what follows the archive is looked at to tell padding from garbage.
const TAIL: u64 = 1 << 20;

/// A member as the headers describe it, checked by itself but not against the others.
pub(crate) struct Member {
    pub(crate) raw_name: String,
    /// `None` for the root directory entry `./`.
    pub(crate) path: Option<EntryPath>,
    pub(crate) is_dir: bool,
    pub(crate) mtime: u64,
    pub(crate) data: Section,
}

/// What precedes a member and speaks of it.
#[derive(Default)]
struct Pending {
    pax: Option<pax::Overrides>,
    long_name: Option<Vec<u8>>,
    long_link: bool,
}

pub(crate) fn sparse() -> Error {
    Error::denied("is a sparse file, whose bytes do not lie in the archive as they are")
        .hint("repack the archive without --sparse")
}

/// The members of the tar that `archive` holds, in their order; oddities go to `notes`.
pub(crate) fn walk(
    archive: &Section,
    limits: &ArchiveLimits,
    notes: &mut Vec<String>,
) -> Result<Vec<Member>> {
    let mut walk =
        Walk { archive, limits, notes, members: Vec::new(), pending: Pending::default() };
    let mut at = 0;
    while let Some(next) = walk.step(at).map_err(|e| e.at(at).in_file(archive.name()))? {
        at = next;
    }
    Ok(walk.members)
}

struct Walk<'a> {
    archive: &'a Section,
    limits: &'a ArchiveLimits,
    notes: &'a mut Vec<String>,
    members: Vec<Member>,
    pending: Pending,
}

impl Walk<'_> {
    /// Reads the header at `at`; where the next one starts, or nothing at the end.
    fn step(&mut self, at: u64) -> Result<Option<u64>> {
        let left = self.archive.len().saturating_sub(at);
        if left == 0 {
            self.notes.push("the archive has no end blocks".into());
            return self.end();
        }
        let mut block = [0; BLOCK_LEN];
        if left < BLOCK {
            let tail = &mut block[..usize::try_from(left).unwrap_or(0)];
            self.archive.read_at(at, tail)?;
            if header::is_end(tail) {
                self.notes.push("the archive has no whole end block".into());
                return self.end();
            }
            return Err(Error::malformed(format!(
                "the archive ends inside a header: {left} bytes are left, expected {BLOCK}"
            ))
            .hint("the file is cut short: copy it again"));
        }
        self.archive.read_at(at, &mut block)?;
        if header::is_end(&block) {
            self.look_behind(at + BLOCK)?;
            return self.end();
        }
        let fields = header::decode(&block)?;
        let next = match fields.kind {
            b'x' | b'X' | b'g' | b'L' | b'K' => self.extension(&fields, at)?,
            _ => self.member(fields, at)?,
        };
        Ok(Some(next))
    }

    fn end(&self) -> Result<Option<u64>> {
        let p = &self.pending;
        if p.pax.is_some() || p.long_name.is_some() || p.long_link {
            return Err(Error::malformed("an extension header is followed by no member")
                .hint("the file is cut short: copy it again"));
        }
        Ok(None)
    }

    /// Data of `size` bytes behind the header at `at`, and where the next header starts.
    fn data(&self, at: u64, size: u64) -> Result<(Section, u64)> {
        let start = at + BLOCK;
        let left = self.archive.len() - start;
        if size > left {
            return Err(Error::malformed(format!(
                "the header claims {size} bytes, the file ends after {left}"
            ))
            .hint("the file is cut short or damaged: copy it again"));
        }
        // The last member's padding may be missing.
        let padded = size.checked_next_multiple_of(BLOCK).unwrap_or(left).min(left);
        Ok((self.archive.slice(start, size)?, start + padded))
    }

    fn extension(&mut self, fields: &header::Fields, at: u64) -> Result<u64> {
        let what = match fields.kind {
            b'L' => "GNU long name",
            b'K' => "GNU long link",
            b'g' => "global PAX header",
            _ => "PAX header",
        };
        let place = |e: Error| e.within(what);
        if fields.size > self.limits.extension_bytes {
            return Err(place(Error::limit(format!(
                "{} bytes are more than the limit of {} bytes",
                fields.size, self.limits.extension_bytes
            ))));
        }
        let (section, next) = self.data(at, fields.size).map_err(place)?;
        let bytes = section.read(self.limits.extension_bytes)?;
        let twice = || place(Error::malformed("appears twice before one member"));
        match fields.kind {
            b'g' => pax::global(&bytes).map_err(place)?,
            b'K' if self.pending.long_link => return Err(twice()),
            b'K' => self.pending.long_link = true,
            b'L' if self.pending.long_name.is_some() => return Err(twice()),
            b'L' => {
                let name = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
                self.pending.long_name = Some(name.to_vec());
            }
            _ if self.pending.pax.is_some() => return Err(twice()),
            _ => self.pending.pax = Some(pax::local(&bytes).map_err(place)?),
        }
        Ok(next)
    }

    fn member(&mut self, fields: header::Fields, at: u64) -> Result<u64> {
        if self.members.len() >= self.limits.members {
            return Err(Error::limit(format!(
                "the archive has more than {} members",
                self.limits.members
            ))
            .hint("raise the limit if the archive is to be trusted"));
        }
        let Pending { pax, long_name, long_link } = std::mem::take(&mut self.pending);
        let pax = pax.unwrap_or_default();
        let name = match (pax.path, long_name) {
            (Some(a), Some(b)) if a != b => {
                return Err(Error::malformed(format!(
                    "the member is called {} by its PAX header and {} by its GNU header",
                    shown(&a),
                    shown(&b)
                )));
            }
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => fields.name,
        };
        let place = |e: Error| e.within(format_args!("member {}", shown(&name)));
        let size = match pax.size {
            Some(size) if size < OCTAL_MAX && size != fields.size => {
                return Err(place(Error::malformed(format!(
                    "the PAX header says {size} bytes, the tar header {}",
                    fields.size
                ))));
            }
            Some(size) => size,
            None => fields.size,
        };
        let raw_name = String::from_utf8(name.clone())
            .map_err(|_| place(Error::unsupported("the name is not UTF-8")))?;
        let slash = raw_name.ends_with('/');
        let is_dir = match kind(fields.kind, slash).map_err(place)? {
            Kind::Directory => true,
            Kind::File => false,
            Kind::Label => {
                self.notes.push(format!("the volume label {raw_name:?} is passed over"));
                return Ok(self.data(at, size).map_err(place)?.1);
            }
        };
        if pax.linkpath || long_link {
            return Err(place(Error::denied("has a link target but is no link")));
        }
        let path = match EntryPath::new(&raw_name) {
            Ok(path) => Some(path),
            Err(_) if is_dir && is_root(&raw_name) => None,
            Err(e) => return Err(place(e)),
        };
        if is_dir && size != 0 {
            // Half of the readers would skip these bytes and half take them for headers.
            return Err(place(Error::malformed(format!("is a directory of {size} bytes"))));
        }
        let (data, next) = self.data(at, size).map_err(place)?;
        self.members.push(Member { raw_name, path, is_dir, mtime: fields.mtime, data });
        Ok(next)
    }

    /// Notes what lies behind the first end block, other than padding.
    fn look_behind(&mut self, at: u64) -> Result<()> {
        let left = self.archive.len() - at;
        let tail = self.archive.slice(at, left.min(TAIL))?.read(TAIL)?;
        if let Some(first) = tail.iter().position(|&b| b != 0) {
            self.notes.push(format!(
                "bytes follow the end of the archive (from offset {}) and are ignored",
                at + first as u64
            ));
        }
        Ok(())
    }
}

fn is_root(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('/') && name.split('/').all(|p| matches!(p, "" | "."))
}

enum Kind {
    File,
    Directory,
    Label,
}

fn kind(flag: u8, slash: bool) -> Result<Kind> {
    let denied = |what: &'static str| {
        Err(Error::denied(what).hint("NeMo writes files and directories only: repack the archive"))
    };
    match flag {
        // v7 archives have no type for directories.
        0 if slash => Ok(Kind::Directory),
        b'0' | b'7' if slash => Err(Error::malformed("is a file, but its name ends in a slash")),
        0 | b'0' | b'7' => Ok(Kind::File),
        b'5' => Ok(Kind::Directory),
        b'1' => denied("is a hard link"),
        b'2' => denied("is a symbolic link"),
        b'3' => denied("is a character device"),
        b'4' => denied("is a block device"),
        b'6' => denied("is a FIFO"),
        b'S' => Err(sparse()),
        b'V' => Ok(Kind::Label),
        other => Err(Error::unsupported(format!(
            "has the type flag {:?}, which no known writer of archives uses",
            char::from(other)
        ))),
    }
}
