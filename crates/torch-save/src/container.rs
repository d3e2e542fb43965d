//! Which of torch's containers a file is, and where its storages lie.

use std::sync::Arc;

use ckptkit_core::hash::HashMap;
use ckptkit_core::{Error, ErrorKind, Key, Limits, Result, ResultExt, Section, Tensor};

use crate::detect;
use crate::document::Stored;
use crate::file::Verified;
use crate::legacy::{self, Legacy};
use crate::pickle::{Graph, Kind, NodeRef};
use crate::rebuild::{self, Form, Spec, TensorKind};
use crate::storage::StorageRef;
use crate::tar_era::{self, TarEra};
use crate::zip::{self, Archive};

/// The containers that torch.save and its relatives have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Container {
    /// A zip archive: torch 1.6 and later.
    Zip,
    /// A stream of pickles and storages: torch 0.1.10 to 1.5.
    Legacy,
    /// A tar archive: before 0.1.10.
    TarEra,
    /// A pickle without storages.
    Pickle,
    /// A TorchScript archive.
    TorchScript,
    /// A torch.export archive (`.pt2`).
    TorchExport,
}

impl Container {
    /// The word for it in listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zip => "zip",
            Self::Legacy => "legacy",
            Self::TarEra => "tar-era",
            Self::Pickle => "pickle",
            Self::TorchScript => "torchscript",
            Self::TorchExport => "torch-export",
        }
    }
}

/// One pickled object of the container.
pub(crate) struct Object {
    pub(crate) graph: Graph,
    /// What stands before the paths in it.
    pub(crate) prefix: Vec<Key>,
    /// The folder of its storages.
    pub(crate) folder: &'static str,
}

/// A tensor that the container's pickle does not describe (torch.export).
pub(crate) struct Raw {
    pub(crate) path: Vec<Key>,
    /// Under any name; why there is none, where not even a shape is known.
    pub(crate) tensor: Result<Tensor>,
    pub(crate) kind: TensorKind,
    pub(crate) requires_grad: bool,
    pub(crate) class: Option<Arc<str>>,
    pub(crate) location: Option<Arc<str>>,
    /// It is a part of the tensor with this position in the list.
    pub(crate) part_of: Option<usize>,
}

enum Store {
    None,
    Zip(Archive),
    Legacy(std::collections::HashMap<String, Section>),
    TarEra(TarEra),
    Memory(HashMap<String, Stored>),
}

/// Where the storages of an object lie that were found together: by the number of the archive's
/// member, until someone takes them.
#[derive(Default)]
pub(crate) struct Located {
    sections: Vec<Option<Result<Section>>>,
    /// The members by the numbers that torch names storages with, plus one.
    by_key: Vec<u32>,
}

impl Located {
    /// More than the highest number of a member in it.
    pub(crate) fn len(&self) -> usize {
        self.sections.len()
    }

    pub(crate) fn take(&mut self, member: usize) -> Option<Result<Section>> {
        self.sections.get_mut(member).and_then(Option::take)
    }

    /// The member that is named with a number, as it is spelled.
    fn numbered(&self, key: &str) -> Option<usize> {
        let member = *self.by_key.get(decimal(key)?)?;
        usize::try_from(member).ok()?.checked_sub(1)
    }
}

/// The number that a key is, if it would be written so.
fn decimal(key: &str) -> Option<usize> {
    /// More digits are no position in a list of members.
    const MAX_DIGITS: usize = 9;
    if key.is_empty() || key.len() > MAX_DIGITS || key.len() > 1 && key.starts_with('0') {
        return None;
    }
    key.bytes()
        .try_fold(0, |n, digit| digit.is_ascii_digit().then(|| 10 * n + usize::from(digit - b'0')))
}

/// An opened container. There is always an object; a torch.export archive's is `None`.
pub(crate) struct Opened {
    pub(crate) container: Container,
    pub(crate) objects: Vec<Object>,
    pub(crate) raw: Vec<Raw>,
    pub(crate) big_endian: bool,
    pub(crate) notes: Vec<String>,
    /// The pickle of the first object; empty where there is none.
    pub(crate) pickle: Section,
    store: Store,
    name: String,
}

const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
/// An empty zip archive: torch refuses it, but its kind is clear.
const END_RECORD: &[u8] = b"PK\x05\x06";

pub(crate) fn open(section: &Section, limits: &Limits) -> Result<Opened> {
    let head = section.head::<{ detect::HEAD }>()?;
    if head.starts_with(LOCAL_HEADER) || head.starts_with(END_RECORD) {
        return open_zip(section, limits);
    }
    if tar_era::detect(section) {
        let (graph, pickle, tar) = tar_era::open(section, limits)?;
        return Ok(Opened {
            pickle,
            ..Opened::new(Container::TarEra, graph, Store::TarEra(tar), section)
        });
    }
    if legacy::detect(section) {
        let Legacy { graph, pickle, storages, notes } = legacy::open(section, limits)?;
        return Ok(Opened {
            notes,
            pickle,
            ..Opened::new(Container::Legacy, graph, Store::Legacy(storages), section)
        });
    }
    match detect::foreign(&head, section) {
        Some(error) => Err(error),
        None => open_pickle(section, &head, limits),
    }
}

fn open_pickle(section: &Section, head: &[u8], limits: &Limits) -> Result<Opened> {
    let (graph, end) = legacy::pickle_at(section, 0, limits).map_err(|e| match e.kind() {
        ErrorKind::Malformed => detect::unknown(head, e.message()),
        _ => e,
    })?;
    // Text can happen to be a pickle of the textual protocols. Real ones say more than one word,
    // and nothing follows them.
    let is_word = !matches!(
        graph.root().kind(),
        Kind::List
            | Kind::Dict
            | Kind::Set
            | Kind::Tuple(_)
            | Kind::Reduce { .. }
            | Kind::NewObj { .. }
    );
    if graph.protocol() == 0 && (is_word || end < section.len()) {
        return Err(detect::unknown(head, "what follows the first object is something else"));
    }
    let pickle = section.slice(0, end)?;
    let mut opened =
        Opened { pickle, ..Opened::new(Container::Pickle, graph, Store::None, section) };
    if end < section.len() {
        opened
            .notes
            .push(format!("{} bytes follow the pickle and are ignored", section.len() - end));
    }
    Ok(opened)
}

fn open_zip(section: &Section, limits: &Limits) -> Result<Opened> {
    let archive = Archive::open(section, limits)?;
    let mut notes = archive.notes().to_vec();
    let text = |name: &str| -> Result<Option<String>> {
        archive
            .get(name)
            .map(|m| Ok(String::from_utf8_lossy(&m.section()?.read(1024)?).into_owned()))
            .transpose()
            .within(|| format!("member {name}"))
    };
    if text("archive_format")?.as_deref().map(str::trim) == Some("pt2") {
        return crate::export::open(section, archive, limits);
    }
    match text("version")? {
        Some(version) => match version.trim().parse::<u64>() {
            Ok(1..=10) => {}
            _ => {
                return Err(Error::unsupported(format!(
                    "file format version {:?}; versions 1 to 10 are known",
                    version.trim()
                ))
                .within("member version"));
            }
        },
        None => notes.push("there is no member `version`, which every torch wants".into()),
    }
    let byte_order = text("byteorder")?;
    if byte_order.as_ref().is_some_and(|order| order.trim() != order) {
        notes.push("there are spaces around the byte order, which torch refuses".into());
    }
    let big_endian = match byte_order.as_deref().map(str::trim) {
        None | Some("little") => false,
        Some("big") => true,
        Some(other) => {
            return Err(Error::malformed(format!("byte order {other:?}, expected little or big"))
                .within("member byteorder"));
        }
    };
    let mut pickle = |name: &str| -> Result<(Graph, Section)> {
        let member = archive.get(name).ok_or_else(|| {
            Error::malformed(format!("the archive has no member {name}"))
                .hint("it is a zip archive, but no checkpoint that torch.save wrote")
        })?;
        let section = member.section()?;
        let graph = Graph::read(&section, limits).within(|| format!("member {name}"))?;
        let end = graph.consumed() as u64;
        if end < section.len() {
            notes.push(format!(
                "{} bytes follow the pickle in {name} and are ignored",
                section.len() - end
            ));
        }
        Ok((graph, section.slice(0, end)?))
    };
    let (graph, data) = pickle("data.pkl")?;
    let script = archive.get("constants.pkl").is_some();
    let constants = if script { Some(pickle("constants.pkl")?.0) } else { None };
    let container = if script { Container::TorchScript } else { Container::Zip };
    let mut opened = Opened {
        big_endian,
        notes,
        pickle: data,
        ..Opened::new(container, graph, Store::Zip(archive), section)
    };
    if let Some(graph) = constants {
        opened.objects.push(Object {
            graph,
            prefix: vec![Key::Str("constants".into())],
            folder: "constants",
        });
    }
    Ok(opened)
}

impl Opened {
    fn new(container: Container, graph: Graph, store: Store, section: &Section) -> Self {
        Self {
            container,
            objects: vec![Object { graph, prefix: Vec::new(), folder: "data" }],
            raw: Vec::new(),
            big_endian: false,
            notes: Vec::new(),
            pickle: Section::from_bytes([], section.name()),
            store,
            name: section.name().to_owned(),
        }
    }

    /// An object whose storages, by their keys, are where a document found them.
    pub(crate) fn of_document(
        graph: Graph,
        storages: HashMap<String, Stored>,
        section: &Section,
    ) -> Self {
        Self::new(Container::Zip, graph, Store::Memory(storages), section)
    }

    /// A storage that a document has given.
    pub(crate) fn stored(&self, key: &str) -> Option<&Stored> {
        match &self.store {
            Store::Memory(storages) => storages.get(key),
            _ => None,
        }
    }

    /// A torch.export archive: raw tensors and no object.
    #[cfg(feature = "export")]
    pub(crate) fn export(
        section: &Section,
        archive: Archive,
        raw: Vec<Raw>,
        notes: Vec<String>,
    ) -> Self {
        Self {
            raw,
            notes,
            ..Self::new(Container::TorchExport, Graph::none(), Store::Zip(archive), section)
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Describes a node of object `part` that is a tensor.
    pub(crate) fn recognise<'a>(
        &'a self,
        _part: usize,
        node: NodeRef<'a>,
    ) -> Option<Result<Spec<'a>>> {
        let Store::TarEra(tar) = &self.store else { return rebuild::recognise(node) };
        match node.kind() {
            Kind::PersId(id) => self.tar_tensor(tar, &tar_era::persistent_key(node.other(id))?),
            _ => {
                let spec = rebuild::recognise(node)?;
                // A parameter around a persistent id.
                Some(spec.and_then(|spec| match (&spec.form, node.call()) {
                    (Form::Persistent, Some((_, args))) => {
                        let data = args.first().and_then(|&d| self.recognise(0, d));
                        let inner = data.unwrap_or_else(|| {
                            Err(Error::malformed("a parameter's data is not in the archive"))
                        })?;
                        Ok(Spec {
                            kind: TensorKind::Parameter,
                            requires_grad: spec.requires_grad,
                            ..inner
                        })
                    }
                    _ => Ok(spec),
                }))
            }
        }
    }

    fn tar_tensor<'a>(&self, tar: &'a TarEra, key: &str) -> Option<Result<Spec<'a>>> {
        let tensor = tar.tensors.get(key)?;
        let spec = tar.storages.get(&tensor.storage).map(|stored| {
            let unit = stored.dtype.element_bytes().unwrap_or(1);
            let storage = StorageRef {
                key: tensor.storage.as_str().into(),
                dtype: Some(stored.dtype),
                location: "cpu".into(),
                numel: stored.bytes.len() / unit,
                view: None,
            };
            let form = Form::Strided {
                storage,
                offset: tensor.offset,
                strides: tensor.strides.clone(),
                conj: false,
                neg: false,
            };
            Spec {
                kind: TensorKind::Plain,
                dtype: stored.dtype,
                shape: tensor.shape.clone(),
                form,
                requires_grad: false,
                class: None,
                parts: Vec::new(),
            }
        });
        Some(spec.ok_or_else(|| {
            Error::malformed(format!("storage {} is not in the archive", tensor.storage))
        }))
    }

    /// Finds all storages of object `part` together, which in an archive takes far fewer reads than
    /// one by one.
    pub(crate) fn locate(&self, part: usize) -> Located {
        let Store::Zip(archive) = &self.store else { return Located::default() };
        let folder = self.folder(part);
        let mut located = Located::default();
        let mut members = Vec::new();
        for member in archive.members() {
            let Some(key) = zip::below(member.name(), folder) else { continue };
            members.push(member);
            // torch counts its storages, so that no number is above that of the members.
            if let Some(n) = decimal(key).filter(|n| *n < archive.len()) {
                if located.by_key.len() <= n {
                    located.by_key.resize(n + 1, 0);
                }
                located.by_key[n] = u32::try_from(member.number() + 1).unwrap_or(0);
            }
        }
        let most = members.last().map_or(0, |m| m.number() + 1);
        located.sections.resize_with(most, || None);
        archive.sections(&members, |member, section| {
            located.sections[member.number()] = Some(section);
        });
        located
    }

    /// The number of the archive's member that a storage of object `part` is, where its name is the
    /// key as it is spelled.
    pub(crate) fn member(&self, part: usize, key: &str, located: &Located) -> Option<usize> {
        let Store::Zip(archive) = &self.store else { return None };
        if let Some(member) = located.numbered(key) {
            return Some(member);
        }
        let member = archive.get_in(self.folder(part), key)?;
        member.name().ends_with(key).then(|| member.number())
    }

    fn folder(&self, part: usize) -> &'static str {
        self.objects.get(part).map_or("data", |o| o.folder)
    }

    /// The bytes of a storage of object `part`, however many they are.
    pub(crate) fn storage(&self, part: usize, key: &str, located: &mut Located) -> Result<Section> {
        let found = match &self.store {
            Store::None => None,
            Store::Memory(storages) => storages.get(key).map(Stored::section),
            Store::TarEra(tar) => tar.storages.get(key).map(|s| Ok(s.bytes.clone())),
            Store::Legacy(storages) => storages.get(key).map(|s| Ok(s.clone())),
            Store::Zip(archive) => archive
                .get_in(self.folder(part), key)
                .map(|m| located.take(m.number()).unwrap_or_else(|| m.section())),
        };
        found.unwrap_or_else(|| {
            Err(Error::malformed("its bytes are not in the file")
                .hint("the file is incomplete: copy it again"))
        })
    }

    /// The checksum that the archive has for the whole of a storage, where it has one.
    pub(crate) fn crc(&self, part: usize, key: &str) -> Option<u32> {
        let Store::Zip(archive) = &self.store else { return None };
        archive.get_in(self.folder(part), key)?.crc()
    }

    /// The archive that it is in.
    pub(crate) fn archive(&self) -> Option<&Archive> {
        match &self.store {
            Store::Zip(archive) => Some(archive),
            _ => None,
        }
    }

    pub(crate) fn verify(&self) -> Result<Verified> {
        let mut out = Verified::default();
        if let Store::Zip(archive) = &self.store {
            let names: Vec<String> = archive.names().map(str::to_owned).collect();
            for name in &names {
                let Some(member) = archive.get(name) else { continue };
                match member.crc() {
                    None => out.unchecked += 1,
                    Some(_) if member.check_crc().within(|| format!("member {name}"))? => {
                        out.checksums += 1
                    }
                    Some(_) => {
                        return Err(Error::malformed("its bytes differ from its checksum")
                            .within(format_args!("member {name}"))
                            .hint("the file is damaged: copy it again"));
                    }
                }
            }
        }
        Ok(out)
    }
}
