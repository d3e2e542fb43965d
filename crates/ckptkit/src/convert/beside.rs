//! The sidecar beside a distributed checkpoint: what flattening loses of an object, and which
//! `.metadata` it belongs to.

use std::collections::{BTreeMap, HashMap, HashSet};

use ckptkit_core::{EntryPath, Key, Layout, Limits, OutputFile, Result, Segment, Tensor, join};
use distcp::DistCheckpoint;
use torch_save::{Document, NodeId, TorchFile};

use super::flatten::Entered;
use super::job::Job;
use crate::sidecar::{self, FILE_NAME, Header, STORAGES_NAME, identity};

const METADATA: &str = ".metadata";
const META: &str = "meta.pt";

/// Adds the sidecar of a whole object that was `entered` as entries; `lightning` is laid out as
/// Lightning does it. A source that keeps no object loses nothing that could be in it.
pub(super) fn add(
    job: &mut Job<'_>,
    layout: &mut Layout,
    document: &Document,
    entered: &Entered,
    lightning: bool,
) -> Result<()> {
    let checkpoint = job.checkpoint;
    let Some(file) = checkpoint.torch_file() else { return Ok(()) };
    let mut header = Header::new(checkpoint.source_format().name());
    header.weights_key = checkpoint.weights().ok().map(|weights| weights.key.unwrap_or_default());
    header.written_with = identities(layout)?;
    let mut names = entered.tensors.clone();
    names.extend(inside(document, file, entered, lightning));
    let encoded = sidecar::encode(document, &names, &header, &Limits::default())?;
    if !encoded.extra.is_empty() {
        let bytes: u64 = encoded.extra.iter().map(Tensor::byte_len).sum();
        job.report.notes.push(format!(
            "{} storages of which entries show only parts are in {STORAGES_NAME} ({bytes} bytes)",
            encoded.extra.len()
        ));
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let storages =
            st_io::plan_file(&encoded.extra, &metadata, &st_io::WriteOptions::new())?.layout;
        for (_, file) in storages.files() {
            layout.add(EntryPath::new(STORAGES_NAME)?, file.clone())?;
        }
    }
    put(layout, encoded.json)
}

/// Takes the sidecar of a checkpoint along that was cut anew: its entries have the same names.
pub(super) fn carry(job: &Job<'_>, layout: &mut Layout, source: &DistCheckpoint) -> Result<()> {
    if job.checkpoint.torch_file().is_none() {
        return Ok(());
    }
    let read = |name: &str| -> Result<Vec<u8>> {
        source.beside(name)?.map_or_else(|| Ok(Vec::new()), |section| section.read(u64::MAX))
    };
    let written_with = identities(layout)?;
    let (old, new) = (identity(&read(METADATA)?), &written_with[METADATA]);
    let Some(json) = sidecar::moved(&read(FILE_NAME)?, &old, new) else {
        return Err(ckptkit_core::Error::malformed(format!(
            "{FILE_NAME} does not say which {METADATA} it was written with"
        )));
    };
    if let Some(storages) = source.beside(STORAGES_NAME)? {
        let mut file = OutputFile::default();
        file.push(Segment::Section(storages))?;
        layout.add(EntryPath::new(STORAGES_NAME)?, file)?;
    }
    put(layout, json)
}

fn put(layout: &mut Layout, json: Vec<u8>) -> Result<()> {
    let mut file = OutputFile::default();
    file.push(Segment::Literal(json))?;
    layout.add(EntryPath::new(FILE_NAME)?, file)
}

/// What identifies the files that the sidecar is written with.
fn identities(layout: &Layout) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (path, file) in layout.files() {
        let Some(name) = path.map(EntryPath::as_str) else { continue };
        let section = || file.clone().into_section(name);
        let identity = match (name, file.segments()) {
            // It is as large as all the rest: no copy is made for its sake.
            (METADATA, [(_, Segment::Literal(bytes))]) => identity(bytes),
            (METADATA, _) => identity(&section().read(u64::MAX)?),
            (META, _) => match TorchFile::from_section(&section())?.pickle()? {
                Some(pickle) => identity(&pickle),
                None => continue,
            },
            _ => continue,
        };
        found.insert(name.to_owned(), identity);
    }
    Ok(found)
}

/// Tensors inside objects, under the names that a reader of the checkpoint lists them by.
fn inside(
    document: &Document,
    file: &TorchFile,
    entered: &Entered,
    lightning: bool,
) -> Vec<(String, NodeId)> {
    let objects: HashSet<&str> = entered.objects.iter().map(String::as_str).collect();
    let is_inside = |path: &[Key]| (1..=path.len()).any(|n| objects.contains(&*join(&path[..n])));
    let mut found = Vec::new();
    let mut count: HashMap<String, usize> = HashMap::new();
    for (name, _) in &entered.tensors {
        *count.entry(name.clone()).or_default() += 1;
    }
    for entry in file.tensors().iter().filter(|entry| entry.tensor().has_bytes()) {
        let Some(node) = document.imported(file, entry.node()) else { continue };
        let path = if lightning { sharded(entry.path()) } else { entry.path().to_vec() };
        let of_meta = lightning && !is_sharded(&path);
        if of_meta || is_inside(&path) {
            let name = join(&path);
            *count.entry(name.clone()).or_default() += 1;
            found.push((name, node));
        }
    }
    // Names that need to be told apart are spelled in a way that depends on all others.
    found.retain(|(name, _)| count[name] == 1);
    found
}

/// Where Lightning puts what stands at `path` in a single file.
fn sharded(path: &[Key]) -> Vec<Key> {
    match path {
        [Key::Str(key), Key::Index(i), rest @ ..] if **key == *"optimizer_states" => {
            [&[Key::Str(format!("optimizer_{i}").into())], rest].concat()
        }
        path => path.to_vec(),
    }
}

/// Whether a path is one of what Lightning shards; the others lie in `meta.pt`.
fn is_sharded(path: &[Key]) -> bool {
    match path.first() {
        Some(Key::Str(key)) => **key == *"state_dict" || key.starts_with("optimizer_"),
        _ => false,
    }
}
