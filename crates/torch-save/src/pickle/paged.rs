//! Something about every node, for a few nodes or for all of them.

/// Entries that are kept together.
const PAGE: usize = 1024;

/// What is known of nodes by their positions; of those that nothing was said of, `T` as it was given
/// first. All nodes of a graph cost little more than an array, a few nodes of a large one cost
/// little.
#[derive(Clone, Debug)]
pub(super) struct Paged<T> {
    pages: Vec<Option<Box<[T; PAGE]>>>,
    unknown: T,
}

impl<T: Copy> Paged<T> {
    pub(super) const fn new(unknown: T) -> Self {
        Self { pages: Vec::new(), unknown }
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> T {
        match self.pages.get(at / PAGE) {
            Some(Some(page)) => page[at % PAGE],
            _ => self.unknown,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> &mut T {
        if self.pages.len() <= at / PAGE {
            self.grow(at);
        }
        let slot = &mut self.pages[at / PAGE];
        match slot {
            Some(page) => &mut page[at % PAGE],
            None => first(slot, at, self.unknown),
        }
    }

    #[cold]
    fn grow(&mut self, at: usize) {
        self.pages.resize(at / PAGE + 1, None);
    }

    /// Everything that something may have been said of.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages.iter_mut().flatten().flat_map(|page| page.iter_mut())
    }
}

/// The first entry of a page that is wanted.
#[cold]
fn first<T: Copy>(slot: &mut Option<Box<[T; PAGE]>>, at: usize, unknown: T) -> &mut T {
    &mut slot.insert(Box::new([unknown; PAGE]))[at % PAGE]
}
