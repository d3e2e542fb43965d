//! Every tensor of a checkpoint under its name.

use std::sync::Arc;

use ckptkit_core::hash::{HashMap, HashMapExt};
use ckptkit_core::{
    Error, Key, Result, StorageId, Tensor, TensorInfo, are_unique, joined, unique_names,
};
use torch_save::{TorchFile, Value};

use crate::assemble;
use crate::item::ByteItem;
use crate::metadata::{Entry, EntryKind, Tables, narrow};
use crate::opened::Opened;

/// Where a listed tensor comes from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// An entry of the metadata.
    Entry(u32),
    /// An object: a byte item, `meta.pt`, `common.pt`.
    Inside(Tensor),
}

/// The names and descriptions of all tensors.
pub(crate) struct Listing {
    pub(crate) infos: Vec<TensorInfo>,
    origins: Vec<Origin>,
    /// The paths of those whose name is not that of an entry.
    paths: HashMap<usize, Vec<Key>>,
    /// Of those whose name is not their entry's.
    by_name: HashMap<Arc<str>, usize>,
    /// For every entry of the metadata its position; [`ABSENT`] for what is not listed.
    by_entry: Vec<u32>,
    /// Names in the checkpoint of tensors inside objects: (object, name in it).
    inside: HashMap<(Holder, String), usize>,
    /// Entries of which not even a shape is known.
    pub(crate) failures: Vec<(String, Error)>,
    pub(crate) notes: Vec<String>,
}

/// An object that may hold tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    Entry(u32),
    Meta,
    Common,
}

const ABSENT: u32 = u32::MAX;

impl Listing {
    pub(crate) fn make(opened: &Opened) -> Self {
        let tables = &opened.tables;
        let mut out = Self {
            infos: Vec::with_capacity(tables.entries.len()),
            origins: Vec::with_capacity(tables.entries.len()),
            paths: HashMap::new(),
            by_name: HashMap::new(),
            by_entry: vec![ABSENT; tables.entries.len()],
            inside: HashMap::new(),
            failures: Vec::new(),
            notes: Vec::new(),
        };
        let mut containers = Containers::new();
        let mut failures = Vec::new();
        let mut notes = Vec::new();
        let mut believed = Vec::new();
        let mut fail = |name: &str, e: Error| {
            let e = e.within(format_args!("entry {name}")).in_file(opened.storage.name());
            notes.push(e.to_string());
            failures.push((name.to_owned(), e));
        };
        for (entry, index) in tables.entries.iter().zip(0..) {
            match &entry.kind {
                EntryKind::Tensor(row) => {
                    let shape = match &row.reformulated {
                        Some(shape) => shape.as_slice(),
                        None => tables.size(row),
                    };
                    let dtype =
                        assemble::believed(opened, entry).map_or(row.dtype, |(dtype, note)| {
                            believed.push(note);
                            dtype
                        });
                    match TensorInfo::new(entry.fqn.as_str(), dtype, shape) {
                        Ok(info) => {
                            if !tables.is_named_by_fqn(entry) {
                                out.paths.insert(out.infos.len(), tables.path(entry));
                            }
                            out.by_entry[index as usize] = narrow(out.infos.len());
                            out.infos.push(info);
                            out.origins.push(Origin::Entry(index));
                        }
                        Err(e) => fail(&entry.fqn, e),
                    }
                }
                EntryKind::Bytes(at) => {
                    let opened = match &entry.fault {
                        Some(e) => Err(e.clone()),
                        None => opened.items.bytes(*at),
                    };
                    match opened {
                        Ok(ByteItem::Torch(file)) => {
                            let under = tables.path(entry);
                            for (name, e) in file.failures() {
                                fail(&format!("{}.{name}", entry.fqn), e.clone());
                            }
                            let holder = Holder::Entry(index);
                            out.add(&mut containers, &under, holder, &file);
                        }
                        Ok(ByteItem::Raw(_)) => {}
                        Err(e) => fail(&entry.fqn, e),
                    }
                }
                EntryKind::Unknown => fail(&entry.fqn, unknown(entry)),
            }
        }
        let sides = [
            (opened.meta(), Holder::Meta, Vec::new()),
            (opened.common(), Holder::Common, vec![Key::Str("common".into())]),
        ];
        for (file, holder, under) in sides {
            match file {
                Ok(Some(file)) => {
                    out.add(&mut containers, &under, holder, &file);
                }
                Ok(None) => {}
                Err(e) => notes.push(e.to_string()),
            }
        }
        notes.extend(believed);
        (out.failures, out.notes) = (failures, notes);
        // FQNs are keys of a dict and cannot clash; only paths from elsewhere can.
        if !out.paths.is_empty() {
            out.name(tables);
        }
        out
    }

    /// Gives every tensor its name, where not all are those of entries.
    fn name(&mut self, tables: &Tables) {
        for (i, name) in self.names(tables).into_iter().enumerate() {
            let renamed = *name != *self.infos[i].name();
            if renamed {
                self.infos[i] = match &mut self.origins[i] {
                    Origin::Entry(_) => rename(&self.infos[i], &name),
                    Origin::Inside(tensor) => {
                        *tensor = tensor.renamed(Arc::clone(&name));
                        tensor.info().clone()
                    }
                };
            }
            if renamed || matches!(self.origins[i], Origin::Inside(_)) {
                self.by_name.insert(name, i);
            }
        }
    }

    /// Unique names for tensors whose paths are not all that of an entry.
    fn names(&self, tables: &Tables) -> Vec<Arc<str>> {
        let mut scratch = String::new();
        let plain: Vec<Arc<str>> = (self.infos.iter().enumerate())
            .map(|(i, info)| match self.paths.get(&i) {
                Some(path) => joined(path, &mut scratch),
                None => info.shared_name(),
            })
            .collect();
        if are_unique(plain.iter().map(|name| &**name)) {
            return plain;
        }
        let paths: Vec<Vec<Key>> = self.paths(tables).collect();
        unique_names(paths.iter().map(Vec::as_slice))
    }

    /// Adds the tensors of an object.
    fn add(
        &mut self,
        containers: &mut Containers,
        under: &[Key],
        holder: Holder,
        file: &TorchFile,
    ) {
        // A tensor that is the whole object stands under a key of its own only in a file of its own.
        let whole = usize::from(!under.is_empty() && file.tensor_at(file.root().id()).is_some());
        for entry in file.tensors() {
            let path = under.iter().chain(entry.path().get(whole..).unwrap_or_default());
            // What was a tensor is one in another storage.
            let tensor = apart(entry.tensor(), holder, containers)
                .unwrap_or_else(|_| entry.tensor().clone().unshared());
            let i = self.infos.len();
            self.paths.insert(i, path.cloned().collect());
            self.inside.insert((holder, entry.tensor().name().to_owned()), i);
            self.infos.push(tensor.info().clone());
            self.origins.push(Origin::Inside(tensor));
        }
    }

    /// The keys from the root to each tensor, in the order of `infos`.
    pub(crate) fn paths<'a>(&'a self, tables: &'a Tables) -> impl Iterator<Item = Vec<Key>> + 'a {
        self.origins.iter().enumerate().map(|(i, origin)| match (self.paths.get(&i), origin) {
            (Some(path), _) => path.clone(),
            (None, Origin::Entry(index)) => tables.path(&tables.entries[*index as usize]),
            (None, Origin::Inside(tensor)) => vec![Key::Str(tensor.info().shared_name())],
        })
    }

    pub(crate) fn find(&self, tables: &Tables, name: &str) -> Option<(&TensorInfo, &Origin)> {
        let i = match self.by_name.get(name) {
            Some(&i) => i,
            None => {
                let i = *self.by_entry.get(tables.index_of(name)? as usize)? as usize;
                self.infos.get(i).filter(|info| info.name() == name).map(|_| i)?
            }
        };
        Some((&self.infos[i], &self.origins[i]))
    }

    /// The entry that a name stands for.
    pub(crate) fn origin(&self, tables: &Tables, name: &str) -> Option<u32> {
        match self.find(tables, name)?.1 {
            Origin::Entry(index) => Some(*index),
            Origin::Inside(_) => None,
        }
    }

    pub(crate) fn info_of(&self, entry: u32) -> Option<&TensorInfo> {
        self.infos.get(*self.by_entry.get(entry as usize)? as usize)
    }

    /// Every tensor's description and where it is from, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&TensorInfo, &Origin)> {
        self.infos.iter().zip(&self.origins)
    }

    /// A value of an object with its tensors by their names in the checkpoint.
    pub(crate) fn name_tensors(&self, value: Value, holder: Holder) -> Value {
        let all = |items: Vec<Value>| items.into_iter().map(|v| self.name_tensors(v, holder));
        match value {
            Value::Tensor(name) => match self.inside.get(&(holder, name.clone())) {
                Some(&i) => Value::Tensor(self.infos[i].name().to_owned()),
                None => Value::Tensor(name),
            },
            Value::List(items) => Value::List(all(items).collect()),
            Value::Tuple(items) => Value::Tuple(all(items).collect()),
            Value::Set(items) => Value::Set(all(items).collect()),
            Value::FrozenSet(items) => Value::FrozenSet(all(items).collect()),
            Value::Dict(pairs) => Value::Dict(
                pairs
                    .into_iter()
                    .map(|(k, v)| (self.name_tensors(k, holder), self.name_tensors(v, holder)))
                    .collect(),
            ),
            Value::Object(mut object) => {
                object.args = object.args.map(|args| all(args).collect());
                object.value = object.value.map(|v| self.name_tensors(v, holder));
                object.extra = object
                    .extra
                    .into_iter()
                    .map(|(k, v)| (k, self.name_tensors(v, holder)))
                    .collect();
                Value::Object(object)
            }
            other => other,
        }
    }
}

/// Containers of storages: what two objects hold is not shared, whatever each calls it.
type Containers = HashMap<(Holder, u32), u32>;

/// The tensor in a storage that no other object has.
fn apart(tensor: &Tensor, holder: Holder, containers: &mut Containers) -> Result<Tensor> {
    let Some(id) = tensor.info().storage() else { return Ok(tensor.clone()) };
    let next = u32::try_from(containers.len()).unwrap_or(u32::MAX);
    let container = *containers.entry((holder, id.container)).or_insert(next);
    let info = tensor.info().clone().in_storage(StorageId { container, ..id });
    Tensor::with_transform(info, tensor.bytes().clone(), tensor.transform())
}

fn unknown(entry: &Entry) -> Error {
    entry.fault.clone().unwrap_or_else(|| Error::malformed("nothing is known of it"))
}

fn rename(info: &TensorInfo, name: &str) -> TensorInfo {
    // The shape was accepted under another name already.
    let renamed: Result<TensorInfo> = TensorInfo::new(name, info.dtype(), info.shape());
    renamed.unwrap_or_else(|_| info.clone())
}
