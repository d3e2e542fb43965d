//! Makes an object plain enough for `torch.load(weights_only=True)`, and says what that changed.
//!
//! What [`weights_only`] accepts stays as it is, node by node: types, order,
//! shared objects, ties. What it refuses becomes the plain thing that is nearest:
//!
//! | was | becomes |
//! | --- | --- |
//! | a pickle of another protocol, in a stream or a tar archive | protocol 2 in a zip archive |
//! | OmegaConf's `DictConfig`, `ListConfig`, value nodes | dict, list, value; interpolations and `???` stay text |
//! | `Namespace`, `SimpleNamespace`, dataclass, any object with attributes | dict of the attributes |
//! | enum member, object made of one plain value | that value |
//! | named tuple, slice | tuple |
//! | `defaultdict`, subclass of dict | dict; an `OrderedDict` where it has attributes, which keeps them |
//! | `deque`, `range`, subclass of list | list |
//! | `frozenset` | set; tuple where it is a key |
//! | path, date, time, timedelta, `Decimal`, `Fraction`, UUID | text: `str()`, for dates and times `isoformat()` |
//! | NumPy scalar, NumPy's dtype | number or text; the dtype's name |
//! | NumPy array of numbers | tensor of the same dtype and shape |
//! | NumPy array of text or objects | nested lists |
//! | class, function | text, `module.name` |
//! | `nn.Module` | its state dict |
//! | tensor of a subclass, `Buffer`, `Variable`, old forms of tensors | tensor; attributes stay |
//! | integer of more than 255 bytes | text, in decimal |
//! | a set of what cannot be hashed any more | list |
//! | a tuple that holds itself | list |
//! | any other object or call | dict that describes it: `$type`, and `args`, `kwargs`, `state`, `items`, `pairs` where there are any |
//!
//! Keys of dicts and items of sets become what can be hashed: text, numbers, tuples. Where two keys
//! would become one, the later is spelled out.

mod arrays;
mod calls;
mod config;
mod forms;
mod keys;
mod modules;
mod objects;
mod tensors;
mod walk;

use std::borrow::Cow;

use ckptkit_core::{Error, OutputFile, Result, ResultExt, TensorBytes};

use crate::container::Container;
use crate::document::Document;
use crate::file::TorchFile;
use crate::weights_only::{self, Opcode, Standing};
use crate::write::WriteOptions;

/// How an object is made plain.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SanitizeOptions {
    /// Refuse what could only be described, and tensors that are damaged. Default: no.
    pub strict: bool,
    /// Keep the state dicts of pickled modules; else their place says only which class they were
    /// of. Default: yes.
    pub modules: bool,
    /// How the file is laid out.
    pub write: WriteOptions,
}

impl Default for SanitizeOptions {
    fn default() -> Self {
        Self { strict: false, modules: true, write: WriteOptions::default() }
    }
}

impl SanitizeOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// One object that became another one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Where it stands, by the keys of the result joined with dots; empty for the whole.
    pub path: String,
    /// How many there are: this one, and others of its class in the same list.
    pub count: u64,
    /// Whether it is the last key of the path, and not the value under it.
    pub is_key: bool,
    /// Its class, or what it was.
    pub was: String,
    /// What it is now.
    pub became: Cow<'static, str>,
    /// What else is to be said: what the plain form does not hold.
    pub note: Option<String>,
    /// Whether nothing plain stands for it, so that it is described instead.
    pub described: bool,
}

/// What was done to a file so that `weights_only=True` loads it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SanitizeReport {
    /// What the file's container was; the result is a zip archive.
    pub container: Container,
    /// Opcodes of the pickle that torch does not know: the same is said in others.
    pub opcodes: Vec<Opcode>,
    /// The objects that became others, in the order of the file.
    pub changes: Vec<Change>,
    /// Modules that must be imported before torch loads the result.
    pub imports: Vec<&'static str>,
    /// Tensors that no loader loads, for what is wrong with them, and why: (name, why). They stay as
    /// they are.
    pub broken: Vec<(String, Error)>,
}

impl SanitizeReport {
    /// Whether the file loads as it is, so that nothing had to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.opcodes.is_empty() && !self.is_moved()
    }

    fn is_moved(&self) -> bool {
        !matches!(self.container, Container::Zip | Container::Legacy)
    }
}

/// A file that is planned, and not written yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sanitized {
    /// Every byte of the file.
    pub layout: OutputFile,
    /// What is different in it.
    pub report: SanitizeReport,
}

impl Document {
    /// Makes everything in the object plain that `torch.load(weights_only=True)` refuses, as
    /// [`sanitize`](crate::sanitize) says; gives what changed, in the order of the file. Reads no
    /// tensor. Costs time linear in the graph.
    ///
    /// # Errors
    /// With [`strict`](SanitizeOptions::strict)
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported), naming the first object that nothing
    /// plain stands for; `Unsupported` too for an object that is one of its own arguments, which
    /// Python cannot make;
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for files that make far more out
    /// of the same bytes than they have.
    pub fn sanitize(&mut self, options: &SanitizeOptions) -> Result<Vec<Change>> {
        walk::run(self, options)
    }
}

impl TorchFile {
    /// Plans a copy of the file that `torch.load(weights_only=True)` loads; see
    /// [`sanitize`](crate::sanitize). A file that it loads already keeps its very pickle. Reads no
    /// tensor.
    ///
    /// ```
    /// use ckptkit_core::{CopyOptions, Existing, Layout};
    /// use torch_save::TorchFile;
    /// use torch_save::sanitize::SanitizeOptions;
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let plain = dir.path().join("plain.ckpt");
    /// let file = TorchFile::open(format!("{fixtures}/lightning/hparams_namespace.ckpt"))?;
    /// assert!(!file.weights_only()?.is_empty());
    ///
    /// let plan = file.sanitize(&SanitizeOptions::new())?;
    /// for change in &plan.report.changes {
    ///     println!("{}: {} → {}", change.path, change.was, change.became);
    /// }
    /// Layout::file(plan.layout).write(&plain, Existing::Refuse, &CopyOptions::default())?;
    ///
    /// assert!(TorchFile::open(&plain)?.weights_only()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TorchFile::edit`], [`Document::sanitize`] and [`Document::layout`]; with
    /// [`strict`](SanitizeOptions::strict) whatever keeps a tensor from being loaded.
    pub fn sanitize(&self, options: &SanitizeOptions) -> Result<Sanitized> {
        let mut report = SanitizeReport {
            container: self.container(),
            opcodes: self.refused_opcodes()?,
            changes: Vec::new(),
            imports: Vec::new(),
            broken: self.broken(),
        };
        if let (true, Some((_, e))) = (options.strict, report.broken.first()) {
            return Err(e.clone());
        }
        for global in self.graph().globals() {
            if let Standing::AllowedAfter(module) = weights_only::standing(global) {
                if !report.imports.contains(&module) {
                    report.imports.push(module);
                }
            }
        }
        let mut document = self.edit()?;
        if !report.opcodes.is_empty() || !weights_only::accepts(self.root()) {
            report.changes = document.sanitize(options).in_file(self.section().name())?;
        }
        let layout = document.into_layout(&options.write).in_file(self.section().name())?;
        Ok(Sanitized { layout, report })
    }

    fn broken(&self) -> Vec<(String, Error)> {
        let tensors = self.tensors().iter().filter_map(|entry| match entry.tensor().bytes() {
            TensorBytes::Broken(e) => Some((entry.tensor().name().to_owned(), e.clone())),
            _ => None,
        });
        self.failures().iter().cloned().chain(tensors).collect()
    }
}
