//! The archive as torch writes it, byte for byte, laid out from names, sizes and alignment alone.
//!
//! Source of truth: `caffe2/serialize/inline_container.cc` and the miniz of torch 2.15
//! (`mz_zip_writer_add_mem_ex_v2`), whose habits are kept where they depart from the standard: local
//! headers without sizes, a data descriptor after every member that is not empty, a zip64 end
//! record in every archive, and the header's own offset in a local zip64 field. Torch can compute
//! where storages lie from sizes alone (`calculate_storage_offsets`), so none of this is a matter
//! of taste.

use ckptkit_core::{Checksum, Error, OutputFile, Result, Segment};

const UTF8: u16 = 0x0800;
const DESCRIPTOR: u16 = 0x0008;
/// Sizes and offsets from here on stand in a zip64 field.
const LARGE: u64 = 0xFFFF_FFFF;

/// A member to be written, stored as it is.
pub(crate) struct NewMember {
    /// The name below the root.
    pub(crate) name: String,
    pub(crate) body: OutputFile,
    /// The CRC-32 of the body where it is known already.
    pub(crate) crc: Option<u32>,
}

impl NewMember {
    /// A storage under its key.
    pub(crate) fn storage(key: &str, body: OutputFile, crc: Option<u32>) -> Self {
        Self { name: format!("data/{key}"), body, crc }
    }

    /// A member that is at hand.
    pub(crate) fn bytes(name: &str, bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        let crc = Some(crc32fast::hash(&bytes));
        let mut body = OutputFile::default();
        body.push(Segment::Literal(bytes))?;
        Ok(Self { name: name.to_owned(), body, crc })
    }
}

enum Crc {
    Known(u32),
    Later(Checksum),
}

struct Written {
    /// Where its name ends among those of all members.
    name_end: usize,
    size: u64,
    header: u64,
    crc: Crc,
}

/// Lays out an archive of about `count` members; they lie in the order given, each at a multiple of
/// `align` bytes.
pub(crate) fn layout(
    root: &str,
    members: impl IntoIterator<Item = Result<NewMember>>,
    count: usize,
    align: u64,
) -> Result<OutputFile> {
    if !align.is_power_of_two() || align > 32 << 10 {
        return Err(Error::invalid(format!("storages cannot be aligned to {align} bytes"))
            .hint("choose a power of two up to 32768; torch's own is 64"));
    }
    // Each is a segment, and so is what stands between two.
    let mut file = OutputFile::with_capacity(count.saturating_mul(2));
    let mut written = Vec::with_capacity(count);
    let mut names = String::new();
    for member in members {
        let member = member?;
        let start = names.len();
        names.extend([root, "/", &member.name]);
        let name = &names.as_bytes()[start..];
        let (header, size) = (file.len(), member.body.len());
        file.push(Segment::Literal(local_header(name, size, header, align)?))?;
        let start = file.len();
        file.append(member.body)?;
        let crc = match member.crc {
            Some(crc) => Crc::Known(crc),
            None => Crc::Later(file.checksum(start)?),
        };
        if size > 0 {
            file.push(Segment::Literal(b"PK\x07\x08".to_vec()))?;
            push_crc(&mut file, &crc)?;
            let sizes = if is_large(size, header) {
                [size.to_le_bytes(), size.to_le_bytes()].concat()
            } else {
                [low(size).to_le_bytes(), low(size).to_le_bytes()].concat()
            };
            file.push(Segment::Literal(sizes))?;
        }
        written.push(Written { name_end: names.len(), size, header, crc });
    }
    let directory = file.len();
    let mut start = 0;
    for member in &written {
        let [before, after] = central_header(&names.as_bytes()[start..member.name_end], member)?;
        start = member.name_end;
        file.push(Segment::Literal(before))?;
        push_crc(&mut file, &member.crc)?;
        file.push(Segment::Literal(after))?;
    }
    file.push(Segment::Literal(end(written.len() as u64, directory, file.len())))?;
    Ok(file)
}

fn is_large(size: u64, header: u64) -> bool {
    size >= LARGE || header >= LARGE
}

fn low(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn push_crc(file: &mut OutputFile, crc: &Crc) -> Result<()> {
    match crc {
        Crc::Known(crc) => file.push(Segment::Literal(crc.to_le_bytes().to_vec())),
        Crc::Later(sum) => file.push_checksum(*sum),
    }
}

/// The header, the name and the extra fields, padded so that what follows is aligned.
fn local_header(name: &[u8], size: u64, header: u64, align: u64) -> Result<Vec<u8>> {
    let mut zip64 = Vec::new();
    if is_large(size, header) {
        let mut fields = Vec::new();
        if size >= LARGE {
            // The packed size is not known to miniz at this point.
            fields.extend_from_slice(&[size.to_le_bytes(), [0; 8]].concat());
        }
        if header >= LARGE {
            fields.extend_from_slice(&header.to_le_bytes());
        }
        zip64 = field(*b"\x01\0", &fields)?;
    }
    let before = header + 30 + (name.len() + zip64.len() + 4) as u64;
    let padding = usize::try_from(before.next_multiple_of(align) - before).unwrap_or_default();
    let padding = field(*b"FB", &vec![b'Z'; padding])?;
    let flags = if size > 0 { UTF8 | DESCRIPTOR } else { UTF8 };
    let mut out = b"PK\x03\x04\0\0".to_vec();
    out.extend_from_slice(&flags.to_le_bytes());
    // Method, time, date, checksum, sizes.
    out.extend_from_slice(&[0; 18]);
    out.extend_from_slice(&short(name.len())?.to_le_bytes());
    out.extend_from_slice(&short(zip64.len() + padding.len())?.to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(&zip64);
    out.extend_from_slice(&padding);
    Ok(out)
}

/// What stands before the checksum in the directory, and what after it.
fn central_header(name: &[u8], member: &Written) -> Result<[Vec<u8>; 2]> {
    let mut zip64 = Vec::new();
    if is_large(member.size, member.header) {
        let mut fields = Vec::new();
        if member.size >= LARGE {
            fields.extend_from_slice(&[member.size.to_le_bytes(); 2].concat());
        }
        if member.header >= LARGE {
            fields.extend_from_slice(&member.header.to_le_bytes());
        }
        zip64 = field(*b"\x01\0", &fields)?;
    }
    let flags = if member.size > 0 { UTF8 | DESCRIPTOR } else { UTF8 };
    let mut before = b"PK\x01\x02\0\0\0\0".to_vec();
    before.extend_from_slice(&flags.to_le_bytes());
    before.extend_from_slice(&[0; 6]);
    let mut after = [low(member.size).to_le_bytes(); 2].concat();
    after.extend_from_slice(&short(name.len())?.to_le_bytes());
    after.extend_from_slice(&short(zip64.len())?.to_le_bytes());
    // Comment, disk, attributes.
    after.extend_from_slice(&[0; 10]);
    after.extend_from_slice(&low(member.header).to_le_bytes());
    after.extend_from_slice(name);
    after.extend_from_slice(&zip64);
    Ok([before, after])
}

/// The zip64 end record, its locator and the classic end record.
fn end(members: u64, directory: u64, end: u64) -> Vec<u8> {
    let size = end - directory;
    let mut out = b"PK\x06\x06".to_vec();
    out.extend_from_slice(&44_u64.to_le_bytes());
    out.extend_from_slice(&[0x1e, 3, 0x2d, 0]);
    out.extend_from_slice(&[0; 8]);
    for n in [members, members, size, directory] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(b"PK\x06\x07\0\0\0\0");
    out.extend_from_slice(&end.to_le_bytes());
    out.extend_from_slice(&1_u32.to_le_bytes());
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    let count = u16::try_from(members).unwrap_or(u16::MAX).to_le_bytes();
    out.extend_from_slice(&[count, count].concat());
    for n in [size, directory] {
        out.extend_from_slice(&low(n).to_le_bytes());
    }
    out.extend_from_slice(&[0; 2]);
    out
}

fn field(id: [u8; 2], content: &[u8]) -> Result<Vec<u8>> {
    Ok([&id[..], &short(content.len())?.to_le_bytes(), content].concat())
}

fn short(len: usize) -> Result<u16> {
    u16::try_from(len)
        .map_err(|_| Error::invalid(format!("a name of {len} bytes does not fit a zip archive")))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ckptkit_core::{CopyOptions, Existing, Layout, Limits, Section};

    use super::*;
    use crate::zip::Archive;

    /// Packed again, or put together, by Python's zipfile.
    const BY_HAND: [&str; 3] = ["big_endian.pt", "member_order.pt", "rezipped_stored.pt"];

    /// The archives among the fixtures that torch laid out as it does today, but for TorchScript,
    /// which deflates its code.
    fn archives() -> Vec<PathBuf> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
        let mut found = Vec::new();
        for folder in ["torch", "lightning"] {
            for entry in std::fs::read_dir(format!("{root}/{folder}")).unwrap() {
                let path = entry.unwrap().path();
                let Ok(section) = Section::open(&path) else { continue };
                if BY_HAND.iter().any(|name| path.ends_with(name)) {
                    continue;
                }
                if section.head::<4>().unwrap() != b"PK\x03\x04" {
                    continue;
                }
                let archive = Archive::open(&section, &Limits::default()).unwrap();
                let torch_wrote = archive.get(".storage_alignment").is_some()
                    || archive.get("archive_format").is_some();
                if torch_wrote && archive.names().all(|n| archive.get(n).unwrap().is_stored()) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn archives_of_torch_come_out_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let mut same = 0;
        let mut differ = Vec::new();
        for path in archives() {
            let section = Section::open(&path).unwrap();
            let archive = Archive::open(&section, &Limits::default()).unwrap();
            let align = match archive.get(".storage_alignment") {
                Some(m) => {
                    let text = m.section().unwrap().read(10).unwrap();
                    String::from_utf8(text).unwrap().parse().unwrap()
                }
                None => 64,
            };
            for known in [true, false] {
                let members = archive.members().map(|m| {
                    let mut body = OutputFile::default();
                    body.push(Segment::Section(m.section().unwrap())).unwrap();
                    // Torch without checksums writes zeros, which are no one's checksum.
                    let crc = m.crc().or(Some(0)).filter(|_| known || m.crc().is_none());
                    Ok(NewMember { name: m.name().to_owned(), body, crc })
                });
                let file = layout(archive.root(), members, archive.len(), align).unwrap();
                let to = dir.path().join("out");
                Layout::file(file).write(&to, Existing::Replace, &CopyOptions::default()).unwrap();
                if std::fs::read(&to).unwrap() == std::fs::read(&path).unwrap() {
                    same += 1;
                } else {
                    differ.push(path.clone());
                }
            }
        }
        assert!(differ.is_empty(), "{same} came out the same, not {differ:?}");
        assert!(same >= 120, "{same}");
    }

    /// Headers, descriptors and directory of an archive past 4 GiB, against what torch 2.15 wrote
    /// (`tests/data/make_zip64.py`).
    #[test]
    fn archives_past_4_gib_have_the_headers_of_torch() {
        let table = include_str!("../../tests/data/zip64.txt");
        let mut lines = table.lines();
        let (align, root) = lines.next().unwrap().split_once(' ').unwrap();
        let mut members = Vec::new();
        let mut stretches = Vec::new();
        for line in lines {
            let fields: Vec<&str> = line.split(' ').collect();
            match fields[..] {
                ["member", name, size] => {
                    let mut body = OutputFile::default();
                    let len = size.parse().unwrap();
                    body.push(Segment::Fill { byte: 0, len }).unwrap();
                    members.push(Ok(NewMember { name: name.to_owned(), body, crc: Some(0) }));
                }
                ["at", offset, hex] => {
                    let bytes = (0..hex.len())
                        .step_by(2)
                        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
                        .collect::<Vec<u8>>();
                    stretches.push((offset.parse::<u64>().unwrap(), bytes));
                }
                _ => panic!("{line}"),
            }
        }
        let file = layout(root, members, 0, align.parse().unwrap()).unwrap();
        let literals: Vec<(u64, Vec<u8>)> = file
            .segments()
            .iter()
            .filter_map(|(at, segment)| match segment {
                Segment::Literal(bytes) => Some((*at, bytes.clone())),
                _ => None,
            })
            .collect();
        // An empty payload parts no two headers here.
        let mut merged: Vec<(u64, Vec<u8>)> = Vec::new();
        for (at, bytes) in stretches {
            match merged.last_mut() {
                Some((start, before)) if *start + before.len() as u64 == at => {
                    before.extend(bytes);
                }
                _ => merged.push((at, bytes)),
            }
        }
        assert_eq!(literals, merged);
        assert!(file.len() > 1 << 32);
    }
}
