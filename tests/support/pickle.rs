//! Pickles of protocol 2 put together from their opcodes: every function gives the bytes that leave
//! one object on the stack.

/// Text.
#[must_use]
pub fn text(s: &str) -> Vec<u8> {
    let len = u32::try_from(s.len()).expect("a text of a test is short");
    [b"X", &len.to_le_bytes()[..], s.as_bytes()].concat()
}

/// An integer.
#[must_use]
pub fn int(i: u64) -> Vec<u8> {
    [&[0x8A, 9][..], &i.to_le_bytes(), &[0]].concat()
}

/// `None`.
#[must_use]
pub fn none() -> Vec<u8> {
    b"N".to_vec()
}

/// `False`.
#[must_use]
pub fn no() -> Vec<u8> {
    vec![0x89]
}

/// A tuple.
#[must_use]
pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

/// A tuple of integers.
#[must_use]
pub fn ints(items: &[u64]) -> Vec<u8> {
    tuple(&items.iter().map(|i| int(*i)).collect::<Vec<_>>())
}

/// As many as Python's pickler adds at once.
const BATCH: usize = 1000;

/// A list.
#[must_use]
pub fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let batches = items.chunks(BATCH).flat_map(|batch| [b"(", &batch.concat()[..], b"e"].concat());
    b"]".iter().copied().chain(batches).collect()
}

/// A dict.
#[must_use]
pub fn dict(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let items = |batch: &[(Vec<u8>, Vec<u8>)]| -> Vec<u8> {
        batch.iter().flat_map(|(k, v)| [&k[..], v].concat()).collect()
    };
    let batches = pairs.chunks(BATCH).flat_map(|batch| [b"(", &items(batch)[..], b"u"].concat());
    b"}".iter().copied().chain(batches).collect()
}

/// A dict with text keys.
#[must_use]
pub fn fields(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    dict(&pairs.iter().map(|(k, v)| (text(k), v.clone())).collect::<Vec<_>>())
}

/// A class or function.
#[must_use]
pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

/// A call.
#[must_use]
pub fn call(module: &str, name: &str, args: &[Vec<u8>]) -> Vec<u8> {
    [&global(module, name)[..], &tuple(args), b"R"].concat()
}

/// An object without arguments, with a state.
#[must_use]
pub fn object(module: &str, name: &str, state: &[u8]) -> Vec<u8> {
    [&global(module, name)[..], b")\x81", state, b"b"].concat()
}

/// A one-dimensional float tensor that is the whole of a storage of a torch file.
#[must_use]
pub fn vector(key: &str, elements: u64, legacy: bool) -> Vec<u8> {
    let mut id = vec![
        text("storage"),
        global("torch", "FloatStorage"),
        text(key),
        text("cpu"),
        int(elements),
    ];
    if legacy {
        id.push(none());
    }
    let storage = [&tuple(&id)[..], b"Q"].concat();
    let hooks = call("collections", "OrderedDict", &[]);
    let args = [storage, int(0), ints(&[elements]), ints(&[1]), no(), hooks];
    call("torch._utils", "_rebuild_tensor_v2", &args)
}

/// A whole pickle around an object.
#[must_use]
pub fn pickle(object: &[u8]) -> Vec<u8> {
    [b"\x80\x02", object, b"."].concat()
}
