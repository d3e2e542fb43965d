//! One `.metadata` graph to rows; several, where every rank wrote its own.

use ckptkit_core::hash::{HashMap, HashMapExt};
use ckptkit_core::{Dtype, DtypeClass, Error, ErrorKind, Result, TensorInfo, shape};
use torch_save::pickle::{Graph, Kind, NodeId, NodeRef};

use super::walk::{self, Class};
use super::{ChunkRow, DimsAt, Entry, EntryKind, ItemAt, PathAt, Tables, TensorRow};

/// Collects the tables of one checkpoint.
pub(crate) struct Decoder {
    pub(super) tables: Tables,
    pub(super) by_file: HashMap<String, u32>,
    pub(super) by_transforms: HashMap<Vec<String>, u32>,
    /// Which metadata file a chunk row came from is told by where that file's rows start.
    pub(super) absorbed: Vec<usize>,
    /// Bytes of pickle so far: tables may not outgrow it by much, however it shares its objects.
    pub(super) budget: usize,
    pub(super) path_text: usize,
    pub(super) strays: usize,
    pub(super) scratch: Vec<u64>,
    /// The entry that was asked for last: the next one asked for is mostly the one behind it.
    pub(super) last_entry: u32,
    /// The data file that was named last.
    pub(super) last_file: u32,
    /// The nodes of the last dtype and layout that were read, and what they say: those of one
    /// checkpoint are mostly the same.
    last_dtype: Option<([Option<NodeId>; 2], Dtype)>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        let tables = Tables { transforms: vec![Vec::new()], ..Tables::default() };
        Self {
            tables,
            by_file: HashMap::new(),
            by_transforms: [(Vec::new(), 0)].into_iter().collect(),
            absorbed: Vec::new(),
            budget: 4096,
            path_text: 0,
            strays: 0,
            scratch: Vec::new(),
            last_entry: 0,
            last_file: 0,
            last_dtype: None,
        }
    }

    /// Takes in one pickle: `.metadata`, or that of the next rank.
    ///
    /// # Errors
    /// `Malformed` or `Unsupported` where the whole cannot be understood. What is wrong with one
    /// entry stays with that entry.
    pub(crate) fn absorb(&mut self, graph: &Graph) -> Result<()> {
        let root = graph.root();
        self.budget = self.budget.saturating_add(graph.consumed());
        match walk::class(root, "the checkpoint's Metadata")? {
            Class::Metadata => {}
            Class::MCoreMetadata => self.tables.traits.megatron = true,
            _ => return Err(walk::unknown_global(root, "the checkpoint's Metadata")),
        }
        let [entries, planner, storage, storage_meta, version, mcore, plans] = walk::fields(
            root,
            [
                "state_dict_metadata",
                "planner_data",
                "storage_data",
                "storage_meta",
                "version",
                "mcore_data",
                "all_local_plans",
            ],
        );
        self.note_traits(storage_meta, version, planner.is_some());
        self.tables.traits.megatron |= mcore.is_some() || plans.is_some();
        let entries = entries
            .ok_or_else(|| Error::malformed("the Metadata object has no state_dict_metadata"))?;
        let (first_row, rank) = (self.tables.chunks.len(), self.absorbed.len());
        self.absorbed.push(first_row);
        self.last_dtype = None;
        let most = walk::pair_count(entries);
        self.tables.entries.reserve(most);
        self.tables.names.reserve(most);
        walk::each_pair(entries, "state_dict_metadata", &mut |key, value, hidden| {
            self.entry(key, value, hidden, rank)
        })?;
        if let Some(storage) = storage {
            self.storage(storage, first_row)?;
        }
        if let Some(planner) = planner {
            walk::each_pair(planner, "planner_data", &mut |key, value, _| self.path(key, value))?;
        }
        if let Some(mcore) = mcore {
            walk::each_pair(mcore, "mcore_data", &mut |key, value, _| self.mcore(key, value))?;
        }
        Ok(())
    }

    fn note_traits(
        &mut self,
        storage_meta: Option<NodeRef<'_>>,
        version: Option<NodeRef<'_>>,
        planner: bool,
    ) {
        let traits = &mut self.tables.traits;
        traits.planner_data |= planner;
        if let Some(meta) = storage_meta {
            traits.storage_meta = true;
            traits.modules |= walk::fields(meta, ["modules"])[0].is_some();
        }
        if let Some(version) = version {
            let text = version.as_str().map_or_else(|| walk::describe(version), str::to_owned);
            if text != "1.0.0" && traits.version.as_ref() != Some(&text) {
                let note =
                    format!("the metadata calls itself version {text:?}; this reader knows 1.0.0");
                self.tables.notes.push(note);
            }
            traits.version = Some(text);
        }
    }

    fn entry(
        &mut self,
        key: NodeRef<'_>,
        value: NodeRef<'_>,
        hidden: bool,
        rank: usize,
    ) -> Result<()> {
        let (Kind::Str(raw) | Kind::Bytes(raw)) = key.kind() else {
            return Err(Error::malformed(format!(
                "state_dict_metadata has {} for a name",
                walk::describe(key)
            )));
        };
        let next = narrow(self.tables.entries.len());
        let known = self.tables.names.find(raw, &self.tables.entries);
        if known.is_some() && hidden {
            return Ok(());
        }
        let index = known.unwrap_or(next);
        if index == next {
            let fqn = walk::escaped(raw);
            self.tables.names.insert(raw, &fqn, next, &self.tables.entries);
            if fqn.as_bytes() != raw {
                let note = format!("the name {fqn} is no UTF-8 and is written with escapes");
                self.tables.notes.push(note);
            }
            let kind = EntryKind::Unknown;
            self.tables.entries.push(Entry { fqn, kind, path: PathAt::Absent, fault: None });
        }
        let made = self.kind(value, index);
        let made = match made {
            Err(e) if e.kind() == ErrorKind::LimitExceeded => return Err(e),
            Err(e) => {
                self.fault(index, e);
                return Ok(());
            }
            Ok(made) => made,
        };
        let tables = &mut self.tables;
        let entry = &tables.entries[index as usize];
        if index == next {
            tables.entries[index as usize].kind = made;
            return Ok(());
        }
        // The same name again: from another rank it must say the same, in one file it may not be.
        let agrees = match (&entry.kind, &made) {
            (EntryKind::Tensor(a), EntryKind::Tensor(b)) => {
                a.dtype == b.dtype && tables.dims_of(a.size) == tables.dims_of(b.size)
            }
            (EntryKind::Bytes(_), EntryKind::Bytes(_)) | (EntryKind::Unknown, _) => true,
            _ => false,
        };
        if let (EntryKind::Tensor(a), EntryKind::Tensor(b)) = (&entry.kind, &made) {
            // Rows are read with the rank of their entry.
            if a.size.rank != b.size.rank {
                let start = b.chunks.start as usize;
                tables.chunks.truncate(start);
                tables.items.truncate(start);
            }
        }
        if matches!(entry.kind, EntryKind::Unknown) && entry.fault.is_none() {
            tables.entries[index as usize].kind = made;
        } else if rank == 0 {
            self.fault(index, Error::malformed("the name is listed twice in state_dict_metadata"));
        } else if !agrees {
            self.fault(
                index,
                Error::malformed(format!(
                    "the metadata of rank {rank} gives another shape or dtype than that of the ranks before it"
                ))
                .hint("the files belong to different saves"),
            );
        }
        Ok(())
    }

    fn kind(&mut self, value: NodeRef<'_>, index: u32) -> Result<EntryKind> {
        match walk::class(value, "the description of a tensor or object")? {
            Class::Bytes => return Ok(EntryKind::Bytes(ItemAt::NONE)),
            Class::Tensor => {}
            _ => return Err(walk::unknown_global(value, "the description of a tensor or object")),
        }
        let [properties, size, chunks] = walk::fields(value, ["properties", "size", "chunks"]);
        let missing = |what| Error::malformed(format!("the tensor's description has no {what}"));
        let dtype = self.dtype(properties.ok_or_else(|| missing("properties"))?)?;
        let size = self.dims(size.ok_or_else(|| missing("size"))?, "the tensor's size")?;
        let dims = self.tables.dims_of(size);
        if shape::numel(dims).ok().and_then(|n| dtype.byte_len(n)).is_none() {
            TensorInfo::new("", dtype, dims)
                .map_err(|e| Error::malformed(e.message().to_owned()))?;
        }
        let start = self.tables.chunks.len();
        match self.chunks(chunks, size.rank, index) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::LimitExceeded => return Err(e),
            // What it is is known: it is listed, and cannot be read.
            Err(e) => {
                self.tables.chunks.truncate(start);
                self.tables.items.truncate(start);
                self.fault(index, e);
            }
        }
        let chunks = narrow(start)..narrow(self.tables.chunks.len());
        Ok(EntryKind::Tensor(TensorRow { dtype, size, chunks, reformulated: None }))
    }

    fn chunks(&mut self, chunks: Option<NodeRef<'_>>, rank: u8, tensor: u32) -> Result<()> {
        let Some(chunks) = chunks else { return Ok(()) };
        for &id in walk::items(chunks, "the tensor's list of chunks")?.iter() {
            self.chunk(chunks.other(id), rank, tensor)?;
        }
        if self.tables.chunks.len() > self.budget / 8 {
            return Err(Error::limit("the metadata lists more chunks than its length can hold"));
        }
        Ok(())
    }

    fn chunk(&mut self, chunk: NodeRef<'_>, rank: u8, tensor: u32) -> Result<()> {
        if walk::class(chunk, "a chunk")? != Class::Chunk {
            return Err(walk::unknown_global(chunk, "a chunk"));
        }
        let [offsets, sizes] = walk::fields(chunk, ["offsets", "sizes"]);
        let (Some(offsets), Some(sizes)) = (offsets, sizes) else {
            return Err(Error::malformed("a chunk has no offsets or no sizes"));
        };
        let at = self.dims(offsets, "a chunk's offsets")?;
        let to = self.dims(sizes, "a chunk's sizes")?;
        if at.rank != rank || to.rank != rank {
            return Err(Error::malformed(format!(
                "the chunk at {:?} of sizes {:?} does not have the tensor's {rank} dimensions",
                self.tables.dims_of(at),
                self.tables.dims_of(to)
            )));
        }
        self.tables.chunks.push(ChunkRow { tensor, dims: at.start });
        self.tables.items.push(ItemAt::NONE);
        Ok(())
    }

    fn dims(&mut self, node: NodeRef<'_>, wanted: &'static str) -> Result<DimsAt> {
        let start = narrow(self.tables.dims.len());
        let rank = walk::dims(node, wanted, &mut self.tables.dims)?;
        if self.tables.dims.len() > self.budget {
            return Err(Error::limit(
                "the metadata repeats its shapes more often than its length can hold",
            ));
        }
        Ok(DimsAt { start, rank })
    }

    fn dtype(&mut self, properties: NodeRef<'_>) -> Result<Dtype> {
        match walk::class(properties, "TensorProperties")? {
            Class::Properties => {}
            Class::ShardProperties => self.tables.traits.shard_names = true,
            _ => return Err(walk::unknown_global(properties, "TensorProperties")),
        }
        let state =
            properties.state().ok_or_else(|| Error::malformed("TensorProperties has no state"))?;
        let (dtype, layout) = match state.kind() {
            Kind::Tuple(parts) if matches!(parts.len(), 5 | 6) => {
                self.tables.traits.strides |= parts.len() == 6;
                (Some(state.other(parts[0])), Some(state.other(parts[1])))
            }
            Kind::Dict => {
                let [dtype, layout] = walk::fields(properties, ["dtype", "layout"]);
                (dtype, layout)
            }
            Kind::Tuple(parts) => {
                return Err(Error::unsupported(format!(
                    "TensorProperties has {} parts, torch writes 5 or 6",
                    parts.len()
                )));
            }
            _ => return Err(walk::unknown_global(state, "the state of TensorProperties")),
        };
        let nodes = [dtype, layout].map(|node| node.map(NodeRef::id));
        match self.last_dtype {
            Some((known, dtype)) if known == nodes => Ok(dtype),
            _ => {
                let dtype = read_dtype(dtype, layout)?;
                self.last_dtype = Some((nodes, dtype));
                Ok(dtype)
            }
        }
    }

    /// The first fault of an entry stays.
    pub(super) fn fault(&mut self, index: u32, error: Error) {
        let entry = &mut self.tables.entries[index as usize];
        entry.fault.get_or_insert(error);
    }

    /// The position of the entry with a name.
    pub(super) fn named(&mut self, raw: &[u8]) -> Option<u32> {
        let Tables { entries, names, .. } = &self.tables;
        let near = [self.last_entry, self.last_entry.saturating_add(1)]
            .into_iter()
            .filter(|_| names.are_plain())
            .find(|&index| entries.get(index as usize).is_some_and(|e| e.is_called(raw)));
        let index = near.or_else(|| names.find(raw, entries))?;
        self.last_entry = index;
        Some(index)
    }

    /// The finished tables.
    pub(crate) fn finish(mut self) -> Tables {
        self.merge();
        if self.strays > 0 {
            let note = format!(
                "storage_data has {} places that belong to no chunk; they are not read",
                self.strays
            );
            self.tables.notes.push(note);
        }
        let tables = &mut self.tables;
        for entry in &mut tables.entries {
            let EntryKind::Tensor(row) = &entry.kind else { continue };
            if row.dtype.class() == DtypeClass::Quantized {
                entry.fault.get_or_insert_with(|| {
                    Error::unsupported(format!(
                        "{} elements need a scale and a zero point, which a distributed checkpoint does not keep",
                        row.dtype
                    ))
                });
            }
        }
        tables.count_elements();
        tables.dims.shrink_to_fit();
        self.tables
    }
}

/// What a dtype's name says, of a tensor that is made of chunks only where it is strided.
fn read_dtype(dtype: Option<NodeRef<'_>>, layout: Option<NodeRef<'_>>) -> Result<Dtype> {
    if let Some((callable, args)) = layout.and_then(|l| l.call()) {
        let name = args.first().and_then(|a| a.as_str());
        let known =
            callable.as_global().is_some_and(|g| g.is("torch.serialization", "_get_layout"));
        if known && name != Some("torch.strided") {
            return Err(Error::unsupported(format!(
                "the tensor's layout is {}, only strided tensors are made of chunks",
                name.unwrap_or("unknown")
            )));
        }
    }
    let dtype = dtype.ok_or_else(|| Error::malformed("TensorProperties has no dtype"))?;
    let global = dtype
        .as_global()
        .ok_or_else(|| Error::malformed(format!("{} stands for a dtype", walk::describe(dtype))))?;
    (global.module == "torch")
        .then(|| Dtype::from_torch(global.name))
        .flatten()
        .ok_or_else(|| Error::unsupported(format!("{global} is no dtype that this reader knows")))
}

impl Tables {
    pub(super) fn dims_of(&self, at: DimsAt) -> &[u64] {
        &self.dims[at.start as usize..at.start as usize + at.rank as usize]
    }

    /// torch counts pairs of 4-bit floats in the last dimension, we count elements.
    fn count_elements(&mut self) {
        for entry in &mut self.entries {
            let EntryKind::Tensor(row) = &entry.kind else { continue };
            if row.dtype != Dtype::F4 || entry.fault.is_some() {
                continue;
            }
            let rank = row.size.rank as usize;
            if rank == 0 {
                entry.fault = Some(Error::unsupported(
                    "a scalar of packed 4-bit floats has no last dimension",
                ));
                continue;
            }
            let mut last = vec![row.size.start as usize + rank - 1];
            for i in row.chunks.start as usize..row.chunks.end as usize {
                let at = self.chunks[i].dims as usize;
                last.extend([at + rank - 1, at + 2 * rank - 1]);
            }
            // Shapes that rows share are stored once each row, so none is doubled twice.
            for i in last {
                self.dims[i] = self.dims[i].saturating_mul(2);
            }
        }
    }
}

/// Everything numbered here is bounded by the pickle's length, which fits.
pub(crate) fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
