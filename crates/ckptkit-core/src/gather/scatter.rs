//! From the bytes around a box to where its units belong.

use super::boxes::Move;
use super::to_usize;

/// Units of a run that are put in place together where rows become columns: so few that all the
/// places they go to stay in the first cache, so many that a line of it is not read for each.
const TURNED: usize = 8;

/// Copies the box out of the bytes read around it.
pub(super) fn scatter(span: &[u8], unit: u64, job: &Move, out: &mut [u8]) {
    let Some(last) = job.sizes.len().checked_sub(1) else {
        let (to, len) = (to_usize(job.to * unit), to_usize(unit));
        out[to..to + len].copy_from_slice(&span[..len]);
        return;
    };
    let side = |d: usize| Side {
        n: to_usize(job.sizes[d]),
        from: to_usize(job.from_strides[d] * unit),
        to: to_usize(job.to_strides[d] * unit),
    };
    let run = (0..last).find(|&d| job.from_strides[d] == 1 && job.from_strides[last] != 1);
    let second = run.or(last.checked_sub(1));
    let (row, rows) = (side(last), second.map_or(Side { n: 1, from: 0, to: 0 }, side));
    let copy = match (run, unit) {
        (Some(_), 1) => turn::<1>,
        (Some(_), 2) => turn::<2>,
        (Some(_), 4) => turn::<4>,
        (Some(_), 8) => turn::<8>,
        (Some(_), _) => turn::<16>,
        (None, 1) => copy_rows::<1>,
        (None, 2) => copy_rows::<2>,
        (None, 4) => copy_rows::<4>,
        (None, 8) => copy_rows::<8>,
        (None, _) => copy_rows::<16>,
    };
    let outer: Vec<usize> = (0..last).filter(|&d| Some(d) != second).collect();
    let mut index = vec![0; outer.len()];
    loop {
        let at = |strides: &[u64]| index.iter().zip(&outer).map(|(i, &d)| i * strides[d]).sum();
        let (from, to): (u64, u64) = (at(&job.from_strides), at(&job.to_strides));
        let (from, to) = (to_usize(from * unit), to_usize((job.to + to) * unit));
        copy(&span[from..], &mut out[to..], row, rows);
        let next = (0..outer.len()).rev().find(|&i| {
            index[i] = (index[i] + 1) % job.sizes[outer[i]];
            index[i] > 0
        });
        if next.is_none() {
            return;
        }
    }
}

/// A dimension of a plane of units: how many there are, and how many bytes lie from one to the
/// next on both sides.
#[derive(Clone, Copy)]
struct Side {
    n: usize,
    from: usize,
    to: usize,
}

fn copy_rows<const U: usize>(from: &[u8], to: &mut [u8], row: Side, rows: Side) {
    for j in 0..rows.n {
        let (from, to) = (&from[j * rows.from..], &mut to[j * rows.to..]);
        if row.from == U && row.to == U {
            to[..row.n * U].copy_from_slice(&from[..row.n * U]);
            continue;
        }
        for i in 0..row.n {
            to[i * row.to..][..U].copy_from_slice(&from[i * row.from..][..U]);
        }
    }
}

/// As [`copy_rows`], where the elements of a column lie next to each other.
fn turn<const U: usize>(from: &[u8], to: &mut [u8], row: Side, column: Side) {
    let whole = column.n - column.n % TURNED;
    for first in (0..whole).step_by(TURNED) {
        let (from, to) = (&from[first * U..], &mut to[first * column.to..]);
        for i in 0..row.n {
            let units = &from[i * row.from..][..TURNED * U];
            let to = &mut to[i * row.to..];
            for (j, unit) in units.chunks_exact(U).enumerate() {
                to[j * column.to..][..U].copy_from_slice(unit);
            }
        }
    }
    let (from, to) = (&from[whole * U..], to.get_mut(whole * column.to..).unwrap_or_default());
    copy_rows::<U>(from, to, row, Side { n: column.n - whole, ..column });
}
