//! Writes a copy of a file that `torch.load(weights_only=True)` loads, and says what changed:
//! `cargo run --example sanitize_torch -- SRC DST`.

use ckptkit_core::{CopyOptions, Existing, Layout};
use torch_save::TorchFile;
use torch_save::sanitize::SanitizeOptions;

fn main() -> ckptkit_core::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(from), Some(to)) = (args.next(), args.next()) else {
        eprintln!("usage: sanitize_torch SRC DST");
        std::process::exit(2);
    };
    let plan = TorchFile::open(&from)?.sanitize(&SanitizeOptions::new())?;
    for opcode in &plan.report.opcodes {
        println!("{} × {}", opcode.name, opcode.count);
    }
    for change in &plan.report.changes {
        let place = if change.is_key { "key" } else { "value" };
        let note = change.note.as_deref().map(|n| format!(" ({n})")).unwrap_or_default();
        let (path, count) = (&change.path, change.count);
        println!("{place} {path:?} × {count}: {} → {}{note}", change.was, change.became);
    }
    Layout::file(plan.layout).write(&to, Existing::Replace, &CopyOptions::default())?;
    Ok(())
}
