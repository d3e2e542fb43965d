//! Free pages of a virtual machine, and how its host is kept from taking them back meanwhile.
//!
//! Where a guest reports its free pages (the kernel's free page reporting), the host takes their
//! memory away and has to find some again at the next touch. What a run then takes depends on which
//! pages it happens to get. Only blocks of many pages are reported; so one page is held in each of
//! them while it is measured, and what is free around it was touched once and stays.

use std::fs;
use std::path::Path;

use super::machine::kib;

/// The smallest block that is reported, as a power of two of pages.
const ORDER: &str = "/sys/module/page_reporting/parameters/page_reporting_order";
/// Left alone, for whatever else runs and so that the page cache keeps the inputs.
const MARGIN: u64 = 1 << 30;
const PAGE: usize = 4096;

/// What happens to free pages during a run, and the pages that are held for it.
pub(super) struct FreePages {
    state: String,
    held: Vec<Box<[u8; PAGE]>>,
}

impl FreePages {
    /// Looks whether free pages are reported, and holds some where they are.
    pub(super) fn new() -> Self {
        let order = fs::read_to_string(Path::new(ORDER)).ok();
        let blocks = fs::read_to_string("/proc/buddyinfo").unwrap_or_default();
        match order.and_then(|order| reported(&order, largest_order(&blocks))) {
            Some(bytes) => Self::held(bytes),
            None => Self { state: "not given back to a host".to_owned(), held: Vec::new() },
        }
    }

    /// Goes through the free memory once, and keeps a page in every half of a block.
    fn held(block: usize) -> Self {
        let between = block / 2;
        let (mut held, mut rest) = (Vec::new(), Vec::new());
        while spare() > MARGIN {
            // The kernel gives out pages in order, as they are touched.
            for _ in 0..(64 << 20) / between {
                held.push(Box::new([1; PAGE]));
                rest.push(vec![1_u8; between]);
            }
        }
        let state = format!(
            "given back to the host in blocks of {} KiB; kept from it by {} MB that were held in them",
            block >> 10,
            held.len() * PAGE / 1_000_000
        );
        eprintln!("free pages are {state}");
        Self { state, held }
    }

    /// In words, for the description of the machine.
    pub(super) fn state(&self) -> &str {
        &self.state
    }
}

impl Drop for FreePages {
    fn drop(&mut self) {
        // Until here nothing has let them go.
        std::hint::black_box(&self.held);
    }
}

/// Bytes of the blocks that a kernel with this setting reports. Before a driver asks for reports the
/// setting is no order that a block can have.
fn reported(order: &str, largest: u32) -> Option<usize> {
    let order = order.trim().parse::<u32>().ok().filter(|order| *order <= largest)?;
    PAGE.checked_shl(order)
}

/// Bytes that can be taken now: free ones, which hold no file's pages, within what a container may
/// have.
fn spare() -> u64 {
    let free = kib("MemFree").min(kib("MemAvailable")) << 10;
    let number = |name: &str| {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let limit = number("memory.max").zip(number("memory.current"));
    limit.map_or(free, |(most, taken)| free.min(most.saturating_sub(taken)))
}

/// The order of the largest block that the kernel keeps: `Node 0, zone DMA` and a count for each.
fn largest_order(blocks: &str) -> u32 {
    let counts = |line: &str| line.split_whitespace().skip(4).count();
    let orders = blocks.lines().map(counts).max().unwrap_or(0);
    // As kernels have it that do not tell.
    u32::try_from(orders).ok().filter(|n| *n > 0).unwrap_or(11) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_orders_that_blocks_have_are_reported() {
        assert_eq!(reported("9\n", 10), Some(2 << 20));
        assert_eq!(reported("0\n", 10), Some(4096));
        for off in ["11\n", "-1\n", "4294967295\n", ""] {
            assert_eq!(reported(off, 10), None, "{off}");
        }
    }

    #[test]
    fn the_largest_block_is_the_last_column() {
        let blocks = "Node 0, zone DMA 1 2 3 4 5 6 7 8 9 10 11\nNode 0, zone Normal 0 0 0";
        assert_eq!(largest_order(blocks), 10);
        assert_eq!(largest_order(""), 10);
    }
}
