//! Values as protocol 2 spells them.

use ckptkit_core::{Error, Result};

/// A pickle that grows, and how much is in its memo.
#[derive(Clone, Debug)]
pub(super) struct Opcodes {
    pub(super) out: Vec<u8>,
    next: u32,
}

impl Opcodes {
    /// The start of a pickle.
    pub(super) fn new() -> Self {
        Self { out: vec![0x80, 2], next: 0 }
    }

    pub(super) fn push(&mut self, op: u8) {
        self.out.push(op);
    }

    pub(super) fn extend(&mut self, ops: &[u8]) {
        self.out.extend_from_slice(ops);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.push(if value { 0x88 } else { 0x89 });
    }

    pub(super) fn float(&mut self, value: f64) {
        self.push(b'G');
        self.extend(&value.to_be_bytes());
    }

    pub(super) fn text(&mut self, text: &[u8]) -> Result<()> {
        self.push(b'X');
        self.extend(&length(text)?);
        self.extend(text);
        Ok(())
    }

    pub(super) fn int(&mut self, value: i64) {
        if let Ok(v) = u8::try_from(value) {
            self.extend(&[b'K', v]);
        } else if let Ok(v) = u16::try_from(value) {
            self.push(b'M');
            self.extend(&v.to_le_bytes());
        } else if let Ok(v) = i32::try_from(value) {
            self.push(b'J');
            self.extend(&v.to_le_bytes());
        } else {
            let bytes = value.to_le_bytes();
            let len = super::bigint::significant(&bytes);
            self.extend(&[0x8a, u8::try_from(len).unwrap_or(8)]);
            self.extend(&bytes[..len]);
        }
    }

    pub(super) fn uint(&mut self, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.int(value),
            Err(_) => {
                self.extend(&[0x8a, 9]);
                self.extend(&value.to_le_bytes());
                self.push(0);
            }
        }
    }

    pub(super) fn big_int(&mut self, bytes: &[u8]) -> Result<()> {
        match u8::try_from(bytes.len()) {
            Ok(len) => self.extend(&[0x8a, len]),
            Err(_) => {
                let len = i32::try_from(bytes.len()).ok().filter(|l| *l >= 0);
                let len = len.ok_or_else(|| Error::limit("an integer of more than 2 GiB"))?;
                self.push(0x8b);
                self.extend(&len.to_le_bytes());
            }
        }
        self.extend(bytes);
        Ok(())
    }

    pub(super) fn put(&mut self) -> u32 {
        let memo = self.next;
        self.next += 1;
        match u8::try_from(memo) {
            Ok(index) => self.extend(&[b'q', index]),
            Err(_) => {
                self.push(b'r');
                self.extend(&memo.to_le_bytes());
            }
        }
        memo
    }

    pub(super) fn get(&mut self, memo: u32) {
        match u8::try_from(memo) {
            Ok(index) => self.extend(&[b'h', index]),
            Err(_) => {
                self.push(b'j');
                self.extend(&memo.to_le_bytes());
            }
        }
    }
}

pub(super) fn length(text: &[u8]) -> Result<[u8; 4]> {
    let len = u32::try_from(text.len()).map_err(|_| {
        Error::limit(format!("text of {} bytes does not fit protocol 2", text.len()))
    })?;
    Ok(len.to_le_bytes())
}
