//! The stream that torch.save wrote before 1.6, and still writes with
//! `_use_new_zipfile_serialization=False`: five pickles, then the storages.
//!
//! ```text
//! pickle 0x1950a86a20f9469cfc6c · pickle 1001 · pickle {protocol, little_endian, type_sizes}
//! pickle OBJECT · pickle [keys] · for each key: i64 number of elements, raw little-endian bytes
//! ```
//!
//! Source of truth: `torch/serialization.py`, `_legacy_save` and `_legacy_load`.

use std::borrow::Cow;
use std::collections::HashMap;

use ckptkit_core::{Error, Limits, Result, ResultExt, Section};

use crate::pickle::{Graph, Kind, NodeRef};
use crate::storage::{self, StorageRef};

/// The magic number, as a pickle's integer: two's complement, little-endian.
const MAGIC: [u8; 10] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19];
/// The first pickle of a stream is at most this long in any protocol.
const MAGIC_PICKLE: u64 = 64;
/// How much is read from one storage on, if the next one is likely to be in it.
const AHEAD: u64 = 64 << 10;

/// Whether a stream starts here: decided by the first pickle's value, since its bytes differ from
/// protocol to protocol.
pub(crate) fn detect(section: &Section) -> bool {
    let head = match section
        .slice(0, section.len().min(MAGIC_PICKLE))
        .and_then(|s| s.read(MAGIC_PICKLE))
    {
        Ok(head) => head,
        Err(_) => return false,
    };
    Graph::parse(head, &Limits::default())
        .is_ok_and(|g| matches!(g.root().kind(), Kind::BigInt(b) if b == MAGIC))
}

/// An opened stream.
pub(crate) struct Legacy {
    pub(crate) graph: Graph,
    /// The bytes that the graph was decoded from.
    pub(crate) pickle: Section,
    pub(crate) storages: HashMap<String, Section>,
    pub(crate) notes: Vec<String>,
}

/// Decodes the pickle at `offset`, whose length is not known; gives where it ends, too.
pub(crate) fn pickle_at(section: &Section, offset: u64, limits: &Limits) -> Result<(Graph, u64)> {
    let rest = section.slice(offset, section.len().saturating_sub(offset))?;
    let graph = Graph::read_start(&rest, limits)
        .within(|| format!("the pickle at byte {offset}"))
        .in_file(section.name())?;
    let end = offset + graph.consumed() as u64;
    Ok((graph, end))
}

/// Reads the number of elements before each storage. Small storages are passed in one read with
/// their neighbours, large ones are jumped over.
struct Counts<'a> {
    section: &'a Section,
    start: u64,
    bytes: Vec<u8>,
}

impl Counts<'_> {
    /// The count at `at`; the storage before it was `previous` bytes long.
    fn read(&mut self, at: u64, previous: u64) -> Result<i64> {
        let held = at.checked_sub(self.start).and_then(|from| {
            let from = usize::try_from(from).ok()?;
            self.bytes.get(from..from.checked_add(8)?)?.try_into().ok()
        });
        if let Some(count) = held {
            return Ok(i64::from_le_bytes(count));
        }
        let wanted = if previous < AHEAD / 4 { AHEAD } else { 8 };
        let len = wanted.min(self.section.len().saturating_sub(at)).max(8);
        let window = self.section.slice(at, len)?;
        (self.start, self.bytes) = (at, window.read(len)?);
        let count = self.bytes.first_chunk().copied().unwrap_or_default();
        Ok(i64::from_le_bytes(count))
    }
}

pub(crate) fn open(section: &Section, limits: &Limits) -> Result<Legacy> {
    let mut notes = Vec::new();
    let (_, at) = pickle_at(section, 0, limits)?;
    let (version, at) = pickle_at(section, at, limits)?;
    if version.root().as_int() != Some(1001) {
        return Err(
            Error::unsupported("the stream's protocol version is not 1001").in_file(section.name())
        );
    }
    let (info, start) = pickle_at(section, at, limits)?;
    if info.root().get("little_endian").and_then(NodeRef::as_bool) == Some(false) {
        notes.push("the stream was written on a big-endian machine; its storages are little-endian all the same".into());
    }
    let (graph, end) = pickle_at(section, start, limits)?;
    let pickle = section.slice(start, end - start)?;
    let (keys, mut at) = pickle_at(section, end, limits)?;

    let mut known: HashMap<Cow<'_, str>, StorageRef<'_>> = HashMap::new();
    for node in graph.nodes() {
        if let Kind::PersId(id) = node.kind() {
            if let Some(storage) = storage::parse(node.other(id)) {
                let storage = storage.within(|| "the object").in_file(section.name())?;
                known.entry(storage.key.clone()).or_insert(storage);
            }
        }
    }
    let mut storages = HashMap::new();
    let mut counts = Counts { section, start: 0, bytes: Vec::new() };
    let mut previous = 0;
    for key in keys.root().items() {
        let key = key.as_str().map(str::to_owned).or_else(|| key.as_int().map(|i| i.to_string()));
        let key = key.ok_or_else(|| {
            Error::malformed("a storage's key is not text").in_file(section.name())
        })?;
        let place = || format!("storage {key}");
        let storage = known.get(key.as_str()).ok_or_else(|| {
            Error::malformed(
                "no tensor says which type its elements have, so what follows cannot be found",
            )
            .within(place())
            .in_file(section.name())
        })?;
        let count = counts.read(at, previous).within(place)?;
        let count = u64::try_from(count).map_err(|_| {
            Error::malformed("a negative number of elements")
                .at(at)
                .within(place())
                .in_file(section.name())
        })?;
        let len = count.saturating_mul(storage.unit_bytes());
        let bytes = section.slice(at + 8, len).within(place)?;
        at += 8 + len;
        previous = len;
        storages.insert(key, bytes);
    }
    if at < section.len() {
        notes.push(format!("{} bytes follow the last storage", section.len() - at));
    }
    Ok(Legacy { graph, pickle, storages, notes })
}
