//! What goes into a checkpoint: entries of a flattened state dict, and the names that they get.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use ckptkit_core::{Error, Key, OutputFile, Result, Tensor, join};

use crate::metadata::most_positions;

/// Deeper paths are read by nobody here.
const MAX_DEPTH: usize = 200;

/// One entry of the state dict that is written.
///
/// ```
/// use ckptkit_core::{Key, OutputFile, Segment};
/// use distcp::Entry;
/// use torch_save::{Document, WriteOptions};
///
/// # fn main() -> ckptkit_core::Result<()> {
/// // What is no tensor is an archive of torch.save.
/// let mut document = Document::new();
/// let rate = document.builder().float(0.01);
/// document.set_root(rate);
/// let path = ["optim", "param_groups"].map(|key| Key::Str(key.into()));
/// let path = [&path[..], &[Key::Index(0), Key::Str("lr".into())]].concat();
/// let entry = Entry::bytes(path, document.layout(&WriteOptions::new())?);
/// assert_eq!(entry.fqn(), "optim.param_groups.0.lr");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Entry {
    path: Vec<Key>,
    kind: EntryKind,
    placements: Option<Vec<Placement>>,
}

#[derive(Clone, Debug)]
pub(super) enum EntryKind {
    Tensor(Tensor),
    Bytes(Arc<OutputFile>),
}

/// What a dimension of the mesh of ranks does with a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Placement {
    /// All its ranks hold the same; one of them writes it.
    Replicate,
    /// Its ranks hold parts along this dimension of the tensor, as `torch.chunk` cuts.
    Shard(usize),
}

impl Entry {
    /// A tensor under a path: keys of mappings, positions in lists.
    #[must_use]
    pub fn tensor(path: impl Into<Vec<Key>>, tensor: Tensor) -> Self {
        Self { path: path.into(), kind: EntryKind::Tensor(tensor), placements: None }
    }

    /// Any other object under a path: a whole archive as `torch.save` makes it, which loaders
    /// unpickle. It is not looked into.
    #[must_use]
    pub fn bytes(path: impl Into<Vec<Key>>, archive: OutputFile) -> Self {
        Self { path: path.into(), kind: EntryKind::Bytes(Arc::new(archive)), placements: None }
    }

    /// Says how each dimension of the mesh places the tensor, instead of the rule of
    /// [`WriteOptions`](crate::WriteOptions).
    #[must_use]
    pub fn placed(mut self, placements: impl Into<Vec<Placement>>) -> Self {
        self.placements = Some(placements.into());
        self
    }

    /// Where it stands in the state dict.
    #[must_use]
    pub fn path(&self) -> &[Key] {
        &self.path
    }

    /// Its fully qualified name: the path joined with dots.
    #[must_use]
    pub fn fqn(&self) -> String {
        join(&self.path)
    }

    /// The tensor, where it is one.
    #[must_use]
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match &self.kind {
            EntryKind::Tensor(tensor) => Some(tensor),
            EntryKind::Bytes(_) => None,
        }
    }

    pub(super) fn kind(&self) -> &EntryKind {
        &self.kind
    }

    pub(super) fn placements(&self) -> Option<&[Placement]> {
        self.placements.as_deref()
    }
}

/// The names of all entries, in their order.
///
/// # Errors
/// `InvalidArgument` where a loader could not put the entries back: one name for two, no path,
/// a path that ends where another goes on, text and positions in one container.
pub(super) fn names(entries: &[Entry]) -> Result<Vec<String>> {
    let most = most_positions(entries.len()) as u64;
    let mut names = Vec::with_capacity(entries.len());
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        check_path(&entry.path, most)?;
        let name = entry.fqn();
        match seen.entry(name.clone()) {
            Slot::Vacant(slot) => {
                slot.insert(i);
            }
            Slot::Occupied(slot) => {
                let first = &entries[*slot.get()].path;
                return Err(Error::invalid(format!(
                    "two entries would be called {name:?}: {} and {}",
                    shown(first),
                    shown(&entry.path)
                ))
                .hint("rename one of them"));
            }
        }
        names.push(name);
    }
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_unstable_by(|a, b| compare(&a.path, &b.path));
    for pair in order.windows(2) {
        check_neighbours(&pair[0].path, &pair[1].path)?;
    }
    Ok(names)
}

fn check_path(path: &[Key], most_positions: u64) -> Result<()> {
    let place = |e: Error| Err(e.within(format_args!("entry {}", shown(path))));
    match path.first() {
        None => {
            return Err(Error::invalid("an entry has an empty path")
                .hint("an object that is not a dict cannot be a distributed checkpoint"));
        }
        Some(Key::Index(_)) => {
            return place(Error::invalid(
                "its path begins with a position, a state dict is a dict",
            ));
        }
        _ if path.len() > MAX_DEPTH => {
            return place(Error::invalid(format!(
                "a path of {} keys, at most {MAX_DEPTH} are written",
                path.len()
            )));
        }
        _ => {}
    }
    let far = path.iter().find(|key| matches!(key, Key::Index(i) if *i >= most_positions));
    match far {
        Some(_) => place(Error::invalid("a list position far beyond the number of entries")),
        None => Ok(()),
    }
}

/// Refuses two paths that no tree holds both of. In their order, paths that begin alike stand
/// together, the shortest first, and text before positions.
fn check_neighbours(a: &[Key], b: &[Key]) -> Result<()> {
    let same = a.iter().zip(b).take_while(|(a, b)| part(a) == part(b)).count();
    let why = match (a.get(same), b.get(same)) {
        (None, _) => "ends where the other goes on",
        (Some(x), Some(y)) if part(x).0 != part(y).0 => "has a key where the other has a position",
        _ => return Ok(()),
    };
    Err(Error::invalid(format!("of two paths, {} and {}, one {why}", shown(a), shown(b)))
        .hint("rename one of them"))
}

/// A key as flattening makes it: text, or a position in a list.
fn part(key: &Key) -> (u8, &str, u64) {
    match key {
        Key::Index(i) => (1, "", *i),
        Key::Str(text) | Key::Other(text) => (0, text, 0),
        _ => (0, "", 0),
    }
}

fn compare(a: &[Key], b: &[Key]) -> Ordering {
    a.iter().map(part).cmp(b.iter().map(part))
}

/// A path as Python shows it.
fn shown(path: &[Key]) -> String {
    let parts: Vec<String> = path
        .iter()
        .map(|key| match key {
            Key::Index(i) => i.to_string(),
            key => format!("{:?}", part(key).1),
        })
        .collect();
    format!("({})", parts.join(", "))
}
