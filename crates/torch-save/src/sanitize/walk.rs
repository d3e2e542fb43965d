//! From the root down: what is accepted stays, what is refused gets a form, whose parts come next.

use std::borrow::Cow;
use std::collections::HashMap;

use ckptkit_core::{Error, Result};

use super::{Change, SanitizeOptions};
use crate::document::Document;
use crate::pickle::{Kind, Mut, NodeId, NodeRef};
use crate::trail::{self, By, ROOT, Trail};
use crate::weights_only::{self, Checked, immutable_in_itself, judge, unhashable, what};

/// More changes than this are no report.
const MAX_CHANGES: usize = 1_000_000;
/// What is decoded out of a pickle may be that many times its size, and this many bytes anyway.
const MAX_REPEATS: usize = 4;
const FREE_BYTES: usize = 64 << 20;
/// Tuples that hold themselves are rare, and each is found with all others.
const MAX_ROUNDS: usize = 64;

/// The node that stands for another one.
pub(super) struct Form {
    pub(super) node: NodeId,
    /// What it was, where that is not the name of what makes it.
    pub(super) was: Option<String>,
    pub(super) became: Cow<'static, str>,
    pub(super) note: Option<String>,
    pub(super) described: bool,
    /// The value is the same; only its spelling differs.
    pub(super) silent: bool,
    /// A part of a configuration, which is told of as one.
    pub(super) config: bool,
}

impl Form {
    pub(super) fn new(node: NodeId, became: impl Into<Cow<'static, str>>) -> Self {
        Self {
            node,
            was: None,
            became: became.into(),
            note: None,
            described: false,
            silent: false,
            config: false,
        }
    }

    pub(super) fn was(mut self, was: impl Into<String>) -> Self {
        self.was = Some(was.into());
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    pub(super) fn described(mut self) -> Self {
        self.described = true;
        self
    }

    pub(super) fn silent(mut self) -> Self {
        self.silent = true;
        self
    }
}

pub(super) struct Walk<'d> {
    pub(super) document: &'d mut Document,
    pub(super) options: &'d SanitizeOptions,
    pub(super) trail: Trail,
    pub(super) checked: Checked,
    /// What keys became.
    pub(super) keys: HashMap<NodeId, Option<NodeId>>,
    /// What stands for a refused node.
    instead: HashMap<NodeId, NodeId>,
    changes: Vec<Change>,
    /// Changes of items of one list, by the list and their class.
    rows: HashMap<(u32, String), usize>,
    /// Of every configuration, the texts that OmegaConf would resolve, and those that are missing.
    configs: HashMap<usize, (u64, u64)>,
    byte_budget: usize,
}

/// A node to be looked at: how it was reached, and the change that tells of the configuration
/// around it.
#[derive(Clone, Copy)]
struct Place {
    at: u32,
    config: Option<usize>,
}

pub(super) fn run(document: &mut Document, options: &SanitizeOptions) -> Result<Vec<Change>> {
    let root = document.root().id();
    let heap = document.root().graph().heap_bytes();
    // Whatever is found, the object is written in new words.
    document.builder();
    let mut walk = Walk {
        document,
        options,
        trail: Trail::default(),
        checked: Checked::new(),
        keys: HashMap::new(),
        instead: HashMap::new(),
        changes: Vec::new(),
        rows: HashMap::new(),
        configs: HashMap::new(),
        byte_budget: heap.saturating_mul(MAX_REPEATS).saturating_add(FREE_BYTES),
    };
    let seen = walk.all(root)?;
    walk.redirect(root);
    walk.untie(&seen)?;
    let Walk { mut changes, configs, .. } = walk;
    for (index, (links, missing)) in configs {
        let count = |n: u64, one: &str, many: &str| match n {
            0 => None,
            1 => Some(format!("1 {one}")),
            n => Some(format!("{n} {many}")),
        };
        let counts = [
            count(links, "interpolation", "interpolations"),
            count(missing, "missing value", "missing values"),
        ];
        let told: Vec<String> = counts.into_iter().flatten().collect();
        if !told.is_empty() {
            changes[index].note = Some(format!("{} as text", told.join(" and ")));
        }
    }
    if let Some(left) = weights_only::refusals_from(document.root(), 1).into_iter().next() {
        return Err(Error::unsupported(format!(
            "{} cannot be made plain: {}",
            left.what, left.why
        ))
        .within(format_args!("value {:?}", left.path)));
    }
    Ok(changes)
}

impl Walk<'_> {
    pub(super) fn node(&self, id: NodeId) -> NodeRef<'_> {
        self.document.node(id)
    }

    /// Gives where every node was met first.
    fn all(&mut self, root: NodeId) -> Result<HashMap<NodeId, u32>> {
        let mut seen: HashMap<NodeId, u32> = HashMap::new();
        let mut pending = vec![(root, Place { at: ROOT, config: None })];
        while let Some((id, place)) = pending.pop() {
            if seen.contains_key(&id) {
                continue;
            }
            seen.insert(id, place.at);
            self.respell(id, place.at)?;
            let graph = self.document.node(id);
            match judge(graph, &mut self.checked) {
                Ok(()) => {
                    let before = pending.len();
                    let trail = &mut self.trail;
                    trail::parts(graph, &mut |by, part| {
                        let key = matches!(by, By::Key(key) if key == part.id());
                        if !key && !trail::is_atom(part) && !seen.contains_key(&part.id()) {
                            let at = trail.step(place.at, by);
                            pending.push((part.id(), Place { at, ..place }));
                        }
                    });
                    pending[before..].reverse();
                }
                Err((_, refused, _)) => {
                    let form = self.form(id).map_err(|e| self.located(e, place.at))?;
                    let config = self.report(id, place, &refused, &form)?;
                    self.instead.insert(id, form.node);
                    pending.push((form.node, Place { at: place.at, config }));
                }
            }
        }
        Ok(seen)
    }

    pub(super) fn located(&self, e: Error, at: u32) -> Error {
        let path = self.trail.path(at, self.document.root());
        e.within(format_args!("value {path:?}"))
    }

    /// Keys that cannot stay, and sets, whose items are keys: they change where they are.
    fn respell(&mut self, id: NodeId, at: u32) -> Result<()> {
        let node = self.node(id);
        let is_items = |m: Mut<'_>| matches!(m, Mut::AddItems(_));
        match node.kind() {
            Kind::Set if node.muts().all(is_items) => self.plain_set(id, at),
            Kind::Reduce { .. } if node.class().is_some_and(|g| g.is("builtins", "set")) => {
                self.plain_set(id, at)
            }
            _ => self.plain_keys(id, at),
        }
    }

    /// Tells of a change; gives the change that tells of the parts of a configuration.
    fn report(
        &mut self,
        id: NodeId,
        place: Place,
        refused: &str,
        form: &Form,
    ) -> Result<Option<usize>> {
        let was = form.was.clone().unwrap_or_else(|| self.was(id, refused));
        if form.described {
            self.refuse_described(place.at, &was)?;
        }
        if form.silent {
            return Ok(place.config);
        }
        let config = match (form.config, place.config) {
            (true, Some(index)) => Some(index),
            _ => None,
        };
        let config = match config {
            Some(index) => Some(index),
            None => {
                let index = self.push(place.at, was, form)?;
                if form.config { Some(index) } else { place.config }
            }
        };
        if let (true, Some(index)) = (form.config, config) {
            let text = self.node(form.node).as_str().unwrap_or_default();
            let (links, missing) = (u64::from(text.contains("${")), u64::from(text == "???"));
            let counts = self.configs.entry(index).or_default();
            *counts = (counts.0 + links, counts.1 + missing);
        }
        Ok(config)
    }

    /// Refuses what is only described, where that was asked for.
    pub(super) fn refuse_described(&self, at: u32, was: &str) -> Result<()> {
        if !self.options.strict {
            return Ok(());
        }
        let e = Error::unsupported(format!("nothing plain stands for an object of {was}"))
            .hint("leave it out, or let it be described");
        Err(self.located(e, at))
    }

    /// What an object was: its class, where it has one.
    fn was(&self, id: NodeId, refused: &str) -> String {
        let node = self.node(id);
        match self.callee(node) {
            Some(class) => class,
            None if matches!(node.kind(), Kind::Global(_)) => refused.to_owned(),
            None => what(node),
        }
    }

    fn push(&mut self, at: u32, was: String, form: &Form) -> Result<usize> {
        if let Some(list) = self.trail.row(at) {
            let row = (list, was.clone());
            if let Some(&index) = self.rows.get(&row) {
                let same = &mut self.changes[index];
                if same.became == form.became && same.note == form.note {
                    same.count += 1;
                    return Ok(index);
                }
            }
            self.rows.insert(row, self.changes.len());
        }
        self.add(Change {
            path: self.trail.path(at, self.document.root()),
            count: 1,
            is_key: false,
            was,
            became: form.became.clone(),
            note: form.note.clone(),
            described: form.described,
        })
    }

    pub(super) fn add(&mut self, change: Change) -> Result<usize> {
        if self.changes.len() >= MAX_CHANGES {
            return Err(Error::limit(format!("more than {MAX_CHANGES} objects would change")));
        }
        self.changes.push(change);
        Ok(self.changes.len() - 1)
    }

    /// Accounts for bytes that are decoded.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<()> {
        self.byte_budget = self.byte_budget.checked_sub(bytes).ok_or_else(|| {
            Error::limit(
                "its objects share so much that making them plain would grow it many times",
            )
            .hint("no program writes such a file of itself")
        })?;
        Ok(())
    }

    /// Puts every form in the place of what it stands for.
    fn redirect(&mut self, root: NodeId) {
        let mut last: HashMap<NodeId, NodeId> = HashMap::with_capacity(self.instead.len());
        for &start in self.instead.keys() {
            let mut way = Vec::new();
            let mut at = start;
            while let Some(&next) = self.instead.get(&at) {
                if let Some(&known) = last.get(&at) {
                    at = known;
                    break;
                }
                way.push(at);
                if way.len() > self.instead.len() {
                    break;
                }
                at = next;
            }
            // A thing that stands only for itself, by way of others, is nothing.
            if way.len() > self.instead.len() {
                at = self.document.builder().none();
            }
            last.extend(way.into_iter().map(|id| (id, at)));
        }
        self.document.builder().redirect(&last);
        if let Some(&root) = last.get(&root) {
            self.document.set_root(root);
        }
    }

    /// Makes lists of tuples that hold themselves.
    fn untie(&mut self, seen: &HashMap<NodeId, u32>) -> Result<()> {
        for _ in 0..MAX_ROUNDS {
            let Some(id) = immutable_in_itself(self.document.root()).first().copied() else {
                return Ok(());
            };
            let Kind::Tuple(items) = self.node(id).kind() else {
                return Err(Error::unsupported(format!(
                    "an object of {} is one of its own arguments",
                    what(self.node(id))
                )));
            };
            let items = items.to_vec();
            let b = self.document.builder();
            let list = b.list();
            b.append(list, &items);
            b.replace(id, list);
            let form = Form::new(list, "list").note("it holds itself");
            self.push(seen.get(&id).copied().unwrap_or(ROOT), "tuple".into(), &form)?;
        }
        Err(Error::limit(format!("more than {MAX_ROUNDS} tuples hold themselves")))
    }

    /// Whether a node can be a key as it is.
    pub(super) fn is_key(&mut self, id: NodeId) -> bool {
        let node = self.document.node(id);
        judge(node, &mut self.checked).is_ok() && unhashable(node).is_none()
    }
}
