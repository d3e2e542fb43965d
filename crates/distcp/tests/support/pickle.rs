//! A small pickle writer: values to protocol 4, texts and globals memoized as CPython does.

use std::collections::HashMap;

#[derive(Clone, Debug)]
pub enum P {
    None,
    Bool(bool),
    Int(i64),
    /// Two's complement, little-endian.
    Long(Vec<u8>),
    Str(String),
    /// Text as it is, lone surrogates and all.
    Text(Vec<u8>),
    Tuple(Vec<P>),
    List(Vec<P>),
    Dict(Vec<(P, P)>),
    Global(&'static str, &'static str),
    /// NEWOBJ with a state, or without.
    Obj(&'static str, &'static str, Option<Box<P>>),
    /// REDUCE.
    Call(&'static str, &'static str, Vec<P>),
    /// BINPERSID.
    Pers(Box<P>),
    /// A list of one object many times over.
    Repeat(Box<P>, usize),
    /// Opcodes that leave one object on the stack.
    Raw(Vec<u8>),
}

pub fn s(text: &str) -> P {
    P::Str(text.to_owned())
}

pub fn dict(pairs: Vec<(&str, P)>) -> P {
    P::Dict(pairs.into_iter().map(|(k, v)| (s(k), v)).collect())
}

pub fn object(module: &'static str, name: &'static str, fields: Vec<(&str, P)>) -> P {
    P::Obj(module, name, Some(Box::new(dict(fields))))
}

pub fn size(dims: &[i64]) -> P {
    P::Call("torch", "Size", vec![P::Tuple(dims.iter().map(|&d| P::Int(d)).collect())])
}

/// The whole pickle of a value.
pub fn pickle(value: &P) -> Vec<u8> {
    let mut w = Writer { out: vec![0x80, 4], memo: HashMap::new() };
    w.put(value);
    w.out.push(b'.');
    w.out
}

struct Writer {
    out: Vec<u8>,
    memo: HashMap<Vec<u8>, u32>,
}

impl Writer {
    /// Writes once, and a reference from then on.
    fn shared(&mut self, key: Vec<u8>, write: impl FnOnce(&mut Self)) {
        if let Some(&at) = self.memo.get(&key) {
            match u8::try_from(at) {
                Ok(at) => self.out.extend([b'h', at]),
                Err(_) => {
                    self.out.push(b'j');
                    self.out.extend(at.to_le_bytes());
                }
            }
            return;
        }
        write(self);
        self.memo.insert(key, self.memo.len() as u32);
        self.out.push(0x94);
    }

    fn text(&mut self, text: &[u8]) {
        self.shared([b"s", text].concat(), |w| {
            w.out.push(b'X');
            w.out.extend((text.len() as u32).to_le_bytes());
            w.out.extend(text);
        });
    }

    fn global(&mut self, module: &str, name: &str) {
        self.shared(format!("g{module}.{name}").into_bytes(), |w| {
            w.text(module.as_bytes());
            w.text(name.as_bytes());
            w.out.push(0x93);
        });
    }

    fn put(&mut self, value: &P) {
        match value {
            P::None => self.out.push(b'N'),
            P::Bool(b) => self.out.push(if *b { 0x88 } else { 0x89 }),
            P::Int(i) => match (u8::try_from(*i), i32::try_from(*i)) {
                (Ok(i), _) => self.out.extend([b'K', i]),
                (_, Ok(i)) => {
                    self.out.push(b'J');
                    self.out.extend(i.to_le_bytes());
                }
                _ => self.put(&P::Long(i.to_le_bytes().to_vec())),
            },
            P::Long(bytes) => {
                self.out.extend([0x8a, bytes.len() as u8]);
                self.out.extend(bytes);
            }
            P::Str(text) => self.text(text.as_bytes()),
            P::Text(text) => self.text(text),
            P::Tuple(items) => {
                self.out.push(b'(');
                items.iter().for_each(|i| self.put(i));
                self.out.push(b't');
            }
            P::List(items) => {
                self.out.extend(b"](");
                items.iter().for_each(|i| self.put(i));
                self.out.push(b'e');
            }
            P::Dict(pairs) => {
                // In batches of a thousand, as CPython writes them.
                self.out.push(b'}');
                for batch in pairs.chunks(1000) {
                    self.out.push(b'(');
                    for (k, v) in batch {
                        self.put(k);
                        self.put(v);
                    }
                    self.out.push(b'u');
                }
            }
            P::Global(module, name) => self.global(module, name),
            P::Obj(module, name, state) => {
                self.global(module, name);
                self.out.extend([b')', 0x81]);
                if let Some(state) = state {
                    self.put(state);
                    self.out.push(b'b');
                }
            }
            P::Call(module, name, args) => {
                self.global(module, name);
                self.put(&P::Tuple(args.clone()));
                self.out.push(b'R');
            }
            P::Pers(id) => {
                self.put(id);
                self.out.push(b'Q');
            }
            P::Repeat(one, times) => {
                self.out.extend(b"](");
                self.put(one);
                let at = self.memo.len() as u32;
                self.memo.insert(format!("repeated {at}").into_bytes(), at);
                self.out.push(0x94);
                for _ in 1..*times {
                    self.out.push(b'j');
                    self.out.extend(at.to_le_bytes());
                }
                self.out.push(b'e');
            }
            P::Raw(opcodes) => self.out.extend(opcodes),
        }
    }
}
