//! Progress on a terminal, and stopping on Ctrl-C.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ckptkit::{Observer, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

static STOPPED: AtomicBool = AtomicBool::new(false);

/// A bar with rate and time left on stderr when that is a terminal; nothing elsewhere. Ctrl-C and
/// a request to terminate stop the work that it watches, so that it can clean up.
pub(crate) struct Bar(ProgressBar);

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
        Self(bar)
    }

    /// Counts bytes; `false` when the work is to stop.
    pub(crate) fn advance(&self, bytes: u64) -> bool {
        self.0.inc(bytes);
        !STOPPED.load(Ordering::Relaxed)
    }
}

impl Observer for Bar {
    fn on_progress(&self, progress: Progress) -> ControlFlow<()> {
        self.0.set_position(progress.bytes_done);
        if STOPPED.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
