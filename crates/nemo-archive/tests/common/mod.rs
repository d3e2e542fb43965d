//! Builds tars header by header, so that they can be wrong in every way, and torch checkpoints
//! small enough to be read at a glance.
#![allow(dead_code, unreachable_pub, reason = "each suite uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::io::Write;

use ckptkit_core::{Error, Result, Section};
use nemo_archive::{NemoArchive, Value};
use serde_json::Value as Json;

pub const CONFIG: &str =
    "target: nemo.collections.asr.models.EncDecCTCModel\nnemo_version: 2.0.0\n";

/// A tar under construction.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

/// One header before its checksum.
pub struct Header(pub [u8; 512]);

impl Header {
    pub fn ustar(name: &[u8], kind: u8, size: u64) -> Self {
        let mut h = [0; 512];
        h[..name.len()].copy_from_slice(name);
        h[100..108].copy_from_slice(b"0000644\0");
        h[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        h[136..148].copy_from_slice(b"14524664000\0");
        h[156] = kind;
        h[257..265].copy_from_slice(b"ustar\x0000");
        Self(h)
    }

    pub fn gnu(name: &[u8], kind: u8, size: u64) -> Self {
        let mut h = Self::ustar(name, kind, size);
        h.0[257..265].copy_from_slice(b"ustar  \0");
        h
    }

    pub fn v7(name: &[u8], kind: u8, size: u64) -> Self {
        let mut h = Self::ustar(name, kind, size);
        h.0[257..265].fill(0);
        h
    }

    pub fn field(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn summed(mut self) -> [u8; 512] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|&b| u32::from(b)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Tar {
    pub fn raw(mut self, header: Header, data: &[u8]) -> Self {
        self.0.extend_from_slice(&header.summed());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.raw(Header::ustar(name.as_bytes(), b'0', data.len() as u64), data)
    }

    pub fn dir(self, name: &str) -> Self {
        self.raw(Header::ustar(name.as_bytes(), b'5', 0), b"")
    }

    pub fn pax(self, kind: u8, records: &[(&str, &str)]) -> Self {
        let data: String = records.iter().map(|(k, v)| record(k, v)).collect();
        self.raw(Header::ustar(b"././@PaxHeader", kind, data.len() as u64), data.as_bytes())
    }

    /// What every archive here starts with.
    pub fn model() -> Self {
        Self::default()
            .dir("./")
            .file("./model_config.yaml", CONFIG.as_bytes())
            .file("./model_weights.ckpt", &weights())
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize((self.0.len() + 1024).next_multiple_of(10240), 0);
        self.0
    }
}

pub fn record(key: &str, value: &str) -> String {
    let body = key.len() + value.len() + 3;
    let mut len = body + 1;
    while len != body + len.to_string().len() {
        len = body + len.to_string().len();
    }
    format!("{len} {key}={value}\n")
}

pub fn weights() -> Vec<u8> {
    checkpoint(&[("encoder.w", &[1.0, 2.0, 3.0]), ("decoder.b", &[4.0])])
}

/// What `torch.save` makes of a flat dict of float vectors.
pub fn checkpoint(tensors: &[(&str, &[f32])]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}(".to_vec();
    let mut members = Vec::new();
    for (i, (name, values)) in tensors.iter().enumerate() {
        let n = u8::try_from(values.len()).unwrap();
        text(&mut pickle, name);
        pickle.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend_from_slice(b"ctorch\nFloatStorage\n");
        text(&mut pickle, &i.to_string());
        text(&mut pickle, "cpu");
        pickle.extend_from_slice(&[b'K', n, b't', b'Q', b'K', 0, b'K', n, 0x85, b'K', 1, 0x85]);
        pickle.extend_from_slice(b"\x89ccollections\nOrderedDict\n)RtR");
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        members.push((format!("model_weights/data/{i}"), bytes));
    }
    pickle.extend_from_slice(b"u.");
    members.insert(0, ("model_weights/data.pkl".into(), pickle));
    members.push(("model_weights/version".into(), b"3\n".to_vec()));
    zip(&members)
}

fn text(pickle: &mut Vec<u8>, s: &str) {
    pickle.push(b'X');
    pickle.extend_from_slice(&u32::try_from(s.len()).unwrap().to_le_bytes());
    pickle.extend_from_slice(s.as_bytes());
}

fn zip(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in members {
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let len = u32::try_from(data.len()).unwrap().to_le_bytes();
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend_from_slice(&crc.sum().to_le_bytes());
        common.extend_from_slice(&len);
        common.extend_from_slice(&len);
        common.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        common.extend_from_slice(&[0, 0]);
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&u32::try_from(out.len()).unwrap().to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&common);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(data);
    }
    let start = u32::try_from(out.len()).unwrap();
    let count = u16::try_from(members.len()).unwrap().to_le_bytes();
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&count);
    out.extend_from_slice(&count);
    out.extend_from_slice(&u32::try_from(directory.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    e.write_all(bytes).unwrap();
    e.finish().unwrap()
}

pub fn open(bytes: impl Into<Vec<u8>>) -> Result<NemoArchive> {
    NemoArchive::from_section(Section::from_bytes(bytes, "test.nemo"))
}

pub fn refuse(bytes: impl Into<Vec<u8>>) -> Error {
    open(bytes).expect_err("the archive should be refused")
}

pub fn floats(archive: &NemoArchive, name: &str) -> Vec<f32> {
    use ckptkit_core::TensorSource;
    let bytes = archive.tensor(name).unwrap().read().unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

pub fn names(archive: &NemoArchive) -> Vec<&str> {
    use ckptkit_core::TensorSource;
    archive.infos().map(ckptkit_core::TensorInfo::name).collect()
}

/// Whether a value is what a manifest says.
pub fn same(value: &Value, json: &Json) -> bool {
    match (value, json) {
        (Value::None, Json::Null) => true,
        (Value::Bool(a), Json::Bool(b)) => a == b,
        (Value::Int(a), Json::Number(b)) => b.as_i64() == Some(*a),
        (Value::Float(a), Json::Number(b)) => {
            b.as_f64().is_some_and(|b| (a - b).abs() <= 1e-15 * a.abs())
        }
        (Value::Float(a), Json::Object(o)) => {
            o["value"].as_str().is_some_and(|v| v.parse::<f64>().unwrap().total_cmp(a).is_eq())
        }
        (Value::Str(a), Json::String(b)) => a == b,
        (Value::List(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Dict(a), Json::Object(b)) => {
            let found = |(k, v): &(Value, Value)| b.get(&k.key_text()).is_some_and(|j| same(v, j));
            a.len() == b.len() && a.iter().all(found)
        }
        _ => false,
    }
}
