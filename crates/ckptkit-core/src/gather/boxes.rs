//! Boxes: which units of a storage, in what order, and where each goes.

/// A box of units (elements, or bytes of packed types) in storage and where it goes.
#[derive(Clone)]
pub(super) struct Move {
    pub(super) sizes: Vec<u64>,
    pub(super) from: u64,
    pub(super) from_strides: Vec<u64>,
    pub(super) to: u64,
    pub(super) to_strides: Vec<u64>,
}

impl Move {
    /// Drops dimensions of one element and joins those that are one run on both sides.
    pub(super) fn fold(&mut self) {
        let mut d = 0;
        while d < self.sizes.len() {
            if self.sizes[d] == 1 {
                self.remove(d);
            } else {
                d += 1;
            }
        }
        let mut d = 1;
        while d < self.sizes.len() {
            let n = self.sizes[d];
            if self.from_strides[d - 1] == self.from_strides[d] * n
                && self.to_strides[d - 1] == self.to_strides[d] * n
            {
                self.sizes[d] *= self.sizes[d - 1];
                self.remove(d - 1);
            } else {
                d += 1;
            }
        }
    }

    fn remove(&mut self, d: usize) {
        self.sizes.remove(d);
        self.from_strides.remove(d);
        self.to_strides.remove(d);
    }

    pub(super) fn is_one_run(&self) -> bool {
        match self.sizes.len() {
            0 => true,
            1 => self.from_strides[0] == 1 && self.to_strides[0] == 1,
            _ => false,
        }
    }

    /// The dimension along which elements lie next to each other in storage, and how many such runs
    /// there are.
    pub(super) fn runs(&self) -> (Option<usize>, u64) {
        let run = self.from_strides.iter().position(|&stride| stride == 1);
        let units = self.sizes.iter().product::<u64>();
        (run, run.map_or(units, |d| units / self.sizes[d].max(1)))
    }

    /// Units of storage from the first to the last that the box uses.
    pub(super) fn span(&self) -> u64 {
        1 + self.sizes.iter().zip(&self.from_strides).map(|(&n, &s)| (n - 1) * s).sum::<u64>()
    }

    pub(super) fn halves(&self) -> [Self; 2] {
        let widest = (0..self.sizes.len())
            .filter(|&d| self.sizes[d] > 1)
            .max_by_key(|&d| (self.sizes[d] - 1) * self.from_strides[d])
            .unwrap_or(0);
        let head = self.sizes[widest] / 2;
        let mut a = self.clone();
        let mut b = self.clone();
        a.sizes[widest] = head;
        b.sizes[widest] -= head;
        b.from += head * self.from_strides[widest];
        b.to += head * self.to_strides[widest];
        a.fold();
        b.fold();
        [a, b]
    }
}
