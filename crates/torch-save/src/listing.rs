//! The tensors of an opened container, each placed as soon as the walk has found it.

use std::sync::Arc;

use ckptkit_core::{Error, Key, are_unique, joined};

use crate::container::{Opened, Raw};
use crate::file::TensorEntry;
use crate::flatten;
use crate::pickle::Graph;
use crate::place::Placer;

/// What stands in a container, in the order of the file.
pub(crate) struct Listing {
    pub(crate) entries: Vec<TensorEntry>,
    /// How many of them, the first ones, are tensors of the first object.
    pub(crate) of_root: usize,
    pub(crate) failures: Vec<Failure>,
    pub(crate) notes: Vec<String>,
}

/// A tensor of which not even a shape is known, or where a walk ended.
pub(crate) struct Failure {
    pub(crate) name: Arc<str>,
    pub(crate) error: Error,
    /// Where it stands, and how many entries come before it; nowhere if it is the end of a walk.
    place: Option<(Arc<[Key]>, usize)>,
}

impl Listing {
    /// `names` are those of all tensors that the walks find and of `raw`; without them each has
    /// the keys of its path, joined. `file` is what messages call the container.
    pub(crate) fn new(
        opened: &Opened,
        raw: &[Raw],
        names: Option<&[Arc<str>]>,
        file: &str,
    ) -> Self {
        let mut out = Self {
            entries: Vec::new(),
            of_root: 0,
            failures: Vec::new(),
            notes: opened.notes.clone(),
        };
        let (mut count, mut scratch) = (0, String::new());
        let mut name = |path: &[Key]| {
            count += 1;
            let given = names.and_then(|names| names.get(count - 1));
            given.map_or_else(|| joined(path, &mut scratch), Arc::clone)
        };
        let mut placer = Placer::new(opened);
        // Most storages are one tensor's.
        out.entries.reserve(placer.storages());
        for (part, object) in opened.objects.iter().enumerate() {
            let base = out.entries.len();
            // Positions of the walk that did not become entries.
            let mut failed: Vec<usize> = Vec::new();
            let mut position = 0;
            let recognise = |node| opened.recognise(part, node);
            let walk = flatten::walk(&object.graph, &object.prefix, &recognise, &mut |found| {
                let name = name(&found.path);
                match found.spec.and_then(|spec| placer.place(part, &name, spec)) {
                    Ok(placed) => out.entries.push(TensorEntry {
                        path: found.path,
                        tensor: placed.tensor,
                        node: found.node,
                        kind: placed.kind,
                        requires_grad: placed.requires_grad,
                        class: placed.class,
                        location: placed.location,
                        part_of: found.part_of.and_then(|of| entry(base, of, &failed)),
                    }),
                    Err(e) => {
                        failed.push(position);
                        out.fail(name, found.path, e, file);
                    }
                }
                position += 1;
            });
            out.notes.extend(walk.notes);
            out.failures.extend(walk.stopped.map(|(name, e)| Failure {
                name: name.into(),
                error: e.in_file(file),
                place: None,
            }));
            if part == 0 {
                out.of_root = out.entries.len();
            }
        }
        out.notes.append(&mut placer.notes);
        let none = Graph::none;
        let node =
            opened.objects.first().map_or_else(|| none().root().id(), |o| o.graph.root().id());
        let base = out.entries.len();
        let mut failed: Vec<usize> = Vec::new();
        for (position, raw) in raw.iter().enumerate() {
            let name = name(&raw.path);
            match &raw.tensor {
                Ok(tensor) => out.entries.push(TensorEntry {
                    path: raw.path.as_slice().into(),
                    tensor: tensor.renamed(name),
                    node,
                    kind: raw.kind,
                    requires_grad: raw.requires_grad,
                    class: raw.class.clone(),
                    location: raw.location.clone(),
                    part_of: raw.part_of.and_then(|of| entry(base, of, &failed)),
                }),
                Err(e) => {
                    failed.push(position);
                    out.fail(name, raw.path.as_slice().into(), e.clone(), file);
                }
            }
        }
        out
    }

    fn fail(&mut self, name: Arc<str>, path: Arc<[Key]>, e: Error, file: &str) {
        let error = e.within(format_args!("tensor {name}")).in_file(file);
        self.failures.push(Failure { name, error, place: Some((path, self.entries.len())) });
    }

    pub(crate) fn has_unique_names(&self) -> bool {
        let placed = self.failures.iter().filter(|f| f.place.is_some()).map(|f| &*f.name);
        are_unique(self.entries.iter().map(|e| e.tensor.name()).chain(placed))
    }

    /// The paths of everything that has a name, in the order in which names are given.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &[Key]> {
        let mut failed = self
            .failures
            .iter()
            .filter_map(|f| f.place.as_ref())
            .map(|(p, n)| (&**p, *n))
            .peekable();
        let mut paths = Vec::with_capacity(self.entries.len());
        for (at, entry) in self.entries.iter().enumerate() {
            paths.extend(std::iter::from_fn(|| failed.next_if(|(_, n)| *n == at)).map(|(p, _)| p));
            paths.push(&entry.path[..]);
        }
        paths.extend(failed.map(|(path, _)| path));
        paths.into_iter()
    }
}

/// Where the entry of a walk's position is among the entries, which begin at `base` for this walk.
fn entry(base: usize, position: usize, failed: &[usize]) -> Option<usize> {
    match failed.binary_search(&position) {
        Ok(_) => None,
        Err(before) => Some(base + position - before),
    }
}
