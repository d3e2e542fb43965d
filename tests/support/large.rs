//! Checkpoints of many gigabytes in files that are nearly all hole: every header is there, and where
//! the tensors' bytes belong there is nothing on the disk.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use crate::pickle::{self, fields, int, list, none, text, vector};

/// How large a checkpoint is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Tensors in it.
    pub tensors: u64,
    /// Elements of each, of four bytes.
    pub elements: u64,
}

impl Size {
    fn bytes(self) -> u64 {
        self.elements * 4
    }
}

/// Short enough that a million of them fit a safetensors header, which ends at 100 MB.
fn name(i: u64) -> String {
    format!("encoder.{}.part_{}.weight", i / 10, i % 10)
}

/// A file that grows by bytes and by holes.
struct Sparse {
    file: File,
    at: u64,
}

impl Sparse {
    fn create(path: &Path) -> Self {
        Self { file: File::create(path).unwrap(), at: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).unwrap();
        self.at += bytes.len() as u64;
    }

    fn hole(&mut self, len: u64) {
        self.at = self.file.seek(SeekFrom::Start(self.at + len)).unwrap();
    }

    fn done(self) {
        self.file.set_len(self.at).unwrap();
    }
}

/// One safetensors file.
pub fn safetensors(path: &Path, size: Size) {
    let Size { tensors, elements } = size;
    let entry = |i: u64| {
        let (name, start) = (name(i), i * size.bytes());
        let end = start + size.bytes();
        format!(r#""{name}":{{"dtype":"F32","shape":[{elements}],"data_offsets":[{start},{end}]}}"#)
    };
    let header = format!("{{{}}}", (0..tensors).map(entry).collect::<Vec<_>>().join(","));
    let mut out = Sparse::create(path);
    out.put(&(header.len() as u64).to_le_bytes());
    out.put(header.as_bytes());
    out.hole(tensors * size.bytes());
    out.done();
}

/// What a Lightning file's pickle holds.
#[must_use]
pub fn lightning(size: Size, legacy: bool) -> Vec<u8> {
    let Size { tensors, elements } = size;
    let weights: Vec<(Vec<u8>, Vec<u8>)> =
        (0..tensors).map(|i| (text(&name(i)), vector(&i.to_string(), elements, legacy))).collect();
    pickle::pickle(&fields(&[
        ("epoch", int(1)),
        ("global_step", int(2)),
        ("pytorch-lightning_version", text("2.6.0")),
        ("state_dict", pickle::dict(&weights)),
    ]))
}

/// The zip archive of a Lightning checkpoint, in the 64-bit form.
pub fn ckpt(path: &Path, size: Size) {
    let mut out = Sparse::create(path);
    zip(&mut out, lightning(size, false), size.tensors, size.bytes());
    out.done();
}

/// A torch file of nothing but storages that its object, an empty dict, does not use.
pub fn storages(path: &Path, size: Size) {
    let mut out = Sparse::create(path);
    zip(&mut out, pickle::pickle(&pickle::dict(&[])), size.tensors, size.bytes());
    out.done();
}

/// A torch file with this pickle and so many storages.
fn zip(out: &mut Sparse, pickle: Vec<u8>, storages: u64, bytes: u64) {
    let base = out.at;
    let mut members = vec![("archive/data.pkl".to_owned(), Some(pickle))];
    members.extend((0..storages).map(|i| (format!("archive/data/{i}"), None)));
    members.push(("archive/version".to_owned(), Some(b"3\n".to_vec())));
    let count = members.len() as u64;
    let mut directory = Vec::new();
    for (name, content) in members {
        let offset = out.at - base;
        let len = content.as_ref().map_or(bytes, |c| c.len() as u64);
        let size = u32::try_from(len).unwrap().to_le_bytes();
        let name_len = u16::try_from(name.len()).unwrap().to_le_bytes();
        // Stored, no flags; a listing does not look at the checksum.
        let common =
            [&[45, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0; 4], &size, &size, &name_len].concat();
        out.put(&[&b"PK\x03\x04"[..], &common, &[0, 0], name.as_bytes()].concat());
        match content {
            Some(content) => out.put(&content),
            None => out.hole(len),
        }
        directory.extend([&b"PK\x01\x02\x2D\0"[..], &common, &[12, 0], &[0; 10]].concat());
        directory.extend([0xFF; 4]);
        directory.extend([name.as_bytes(), &[1, 0, 8, 0], &offset.to_le_bytes()[..]].concat());
    }
    let start = out.at - base;
    let len = directory.len() as u64;
    let end = start + len;
    out.put(&directory);
    out.put(&[&b"PK\x06\x06"[..], &44_u64.to_le_bytes(), &[45, 0, 45, 0], &[0; 8]].concat());
    for field in [count, count, len, start] {
        out.put(&field.to_le_bytes());
    }
    out.put(&[&b"PK\x06\x07\0\0\0\0"[..], &end.to_le_bytes(), &[1, 0, 0, 0]].concat());
    out.put(&[&b"PK\x05\x06\0\0\0\0"[..], &[0xFF; 12], &[0, 0]].concat());
}

/// A legacy stream.
pub fn legacy(path: &Path, size: Size) {
    let mut out = Sparse::create(path);
    let magic = [&[0x8A, 10][..], &0x1950_a86a_20f9_469c_fc6c_u128.to_le_bytes()[..10]].concat();
    out.put(&pickle::pickle(&magic));
    out.put(&pickle::pickle(&int(1001)));
    let sizes = fields(&[("short", int(2)), ("int", int(4)), ("long", int(4))]);
    out.put(&pickle::pickle(&fields(&[
        ("protocol_version", int(1001)),
        ("little_endian", vec![0x88]),
        ("type_sizes", sizes),
    ])));
    out.put(&lightning(size, true));
    let keys: Vec<Vec<u8>> = (0..size.tensors).map(|i| text(&i.to_string())).collect();
    out.put(&pickle::pickle(&list(&keys)));
    for _ in 0..size.tensors {
        out.put(&size.elements.to_le_bytes());
        out.hole(size.bytes());
    }
    out.done();
}

/// A `.nemo` archive around the same zip.
pub fn nemo(path: &Path, size: Size) {
    let config = b"target: nemo.collections.asr.models.ctc_models.EncDecCTCModel\n";
    let mut out = Sparse::create(path);
    out.put(&tar_header("./model_config.yaml", config.len() as u64));
    out.put(config);
    out.hole(512 - config.len() as u64);
    let header = out.at;
    out.hole(512);
    zip(&mut out, lightning(size, false), size.tensors, size.bytes());
    let len = out.at - header - 512;
    out.hole(len.next_multiple_of(512) - len + 1024);
    let end = out.at;
    out.file.seek(SeekFrom::Start(header)).unwrap();
    out.file.write_all(&tar_header("./model_weights.ckpt", len)).unwrap();
    out.at = end;
    out.done();
}

fn tar_header(name: &str, len: u64) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    let mut set = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
    set(0, name.as_bytes());
    set(100, b"0000644\x000000000\x000000000\0");
    set(124, format!("{len:011o}\0").as_bytes());
    set(136, b"00000000000\0        0");
    set(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// A distributed checkpoint of one rank, a chunk a tensor.
pub fn distcp(path: &Path, size: Size) {
    const META: &str = "torch.distributed.checkpoint.metadata";
    const FILES: &str = "torch.distributed.checkpoint.filesystem";
    let Size { tensors: count, elements } = size;
    let bytes = size.bytes();
    let size = |n: u64| pickle::call("torch", "Size", &[pickle::ints(&[n])]);
    let layout = pickle::call("torch.serialization", "_get_layout", &[text("torch.strided")]);
    let memory = pickle::call(META, "_MEM_FORMAT_ENCODING", &[int(0)]);
    let dtype = pickle::global("torch", "float32");
    let properties = pickle::tuple(&[dtype, layout, pickle::no(), memory, pickle::no()]);
    let properties = pickle::object(META, "TensorProperties", &properties);
    let chunk = fields(&[("offsets", size(0)), ("sizes", size(elements))]);
    let chunk = pickle::object(META, "ChunkStorageMetadata", &chunk);
    let tensor =
        fields(&[("properties", properties), ("size", size(elements)), ("chunks", list(&[chunk]))]);
    let tensor = pickle::object(META, "TensorStorageMetadata", &tensor);
    let (mut tensors, mut places) = (Vec::new(), Vec::new());
    std::fs::create_dir(path).unwrap();
    let mut out = Sparse::create(&path.join("__0_0.distcp"));
    for i in 0..count {
        let start = out.at;
        zip(&mut out, pickle::pickle(&vector("0", elements, false)), 1, bytes);
        let name = format!("model.{}", name(i));
        tensors.push((text(&name), tensor.clone()));
        let index = fields(&[("fqn", text(&name)), ("offset", size(0)), ("index", int(0))]);
        let place = fields(&[
            ("relative_path", text("__0_0.distcp")),
            ("offset", int(start)),
            ("length", int(out.at - start)),
        ]);
        places.push((
            pickle::object(META, "MetadataIndex", &index),
            pickle::object(FILES, "_StorageInfo", &place),
        ));
    }
    let metadata = fields(&[
        ("state_dict_metadata", pickle::dict(&tensors)),
        ("planner_data", none()),
        ("storage_data", pickle::dict(&places)),
    ]);
    out.done();
    let pickle = pickle::pickle(&pickle::object(META, "Metadata", &metadata));
    std::fs::write(path.join(".metadata"), pickle).unwrap();
}
