//! Distributed checkpoints made by hand, in memory.
#![allow(dead_code, unreachable_pub, reason = "each test and bench uses a part of it")]
#![allow(clippy::cast_possible_truncation, reason = "what is made here is small")]

pub mod item;
pub mod pickle;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use ckptkit_core::{Error, ReadAt, Result, Section};
use distcp::{DistCheckpoint, StorageReader};

use pickle::{P, object, s, size};

pub const META: &str = "torch.distributed.checkpoint.metadata";
pub const FILESYSTEM: &str = "torch.distributed.checkpoint.filesystem";

/// What `.metadata` says, to be bent as a test needs.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pub entries: Vec<(P, P)>,
    pub storage: Vec<(P, P)>,
    pub planner: Vec<(P, P)>,
    /// Further attributes.
    pub more: Vec<(&'static str, P)>,
}

impl Metadata {
    pub fn tensor(
        &mut self,
        fqn: &str,
        dtype: &'static str,
        dims: &[i64],
        chunks: &[(&[i64], &[i64])],
    ) {
        self.entries.push((s(fqn), tensor(dtype, dims, chunks)));
    }

    pub fn bytes(&mut self, fqn: &str) {
        self.entries.push((s(fqn), P::Obj(META, "BytesStorageMetadata", None)));
    }

    pub fn place(&mut self, fqn: &str, offset: Option<&[i64]>, file: &str, at: i64, len: i64) {
        self.storage.push((index(fqn, offset), place(file, at, len)));
    }

    pub fn path(&mut self, fqn: &str, path: Vec<P>) {
        self.planner.push((s(fqn), P::Tuple(path)));
    }

    pub fn pickle(&self) -> Vec<u8> {
        let mut fields = vec![
            ("state_dict_metadata", P::Dict(self.entries.clone())),
            ("planner_data", P::Dict(self.planner.clone())),
            ("storage_data", P::Dict(self.storage.clone())),
        ];
        fields.extend(self.more.iter().cloned());
        pickle::pickle(&object(META, "Metadata", fields))
    }
}

pub fn properties(dtype: P) -> P {
    let layout = P::Call("torch.serialization", "_get_layout", vec![s("torch.strided")]);
    let format = P::Call(META, "_MEM_FORMAT_ENCODING", vec![P::Int(0)]);
    let state = vec![dtype, layout, P::Bool(false), format, P::Bool(false)];
    P::Obj(META, "TensorProperties", Some(Box::new(P::Tuple(state))))
}

pub fn chunk(offsets: P, sizes: P) -> P {
    object(META, "ChunkStorageMetadata", vec![("offsets", offsets), ("sizes", sizes)])
}

pub fn tensor(dtype: &'static str, dims: &[i64], chunks: &[(&[i64], &[i64])]) -> P {
    let chunks = chunks.iter().map(|(o, n)| chunk(size(o), size(n))).collect();
    tensor_of(properties(P::Global("torch", dtype)), size(dims), P::List(chunks))
}

pub fn tensor_of(properties: P, dims: P, chunks: P) -> P {
    let fields = vec![("properties", properties), ("size", dims), ("chunks", chunks)];
    object(META, "TensorStorageMetadata", fields)
}

pub fn index(fqn: &str, offset: Option<&[i64]>) -> P {
    let mut fields = vec![("fqn", s(fqn)), ("index", P::None)];
    fields.extend(offset.map(|o| ("offset", size(o))));
    object(META, "MetadataIndex", fields)
}

pub fn place(file: &str, at: i64, len: i64) -> P {
    let fields = vec![("relative_path", s(file)), ("offset", P::Int(at)), ("length", P::Int(len))];
    object(FILESYSTEM, "_StorageInfo", fields)
}

pub fn transformed(file: &str, at: i64, len: i64, transforms: &[&str]) -> P {
    let transforms = transforms.iter().map(|t| s(t)).collect();
    let fields = vec![
        ("relative_path", s(file)),
        ("offset", P::Int(at)),
        ("length", P::Int(len)),
        ("transform_descriptors", P::List(transforms)),
    ];
    object(FILESYSTEM, "_StorageInfo", fields)
}

/// Files in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory(pub BTreeMap<String, Vec<u8>>);

impl Memory {
    /// Adds an item to a file and says where it lies.
    pub fn item(&mut self, file: &str, bytes: &[u8]) -> (i64, i64) {
        let file = self.0.entry(file.to_owned()).or_default();
        let at = file.len();
        file.extend_from_slice(bytes);
        (at as i64, bytes.len() as i64)
    }

    pub fn open(&self, metadata: &Metadata) -> Result<DistCheckpoint> {
        self.open_bytes(metadata.pickle())
    }

    /// A file, for storages around this one.
    pub fn open_section(&self, relative: &str) -> Result<Section> {
        StorageReader::open(self, relative)
    }

    pub fn open_bytes(&self, metadata: Vec<u8>) -> Result<DistCheckpoint> {
        let mut files = self.clone();
        files.0.insert(".metadata".into(), metadata);
        DistCheckpoint::with_storage(Box::new(files))
    }
}

impl StorageReader for Memory {
    fn open(&self, relative: &str) -> Result<Section> {
        let bytes = self.0.get(relative).ok_or_else(|| Error::not_found("no such file"))?;
        Ok(Section::from_bytes(bytes.clone(), relative))
    }

    fn list(&self) -> Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn size(&self, relative: &str) -> Result<Option<u64>> {
        Ok(self.0.get(relative).map(|b| b.len() as u64))
    }

    fn name(&self) -> String {
        "memory".into()
    }
}

/// One metadata file, and data files of any length that hold nothing.
pub struct Hollow(pub Vec<u8>);

struct Zeros;

impl ReadAt for Zeros {
    fn size(&self) -> u64 {
        1 << 50
    }
    fn read_exact_at(&self, _: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        Ok(())
    }
}

impl StorageReader for Hollow {
    fn open(&self, relative: &str) -> Result<Section> {
        Ok(match relative {
            ".metadata" => Section::from_bytes(self.0.clone(), relative),
            _ => Section::new(Arc::new(Zeros)),
        })
    }

    fn list(&self) -> Result<Vec<String>> {
        Ok(vec![".metadata".into()])
    }
}
