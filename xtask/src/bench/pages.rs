//! Free pages of a virtual machine, and whether its host takes them back.
//!
//! Where a guest reports its free pages (the kernel's free page reporting), the host takes their
//! memory away and has to find some again at the next touch. What a run then takes depends on which
//! pages it happened to get. The setting is the whole machine's and its host reckons with it, so it
//! is changed only where the command says so, and put back whatever becomes of the run.

use std::fs;
use std::path::{Path, PathBuf};

use super::machine::kib;

/// The smallest block that is reported, as a power of two of pages.
const ORDER: &str = "/sys/module/page_reporting/parameters/page_reporting_order";
/// Left free, for whatever else runs and so that the page cache keeps the inputs.
const MARGIN: u64 = 2 << 30;
const PIECE: usize = 64 << 20;

/// What happens to free pages during a run; what was changed for it is put back on drop.
pub(super) struct FreePages {
    state: String,
    /// Whether they stay once they were touched, and shall be.
    touch: bool,
    hold: Option<Hold>,
}

impl FreePages {
    /// Looks, and with `hold` stops the reporting. Tells it on stderr where numbers are at stake.
    pub(super) fn new(hold: bool) -> Self {
        let blocks = fs::read_to_string("/proc/buddyinfo").unwrap_or_default();
        let pages = Self::at(Path::new(ORDER), largest_order(&blocks), hold);
        if let Some(hold) = &pages.hold {
            let (path, before) = (hold.path.display(), &hold.before);
            eprintln!("{path} is set for the time of the run, and {before} again after it");
            let last = Hold { path: hold.path.clone(), before: before.clone() };
            // An interrupted process drops nothing.
            let handler = ctrlc::set_handler(move || {
                last.restore();
                std::process::exit(130);
            });
            if let Err(e) = handler {
                eprintln!("an interrupted run will not put it back: {e}");
            }
        } else if pages.state.contains("noise") {
            eprintln!("free pages are {}", pages.state);
        }
        pages
    }

    fn at(path: &Path, largest: i64, hold: bool) -> Self {
        let given = "given back to the host";
        let as_found = |state: &str| Self { state: state.to_owned(), touch: hold, hold: None };
        let Ok(text) = fs::read_to_string(path) else {
            return as_found("not given back to a host: the kernel does not report them");
        };
        let before = text.trim().to_owned();
        // Before a driver asks for reports the number is none that a block can have.
        let reports = |order: &str| order.parse().is_ok_and(|n: i64| (0..=largest).contains(&n));
        if !reports(&before) {
            return as_found("not given back to the host: not reported when the run began");
        }
        let noise = |why: &str| Self {
            state: format!("{given}: not stopped ({why}), expect noise"),
            touch: false,
            hold: None,
        };
        if !hold {
            return noise("--hold-pages does");
        }
        let hold = Hold { path: path.to_owned(), before };
        if let Err(e) = fs::write(path, (largest + 1).to_string()) {
            return noise(&e.to_string());
        }
        if fs::read_to_string(path).is_ok_and(|now| reports(now.trim())) {
            hold.restore();
            return noise("the kernel keeps to an order of its own");
        }
        Self { state: format!("{given}: stopped for the run"), touch: true, hold: Some(hold) }
    }

    /// In words, for the description of the machine.
    pub(super) fn state(&self) -> &str {
        &self.state
    }

    /// Touches most of the free memory once, so that nothing that is timed is the first to.
    pub(super) fn touch(&self) {
        if !self.touch {
            return;
        }
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        while spare() > MARGIN {
            pieces.push(vec![1; PIECE]);
        }
        eprintln!("touched {} MB of free memory", pieces.len() * PIECE / 1_000_000);
    }
}

/// A setting of the kernel that goes back to what it was.
struct Hold {
    path: PathBuf,
    before: String,
}

impl Hold {
    fn restore(&self) {
        if let Err(e) = fs::write(&self.path, &self.before) {
            eprintln!("{} stays changed, and was {}: {e}", self.path.display(), self.before);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.restore();
    }
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
fn largest_order(blocks: &str) -> i64 {
    let counts = |line: &str| line.split_whitespace().skip(4).count();
    let orders = blocks.lines().map(counts).max().unwrap_or(0);
    // As kernels have it that do not tell.
    i64::try_from(orders).ok().filter(|n| *n > 0).unwrap_or(11) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that stands for the kernel's.
    fn setting(name: &str, order: &str) -> PathBuf {
        let name = format!("ckptkit-xtask-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, order).unwrap();
        path
    }

    #[test]
    fn a_run_that_holds_pages_puts_the_setting_back() {
        let path = setting("held", "9\n");
        let pages = FreePages::at(&path, 10, true);
        assert_eq!(fs::read_to_string(&path).unwrap(), "11");
        assert!(pages.touch && pages.state().ends_with("stopped for the run"));
        drop(pages);
        assert_eq!(fs::read_to_string(&path).unwrap(), "9");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn nothing_is_changed_unasked() {
        let path = setting("asked", "9\n");
        let pages = FreePages::at(&path, 10, false);
        assert_eq!(fs::read_to_string(&path).unwrap(), "9\n");
        assert!(!pages.touch && pages.state().contains("expect noise"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn nothing_is_changed_where_nothing_is_reported() {
        for off in ["11\n", "-1\n", "4294967295\n"] {
            let path = setting("off", off);
            let pages = FreePages::at(&path, 10, true);
            assert!(pages.touch && pages.state().starts_with("not given back"), "{off}");
            drop(pages);
            assert_eq!(fs::read_to_string(&path).unwrap(), off);
            fs::remove_file(path).unwrap();
        }
        let none = FreePages::at(Path::new("/nonexistent"), 10, true);
        assert!(none.touch && none.state().contains("does not report"));
    }

    #[test]
    fn the_largest_block_is_the_last_column() {
        let blocks = "Node 0, zone DMA 1 2 3 4 5 6 7 8 9 10 11\nNode 0, zone Normal 0 0 0";
        assert_eq!(largest_order(blocks), 10);
        assert_eq!(largest_order(""), 10);
    }
}
