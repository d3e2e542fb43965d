use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Mutex;

use ::zip::write::SimpleFileOptions;
use ::zip::{CompressionMethod as Method, ZipWriter};
use ckptkit_core::{ErrorKind, ReadAt};

use super::*;

/// A member to craft; what the two headers say can be told apart.
#[derive(Clone)]
struct Craft {
    name: Vec<u8>,
    local_name: Vec<u8>,
    data: Vec<u8>,
    crc: u32,
    flags: u16,
}

fn craft(name: &str, data: &[u8]) -> Craft {
    Craft {
        name: name.into(),
        local_name: name.into(),
        data: data.into(),
        crc: crc32fast::hash(data),
        flags: 0x0800,
    }
}

/// An archive in torch's layout: descriptors, aligned payloads, end records always in zip64.
struct Zip {
    bytes: Vec<u8>,
    /// Where the local and the central headers are.
    #[cfg_attr(not(feature = "deflate"), allow(dead_code, reason = "its test inflates"))]
    local: Vec<usize>,
    central: Vec<usize>,
    /// Where the zip64 record, its locator and the end record are.
    ends: [usize; 3],
}

fn torch(members: &[Craft]) -> Zip {
    let mut b: Vec<u8> = Vec::new();
    let (mut local, mut central) = (Vec::new(), Vec::new());
    let n16 = |n: usize| u16::try_from(n).unwrap().to_le_bytes();
    let n32 = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    for m in members {
        local.push(b.len());
        let flags = if m.data.is_empty() { m.flags } else { m.flags | 8 };
        b.extend(b"PK\x03\x04\0\0");
        b.extend(flags.to_le_bytes());
        b.extend([0; 18]);
        b.extend(n16(m.local_name.len()));
        let pad = (64 - (b.len() + 2 + m.local_name.len() + 4) % 64) % 64;
        b.extend(n16(pad + 4));
        b.extend(&m.local_name);
        b.extend(b"FB");
        b.extend(n16(pad));
        b.extend(vec![b'Z'; pad]);
        b.extend(&m.data);
        if !m.data.is_empty() {
            b.extend(b"PK\x07\x08");
            b.extend(m.crc.to_le_bytes());
            b.extend(n32(m.data.len()));
            b.extend(n32(m.data.len()));
        }
    }
    let directory = b.len();
    for (m, at) in members.iter().zip(&local) {
        central.push(b.len());
        let flags = if m.data.is_empty() { m.flags } else { m.flags | 8 };
        b.extend(b"PK\x01\x02\0\0\0\0");
        b.extend(flags.to_le_bytes());
        b.extend([0; 6]);
        b.extend(m.crc.to_le_bytes());
        b.extend(n32(m.data.len()));
        b.extend(n32(m.data.len()));
        b.extend(n16(m.name.len()));
        b.extend([0; 12]);
        b.extend(n32(*at));
        b.extend(&m.name);
    }
    let ends = finish(&mut b, directory as u64, members.len() as u64, 0);
    Zip { bytes: b, local, central, ends }
}

/// Appends the end records to bytes whose directory starts at `directory`, in an archive that has
/// `before` more bytes in front.
fn finish(b: &mut Vec<u8>, directory: u64, members: u64, before: u64) -> [usize; 3] {
    let record = b.len();
    let size = before + record as u64 - directory;
    b.extend(b"PK\x06\x06");
    b.extend(44_u64.to_le_bytes());
    b.extend([0x1e, 3, 0x2d, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for n in [members, members, size, directory] {
        b.extend(n.to_le_bytes());
    }
    let locator = b.len();
    b.extend(b"PK\x06\x07\0\0\0\0");
    b.extend((before + record as u64).to_le_bytes());
    b.extend([1, 0, 0, 0]);
    let end = b.len();
    b.extend(b"PK\x05\x06\0\0\0\0");
    let count = u16::try_from(members).unwrap_or(u16::MAX).to_le_bytes();
    b.extend(count);
    b.extend(count);
    b.extend(u32::try_from(size).unwrap().to_le_bytes());
    b.extend(u32::try_from(directory).unwrap_or(u32::MAX).to_le_bytes());
    b.extend([0, 0]);
    [record, locator, end]
}

fn small() -> Vec<Craft> {
    vec![
        craft("archive/data.pkl", b"\x80\x02}."),
        craft("archive/byteorder", b"little"),
        craft("archive/data/0", &[7; 100]),
        craft("archive/data/1", b""),
        craft("archive/version", b"3\n"),
    ]
}

fn open(bytes: &[u8]) -> Result<Archive> {
    Archive::open(&Section::from_bytes(bytes, "a.pt"), &Limits::default())
}

fn read(archive: &Archive, name: &str) -> Vec<u8> {
    let member = archive.get(name).unwrap();
    assert!(member.check_crc().unwrap(), "{name}");
    let bytes = member.section().unwrap().read(u64::MAX).unwrap();
    assert_eq!(bytes.len() as u64, member.size());
    bytes
}

/// The text of the error that `archive` is refused with, which must name `kind`.
#[track_caller]
fn refused(archive: Result<Archive>, kind: ErrorKind) -> String {
    let error = archive.err().expect("must be refused");
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(error.file(), Some("a.pt"));
    error.to_string()
}

#[track_caller]
fn malformed(bytes: &[u8], says: &str) {
    let text = refused(open(bytes), ErrorKind::Malformed);
    assert!(text.contains(says), "{text}");
}

/// As [`malformed`], but only the bytes of `data.pkl` are.
#[track_caller]
fn bad_member(bytes: &[u8], kind: ErrorKind, says: &str) {
    let archive = open(bytes).unwrap();
    let error = archive.get("data.pkl").unwrap().section().unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    assert!(text.starts_with("a.pt: member archive/data.pkl: at offset 0: "), "{text}");
    assert!(text.contains(says), "{text}");
    assert!(archive.get("version").unwrap().section().is_ok());
}

impl Zip {
    fn with(&self, at: usize, new: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    }
}

/// Bytes with holes of zeros, which counts what is read of it.
#[derive(Default)]
struct Sparse {
    pieces: BTreeMap<u64, Vec<u8>>,
    size: u64,
    reads: Mutex<Vec<Range<u64>>>,
}

impl Sparse {
    fn put(&mut self, at: u64, bytes: Vec<u8>) {
        self.size = self.size.max(at + bytes.len() as u64);
        self.pieces.insert(at, bytes);
    }

    fn take_reads(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.reads.lock().unwrap().push(offset..offset + out.len() as u64);
        out.fill(0);
        for (i, byte) in out.iter_mut().enumerate() {
            let at = offset + i as u64;
            if let Some((from, piece)) = self.pieces.range(..=at).next_back() {
                *byte = piece.get(usize::try_from(at - from).unwrap()).copied().unwrap_or(0);
            }
        }
        Ok(())
    }

    fn name(&self) -> &str {
        "a.pt"
    }
}

#[test]
fn torch_layout_is_read() {
    let zip = torch(&small());
    let archive = open(&zip.bytes).unwrap();
    assert_eq!(archive.root(), "archive");
    let names: Vec<_> = archive.names().collect();
    assert_eq!(names, ["data.pkl", "byteorder", "data/0", "data/1", "version"]);
    assert!(archive.notes().is_empty(), "{:?}", archive.notes());
    assert_eq!(archive.outside().count(), 0);
    assert_eq!(read(&archive, "data/0"), [7; 100]);
    assert_eq!(read(&archive, "data/1"), b"");
    assert_eq!(read(&archive, "DATA.pkl"), b"\x80\x02}.");
    assert!(archive.get("data").is_none() && archive.get("data/2").is_none());
    let member = archive.get("data/0").unwrap();
    assert_eq!((member.name(), member.full_name()), ("data/0", "archive/data/0"));
    assert!(member.is_stored());
    let section = member.section().unwrap();
    assert_eq!(section.offset() % 64, 0);
    assert_eq!(section.as_slice(), Some(&[7; 100][..]));
    // The judge agrees that this is an archive.
    let mut judge = ::zip::ZipArchive::new(io::Cursor::new(&zip.bytes)).unwrap();
    assert_eq!(judge.len(), 5);
    io::copy(&mut judge.by_name("archive/data/0").unwrap(), &mut io::sink()).unwrap();
}

#[test]
fn archives_nest_in_windows() {
    let zip = torch(&small());
    let mut bytes = b"before".to_vec();
    bytes.extend(&zip.bytes);
    bytes.extend(b"after");
    let whole = Section::from_bytes(bytes, "a.pt");
    let item = whole.slice(6, zip.bytes.len() as u64).unwrap();
    let archive = Archive::open(&item, &Limits::default()).unwrap();
    assert_eq!(read(&archive, "data/0"), [7; 100]);
    let wider = whole.slice(6, zip.bytes.len() as u64 + 3).unwrap();
    let text = refused(Archive::open(&wider, &Limits::default()), ErrorKind::Malformed);
    assert!(text.contains("the end record ends at offset"), "{text}");
}

#[test]
fn archives_of_other_writers_are_read() {
    let stored = SimpleFileOptions::default().compression_method(Method::Stored);
    let deflated = SimpleFileOptions::default().compression_method(Method::Deflated);
    let numbers: Vec<u8> = (0..200_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    let write = |w: &mut dyn FnMut(&str, SimpleFileOptions, &[u8])| {
        w("r/", stored, b"");
        w("r/data/", stored, b"");
        w("r/data.pkl", stored, b"pickle");
        w("r/data/0", stored.large_file(true), &numbers);
        w("r/data/1", deflated, &numbers);
        w("r/data/2", deflated, b"");
        w("r/data/3", stored.with_alignment(4096), b"abc");
    };
    let mut seeking = ZipWriter::new(io::Cursor::new(Vec::new()));
    seeking.set_comment("made by hand").unwrap();
    let mut streaming = ZipWriter::new_stream(Vec::new());
    write(&mut |name, options, data| {
        if name.ends_with('/') {
            seeking.add_directory(name, options).unwrap();
            return streaming.add_directory(name, options).unwrap();
        }
        seeking.start_file(name, options).unwrap();
        seeking.write_all(data).unwrap();
        streaming.start_file(name, options).unwrap();
        streaming.write_all(data).unwrap();
    });
    let seeking = seeking.finish().unwrap().into_inner();
    let streaming = streaming.finish().unwrap().into_inner();
    for (bytes, notes) in [(seeking, 1), (streaming, 0)] {
        let archive = open(&bytes).unwrap();
        assert_eq!(archive.root(), "r");
        assert_eq!(archive.notes().len(), notes, "{:?}", archive.notes());
        assert_eq!(archive.names().count(), 5);
        assert_eq!(read(&archive, "data.pkl"), b"pickle");
        assert_eq!(read(&archive, "data/0"), numbers);
        assert_eq!(read(&archive, "data/3"), b"abc");
        let packed = archive.get("data/1").unwrap();
        assert!(!packed.is_stored());
        assert_eq!(packed.size(), numbers.len() as u64);
        if cfg!(feature = "deflate") {
            assert_eq!(read(&archive, "data/1"), numbers);
            assert_eq!(read(&archive, "data/2"), b"");
            let mut four = [0; 4];
            packed.section().unwrap().read_at(400_000, &mut four).unwrap();
            assert_eq!(four, numbers[400_000..400_004]);
        } else {
            let error = packed.section().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
    }
}

#[test]
fn more_members_than_16_bits_count() {
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(Method::Stored);
    writer.start_file("archive/data.pkl", stored).unwrap();
    for i in 0..70_000_u32 {
        writer.start_file(format!("archive/data/{i}"), stored).unwrap();
        writer.write_all(&i.to_le_bytes()).unwrap();
    }
    let bytes = writer.finish().unwrap().into_inner();
    let archive = open(&bytes).unwrap();
    assert_eq!(archive.names().count(), 70_001);
    assert_eq!(read(&archive, "data/69999"), 69_999_u32.to_le_bytes());

    let section = Section::from_bytes(bytes, "a.pt");
    let limits = |set: &dyn Fn(&mut Limits)| {
        let mut limits = Limits::default();
        set(&mut limits);
        limits
    };
    let few = limits(&|l| l.members = 70_000);
    refused(Archive::open(&section, &few), ErrorKind::LimitExceeded);
    let short = limits(&|l| l.header_bytes = 1_000_000);
    refused(Archive::open(&section, &short), ErrorKind::LimitExceeded);
}

/// As torch writes 4.3 GB: sizes in the local zip64 field without a packed size, the offset in a
/// local zip64 field, descriptors of 24 bytes, a saturated end record.
#[test]
fn archives_above_4_gib() {
    let big = 0x1_0000_1000_u64;
    let mut sparse = Sparse::default();
    let local = |name: &str, extra: &[u8]| {
        let mut b = b"PK\x03\x04\0\0\x08\x08".to_vec();
        b.extend([0; 18]);
        b.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        b.extend(u16::try_from(extra.len()).unwrap().to_le_bytes());
        b.extend(name.as_bytes());
        b.extend(extra);
        b
    };
    let central = |name: &str, crc: u32, size: u64, at: u64| {
        let (mut fields, mut extra) = (Vec::new(), Vec::new());
        for n in [size, size, at] {
            let narrow = u32::try_from(n).unwrap_or(u32::MAX);
            if narrow == u32::MAX {
                extra.extend(n.to_le_bytes());
            }
            fields.push(narrow.to_le_bytes());
        }
        let mut b = b"PK\x01\x02\0\0\0\0\x08\x08\0\0\0\0\0\0".to_vec();
        b.extend(crc.to_le_bytes());
        b.extend(fields[0]);
        b.extend(fields[1]);
        b.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        let extra_len = if extra.is_empty() { 0 } else { 4 + extra.len() };
        b.extend(u16::try_from(extra_len).unwrap().to_le_bytes());
        b.extend([0; 10]);
        b.extend(fields[2]);
        b.extend(name.as_bytes());
        if !extra.is_empty() {
            b.extend([1, 0]);
            b.extend(u16::try_from(extra.len()).unwrap().to_le_bytes());
            b.extend(extra);
        }
        b
    };
    let mut field = b"\x01\0\x10\0".to_vec();
    field.extend(big.to_le_bytes());
    field.extend([0; 8]);
    sparse.put(0, local("big/data/0", &field));
    let payload = 30 + 10 + 20;
    sparse.put(payload, b"first".to_vec());
    sparse.put(payload + big - 4, b"last".to_vec());
    let second = payload + big + 24;
    let mut field = b"\x01\0\x08\0".to_vec();
    field.extend(second.to_le_bytes());
    let mut bytes = local("big/data.pkl", &field);
    bytes.extend(b"tiny");
    bytes.extend([0; 24]);
    let directory = second + bytes.len() as u64;
    bytes.extend(central("big/data/0", 0, big, 0));
    bytes.extend(central("big/data.pkl", crc32fast::hash(b"tiny"), 4, second));
    finish(&mut bytes, directory, 2, second);
    sparse.put(second, bytes);

    let sparse = Arc::new(sparse);
    let section = Section::new(Arc::clone(&sparse) as Arc<dyn ReadAt>);
    let archive = Archive::open(&section, &Limits::default()).unwrap();
    assert_eq!(archive.notes(), ["no checksum is recorded for 1 of 2 members"]);
    assert_eq!(read(&archive, "data.pkl"), b"tiny");
    let member = archive.get("data/0").unwrap();
    assert_eq!((member.size(), member.crc()), (big, None));
    let window = member.section().unwrap();
    assert_eq!(window.head::<5>().unwrap(), b"first");
    assert_eq!(window.slice(big - 4, 4).unwrap().read(4).unwrap(), b"last");

    sparse.take_reads();
    Archive::open(&section, &Limits::default()).unwrap();
    assert_eq!(sparse.take_reads().len(), 1, "the end of a small archive is read at once");
}

#[test]
fn opening_reads_the_directory_alone() {
    let members: Vec<_> = (0..1000)
        .map(|i| craft(&format!("archive/data/{i}"), &[1; 3000]))
        .chain([craft("archive/data.pkl", b"x")])
        .collect();
    let zip = torch(&members);
    let mut sparse = Sparse::default();
    let (directory, len) = (zip.central[0] as u64, zip.bytes.len() as u64);
    sparse.put(0, zip.bytes);
    let sparse = Arc::new(sparse);
    let section = Section::new(Arc::clone(&sparse) as Arc<dyn ReadAt>);
    let archive = Archive::open(&section, &Limits::default()).unwrap();
    assert_eq!(
        sparse.take_reads(),
        [len - 4096..len, directory..directory + 46, directory..len - 4096,]
    );

    let members: Vec<_> = archive.members().collect();
    let one_by_one: Vec<_> = members.iter().map(|m| m.section().unwrap().offset()).collect();
    assert_eq!(sparse.take_reads().len(), 1001);
    let together = |members: &[Member<'_>]| {
        let mut offsets = Vec::new();
        archive.sections(members, |_, section| offsets.push(section.unwrap().offset()));
        offsets
    };
    assert_eq!(together(&members), one_by_one);
    assert!(sparse.take_reads().len() < 60);
    let backwards: Vec<_> = members.iter().rev().copied().collect();
    let mut offsets = together(&backwards);
    offsets.reverse();
    assert_eq!(offsets, one_by_one);
}

#[test]
fn missing_checksums_are_no_mismatch() {
    let mut members = small();
    members.iter_mut().for_each(|m| m.crc = 0);
    let archive = open(&torch(&members).bytes).unwrap();
    assert_eq!(archive.notes(), ["no checksums are recorded"]);
    assert_eq!(archive.get("data/0").unwrap().crc(), None);
    assert_eq!(archive.get("data/1").unwrap().crc(), Some(0));
    assert!(archive.get("data/0").unwrap().check_crc().unwrap());

    members[2].crc = 5;
    let archive = open(&torch(&members).bytes).unwrap();
    assert!(!archive.get("data/0").unwrap().check_crc().unwrap());
}

#[test]
fn the_root_is_where_the_pickle_is() {
    let names = |names: &[&str]| {
        let members: Vec<_> = names.iter().map(|n| craft(n, b"x")).collect();
        torch(&members).bytes
    };
    let archive = open(&names(&["zzz/readme", "a/data.pkl", "a/data/0", "top"])).unwrap();
    assert_eq!(archive.root(), "a");
    assert_eq!(archive.names().collect::<Vec<_>>(), ["data.pkl", "data/0"]);
    assert_eq!(archive.outside().collect::<Vec<_>>(), ["zzz/readme", "top"]);
    assert!(archive.notes()[0].contains(": 2, the first is"), "{:?}", archive.notes());
    assert!(archive.notes()[0].contains("zzz/readme"), "{:?}", archive.notes());

    let archive = open(&names(&["m/data/weights/weight_0", "m/archive_format"])).unwrap();
    assert_eq!(archive.root(), "m");
    assert!(archive.get("data.pkl").is_none());
    assert!(open(&names(&["hé/data.pkl"])).unwrap().get("data.pkl").is_some());

    malformed(&names(&["a/data.pkl", "b/data.pkl"]), "two members could be the pickle");
    malformed(&names(&["data.pkl", "data/0"]), "is in no folder");
    malformed(&names(&["/data.pkl"]), "is in no folder");
    malformed(&names(&[]), "no members");
    assert_eq!(open(&names(&["a/b/data.pkl"])).unwrap().root(), "a");
}

#[test]
fn ambiguous_names_are_refused() {
    for name in ["archive/data/0", "archive/DATA/0", "ARCHIVE/data/0"] {
        let mut members = small();
        members.push(craft(name, b"other"));
        malformed(&torch(&members).bytes, "is there twice");
    }
    let mut members = small();
    members[2] = craft("archive/data/0\0.txt", b"x");
    malformed(&torch(&members).bytes, "NUL");
    members[2].name = b"archive/data/\xff".into();
    let text = refused(open(&torch(&members).bytes), ErrorKind::Unsupported);
    assert!(text.contains("UTF-8"), "{text}");
    // Names are never paths here.
    members[2] = craft("archive/data/../../x", b"x");
    let archive = open(&torch(&members).bytes).unwrap();
    assert_eq!(read(&archive, "data/../../x"), b"x");
}

#[test]
fn contradicting_end_records_are_refused() {
    let zip = torch(&small());
    let [record, locator, end] = zip.ends;
    malformed(&zip.with(end, b"X"), "no end record");
    malformed(&zip.with(end + 8, &[4, 0, 4, 0]), "contradict");
    malformed(&zip.with(end + 12, &[1]), "contradict");
    malformed(&zip.with(end + 16, &[1]), "");
    malformed(&zip.with(end + 20, &[1]), "ends too early");
    malformed(&zip.with(record, b"X"), "contradict");
    malformed(&zip.with(record + 4, &[45]), "contradict");
    malformed(&zip.with(record + 24, &[1, 0, 0, 0, 0, 0, 0, 0, 1]), "");
    malformed(&zip.with(record + 48, &[1]), "contradict");
    malformed(&zip.with(locator + 8, &[255; 8]), "contradict");
    malformed(&zip.with(locator + 8, &[0; 8]), "contradict");
    for at in [end + 4, end + 6, locator + 4, record + 16, record + 20, record + 32] {
        refused(open(&zip.with(at, &[1])), ErrorKind::Unsupported);
    }
    refused(open(&zip.with(locator + 16, &[2])), ErrorKind::Unsupported);
    refused(open(&zip.with(zip.central[1] + 34, &[1])), ErrorKind::Unsupported);

    let mut more = zip.bytes.clone();
    more.push(0);
    malformed(&more, "bytes are there");
    let mut before = b"MZ".to_vec();
    before.extend(&zip.bytes);
    malformed(&before, "");

    // The same without zip64.
    let mut classic = zip.bytes[..record].to_vec();
    classic.extend(&zip.bytes[end..]);
    assert!(open(&classic).is_ok());
    let mut before = b"MZ".to_vec();
    before.extend(&classic);
    malformed(&before, "bytes were put in front");
    let at = record;
    for count in [4_u8, 6, 255] {
        let mut bytes = classic.clone();
        bytes[at + 8] = count;
        bytes[at + 10] = count;
        malformed(&bytes, "members");
    }
    let mut wide = classic.clone();
    wide[at + 4..at + 6].fill(255);
    refused(open(&wide), ErrorKind::Unsupported);
}

#[test]
fn bytes_before_the_first_member_are_noted() {
    let mut members = small();
    members.remove(0);
    let whole = torch(&small());
    // The same bytes, of which the directory no longer lists the first member.
    let mut bytes = whole.bytes[..whole.central[0]].to_vec();
    bytes.extend(&whole.bytes[whole.central[1]..whole.ends[0]]);
    finish(&mut bytes, whole.central[0] as u64, 4, 0);
    let archive = open(&bytes).unwrap();
    assert_eq!(archive.notes().len(), 1);
    assert!(archive.notes()[0].contains("before the first member"), "{:?}", archive.notes());
}

#[test]
fn contradicting_directory_records_are_refused() {
    let zip = torch(&small());
    let central = zip.central[2];
    malformed(&zip.with(central, b"X"), "found 584b0102");
    malformed(&zip.with(central + 20, &[99]), "packed size is 99");
    malformed(
        &zip.with(central + 20, &[200, 0, 0, 0, 200]),
        "reaches into member \"archive/data/1\"",
    );
    malformed(&zip.with(zip.central[4] + 42, &[0; 4]), "reaches into");
    malformed(&zip.with(zip.central[4] + 42, &[0xf0; 4]), "reaches into the directory");
    malformed(&zip.with(central + 24, &[255; 4]), "zip64 field of 8 bytes, found 0");
    malformed(&zip.with(central + 42, &[255; 4]), "zip64 field of 8 bytes, found 0");
    malformed(&zip.with(central + 28, &[255, 255]), "past the end");
    malformed(&zip.with(zip.central[4] + 32, &[1]), "past the end");
    // A bomb's promise.
    malformed(
        &zip.with(central + 10, &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 1]),
        "cannot inflate",
    );
}

#[test]
fn members_may_come_in_any_order() {
    let zip = torch(&small());
    let mut bytes = zip.bytes[..zip.central[0]].to_vec();
    bytes.extend(&zip.bytes[zip.central[3]..zip.ends[0]]);
    bytes.extend(&zip.bytes[zip.central[0]..zip.central[3]]);
    bytes.extend(&zip.bytes[zip.ends[0]..]);
    let archive = open(&bytes).unwrap();
    assert_eq!(archive.names().next(), Some("data/1"));
    assert_eq!(read(&archive, "data/0"), [7; 100]);
}

#[test]
fn local_headers_must_agree() {
    let zip = torch(&small());
    let central = zip.central[0];
    bad_member(&zip.with(0, b"X"), ErrorKind::Malformed, "expected a local header");
    bad_member(&zip.with(6, &[9]), ErrorKind::Malformed, "flags 0x0809");
    bad_member(&zip.with(central + 8, &[9]), ErrorKind::Unsupported, "encrypted");
    bad_member(&zip.with(8, &[8]), ErrorKind::Malformed, "method 8, the directory 0");
    bad_member(&zip.with(14, &[1]), ErrorKind::Malformed, "the CRC 00000001");
    bad_member(&zip.with(18, &[3]), ErrorKind::Malformed, "packed size 3, the directory 4");
    bad_member(&zip.with(22, &[3]), ErrorKind::Malformed, "size 3, the directory 4");
    bad_member(&zip.with(26, &[15]), ErrorKind::Malformed, "15, the directory 16");
    bad_member(&zip.with(30, b"Z"), ErrorKind::Malformed, "\"Zrchive/data.pkl\"");
    bad_member(&zip.with(29, &[9]), ErrorKind::Malformed, "reach into what starts at offset");
    let mut lzma = zip.with(8, &[14]);
    lzma[central + 10] = 14;
    bad_member(&lzma, ErrorKind::Unsupported, "method 14 (LZMA)");
}

#[cfg(feature = "deflate")]
#[test]
fn streams_inflate_to_what_was_promised() {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(&[1; 10_000]).unwrap();
    let packed = encoder.finish().unwrap();
    let mut members = small();
    members[2] = craft("archive/data/0", &packed);
    members[2].crc = crc32fast::hash(&[1; 10_000]);
    let zip = torch(&members);
    for (size, good) in [(10_000_u32, true), (9_999, false), (10_001, false), (1, false)] {
        let mut bytes = zip.with(zip.central[2] + 24, &size.to_le_bytes());
        bytes[zip.central[2] + 10] = 8;
        bytes[zip.local[2] + 8] = 8;
        let archive = open(&bytes).unwrap();
        let section = archive.get("data/0").unwrap().section().unwrap();
        assert_eq!(section.len(), u64::from(size));
        assert_eq!(section.read(u64::MAX).is_ok(), good, "{size}");
        if good {
            assert_eq!(read(&archive, "data/0"), [1; 10_000]);
        } else {
            let error = archive.get("data/0").unwrap().check_crc().unwrap_err().to_string();
            assert!(error.contains("member archive/data/0"), "{error}");
            assert!(error.contains("inflates to"), "{error}");
        }
    }
}

#[test]
fn damage_is_seen_or_does_nothing() {
    let mut members = small();
    members[3] = craft("archive/data/1", b"second");
    let zip = torch(&members);
    for cut in 0..zip.bytes.len() {
        malformed(&zip.bytes[..cut], "");
    }
    for at in 0..zip.bytes.len() {
        for flip in [1, 0x20, 0x80, 0xff] {
            let mut bytes = zip.bytes.clone();
            bytes[at] ^= flip;
            let Ok(archive) = open(&bytes) else { continue };
            for member in archive.members() {
                let Ok(section) = member.section() else { continue };
                if member.crc().is_some() && member.check_crc().unwrap() {
                    let read = section.read(u64::MAX).unwrap();
                    let real = members.iter().find(|m| m.name == member.full_name().as_bytes());
                    assert_eq!(real.unwrap().data, read, "byte {at} ^ {flip}");
                }
            }
        }
    }
}
