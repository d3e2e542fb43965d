//! The output cut into pieces, in the order in which threads take them.

use std::ops::Range;

/// What a thread takes at a time, in bytes: a multiple of every block size. Linux reads ahead of
/// somebody who jumps in small steps at first, so that a source which is not in memory wants long
/// pieces.
const LONG: u64 = 64 << 20;
/// The same in the end, so that threads end together.
pub(super) const SHORT: u64 = 16 << 20;

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
    let lengths: Vec<u64> = lengths.collect();
    let mut rest: u64 = lengths.iter().sum();
    let ending = LONG * threads.max(1) as u64;
    let mut waiting = lengths.into_iter().enumerate().filter(|(_, len)| *len > 0).map(whole);
    let mut open: Vec<Piece> = waiting.by_ref().take(threads.max(1)).collect();
    let mut pieces = Vec::new();
    let mut turn = 0;
    while !open.is_empty() {
        turn %= open.len();
        let left = &mut open[turn];
        let most = if rest > ending { LONG } else { SHORT };
        let end = left.range.end.min(left.range.start + most);
        rest -= end - left.range.start;
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
        let lengths = [9 * LONG + 5, 0, 1, 2 * LONG, 7];
        for threads in [1, 2, 3, 9] {
            let pieces = cut(lengths.into_iter(), threads);
            for (file, len) in lengths.into_iter().enumerate() {
                let mut at = 0;
                for piece in pieces.iter().filter(|p| p.file == file) {
                    assert_eq!(piece.range.start, at);
                    assert!(piece.range.end - at <= LONG && piece.range.end > at);
                    at = piece.range.end;
                }
                assert_eq!(at, len);
            }
        }
    }

    #[test]
    fn threads_write_different_files() {
        let files = |threads| -> Vec<usize> {
            cut([2 * SHORT; 3].into_iter(), threads).iter().map(|p| p.file).collect()
        };
        assert!(files(1).is_sorted());
        assert_eq!(files(2), [0, 1, 0, 1, 2, 2]);
    }

    #[test]
    fn pieces_are_long_until_threads_are_to_end_together() {
        let sizes = |len: u64| -> Vec<u64> {
            let pieces = cut([len].into_iter(), 2);
            pieces.iter().map(|p| p.range.end - p.range.start).collect()
        };
        assert_eq!(sizes(2 * LONG), [SHORT; 8]);
        let ending = [SHORT; 8];
        assert_eq!(sizes(4 * LONG), [&[LONG; 2][..], &ending].concat());
        assert_eq!(sizes(3 * LONG + 1), [&[LONG; 2][..], &ending[..4], &[1]].concat());
    }
}
