//! The output cut into pieces, in the order in which threads take them.

use std::ops::Range;

/// What a thread takes at a time, in bytes: a multiple of every block size.
pub(super) const PIECE: u64 = 16 << 20;

/// A stretch of one output file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) file: usize,
    pub(super) range: Range<u64>,
}

/// Cuts files of these lengths. File systems let one writer into a file at a time, so pieces that
/// follow each other are of different files: as many as there are threads, front to back in each.
pub(super) fn cut(lengths: impl Iterator<Item = u64>, threads: usize) -> Vec<Piece> {
    let whole = |(file, len)| Piece { file, range: 0..len };
    let mut waiting = lengths.enumerate().filter(|(_, len)| *len > 0).map(whole);
    let mut open: Vec<Piece> = waiting.by_ref().take(threads.max(1)).collect();
    let mut pieces = Vec::new();
    let mut turn = 0;
    while !open.is_empty() {
        turn %= open.len();
        let left = &mut open[turn];
        let end = left.range.end.min(left.range.start + PIECE);
        pieces.push(Piece { file: left.file, range: left.range.start..end });
        left.range.start = end;
        if !left.range.is_empty() {
            turn += 1;
        } else if let Some(next) = waiting.next() {
            open[turn] = next;
            turn += 1;
        } else {
            open.remove(turn);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_in_one_piece() {
        let lengths = [3 * PIECE + 5, 0, 1, 2 * PIECE, 7];
        for threads in [1, 2, 3, 9] {
            let pieces = cut(lengths.into_iter(), threads);
            for (file, len) in lengths.into_iter().enumerate() {
                let mut at = 0;
                for piece in pieces.iter().filter(|p| p.file == file) {
                    assert_eq!(piece.range.start, at);
                    assert!(piece.range.end - at <= PIECE && piece.range.end > at);
                    at = piece.range.end;
                }
                assert_eq!(at, len);
            }
        }
    }

    #[test]
    fn threads_write_different_files() {
        let files = |threads| -> Vec<usize> {
            cut([2 * PIECE; 3].into_iter(), threads).iter().map(|p| p.file).collect()
        };
        assert_eq!(files(1), [0, 0, 1, 1, 2, 2]);
        assert_eq!(files(2), [0, 1, 0, 1, 2, 2]);
    }
}
