//! The tar archives that torch.save wrote before 0.1.10.
//!
//! Members `sys_info`, `pickle` (the object), `storages` and `tensors`, whose records mix pickles
//! and raw numbers. Source of truth: `torch/serialization.py`, `legacy_load`.

use std::collections::HashMap;

use ckptkit_core::{Error, Limits, Result, ResultExt, Section};

use crate::legacy::pickle_at;
use crate::pickle::{Graph, NodeRef};
use crate::storage;

use ckptkit_core::Dtype;

const BLOCK: u64 = 512;

/// A storage by its key: its element type and bytes.
pub(crate) struct Stored {
    pub(crate) dtype: Dtype,
    pub(crate) bytes: Section,
}

/// A tensor by its key.
pub(crate) struct Described {
    pub(crate) storage: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
    pub(crate) offset: u64,
}

pub(crate) struct TarEra {
    pub(crate) storages: HashMap<String, Stored>,
    pub(crate) tensors: HashMap<String, Described>,
}

/// Whether this is such an archive: a tar with the members that only it has.
pub(crate) fn detect(section: &Section) -> bool {
    let mut magic = [0; 5];
    section.read_at(257, &mut magic).is_ok()
        && &magic == b"ustar"
        && members(section)
            .is_ok_and(|m| ["pickle", "storages", "tensors"].iter().all(|n| m.contains_key(*n)))
}

fn members(section: &Section) -> Result<HashMap<String, Section>> {
    let mut out = HashMap::new();
    let mut at = 0;
    while at + BLOCK <= section.len() && out.len() < 64 {
        let mut header = [0; 512];
        section.read_at(at, &mut header)?;
        if header.iter().all(|&b| b == 0) {
            break;
        }
        let text = |range: std::ops::Range<usize>| {
            let field = &header[range];
            let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).trim().to_owned()
        };
        let size = u64::from_str_radix(&text(124..136), 8).map_err(|_| {
            Error::malformed("a tar header has no valid size").at(at).in_file(section.name())
        })?;
        let name = text(0..100);
        let bytes = section.slice(at + BLOCK, size)?;
        out.insert(name.trim_start_matches("./").to_owned(), bytes);
        at += BLOCK + size.div_ceil(BLOCK) * BLOCK;
    }
    Ok(out)
}

fn key_of(node: NodeRef<'_>) -> Result<String> {
    let key = node.as_str().map(str::to_owned).or_else(|| node.as_int().map(|i| i.to_string()));
    key.ok_or_else(|| Error::malformed("a key is neither text nor a number"))
}

/// The key that a persistent id holds: bare, or first of a tuple.
pub(crate) fn persistent_key(id: NodeRef<'_>) -> Option<String> {
    key_of(id).or_else(|_| key_of(*id.items().first().ok_or_else(|| Error::malformed(""))?)).ok()
}

struct Cursor<'a> {
    section: &'a Section,
    at: u64,
    limits: &'a Limits,
}

impl Cursor<'_> {
    fn pickle(&mut self) -> Result<Graph> {
        let (graph, end) = pickle_at(self.section, self.at, self.limits)?;
        self.at = end;
        Ok(graph)
    }

    fn number(&mut self) -> Result<u64> {
        let mut b = [0; 8];
        self.section.read_at(self.at, &mut b)?;
        self.at += 8;
        u64::try_from(i64::from_le_bytes(b))
            .map_err(|_| Error::malformed("a negative count").at(self.at - 8))
    }

    fn count(&mut self) -> Result<u64> {
        let count = self
            .pickle()?
            .root()
            .as_u64()
            .ok_or_else(|| Error::malformed("a count is no number"))?;
        // Every record takes some bytes.
        if count > self.section.len() {
            return Err(Error::malformed(format!(
                "{count} records cannot fit into {} bytes",
                self.section.len()
            )));
        }
        Ok(count)
    }
}

/// The object, the bytes that it was decoded from, and what it refers to.
pub(crate) fn open(section: &Section, limits: &Limits) -> Result<(Graph, Section, TarEra)> {
    let members = members(section)?;
    let member = |name: &str| {
        members.get(name).ok_or_else(|| {
            Error::malformed(format!("the archive has no member {name}")).in_file(section.name())
        })
    };
    let pickle = member("pickle")?;
    let (graph, end) = pickle_at(pickle, 0, limits).within(|| "member pickle")?;
    let pickle = pickle.slice(0, end)?;
    let storages = storages(&mut Cursor { section: member("storages")?, at: 0, limits })
        .within(|| "member storages")
        .in_file(section.name())?;
    let tensors = tensors(&mut Cursor { section: member("tensors")?, at: 0, limits })
        .within(|| "member tensors")
        .in_file(section.name())?;
    Ok((graph, pickle, TarEra { storages, tensors }))
}

fn storages(cursor: &mut Cursor<'_>) -> Result<HashMap<String, Stored>> {
    let mut out: HashMap<String, Stored> = HashMap::new();
    for _ in 0..cursor.count()? {
        let record = cursor.pickle()?;
        let fields = record.root().items();
        let [key, _location, class] = fields[..] else {
            return Err(Error::malformed("a storage's record has not three fields"));
        };
        let class =
            class.as_global().ok_or_else(|| Error::malformed("a storage's class is no name"))?;
        let dtype = storage::class_dtype(class)
            .flatten()
            .ok_or_else(|| Error::unsupported(format!("storage class {class} is not known")))?;
        let len = dtype.byte_len(cursor.number()?).unwrap_or(u64::MAX);
        let bytes = cursor.section.slice(cursor.at, len)?;
        cursor.at += len;
        out.insert(key_of(key)?, Stored { dtype, bytes });
    }
    for view in cursor.pickle()?.root().items() {
        let fields = view.items();
        let [target, root, offset, numel] = fields[..] else {
            return Err(Error::malformed("a storage view has not four fields"));
        };
        let root = key_of(root)?;
        let stored = out.get(&root).ok_or_else(|| {
            Error::malformed(format!("a view of storage {root}, which is not there"))
        })?;
        let unit = stored.dtype.element_bytes().unwrap_or(1);
        let at = offset.as_u64().and_then(|o| o.checked_mul(unit));
        let len = numel.as_u64().and_then(|n| n.checked_mul(unit));
        let (Some(at), Some(len)) = (at, len) else {
            return Err(Error::malformed("a storage view is no range"));
        };
        let viewed = Stored { dtype: stored.dtype, bytes: stored.bytes.slice(at, len)? };
        out.insert(key_of(target)?, viewed);
    }
    Ok(out)
}

fn tensors(cursor: &mut Cursor<'_>) -> Result<HashMap<String, Described>> {
    let mut out = HashMap::new();
    for _ in 0..cursor.count()? {
        let record = cursor.pickle()?;
        let fields = record.root().items();
        let [key, storage, ..] = fields[..] else {
            return Err(Error::malformed("a tensor's record has not three fields"));
        };
        let mut rank = [0; 4];
        cursor.section.read_at(cursor.at, &mut rank)?;
        // Four unused bytes follow the number of dimensions.
        cursor.at += 8;
        let rank = usize::try_from(i32::from_le_bytes(rank))
            .ok()
            .filter(|&r| r <= ckptkit_core::shape::MAX_DIMS);
        let rank = rank
            .ok_or_else(|| Error::malformed("a tensor's number of dimensions is not possible"))?;
        let shape = (0..rank).map(|_| cursor.number()).collect::<Result<_>>()?;
        let strides = (0..rank).map(|_| cursor.number()).collect::<Result<_>>()?;
        let offset = cursor.number()?;
        out.insert(key_of(key)?, Described { storage: key_of(storage)?, shape, strides, offset });
    }
    Ok(out)
}
