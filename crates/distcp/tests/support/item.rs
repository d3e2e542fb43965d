//! Items: small `torch.save` archives.

use super::pickle::{P, pickle, s};

/// A stored zip archive.
pub fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in members {
        let at = out.len() as u32;
        let crc = crc32fast::hash(data).to_le_bytes();
        let len = (data.len() as u32).to_le_bytes();
        let common = [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &crc, &len, &len].concat();
        let name_len = (name.len() as u16).to_le_bytes();
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name_len);
        out.extend([0, 0]);
        out.extend(name.as_bytes());
        out.extend(*data);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend(name_len);
        directory.extend([0; 12]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let at = (out.len() as u32).to_le_bytes();
    let count = (members.len() as u16).to_le_bytes();
    out.extend(&directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend(count);
    out.extend(count);
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(at);
    out.extend([0, 0]);
    out
}

/// The pickle of a float32 tensor over storage `0` of `stored` elements.
pub fn tensor_value(dims: &[i64], strides: &[i64], offset: i64, stored: i64) -> P {
    let ints = |v: &[i64]| P::Tuple(v.iter().map(|&i| P::Int(i)).collect());
    let id = P::Tuple(vec![
        s("storage"),
        P::Global("torch", "FloatStorage"),
        s("0"),
        s("cpu"),
        P::Int(stored),
    ]);
    let hooks = P::Call("collections", "OrderedDict", vec![]);
    let args = vec![
        P::Pers(Box::new(id)),
        P::Int(offset),
        ints(dims),
        ints(strides),
        P::Bool(false),
        hooks,
    ];
    P::Call("torch._utils", "_rebuild_tensor_v2", args)
}

/// An archive of any value and its storages.
pub fn archive(value: &P, storages: &[&[u8]]) -> Vec<u8> {
    let pickle = pickle(value);
    let names: Vec<String> = (0..storages.len()).map(|i| format!("archive/data/{i}")).collect();
    let mut members = vec![("archive/data.pkl", &pickle[..]), ("archive/version", &b"3\n"[..])];
    members.extend(names.iter().zip(storages).map(|(n, b)| (n.as_str(), *b)));
    zip(&members)
}

/// A row-major float32 tensor.
pub fn floats(dims: &[i64], values: &[f32]) -> Vec<u8> {
    let mut strides = vec![1; dims.len()];
    for d in (1..dims.len()).rev() {
        strides[d - 1] = strides[d] * dims[d].max(1);
    }
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    archive(&tensor_value(dims, &strides, 0, values.len() as i64), &[&bytes])
}
