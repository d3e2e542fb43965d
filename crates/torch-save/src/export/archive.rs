//! The tensors of the archive's models.

use std::collections::{HashMap, HashSet};

use ckptkit_core::{
    Error, Key, Limits, Result, ResultExt, Section, StorageId, Strided, Tensor, TensorBytes,
    TensorInfo, Transform, join,
};

use super::config::{self, Payload, TensorMeta};
use crate::container::{Opened, Raw};
use crate::file::{OpenOptions, TorchFile};
use crate::rebuild::TensorKind;
use crate::zip::{Archive, Member};

const MODELS: &str = "models/";

/// Where the tensors of one sort are.
struct Folder {
    path: &'static str,
    config: &'static str,
    /// What an entry is that is no parameter.
    kind: TensorKind,
}

const FOLDERS: [Folder; 2] = [
    Folder { path: "data/weights/", config: "_weights_config.json", kind: TensorKind::Buffer },
    Folder { path: "data/constants/", config: "_constants_config.json", kind: TensorKind::Plain },
];

/// Lists the archive's tensors under the names that its configs give them: weights first, then
/// constants. Where there are several models, the model's name stands before.
pub(crate) fn open(section: &Section, archive: Archive, limits: &Limits) -> Result<Opened> {
    let mut listing = Listing {
        archive: &archive,
        limits,
        swap: false,
        raw: Vec::new(),
        notes: archive.notes().to_vec(),
        used: HashSet::new(),
        sections: HashMap::new(),
        storages: HashMap::new(),
        pickled: HashMap::new(),
        objects: Vec::new(),
    };
    listing.check()?;
    let models = models(&archive);
    for model in &models {
        let prefix = match models.len() {
            1 => Vec::new(),
            _ => vec![Key::Str((*model).into())],
        };
        for folder in &FOLDERS {
            listing.folder(model, &prefix, folder)?;
        }
    }
    listing.finish();
    let (raw, notes) = (listing.raw, listing.notes);
    Ok(Opened::export(section, archive, raw, notes))
}

/// The models that have a graph, weights or constants, in the archive's order.
fn models(archive: &Archive) -> Vec<&str> {
    let mut models = Vec::new();
    let mut seen = HashSet::new();
    for name in archive.names() {
        let model = name.strip_prefix(MODELS).and_then(|n| n.strip_suffix(".json"));
        let of_folder = |f: &Folder| {
            let file = name.strip_prefix(f.path)?;
            file.strip_suffix(f.config).or_else(|| file.strip_suffix(".pt"))
        };
        if let Some(model) = model.or_else(|| FOLDERS.iter().find_map(of_folder)) {
            if seen.insert(model) {
                models.push(model);
            }
        }
    }
    models
}

struct Listing<'a> {
    archive: &'a Archive,
    limits: &'a Limits,
    /// Raw bytes are big-endian.
    swap: bool,
    raw: Vec<Raw>,
    notes: Vec<String>,
    /// Members that some config describes.
    used: HashSet<&'a str>,
    /// Windows on raw members.
    sections: HashMap<&'a str, Result<Section>>,
    /// Numbers of raw members, and of the storages in those that are archives themselves.
    storages: HashMap<(&'a str, Option<StorageId>), u32>,
    /// Which entry a nested archive was listed for.
    pickled: HashMap<&'a str, String>,
    /// Entries that are objects, not tensors.
    objects: Vec<String>,
}

impl<'a> Listing<'a> {
    fn text(&self, name: &str) -> Result<Option<String>> {
        self.archive
            .get(name)
            .map(|m| Ok(String::from_utf8_lossy(&m.section()?.read(1024)?).trim().to_owned()))
            .transpose()
            .within(|| format!("member {name}"))
    }

    fn check(&mut self) -> Result<()> {
        // An archive without it is older than the first version, which torch calls version 0.
        if let Some(version) = self.text("archive_version")?.filter(|v| v != "0") {
            return Err(Error::unsupported(format!(
                "torch.export archive version {version:?}; version 0 is known"
            ))
            .within("member archive_version"));
        }
        self.swap = match self.text("byteorder")?.as_deref() {
            None | Some("little") => false,
            Some("big") => true,
            Some(other) => {
                return Err(Error::malformed(format!(
                    "byte order {other:?}, expected little or big"
                ))
                .within("member byteorder"));
            }
        };
        if self.swap {
            self.notes.push(
                "the archive is big-endian; torch itself would not swap its raw bytes".into(),
            );
        }
        Ok(())
    }

    fn folder(&mut self, model: &str, prefix: &[Key], folder: &Folder) -> Result<()> {
        // Earlier versions of torch wrote one torch.save file, and torch still looks for that first.
        if let Some(member) = self.archive.get(&format!("{}{model}.pt", folder.path)) {
            self.used.insert(member.full_name());
            let file = self.nested(member)?;
            self.list(prefix, member, &file);
            return Ok(());
        }
        let name = format!("{}{model}{}", folder.path, folder.config);
        let Some(member) = self.archive.get(&name) else {
            self.notes.push(format!("model {model:?} has no member {name}"));
            return Ok(());
        };
        self.used.insert(member.full_name());
        let entries = member
            .section()
            .and_then(|s| s.read(self.limits.header_bytes))
            .and_then(|json| config::parse(&json, self.limits))
            .within(|| format!("member {name}"))?;
        for (name, payload) in entries {
            let mut path = prefix.to_vec();
            path.push(Key::Str(name.into()));
            if let Err(e) = payload.and_then(|payload| self.entry(&path, folder, &payload)) {
                self.push(path, Err(e), folder.kind);
            }
        }
        Ok(())
    }

    /// Lists what an entry describes; an error is that of the entry as a whole.
    fn entry(&mut self, path: &[Key], folder: &Folder, payload: &Payload) -> Result<()> {
        let name = format!("{}{}", folder.path, payload.path_name);
        let member = self.archive.get(&name);
        if let Some(member) = member {
            self.used.insert(member.full_name());
        }
        let member = member.ok_or_else(|| {
            Error::malformed(format!("its member {name} is not in the archive"))
                .hint("the file is incomplete: copy it again")
        });
        let kind = if payload.is_param { TensorKind::Parameter } else { folder.kind };
        match (&payload.tensor_meta, payload.use_pickle) {
            (Some(meta), false) => self.tensor(path, meta, kind, member),
            (None, false) => Err(Error::malformed("raw bytes without a tensor_meta")),
            (Some(_), true) => {
                let member = member?;
                let file = self.pickled(path, member)?;
                let from = self.raw.len();
                self.list(path, member, &file);
                match self.raw.get_mut(from) {
                    Some(one) if one.path == path && one.kind == TensorKind::Plain => {
                        one.kind = kind;
                    }
                    Some(_) => {}
                    None => return Err(Error::malformed(format!("no tensor is in {name}"))),
                }
                Ok(())
            }
            // A TorchScript object or any Python object.
            (None, true) => {
                let from = self.raw.len();
                if let Ok((member, file)) =
                    member.and_then(|member| Ok((member, self.pickled(path, member)?)))
                {
                    self.list(path, member, &file);
                }
                if self.raw.len() == from {
                    self.objects.push(join(path));
                }
                Ok(())
            }
        }
    }

    /// Lists a view of raw bytes.
    fn tensor(
        &mut self,
        path: &[Key],
        meta: &TensorMeta,
        kind: TensorKind,
        member: Result<Member<'a>>,
    ) -> Result<()> {
        let mut info = TensorInfo::new(join(path), meta.dtype()?, meta.shape()?)?;
        let mut kind = kind;
        let bytes = member.and_then(|member| {
            info = info.clone().in_storage(self.number(member, None));
            let key = member.full_name();
            let section = self.sections.entry(key).or_insert_with(|| member.section()).clone()?;
            let (strides, offset) = meta.geometry()?;
            if section.is_empty() && info.numel() > 0 {
                kind = TensorKind::Meta;
                return Ok(TensorBytes::None(
                    "the program was exported without this tensor's values".into(),
                ));
            }
            Ok(TensorBytes::Strided(Strided { storage: section, offset, strides }))
        });
        let bytes = bytes.unwrap_or_else(|e| TensorBytes::Broken(self.placed(path, e)));
        let transform = Transform { swap: self.swap, ..Transform::default() };
        let tensor = Tensor::with_transform(info.clone(), bytes, transform)
            .or_else(|e| Tensor::new(info, TensorBytes::Broken(self.placed(path, e))))?;
        self.push(path.to_vec(), Ok(tensor), kind);
        if let Some(raw) = self.raw.last_mut() {
            raw.requires_grad = meta.requires_grad;
            raw.location = meta.location().map(Into::into);
        }
        Ok(())
    }

    fn placed(&self, path: &[Key], e: Error) -> Error {
        e.within(format_args!("tensor {}", join(path)))
    }

    fn push(&mut self, path: Vec<Key>, tensor: Result<Tensor>, kind: TensorKind) {
        self.raw.push(Raw {
            path,
            tensor,
            kind,
            requires_grad: false,
            class: None,
            location: None,
            part_of: None,
        });
    }

    fn number(&mut self, member: Member<'a>, storage: Option<StorageId>) -> StorageId {
        let next = u32::try_from(self.storages.len()).unwrap_or(u32::MAX);
        let index = *self.storages.entry((member.full_name(), storage)).or_insert(next);
        StorageId { container: 0, index }
    }

    /// Opens the archive of one entry. Torch writes one for each; more names for one archive would
    /// let a small file list without end.
    fn pickled(&mut self, path: &[Key], member: Member<'a>) -> Result<TorchFile> {
        if let Some(first) = self.pickled.insert(member.full_name(), join(path)) {
            return Err(Error::malformed(format!(
                "its member {} is that of {first} too",
                member.name()
            )));
        }
        self.nested(member)
    }

    /// Opens a member that is a torch.save file, in place.
    fn nested(&self, member: Member<'_>) -> Result<TorchFile> {
        let within = || format!("member {}", member.name());
        if !member.is_stored() {
            return Err(Error::unsupported("an archive that is deflated within another")
                .hint("pack the outer archive again without compression (zip -0)")
                .within(within()));
        }
        let section = member.section().within(within)?;
        // Only one level, whatever the file says: the call stack must not follow it.
        if section.head::<2>().within(within)? == b"PK" {
            let inner = Archive::open(&section, self.limits).within(within)?;
            if inner.get("archive_format").is_some() {
                return Err(
                    Error::unsupported("a torch.export archive within another").within(within())
                );
            }
        }
        OpenOptions::default().limits(self.limits.clone()).open(&section).within(within)
    }

    /// Lists the tensors of a nested archive below `path`; where the archive is one tensor, that
    /// tensor has this path.
    fn list(&mut self, path: &[Key], member: Member<'a>, file: &TorchFile) {
        let whole = file.tensor_at(file.root().id()).is_some_and(|e| e.path().len() == 1);
        let base = self.raw.len();
        for entry in file.tensors() {
            let inner = entry.path();
            let mut path = path.to_vec();
            path.extend_from_slice(inner.get(usize::from(whole)..).unwrap_or(inner));
            let tensor = self.adopt(&join(&path), member, entry.tensor());
            self.raw.push(Raw {
                path,
                tensor,
                kind: entry.kind(),
                requires_grad: entry.requires_grad(),
                class: entry.class.clone(),
                location: entry.location.clone(),
                part_of: entry.part_of().map(|p| base + p),
            });
        }
        for (name, e) in file.failures() {
            let mut path = path.to_vec();
            // The root itself, where nothing else was found.
            if !(file.tensors().is_empty() && name == "tensor") {
                path.push(Key::Str(name.as_str().into()));
            }
            let e = e.clone().within(format_args!("member {}", member.name()));
            self.push(path, Err(e), TensorKind::Plain);
        }
        let noted = file.notes().iter().map(|n| format!("member {}: {n}", member.name()));
        self.notes.extend(noted);
    }

    /// The same tensor with a storage number of this archive.
    fn adopt(&mut self, name: &str, member: Member<'a>, tensor: &Tensor) -> Result<Tensor> {
        let mut info = TensorInfo::new(name, tensor.dtype(), tensor.shape())?;
        if let Some(id) = tensor.info().storage() {
            info = info.in_storage(self.number(member, Some(id)));
        }
        let bytes = match tensor.bytes() {
            TensorBytes::Broken(e) => {
                TensorBytes::Broken(e.clone().within(format_args!("member {}", member.name())))
            }
            bytes => bytes.clone(),
        };
        Tensor::with_transform(info, bytes, tensor.transform())
    }

    /// Notes what is in the archive and not in the list.
    fn finish(&mut self) {
        if let Some(first) = self.objects.first() {
            self.notes.push(format!(
                "{} constants are objects that hold no tensor, the first is {first}",
                self.objects.len()
            ));
        }
        let mut others = self.archive.members().filter(|m| {
            FOLDERS.iter().any(|f| m.name().starts_with(f.path))
                && !self.used.contains(m.full_name())
        });
        if let Some(first) = others.next() {
            let count = 1 + others.count();
            let first = first.name();
            self.notes.push(format!(
                "members that no config describes are not listed: {count}, the first is {first}"
            ));
        }
    }
}
