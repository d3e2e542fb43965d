//! `.metadata`: the pickle that says where everything is.
//!
//! Source of truth: `torch/distributed/checkpoint/metadata.py` and `filesystem.py` of torch 2.15.
//! Class names and states are those that torch 2.4 and later load: the state of `TensorProperties`
//! has five parts, since the sixth, which torch 2.15 adds, is one that older ones refuse.

use ckptkit_core::hash::{HashMap, HashMapExt};
use ckptkit_core::{Dtype, Error, Key, Result};
use torch_save::pickle::{Memo, Pickler};

use super::data::{Data, Item};
use super::entry::{Entry, EntryKind};
use super::split::torch_shape;
use super::{Planned, Share};

const METADATA: &str = "torch.distributed.checkpoint.metadata";
const FILESYSTEM: &str = "torch.distributed.checkpoint.filesystem";
/// Items that are set or appended at once, as CPython does.
const BATCH: usize = 1000;

/// The pickle for these entries, whose items lie where `data` says.
pub(super) fn pickle(entries: &[Entry], planned: &Planned, data: &Data) -> Result<Vec<u8>> {
    let mut writer = Writer::new();
    let stored = Stored::new(planned, data);
    writer.object(METADATA, "Metadata", |w| {
        w.key("state_dict_metadata")?;
        w.entries(planned, &stored)?;
        w.key("planner_data")?;
        w.paths(entries, planned)?;
        w.key("storage_data")?;
        let items = data.files.iter().flat_map(|f| f.items.iter().map(|item| (&*f.name, item)));
        w.dict(items, |w, (file, item)| w.storage(planned, file, item))?;
        w.key("storage_meta")?;
        w.storage_meta()?;
        w.key("version")?;
        w.p.str("1.0.0")
    })?;
    Ok(writer.p.finish())
}

/// The shares of every entry in the order of the ranks that store them, which is how chunks of a
/// tensor stand.
struct Stored {
    shares: Vec<Share>,
    /// Where those of each entry end.
    ends: Vec<usize>,
}

impl Stored {
    fn new(planned: &Planned, data: &Data) -> Self {
        let mut shares: Vec<Share> =
            data.files.iter().flat_map(|file| file.items.iter().map(|item| item.share)).collect();
        shares.sort_by_key(|share| share.entry());
        let ends = (0..planned.kinds.len())
            .map(|entry| shares.partition_point(|share| share.entry() <= entry))
            .collect();
        Self { shares, ends }
    }

    fn of(&self, entry: usize) -> &[Share] {
        let start = entry.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.shares[start..self.ends[entry]]
    }
}

/// Tells the pickle; what is immutable and occurs often is told once.
struct Writer<'a> {
    p: Pickler,
    /// Words and classes of this file, by where they stand in the program.
    fixed: Vec<(&'static str, Memo)>,
    /// Names of entries, in their order.
    fqns: Vec<Memo>,
    /// How many items of each entry were told.
    told: Vec<u64>,
    words: HashMap<&'a str, Memo>,
    /// The last of the files.
    file: Option<(&'a str, Memo)>,
    sizes: HashMap<Vec<u64>, Memo>,
    properties: HashMap<Dtype, Memo>,
}

impl<'a> Writer<'a> {
    fn new() -> Self {
        Self {
            p: Pickler::new(),
            fixed: Vec::new(),
            fqns: Vec::new(),
            told: Vec::new(),
            words: HashMap::new(),
            file: None,
            sizes: HashMap::new(),
            properties: HashMap::new(),
        }
    }

    /// A dataclass: made without arguments, its fields set as its state.
    fn object(
        &mut self,
        module: &str,
        class: &'static str,
        fields: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.global(module, class);
        self.p.new_obj();
        self.p.empty_dict();
        self.p.mark();
        fields(self)?;
        self.p.set_items();
        self.p.build();
        Ok(())
    }

    /// The name of a field, whose value follows.
    fn key(&mut self, name: &'static str) -> Result<()> {
        match self.known(name) {
            Some(memo) => self.p.recall(memo),
            None => {
                self.p.str(name)?;
                self.keep(name);
            }
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &'static str) {
        match self.known(name) {
            Some(memo) => self.p.recall(memo),
            None => {
                self.p.global(module, name);
                self.keep(name);
            }
        }
    }

    /// The very text, which costs less to find out than what the text is.
    fn known(&self, text: &'static str) -> Option<Memo> {
        let known = self.fixed.iter().find(|(known, _)| std::ptr::eq(*known, text));
        known.map(|&(_, memo)| memo)
    }

    fn keep(&mut self, text: &'static str) {
        let memo = self.p.memoize();
        self.fixed.push((text, memo));
    }

    /// A dict of what `pair` tells of each item: a key and a value.
    fn dict<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        mut pair: impl FnMut(&mut Self, T) -> Result<()>,
    ) -> Result<()> {
        self.p.empty_dict();
        let mut items = items.peekable();
        while items.peek().is_some() {
            self.p.mark();
            for item in items.by_ref().take(BATCH) {
                pair(self, item)?;
            }
            self.p.set_items();
        }
        Ok(())
    }

    fn word(&mut self, text: &'a str) -> Result<()> {
        match self.words.get(text) {
            Some(&memo) => self.p.recall(memo),
            None => {
                self.p.str(text)?;
                self.words.insert(text, self.p.memoize());
            }
        }
        Ok(())
    }

    /// `torch.Size`.
    fn size(&mut self, dims: &[u64]) {
        if let Some(&memo) = self.sizes.get(dims) {
            return self.p.recall(memo);
        }
        self.global("torch", "Size");
        self.p.mark();
        dims.iter().for_each(|&dim| self.p.uint(dim));
        self.p.tuple();
        self.p.tuple1();
        self.p.reduce();
        self.sizes.insert(dims.to_vec(), self.p.memoize());
    }

    /// `TensorProperties`, whose state is (dtype, layout, `requires_grad`, memory format,
    /// `pin_memory`).
    fn tensor_properties(&mut self, dtype: Dtype) -> Result<()> {
        self.global(METADATA, "TensorProperties");
        self.p.new_obj();
        match self.properties.get(&dtype) {
            Some(&memo) => self.p.recall(memo),
            None => {
                let name = dtype
                    .torch_name()
                    .ok_or_else(|| Error::unsupported(format!("torch has no dtype {dtype}")))?;
                self.p.mark();
                self.p.global("torch", name);
                self.p.global("torch.serialization", "_get_layout");
                self.p.str("torch.strided")?;
                self.p.tuple1();
                self.p.reduce();
                self.p.bool(false);
                self.p.global(METADATA, "_MEM_FORMAT_ENCODING");
                self.p.uint(0);
                self.p.tuple1();
                self.p.reduce();
                self.p.bool(false);
                self.p.tuple();
                self.properties.insert(dtype, self.p.memoize());
            }
        }
        self.p.build();
        Ok(())
    }

    /// `state_dict_metadata`, in the order of the entries: torch makes the state dict again in
    /// this order where nobody gives it one.
    fn entries(&mut self, planned: &Planned, stored: &Stored) -> Result<()> {
        let entries = planned.kinds.iter().zip(&planned.names).enumerate();
        self.dict(entries, |w, (i, (kind, name))| {
            w.p.str(name)?;
            let memo = w.p.memoize();
            w.fqns.push(memo);
            w.told.push(0);
            let EntryKind::Tensor(tensor) = kind else {
                w.global(METADATA, "BytesStorageMetadata");
                w.p.new_obj();
                return Ok(());
            };
            w.object(METADATA, "TensorStorageMetadata", |w| {
                w.key("properties")?;
                w.tensor_properties(tensor.dtype())?;
                w.key("size")?;
                w.size(&torch_shape(tensor));
                w.key("chunks")?;
                w.chunks(planned, stored.of(i))
            })
        })
    }

    fn chunks(&mut self, planned: &Planned, shares: &[Share]) -> Result<()> {
        self.p.empty_list();
        for batch in shares.chunks(BATCH) {
            self.p.mark();
            for &share in batch {
                let region = planned.region(share);
                self.object(METADATA, "ChunkStorageMetadata", |w| {
                    w.key("offsets")?;
                    w.size(&region.offsets);
                    w.key("sizes")?;
                    w.size(&region.sizes);
                    Ok(())
                })?;
            }
            self.p.append();
        }
        Ok(())
    }

    /// `planner_data`: the path of every entry.
    fn paths(&mut self, entries: &'a [Entry], planned: &Planned) -> Result<()> {
        let entries = entries.iter().zip(&planned.names).enumerate();
        self.dict(entries, |w, (i, (entry, name))| {
            w.p.recall(w.fqns[i]);
            w.p.mark();
            for key in entry.path() {
                match key {
                    Key::Index(i) => w.p.uint(*i),
                    Key::Str(text) | Key::Other(text) if **text == **name => {
                        w.p.recall(w.fqns[i]);
                    }
                    Key::Str(text) | Key::Other(text) => w.word(text)?,
                    _ => w.p.none(),
                }
            }
            w.p.tuple();
            Ok(())
        })
    }

    /// An item of `storage_data`, which are told in the order in which they lie in the files.
    fn storage(&mut self, planned: &Planned, file: &'a str, item: &Item) -> Result<()> {
        let entry = item.share.entry();
        self.object(METADATA, "MetadataIndex", |w| {
            w.key("fqn")?;
            w.p.recall(w.fqns[entry]);
            w.key("index")?;
            if planned.is_object(item.share) {
                w.p.none();
                return Ok(());
            }
            w.p.uint(w.told[entry]);
            w.told[entry] += 1;
            w.key("offset")?;
            w.size(&planned.region(item.share).offsets);
            Ok(())
        })?;
        self.object(FILESYSTEM, "_StorageInfo", |w| {
            w.key("relative_path")?;
            w.file(file)?;
            w.key("offset")?;
            w.p.uint(item.offset);
            w.key("length")?;
            w.p.uint(item.length);
            Ok(())
        })
    }

    /// A file's name; items of one file come one after the other.
    fn file(&mut self, name: &'a str) -> Result<()> {
        match self.file.filter(|(last, _)| *last == name) {
            Some((_, memo)) => self.p.recall(memo),
            None => {
                self.p.str(name)?;
                self.file = Some((name, self.p.memoize()));
            }
        }
        Ok(())
    }

    fn storage_meta(&mut self) -> Result<()> {
        self.object(METADATA, "StorageMeta", |w| {
            for name in ["checkpoint_id", "save_id", "load_id"] {
                w.key(name)?;
                w.p.none();
            }
            w.key("modules")?;
            w.p.empty_list();
            Ok(())
        })
    }
}
