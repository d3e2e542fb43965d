//! The opcodes of a pickle, without what they do.

/// An opcode that torch refuses, and where it stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opcode {
    /// The byte.
    pub code: u8,
    /// What CPython's `pickletools` calls it.
    pub name: &'static str,
    /// The offset of the first one in the pickle.
    pub offset: usize,
    /// How many of them there are.
    pub count: usize,
}

/// What follows an opcode.
enum Operand {
    Bytes(usize),
    /// A length of so many bytes, and as many bytes as it says.
    Sized(usize),
    Lines(usize),
}

/// The opcodes of a pickle that `weights_only=True` has no case for, in the order in which they
/// come first. Reads as far as the pickle makes sense: one that [`Graph::parse`] takes, to its end.
///
/// ```
/// // pickle.dumps([1], protocol=4)
/// let pickle = b"\x80\x04\x95\x06\0\0\0\0\0\0\0]\x94K\x01a.";
/// let refused = torch_save::weights_only::opcodes(pickle);
/// assert_eq!(refused.iter().map(|o| o.name).collect::<Vec<_>>(), ["FRAME", "MEMOIZE"]);
/// assert_eq!(refused[1].offset, 12);
/// ```
///
/// [`Graph::parse`]: crate::Graph::parse
#[must_use]
pub fn opcodes(pickle: &[u8]) -> Vec<Opcode> {
    let mut found: Vec<Opcode> = Vec::new();
    let mut at = 0;
    while let Some(&code) = pickle.get(at) {
        let Some((name, operand, accepted)) = describe(code) else { break };
        if !accepted {
            match found.iter_mut().find(|o| o.code == code) {
                Some(known) => known.count += 1,
                None => found.push(Opcode { code, name, offset: at, count: 1 }),
            }
        }
        let rest = pickle.get(at + 1..).unwrap_or_default();
        let Some(len) = length(rest, &operand) else { break };
        at += 1 + len;
        if code == b'.' {
            break;
        }
    }
    found
}

fn length(rest: &[u8], operand: &Operand) -> Option<usize> {
    match *operand {
        Operand::Bytes(n) => Some(n),
        Operand::Sized(n) => {
            let mut size = [0; 8];
            size[..n].copy_from_slice(rest.get(..n)?);
            usize::try_from(u64::from_le_bytes(size)).ok()?.checked_add(n)
        }
        Operand::Lines(n) => {
            let mut ends = rest.iter().enumerate().filter(|(_, b)| **b == b'\n');
            ends.nth(n - 1).map(|(i, _)| i + 1)
        }
    }
}

/// Name, operand, and whether `weights_only=True` of torch 2.15 knows it.
fn describe(code: u8) -> Option<(&'static str, Operand, bool)> {
    use Operand::{Bytes, Lines, Sized};
    Some(match code {
        b'(' => ("MARK", Bytes(0), true),
        b'.' => ("STOP", Bytes(0), true),
        b'0' => ("POP", Bytes(0), false),
        b'1' => ("POP_MARK", Bytes(0), false),
        b'2' => ("DUP", Bytes(0), false),
        b'F' => ("FLOAT", Lines(1), false),
        b'I' => ("INT", Lines(1), false),
        b'J' => ("BININT", Bytes(4), true),
        b'K' => ("BININT1", Bytes(1), true),
        b'L' => ("LONG", Lines(1), false),
        b'M' => ("BININT2", Bytes(2), true),
        b'N' => ("NONE", Bytes(0), true),
        b'P' => ("PERSID", Lines(1), false),
        b'Q' => ("BINPERSID", Bytes(0), true),
        b'R' => ("REDUCE", Bytes(0), true),
        b'S' => ("STRING", Lines(1), false),
        b'T' => ("BINSTRING", Sized(4), false),
        b'U' => ("SHORT_BINSTRING", Sized(1), true),
        b'V' => ("UNICODE", Lines(1), false),
        b'X' => ("BINUNICODE", Sized(4), true),
        b'a' => ("APPEND", Bytes(0), true),
        b'b' => ("BUILD", Bytes(0), true),
        b'c' => ("GLOBAL", Lines(2), true),
        b'd' => ("DICT", Bytes(0), false),
        b'}' => ("EMPTY_DICT", Bytes(0), true),
        b'e' => ("APPENDS", Bytes(0), true),
        b'g' => ("GET", Lines(1), false),
        b'h' => ("BINGET", Bytes(1), true),
        b'i' => ("INST", Lines(2), false),
        b'j' => ("LONG_BINGET", Bytes(4), true),
        b'l' => ("LIST", Bytes(0), false),
        b']' => ("EMPTY_LIST", Bytes(0), true),
        b'o' => ("OBJ", Bytes(0), false),
        b'p' => ("PUT", Lines(1), false),
        b'q' => ("BINPUT", Bytes(1), true),
        b'r' => ("LONG_BINPUT", Bytes(4), true),
        b's' => ("SETITEM", Bytes(0), true),
        b't' => ("TUPLE", Bytes(0), true),
        b')' => ("EMPTY_TUPLE", Bytes(0), true),
        b'u' => ("SETITEMS", Bytes(0), true),
        b'G' => ("BINFLOAT", Bytes(8), true),
        b'B' => ("BINBYTES", Sized(4), false),
        b'C' => ("SHORT_BINBYTES", Sized(1), false),
        0x80 => ("PROTO", Bytes(1), true),
        0x81 => ("NEWOBJ", Bytes(0), true),
        0x82 => ("EXT1", Bytes(1), false),
        0x83 => ("EXT2", Bytes(2), false),
        0x84 => ("EXT4", Bytes(4), false),
        0x85 => ("TUPLE1", Bytes(0), true),
        0x86 => ("TUPLE2", Bytes(0), true),
        0x87 => ("TUPLE3", Bytes(0), true),
        0x88 => ("NEWTRUE", Bytes(0), true),
        0x89 => ("NEWFALSE", Bytes(0), true),
        0x8a => ("LONG1", Sized(1), true),
        0x8b => ("LONG4", Sized(4), false),
        0x8c => ("SHORT_BINUNICODE", Sized(1), false),
        0x8d => ("BINUNICODE8", Sized(8), false),
        0x8e => ("BINBYTES8", Sized(8), false),
        0x8f => ("EMPTY_SET", Bytes(0), true),
        0x90 => ("ADDITEMS", Bytes(0), false),
        0x91 => ("FROZENSET", Bytes(0), false),
        0x92 => ("NEWOBJ_EX", Bytes(0), false),
        0x93 => ("STACK_GLOBAL", Bytes(0), false),
        0x94 => ("MEMOIZE", Bytes(0), false),
        0x95 => ("FRAME", Bytes(8), false),
        0x96 => ("BYTEARRAY8", Sized(8), false),
        0x97 => ("NEXT_BUFFER", Bytes(0), false),
        0x98 => ("READONLY_BUFFER", Bytes(0), false),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_torch_has() {
        // `_weights_only_unpickler.Unpickler.load` of torch 2.15 has so many cases.
        let accepted = (0..=u8::MAX).filter_map(describe).filter(|(.., accepted)| *accepted);
        assert_eq!(accepted.count(), 34);
        assert_eq!((0..=u8::MAX).filter_map(describe).count(), 68);
    }

    #[test]
    fn what_ends_early_is_read_as_far_as_it_goes() {
        assert!(opcodes(b"").is_empty());
        assert!(opcodes(b"\x80\x02X\xff\xff\xff\xff").is_empty());
        assert_eq!(opcodes(b"Vabc").len(), 1);
        assert_eq!(opcodes(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff").len(), 1);
    }
}
