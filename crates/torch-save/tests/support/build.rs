//! Pickles and containers, written by hand: what torch would not write any more, or never did.

/// Text (`BINUNICODE`).
pub fn text(s: &str) -> Vec<u8> {
    let mut out = vec![b'X'];
    out.extend_from_slice(&u32::try_from(s.len()).unwrap().to_le_bytes());
    out.extend_from_slice(s.as_bytes());
    out
}

/// An integer, in the shortest form as torch writes it.
pub fn int(i: i64) -> Vec<u8> {
    if let Ok(i) = u8::try_from(i) {
        return vec![b'K', i];
    }
    if let Ok(i) = u16::try_from(i) {
        return [&b"M"[..], &i.to_le_bytes()].concat();
    }
    match i32::try_from(i) {
        Ok(i) => [&b"J"[..], &i.to_le_bytes()].concat(),
        Err(_) => [&b"\x8a\x08"[..], &i.to_le_bytes()].concat(),
    }
}

pub fn float(f: f64) -> Vec<u8> {
    let mut out = vec![b'G'];
    out.extend_from_slice(&f.to_be_bytes());
    out
}

pub fn none() -> Vec<u8> {
    vec![b'N']
}

pub fn boolean(b: bool) -> Vec<u8> {
    vec![if b { 0x88 } else { 0x89 }]
}

fn group(open: &[u8], items: &[Vec<u8>], close: u8) -> Vec<u8> {
    let mut out = open.to_vec();
    out.push(b'(');
    out.extend(items.iter().flatten());
    out.push(close);
    out
}

pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    group(b"", items, b't')
}

pub fn ints(items: &[i64]) -> Vec<u8> {
    tuple(&items.iter().map(|&i| int(i)).collect::<Vec<_>>())
}

pub fn list(items: &[Vec<u8>]) -> Vec<u8> {
    group(b"]", items, b'e')
}

pub fn dict(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    set_items(b"}", pairs)
}

/// A dict with text keys.
pub fn object(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let pairs: Vec<_> = pairs.iter().map(|(k, v)| (text(k), v.clone())).collect();
    dict(&pairs)
}

/// Items set on anything.
pub fn set_items(target: &[u8], pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let flat: Vec<Vec<u8>> = pairs.iter().flat_map(|(k, v)| [k.clone(), v.clone()]).collect();
    group(target, &flat, b'u')
}

pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub fn reduce(callable: &[u8], args: &[Vec<u8>]) -> Vec<u8> {
    join(&[callable, &tuple(args), b"R"])
}

pub fn newobj(class: &[u8], args: &[Vec<u8>]) -> Vec<u8> {
    join(&[class, &tuple(args), b"\x81"])
}

pub fn build(object: &[u8], state: &[u8]) -> Vec<u8> {
    join(&[object, state, b"b"])
}

pub fn persid(id: &[u8]) -> Vec<u8> {
    join(&[id, b"Q"])
}

/// `LONG_BINPUT` behind, `LONG_BINGET` for, a memo entry.
pub fn put(i: u32, object: &[u8]) -> Vec<u8> {
    join(&[object, b"r", &i.to_le_bytes()])
}

pub fn get(i: u32) -> Vec<u8> {
    join(&[b"j", &i.to_le_bytes()])
}

/// A whole pickle of protocol 2.
pub fn pickle(body: &[u8]) -> Vec<u8> {
    join(&[b"\x80\x02", body, b"."])
}

/// A storage's persistent id, as in the zip container.
pub fn storage(class: &str, key: &str, numel: i64) -> Vec<u8> {
    let (module, class) = class.rsplit_once('.').unwrap_or(("torch", class));
    persid(&tuple(&[text("storage"), global(module, class), text(key), text("cpu"), int(numel)]))
}

/// As in the legacy stream: with a view of the storage.
pub fn storage_view(class: &str, key: &str, numel: i64, view: Vec<u8>) -> Vec<u8> {
    persid(&tuple(&[
        text("storage"),
        global("torch", class),
        text(key),
        text("cpu"),
        int(numel),
        view,
    ]))
}

pub fn torch_utils(name: &str, args: &[Vec<u8>]) -> Vec<u8> {
    reduce(&global("torch._utils", name), args)
}

/// `_rebuild_tensor_v2`.
pub fn tensor(storage: Vec<u8>, offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
    let hooks = reduce(&global("collections", "OrderedDict"), &[]);
    torch_utils(
        "_rebuild_tensor_v2",
        &[storage, int(offset), ints(size), ints(stride), boolean(false), hooks],
    )
}

/// A one-dimensional tensor that is the whole of a storage.
pub fn vector(class: &str, key: &str, numel: i64) -> Vec<u8> {
    tensor(storage(class, key, numel), 0, &[numel], &[1])
}

pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A zip archive of stored members, with everything that a reader needs and no more.
pub fn zip(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let offset = u32::try_from(out.len()).unwrap();
        let size = u32::try_from(bytes.len()).unwrap();
        let mut fields = vec![20, 0, 0, 8, 0, 0, 0, 0, 0, 0];
        fields.extend_from_slice(&crc32(bytes).to_le_bytes());
        fields.extend_from_slice(&size.to_le_bytes());
        fields.extend_from_slice(&size.to_le_bytes());
        fields.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        fields.extend_from_slice(&[0, 0]);
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&fields);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(bytes);
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&fields);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let count = u16::try_from(members.len()).unwrap().to_le_bytes();
    let start = u32::try_from(out.len()).unwrap().to_le_bytes();
    let len = u32::try_from(directory.len()).unwrap().to_le_bytes();
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&[count, count].concat());
    out.extend_from_slice(&len);
    out.extend_from_slice(&start);
    out.extend_from_slice(&[0, 0]);
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |c, _| c >> 1 ^ if c & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

/// A torch.save archive around an object and its storages.
pub fn pt(object: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    pt_with(object, storages, &[])
}

pub fn pt_with(object: &[u8], storages: &[(&str, Vec<u8>)], more: &[(&str, &[u8])]) -> Vec<u8> {
    let mut members = vec![("archive/data.pkl".to_owned(), pickle(object))];
    members.extend(more.iter().map(|(n, b)| (format!("archive/{n}"), b.to_vec())));
    members.extend(storages.iter().map(|(k, b)| (format!("archive/data/{k}"), b.clone())));
    members.push(("archive/version".into(), b"3\n".to_vec()));
    zip(&members)
}

/// A legacy stream: every storage with its number of elements.
pub fn legacy(object: &[u8], storages: &[(&str, i64, Vec<u8>)]) -> Vec<u8> {
    let mut out = pickle(&[&b"\x8a\x0a"[..], b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"].concat());
    out.extend(pickle(&int(1001)));
    out.extend(pickle(&self::object(&[
        ("protocol_version", int(1001)),
        ("little_endian", boolean(true)),
        ("type_sizes", self::object(&[("short", int(2)), ("int", int(4)), ("long", int(4))])),
    ])));
    out.extend(pickle(object));
    let keys: Vec<Vec<u8>> = storages.iter().map(|(k, ..)| text(k)).collect();
    out.extend(pickle(&list(&keys)));
    for (_, numel, bytes) in storages {
        out.extend_from_slice(&numel.to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

/// A tar archive of plain files.
pub fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in members {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        out.extend_from_slice(&header);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}
