//! A whole checkpoint without a pickle: tensors in a format that holds only tensors, and one JSON
//! file beside them for everything else.
//!
//! A training checkpoint is an object of Python: dicts and tuples, integers as keys, optimizer
//! states, objects of classes nobody here knows, tensors that share storages. [`encode`] writes
//! that object, as the [`Document`] that `torch-save` makes of it, as JSON in which tensors are
//! names; [`decode`] makes an equal document again. Types, order, sharing, cycles, ties and views
//! survive, and the bits of every float. Equal texts become one object, as do small numbers: their
//! identity means nothing in Python.
//!
//! Beside a distributed checkpoint it keeps what flattening loses, and belongs to the save that it
//! was written with ([`Header::written_with`]). [`Checkpoint`](crate::Checkpoint) opens whatever has
//! a sidecar as the object that it keeps; conversions of whole objects write it.
//!
//! The format is specified in `docs/formats/sidecar.md`, in the repository.
//!
//! ```
//! use std::collections::HashMap;
//!
//! use ckptkit::core::Limits;
//! use ckptkit::sidecar::{self, Header};
//! use ckptkit::torch::TorchFile;
//! use ckptkit::{Tensor, TensorSource};
//!
//! # fn main() -> ckptkit::Result<()> {
//! # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
//! let file = TorchFile::open(format!("{fixtures}/lightning/adam.ckpt"))?;
//! let document = file.edit()?;
//! let names = sidecar::names(&document, &file);
//! let limits = Limits::default();
//! let encoded = sidecar::encode(&document, &names, &Header::new("lightning-ckpt"), &limits)?;
//!
//! // The checkpoint would hold these under their names, and `encoded.json` as `ckptkit.json`.
//! let mut tensors: HashMap<String, Tensor> = HashMap::new();
//! for name in &encoded.tensors {
//!     let extra = encoded.extra.iter().find(|t| t.name() == name).cloned();
//!     tensors.insert(name.clone(), extra.map_or_else(|| file.tensor(name), Ok)?);
//! }
//!
//! let restored = sidecar::decode(&encoded.json, &|name| tensors.get(name).cloned(), &limits)?;
//! let epoch = restored.at("epoch")?;
//! assert_eq!(restored.node(epoch).as_int(), file.lookup("epoch")?.as_int());
//! # Ok(())
//! # }
//! ```
//!
//! # Safety
//! What a sidecar names (classes, functions, states) is data, kept and written back; nothing is
//! looked up or called. [`Sidecar::globals`] says what a pickle made of it would have Python
//! import: show it before the file goes to a Python that trusts it.

mod base64;
mod changes;
mod cover;
mod decode;
mod encode;
mod exact;
mod indent;
mod restore;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ckptkit_core::{Limits, Result, ResultExt, Tensor};
use sha2::{Digest as _, Sha256};
use torch_save::{Document, NodeId, TorchFile};

use decode::Parsed;

/// What the file is called, beside the tensors.
pub const FILE_NAME: &str = "ckptkit.json";

/// What the file beside a distributed checkpoint is called that holds [`Encoded::extra`].
pub const STORAGES_NAME: &str = "ckptkit.safetensors";

/// What [`encode`] writes, and all that [`decode`] reads.
pub const VERSION: u64 = 1;

const FORMAT: &str = "ckptkit.sidecar";

/// What `float("nan")` gives.
const NAN: u64 = 0x7FF8_0000_0000_0000;

/// What a sidecar says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// The format that the object was read from, as [`Format`](crate::Format) is named.
    pub source_format: String,
    /// The path of the weights in the object, where one is known; empty for the root.
    pub weights_key: Option<String>,
    /// The program that wrote it, and its version.
    pub writer: String,
    /// Files beside it that it was written with, and what identifies their content: that of a
    /// distributed checkpoint belongs to one `.metadata`. See [`identity`].
    pub written_with: BTreeMap<String, String>,
}

impl Header {
    /// Of an object from this format, written by this release, without a known path of the weights.
    #[must_use]
    pub fn new(source_format: impl Into<String>) -> Self {
        Self {
            source_format: source_format.into(),
            weights_key: None,
            writer: concat!("ckptkit ", env!("CARGO_PKG_VERSION")).into(),
            written_with: BTreeMap::new(),
        }
    }
}

/// What identifies the content of a file in [`Header::written_with`]: `sha256:` and the digest of
/// these bytes in hexadecimal. They are those of the whole file, but of an archive of torch.save
/// those of its pickle ([`TorchFile::pickle`]), so that no tensor is read for it.
#[must_use]
pub fn identity(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The same sidecar for files of which one identity has become another, as when a distributed
/// checkpoint is cut for other ranks. `None` where it was not written with the first one.
#[must_use]
pub fn moved(json: &[u8], from: &str, to: &str) -> Option<Vec<u8>> {
    // Identities stand in front of everything that the object says.
    let (from, to) = (format!("{from:?}"), format!("{to:?}"));
    let at = json.windows(from.len()).position(|window| window == from.as_bytes())?;
    Some([&json[..at], to.as_bytes(), &json[at + from.len()..]].concat())
}

/// What [`encode`] gives.
#[derive(Debug)]
#[non_exhaustive]
pub struct Encoded {
    /// The file [`FILE_NAME`].
    pub json: Vec<u8>,
    /// Tensors that the checkpoint must hold in addition: the bytes of storages that no named
    /// tensor shows whole. They are called `__storage__.N`.
    pub extra: Vec<Tensor>,
    /// The names of all tensors that the JSON refers to, those of `extra` included. The checkpoint
    /// must hold them unchanged: not cast, not left out, not renamed. Others it may hold as well.
    pub tensors: Vec<String>,
}

/// The tensors of a file as nodes of a document that was made of it, under their names, in the
/// file's order: what [`encode`] wants to know.
#[must_use]
pub fn names(document: &Document, file: &TorchFile) -> Vec<(String, NodeId)> {
    file.tensors()
        .iter()
        .filter(|entry| entry.tensor().has_bytes())
        .filter_map(|entry| {
            let node = document.imported(file, entry.node())?;
            Some((entry.tensor().name().to_owned(), node))
        })
        .collect()
}

/// Whether a tensor is called as those of [`Encoded::extra`] are.
pub(crate) fn is_storage(name: &str) -> bool {
    name.starts_with("__") && name.trim_start_matches('_').starts_with("storage__.")
}

/// Writes an object as JSON. Reads no tensor.
///
/// `names` are the tensors that the checkpoint holds, and their nodes. Of several that are the same
/// part of a storage the first counts: where tied tensors are written once, under one name, that
/// name comes first. What the checkpoint cannot hold is left out of the list; its storage is then
/// among [`Encoded::extra`], as raw bytes where its dtype is one that safetensors lacks.
///
/// # Errors
/// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) when two nodes have one name, or
/// the object holds a persistent id that is no storage; what keeps a storage from being read;
/// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) when the text would be longer than
/// [`Limits::pickle_bytes`].
pub fn encode(
    document: &Document,
    names: &[(String, NodeId)],
    header: &Header,
    limits: &Limits,
) -> Result<Encoded> {
    encode::encode(document, names, header, limits)
}

/// Makes an object of JSON and tensors: [`Sidecar::parse`] and [`Sidecar::document`].
///
/// # Errors
/// As both.
pub fn decode(
    json: &[u8],
    tensors: &dyn Fn(&str) -> Option<Tensor>,
    limits: &Limits,
) -> Result<Document> {
    Sidecar::parse(json, limits)?.document(tensors)
}

/// A sidecar that has been read, but for its tensors.
pub struct Sidecar(Parsed);

impl std::fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sidecar({:?}, {} storages)", self.0.header, self.0.rows.len())
    }
}

impl Sidecar {
    /// Reads and checks the text, of at most [`Limits::pickle_bytes`] and [`Limits::nodes`].
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) with the place in the JSON;
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for another version;
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded).
    pub fn parse(json: &[u8], limits: &Limits) -> Result<Self> {
        decode::parse(json, limits).within(|| "sidecar").map(Self)
    }

    /// What it says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// The names of the tensors that it refers to, each once.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.0.rows.iter().flat_map(|row| &row.tensors).map(String::as_str)
    }

    /// Every class and function that it names, as `module.name`, sorted. The functions of torch
    /// that rebuild plain tensors and parameters come on top when a pickle is made.
    #[must_use]
    pub fn globals(&self) -> Vec<String> {
        let graph = self.0.document.root().graph();
        let names: BTreeSet<String> = graph.globals().map(|g| g.to_string()).collect();
        names.into_iter().collect()
    }

    /// The object, with the tensors of the checkpoint that `tensors` looks up by name. Reads none
    /// of them.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound), naming the tensor that is missing;
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed), naming the tensor, for one of another
    /// size or dtype;
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for one without bytes.
    pub fn document(self, tensors: &dyn Fn(&str) -> Option<Tensor>) -> Result<Document> {
        restore::restore(self.0, tensors).within(|| "sidecar")
    }
}
