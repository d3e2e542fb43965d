//! Writes a pickle as it goes, for objects of so many parts that a graph of them would be far
//! larger than the pickle.

use ckptkit_core::Result;

use super::opcodes::Opcodes;

/// A pickle of protocol 2 in the making: what is told is on the stack of whoever loads it, and what
/// is made of several parts takes them from there, as the opcodes of the same names do. The caller
/// sees to it that they are there; [`Builder`](super::Builder) asks for no such care.
///
/// ```
/// use torch_save::pickle::{Graph, Pickler};
///
/// # fn main() -> ckptkit_core::Result<()> {
/// let mut p = Pickler::new();
/// p.empty_dict();
/// p.mark();
/// p.str("offsets")?;
/// p.uint(3);
/// p.uint(0);
/// p.tuple2();
/// let offsets = p.memoize();
/// p.str("again")?;
/// p.recall(offsets);
/// p.set_items();
/// let graph = Graph::parse(p.finish(), &Default::default())?;
/// let [a, b] = ["again", "offsets"].map(|key| graph.root().get(key).map(|node| node.id()));
/// assert_eq!(a, b);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Pickler(Opcodes);

/// What was put into the memo; see [`Pickler::memoize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memo(u32);

impl Default for Pickler {
    fn default() -> Self {
        Self::new()
    }
}

impl Pickler {
    /// A pickle of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Opcodes::new())
    }

    /// The pickle, whose object is what is on the stack.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.0.push(b'.');
        self.0.out
    }

    /// `None`.
    pub fn none(&mut self) {
        self.0.push(b'N');
    }

    /// `True` or `False`.
    pub fn bool(&mut self, value: bool) {
        self.0.bool(value);
    }

    /// An integer from 0 up.
    pub fn uint(&mut self, value: u64) {
        self.0.uint(value);
    }

    /// Text.
    ///
    /// # Errors
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for 4 GiB and more.
    pub fn str(&mut self, text: &str) -> Result<()> {
        self.0.text(text.as_bytes())
    }

    /// A class or function of a module, both without line ends, the name without dots.
    pub fn global(&mut self, module: &str, name: &str) {
        self.0.push(b'c');
        for part in [module, name] {
            self.0.extend(part.as_bytes());
            self.0.push(b'\n');
        }
    }

    /// Keeps what was told last; it may be recalled as often as wanted.
    pub fn memoize(&mut self) -> Memo {
        Memo(self.0.put())
    }

    /// What was kept.
    pub fn recall(&mut self, memo: Memo) {
        self.0.get(memo.0);
    }

    /// Where the items begin that [`Pickler::tuple`], [`Pickler::append`] and
    /// [`Pickler::set_items`] take.
    pub fn mark(&mut self) {
        self.0.push(b'(');
    }

    /// `()`.
    pub fn empty_tuple(&mut self) {
        self.0.push(b')');
    }

    /// A tuple of the last.
    pub fn tuple1(&mut self) {
        self.0.push(0x85);
    }

    /// A tuple of the last two.
    pub fn tuple2(&mut self) {
        self.0.push(0x86);
    }

    /// A tuple of everything since the mark.
    pub fn tuple(&mut self) {
        self.0.push(b't');
    }

    /// `[]`.
    pub fn empty_list(&mut self) {
        self.0.push(b']');
    }

    /// Adds everything since the mark to the list before it.
    pub fn append(&mut self) {
        self.0.push(b'e');
    }

    /// `{}`.
    pub fn empty_dict(&mut self) {
        self.0.push(b'}');
    }

    /// Sets keys and values since the mark in the dict before it.
    pub fn set_items(&mut self) {
        self.0.push(b'u');
    }

    /// Calls the last but one with the last, a tuple.
    pub fn reduce(&mut self) {
        self.0.push(b'R');
    }

    /// Makes an object of the last, a class, with no arguments.
    pub fn new_obj(&mut self) {
        self.empty_tuple();
        self.0.push(0x81);
    }

    /// Gives the last but one the last as its state.
    pub fn build(&mut self) {
        self.0.push(b'b');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pickle.dumps` with protocol 2, of CPython 3.11, which keeps everything in the memo:
    /// `[(1,), (2, 70000), (3, 4, 5, 2**40), True, None, {'a': False, 'b': [300, 2**63]}, (),
    /// Fraction(1, 2), argparse.Namespace(c=1, d='é')]`.
    const CPYTHON: &[u8] = b"\x80\x02]q\x00(K\x01\x85q\x01K\x02Jp\x11\x01\x00\x86q\x02(K\x03K\x04K\x05\x8a\x06\x00\x00\x00\x00\x00\x01tq\x03\x88N}q\x04(X\x01\x00\x00\x00aq\x05\x89X\x01\x00\x00\x00bq\x06]q\x07(M,\x01\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00eu)cfractions\nFraction\nq\x08K\x01K\x02\x86q\x09Rq\ncargparse\nNamespace\nq\x0b)\x81q\x0c}q\x0d(X\x01\x00\x00\x00cq\x0eK\x01X\x01\x00\x00\x00dq\x0fX\x02\x00\x00\x00\xc3\xa9q\x10ube.";

    #[test]
    fn what_is_told_is_what_cpython_writes() {
        let mut p = Pickler::new();
        p.empty_list();
        p.memoize();
        p.mark();
        p.uint(1);
        p.tuple1();
        p.memoize();
        [2, 70_000].into_iter().for_each(|i| p.uint(i));
        p.tuple2();
        p.memoize();
        p.mark();
        [3, 4, 5, 1 << 40].into_iter().for_each(|i| p.uint(i));
        p.tuple();
        p.memoize();
        p.bool(true);
        p.none();
        p.empty_dict();
        p.memoize();
        p.mark();
        p.str("a").unwrap();
        p.memoize();
        p.bool(false);
        p.str("b").unwrap();
        p.memoize();
        p.empty_list();
        p.memoize();
        p.mark();
        [300, 1 << 63].into_iter().for_each(|i| p.uint(i));
        p.append();
        p.set_items();
        p.empty_tuple();
        p.global("fractions", "Fraction");
        p.memoize();
        [1, 2].into_iter().for_each(|i| p.uint(i));
        p.tuple2();
        p.memoize();
        p.reduce();
        p.memoize();
        p.global("argparse", "Namespace");
        p.memoize();
        p.new_obj();
        p.memoize();
        p.empty_dict();
        p.memoize();
        p.mark();
        p.str("c").unwrap();
        p.memoize();
        p.uint(1);
        p.str("d").unwrap();
        p.memoize();
        p.str("é").unwrap();
        p.memoize();
        p.set_items();
        p.build();
        p.append();
        assert_eq!(p.finish(), CPYTHON);
    }
}
