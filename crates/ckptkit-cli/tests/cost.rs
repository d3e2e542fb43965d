//! What listing reads and how much memory it takes, as the program.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{program, sparse};

/// A number from a file below `/proc/PID`.
fn of(pid: u32, file: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find(|l| l.starts_with(field)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Whether a child has ended, and waits for us to take note.
fn ended(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    state.rsplit_once(')').unwrap().1.trim_start().starts_with('Z')
}

/// The listing is longer than a pipe holds, so that the program waits in the middle of printing,
/// when all has been read, for as long as nobody takes it.
#[test]
fn a_listing_reads_the_header_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.safetensors");
    sparse(&path, 5000, 2 << 20);
    for verb in ["ls", "digest --weights-key nothing"] {
        let mut words = verb.split(' ');
        let mut child = program()
            .arg(words.next().unwrap())
            .args(words)
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let (mut last, mut still) = (0, 0);
        // Until it has ended and only waits for us, or reads no more, since the pipe is full.
        loop {
            let read = of(child.id(), "io", "rchar:");
            let ended = ended(child.id());
            still = if read > 500_000 && read == last { still + 1 } else { 0 };
            if ended || still == 10 {
                break;
            }
            last = read;
            assert!(start.elapsed() < Duration::from_secs(60), "it does not print");
            std::thread::sleep(Duration::from_millis(50));
        }
        let read = of(child.id(), "io", "rchar:");
        let size = path.metadata().unwrap().len();
        assert!(read < size / 1000, "{verb}: {read} of {size} bytes were read");
        if verb == "ls" {
            let peak = of(child.id(), "status", "VmHWM:");
            assert!(peak < 64 << 10, "{peak} KiB of memory");
            let mut listing = String::new();
            child.stdout.take().unwrap().read_to_string(&mut listing).unwrap();
            assert_eq!(listing.lines().count(), 5001);
        }
        child.wait().unwrap();
    }
}

/// A line at a time, 5000 tensors would be 40 000 writes.
#[test]
fn listings_are_written_in_large_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("many.safetensors");
    sparse(&path, 5000, 16);
    for form in [&[][..], &["--json"], &["--tree"]] {
        let out = dir.path().join("listing");
        let mut child = program()
            .arg("ls")
            .arg(&path)
            .args(form)
            .stdout(std::fs::File::create(&out).unwrap())
            .spawn()
            .unwrap();
        while !ended(child.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let writes = of(child.id(), "io", "syscw:");
        assert!(child.wait().unwrap().success());
        let bytes = out.metadata().unwrap().len();
        assert!(bytes > 200_000 && writes <= 4 + 2 * bytes / 60_000, "{writes} for {bytes} bytes");
    }
}
