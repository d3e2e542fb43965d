//! `model_config.yaml`: read by OmegaConf's rules, with the place of every value.

#[cfg(feature = "write")]
mod edit;
#[cfg(feature = "write")]
mod emit;
mod interpolate;
mod place;
mod scalar;
#[cfg_attr(not(feature = "write"), allow(dead_code, reason = "editors ask for more"))]
mod surface;
mod tree;
mod value;

use std::ops::Range;

use ckptkit_core::{Error, Result};

#[cfg(feature = "write")]
pub use emit::to_yaml;
#[cfg(feature = "write")]
pub(crate) use emit::{json_object, shown};
pub use value::Value;

use crate::limits::ArchiveLimits;
use interpolate::{Resolver, Trail, child};
use surface::Surface;
use tree::{Form, Kind, NodeId, Tree};

/// Bytes of all dotted keys together. A vocabulary of a million entries has some 30 MB of them.
const MAX_KEY_BYTES: usize = 256 << 20;

/// A model's config: the constructor arguments of its class.
#[derive(Clone, Debug)]
pub struct Config {
    text: String,
    tree: Tree,
    /// The nodes from the root of the document to the model's section, both included.
    top: Trail,
    limits: ArchiveLimits,
}

impl Config {
    /// Parses a config: YAML as OmegaConf loads it, which plain JSON is too.
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) with its line for what is not YAML, not a
    /// mapping, or has a key twice; [`Denied`](ckptkit_core::ErrorKind::Denied) for a tag;
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for depth and alias expansion.
    ///
    /// ```
    /// use nemo_archive::{Config, Value};
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// let config = Config::parse(b"lr: 1e-4\nlabels: [' ', 'n', yes]\noptim: {lr: \"${lr}\"}\n")?;
    /// assert_eq!(config.get("lr"), Some(Value::Float(0.0001)));
    /// assert_eq!(config.get("labels.2"), Some(Value::Bool(true)));
    /// assert_eq!(config.get("optim.lr"), Some(Value::Str("${lr}".into())));
    /// assert_eq!(config.resolve("optim.lr")?, Value::Float(0.0001));
    /// # Ok(())
    /// # }
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::parse_with(bytes, &ArchiveLimits::default())
    }

    /// As [`Config::parse`], within the given limits.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_with(bytes: &[u8], limits: &ArchiveLimits) -> Result<Self> {
        if bytes.len() as u64 > limits.config_bytes {
            return Err(Error::limit(format!(
                "{} bytes are more than the limit of {} bytes",
                bytes.len(),
                limits.config_bytes
            )));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Error::malformed("is not UTF-8 text").at(e.valid_up_to() as u64))?;
        let body = text.strip_prefix('\u{feff}').unwrap_or(text);
        let base = text.len() - body.len();
        check_printable(body, base)?;
        let mut tree = Tree::parse(body, base, limits)?;
        if !matches!(tree.kind(tree.root), Kind::Map(_)) {
            return Err(Error::malformed("is not a mapping of names to values"));
        }
        check_keys(&tree)?;
        let mut top = vec![tree.root];
        // A training config holds the model's under one key; NeMo goes there.
        let is_map = |id: &NodeId| matches!(tree.kind(*id), Kind::Map(_));
        let own = ["target", "_target_"].iter().any(|k| child(&tree, tree.root, k).is_some());
        if let Some(model) = child(&tree, tree.root, "model").filter(is_map).filter(|_| !own) {
            top.push(model);
            tree.notes.push("the config is a training config, its section 'model' is used".into());
        }
        Ok(Self { text: text.to_owned(), tree, top, limits: limits.clone() })
    }

    /// The text as the archive holds it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The whole config as it is written: interpolations are texts, aliases are written out.
    #[must_use]
    pub fn value(&self) -> Value {
        plain(&self.tree, self.section())
    }

    /// The value under keys and positions joined with dots (`decoder.vocabulary.0`), as it is
    /// written. A key that itself has dots in it is found too.
    #[must_use]
    pub fn get(&self, dotted: &str) -> Option<Value> {
        Some(plain(&self.tree, *self.find(dotted)?.last()?))
    }

    /// The value under a dotted key with the references in it followed. Resolvers
    /// (`${oc.env:HOME}`) stay as they are written.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) for the key or for what it refers to;
    /// `Malformed` for a cycle, `LimitExceeded` for a chain that is too long.
    pub fn resolve(&self, dotted: &str) -> Result<Value> {
        let mut trail = self
            .find(dotted)
            .ok_or_else(|| Error::not_found(format!("the config has no key {dotted:?}")))?;
        self.resolver().value(&mut trail).map_err(|e| e.within(format_args!("key {dotted}")))
    }

    /// The whole config with the references in it followed, as [`Config::resolve`].
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn resolved(&self) -> Result<Value> {
        self.resolver().value(&mut self.top.clone())
    }

    /// The bytes of [`Config::as_str`] that spell a value, quotes and brackets included: what an
    /// editor replaces. Nothing for a value that stands elsewhere, behind an alias or a merge key.
    #[must_use]
    pub fn span(&self, dotted: &str) -> Option<Range<usize>> {
        let trail = self.find(dotted)?;
        let direct = trail.windows(2).all(|step| {
            let here = &self.tree.nodes[step[0]].kind;
            match here {
                Kind::Map(pairs) => pairs.iter().any(|p| p.value == step[1] && !p.merged),
                Kind::List(_) => true,
                _ => false,
            }
        });
        let node = &self.tree.nodes[*trail.last()?];
        match node.form {
            _ if !direct => None,
            Form::Alias => None,
            Form::Container | Form::Empty => {
                let surface = Surface { text: &self.text, tree: &self.tree };
                Some(surface.places(&trail)?.pop()?.span)
            }
            _ => Some(node.span.clone()),
        }
    }

    /// The class of the model, by its dotted path. A name, never looked up.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.top_text("target").or_else(|| self.top_text("_target_"))
    }

    /// The release of NeMo that wrote the archive, where it says so (since 1.7).
    #[must_use]
    pub fn nemo_version(&self) -> Option<&str> {
        self.top_text("nemo_version")
    }

    /// Every text of the config that is a value, with its dotted key, in the order of the file.
    #[must_use]
    pub fn strings(&self) -> Vec<(String, &str)> {
        let mut out = Vec::new();
        // (node, key), the next one last.
        let mut pending = vec![(self.section(), String::new())];
        while let Some((id, key)) = pending.pop() {
            let below = |step: &str| {
                if key.is_empty() { step.to_owned() } else { format!("{key}.{step}") }
            };
            match self.tree.kind(id) {
                Kind::Scalar(Value::Str(s)) => out.push((key, s.as_str())),
                Kind::List(items) => {
                    let items = items.iter().enumerate().rev();
                    pending.extend(items.map(|(i, &item)| (item, below(&i.to_string()))));
                }
                Kind::Map(pairs) => pending.extend(pairs.iter().rev().map(|p| {
                    let step = self.tree.scalar(p.key).and_then(value::text).unwrap_or_default();
                    (p.value, below(&step))
                })),
                _ => {}
            }
        }
        out
    }

    /// What is strange but was read.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.tree.notes
    }

    fn section(&self) -> NodeId {
        self.top.last().copied().unwrap_or(self.tree.root)
    }

    fn top_text(&self, key: &str) -> Option<&str> {
        value::as_str(self.tree.scalar(child(&self.tree, self.section(), key)?)?)
    }

    fn resolver(&self) -> Resolver<'_> {
        let nodes = self.tree.expanded();
        Resolver {
            tree: &self.tree,
            depth: self.limits.interpolation_depth,
            budget: nodes.saturating_add(self.limits.yaml_expansion),
            active: Vec::new(),
            level: 0,
        }
    }

    /// The nodes from the root to what a dotted key names.
    fn find(&self, dotted: &str) -> Option<Trail> {
        let mut trail = self.top.clone();
        if dotted.is_empty() {
            return Some(trail);
        }
        let parts: Vec<&str> = dotted.split('.').collect();
        self.descend(&parts, &mut trail).then_some(trail)
    }

    fn descend(&self, parts: &[&str], trail: &mut Trail) -> bool {
        let Some(&here) = trail.last() else { return false };
        if parts.is_empty() {
            return true;
        }
        // More than a few dots in one key never happen, and trying all would be exponential.
        for n in
            1..=parts.len().min(if matches!(self.tree.kind(here), Kind::Map(_)) { 4 } else { 1 })
        {
            let Some(next) = child(&self.tree, here, &parts[..n].join(".")) else { continue };
            trail.push(next);
            if self.descend(&parts[n..], trail) {
                return true;
            }
            trail.pop();
        }
        false
    }

    /// A config that says this, in the words of [`to_yaml`].
    ///
    /// # Errors
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for values of types that YAML lacks;
    /// those of [`Config::parse`], for what is no mapping.
    #[cfg(feature = "write")]
    pub fn from_value(value: &Value) -> Result<Self> {
        Self::parse(to_yaml(value)?.as_bytes())
    }

    /// The config of another text, within the same limits.
    #[cfg(feature = "write")]
    pub(crate) fn with_text(&self, text: impl AsRef<[u8]>) -> Result<Self> {
        Self::parse_with(text.as_ref(), &self.limits)
    }
}

/// The value at a node as it is written: aliases are written out, interpolations are texts.
fn plain(tree: &Tree, id: NodeId) -> Value {
    match tree.kind(id) {
        Kind::Scalar(v) => v.clone(),
        Kind::List(items) => Value::List(items.iter().map(|&i| plain(tree, i)).collect()),
        Kind::Map(pairs) => Value::Dict(
            pairs
                .iter()
                .map(|p| {
                    let key = tree.scalar(p.key).cloned().unwrap_or(Value::None);
                    (key, plain(tree, p.value))
                })
                .collect(),
        ),
        Kind::Alias(_) => Value::None,
    }
}

/// Refuses characters that YAML does not allow in a text that starts at the byte `base`.
fn check_printable(text: &str, base: usize) -> Result<()> {
    match text.char_indices().find(|&(_, c)| !is_printable(c)) {
        Some((at, c)) => {
            Err(Error::malformed(format!("holds the control character {c:?}"))
                .at((base + at) as u64))
        }
        None => Ok(()),
    }
}

/// Refuses a config whose dotted keys, all written out, would fill the memory: long keys around
/// many values.
fn check_keys(tree: &Tree) -> Result<()> {
    const INDEX: usize = 8;
    let mut total = 0_usize;
    let mut pending = vec![(tree.root, 0_usize)];
    while let Some((id, len)) = pending.pop() {
        match tree.kind(id) {
            Kind::List(items) => pending.extend(items.iter().map(|&i| (i, len + INDEX))),
            Kind::Map(pairs) => pending.extend(pairs.iter().map(|p| {
                let key = &tree.nodes[tree.follow(p.key)].span;
                (p.value, len + key.len() + 1)
            })),
            _ => total = total.saturating_add(len),
        }
        if total > MAX_KEY_BYTES {
            return Err(Error::limit(format!(
                "the dotted keys of all values are longer than {MAX_KEY_BYTES} bytes"
            )));
        }
    }
    Ok(())
}

/// What YAML 1.1 allows in a text; a NUL would end it for the parser.
fn is_printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{85}' | ' '..='~')
        || (c >= '\u{a0}' && !matches!(c, '\u{fffe}' | '\u{ffff}'))
}
