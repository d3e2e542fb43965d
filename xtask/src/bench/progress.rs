//! What a run is at, on stderr: one line that changes on a terminal, few lines elsewhere.

use std::io::IsTerminal;

/// Says what runs now; it is gone with the next.
pub(super) fn now(what: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{what}");
    }
}

/// Clears what was said last.
pub(super) fn clear() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

/// Says where nobody watches which part of the run begins.
pub(super) fn part(what: &str) {
    if !std::io::stderr().is_terminal() {
        eprintln!("{what}");
    }
}
