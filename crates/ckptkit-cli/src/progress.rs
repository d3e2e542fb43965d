//! Progress on a terminal, and stopping on Ctrl-C.

use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ckptkit::{CopyReport, Observer, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

static STOPPED: AtomicBool = AtomicBool::new(false);
static BEGUN: OnceLock<Instant> = OnceLock::new();

/// From here on counts what `--verbose` says of time.
pub(crate) fn begin() {
    BEGUN.get_or_init(Instant::now);
}

/// A bar with rate and time left on stderr when that is a terminal; nothing elsewhere. Ctrl-C and
/// a request to terminate stop the work that it watches, so that it can clean up.
pub(crate) struct Bar {
    bar: ProgressBar,
    /// When everything was read and laid out, and writing began.
    planned: Instant,
    /// Whether to say in the end how long it took, and how the bytes were moved.
    verbose: bool,
}

impl Bar {
    pub(crate) fn new(doing: &'static str, total: u64, quiet: bool) -> Self {
        // Only the first handler of a process counts; there is one bar at a time. Whoever asks
        // twice will not wait.
        let _ = ctrlc::set_handler(|| {
            if STOPPED.swap(true, Ordering::Relaxed) {
                std::process::exit(2);
            }
        });
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(doing);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, planned: Instant::now(), verbose: false }
    }

    /// The same, which says in the end how long it took, and by which way the bytes went.
    pub(crate) fn verbose(mut self, verbose: bool) -> Self {
        self.verbose = verbose;
        self
    }

    /// Counts bytes; `false` when the work is to stop.
    pub(crate) fn advance(&self, bytes: u64) -> bool {
        self.bar.inc(bytes);
        !STOPPED.load(Ordering::Relaxed)
    }
}

impl Observer for Bar {
    fn on_progress(&self, progress: Progress) -> ControlFlow<()> {
        self.bar.set_position(progress.bytes_done);
        if STOPPED.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn on_written(&self, report: &CopyReport) {
        if self.verbose {
            let (shared, direct) = (report.shared_bytes, report.direct_bytes);
            let buffered = report.bytes - shared - direct;
            let begun = BEGUN.get().copied().unwrap_or(self.planned);
            let line = format!(
                "{} bytes in {} file(s), planned in {:.4} s, written in {:.4} s: \
                 {buffered} through the page cache, {direct} past it, {shared} shared with the source",
                report.bytes,
                report.files,
                (self.planned - begun).as_secs_f64(),
                self.planned.elapsed().as_secs_f64(),
            );
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
