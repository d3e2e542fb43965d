//! The curves.

use std::path::Path;

use super::super::measure::{Cache, Call, bytes as bytes_of, clear};
use super::super::table::{Cells, size_of, time};
use super::points::{Lab, Point, safetensors};

/// Bytes a second, of the largest conversion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// From the page cache into it.
    warm: f64,
    /// From the disk to the disk.
    disk: f64,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn megabytes(bytes: u64) -> String {
    size_of(float(bytes))
}

fn float(count: u64) -> f64 {
    // Exact below 2^53, and enough above.
    let (high, low) = (count >> 32, count & 0xFFFF_FFFF);
    let part = |n: u64| u32::try_from(n).map_or(0.0, f64::from);
    part(high) * 4_294_967_296.0 + part(low)
}

fn cells(start: &[String], point: &Point) -> Vec<String> {
    let memory = [point.memory.anonymous, point.memory.resident].map(megabytes);
    [start, &[time(point.wall.median)], &memory].concat()
}

fn copy(source: &Path, output: &Path) -> Call {
    let mut call = vec!["cp".to_owned()];
    call.extend(source.is_dir().then(|| "-r".to_owned()));
    call.extend([text(source), text(output)]);
    call
}

/// Three sizes, each four times the one before.
pub(super) fn bytes(lab: &Lab<'_>, largest: u64, tensors: u64) -> Result<(Cells, Rates), String> {
    let mut table =
        vec![head(&["bytes", "conversion", "cp", "wall", "anonymous", "resident", "ratio to cp"])];
    let mut rates = Rates { warm: 0.0, disk: 0.0 };
    for size in [largest / 16, largest / 4, largest] {
        // One source at a time: the largest take room.
        let mut source = lab.path("model.safetensors")?;
        safetensors(&source, size, tensors)?;
        for (name, next) in [("last.ckpt", "ckpt"), ("rows", "distcp"), ("again.safetensors", "")] {
            let output = lab.path(name)?;
            let (from, to) = (text(&source), text(&output));
            let mut args = vec!["convert", &from, &to];
            if next == "distcp" {
                args.extend(["--to", next, "--ranks", "4"]);
            }
            let beside = lab.path("copy")?;
            let cp = lab.point(&[copy(&source, &beside)], &source, &beside, Cache::Warm, false)?;
            let ours = lab.point(&[lab.ours(&args)], &source, &output, Cache::Warm, true)?;
            let ratio = ours.wall.median / cp.wall.median;
            let start =
                [megabytes(bytes_of(&source)?), arrow(&source, &output), time(cp.wall.median)];
            table.push([cells(&start, &ours), vec![format!("{ratio:.2}")]].concat());
            rates.warm = float(size) / ours.wall.median;
            if size == largest && next == "ckpt" {
                let synced = lab.ours(&[&args[..], &["--fsync"]].concat());
                let disk = lab.point(&[synced], &source, &output, Cache::Cold, true)?;
                rates.disk = float(size) / disk.wall.median;
            }
            lab.make(&args)?;
            clear(&source)?;
            source = output;
        }
        clear(&source)?;
    }
    Ok((table, rates))
}

fn arrow(source: &Path, output: &Path) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{} → {}", name(source), name(output))
}

/// From a hundred tensors to a million, of 64 bytes each.
pub(super) fn tensors(lab: &Lab<'_>) -> Result<Cells, String> {
    let mut table = vec![head(&["tensors", "format", "task", "wall", "anonymous", "resident"])];
    for count in [100, 1000, 10_000, 100_000, 1_000_000] {
        for (format, name) in
            [("safetensors", "many.safetensors"), ("ckpt", "many.ckpt"), ("distcp", "many")]
        {
            let (source, output) = (lab.path(name)?, lab.path("out.ckpt")?);
            lab.hollow(format, &source, count, 16)?;
            for args in [vec!["ls"], vec!["convert", "--overwrite"]] {
                let task = if args[0] == "ls" { "list" } else { "convert to .ckpt" };
                let (from, to) = (text(&source), text(&output));
                let mut args = args;
                args.push(&from);
                args.extend((args[0] == "convert").then_some(to.as_str()));
                let start = [count.to_string(), format.to_owned(), task.to_owned()];
                match lab.point(&[lab.ours(&args)], &source, &output, Cache::Warm, false) {
                    Ok(point) => table.push(cells(&start, &point)),
                    Err(why) => {
                        let why = [lab.refused(&why), String::new(), String::new()];
                        table.push([&start[..], &why].concat());
                    }
                }
            }
            clear(&source)?;
        }
    }
    Ok(table)
}

/// From one file to 1024, of 100 MB together.
pub(super) fn ranks(lab: &Lab<'_>) -> Result<Cells, String> {
    let mut table = vec![head(&["ranks", "task", "wall", "anonymous", "resident"])];
    let source = lab.path("model.safetensors")?;
    safetensors(&source, 100_000_000, 24)?;
    for ranks in [1_u64, 4, 16, 64, 256, 1024] {
        let (count, folder) = (ranks.to_string(), lab.path("rows")?);
        let (from, to) = (text(&source), text(&folder));
        let args = ["convert", &from, &to, "--to", "distcp", "--ranks", &count];
        let write = lab.point(&[lab.ours(&args)], &source, &folder, Cache::Warm, true)?;
        table.push(cells(&[count.clone(), "write".to_owned()], &write));
        lab.make(&args)?;
        let output = lab.path("again.safetensors")?;
        let back = lab.ours(&["convert", &to, &text(&output)]);
        let read = lab.point(&[back], &folder, &output, Cache::Warm, true)?;
        table.push(cells(&[count, "read into safetensors".to_owned()], &read));
        clear(&folder)?;
    }
    clear(&source)?;
    Ok(table)
}

/// Threads that move bytes.
pub(super) fn threads(lab: &Lab<'_>, size: u64, tensors: u64) -> Result<Cells, String> {
    let mut table = vec![head(&["threads", "conversion", "wall", "anonymous", "resident"])];
    let plain = lab.path("model.safetensors")?;
    let source = lab.path("last.ckpt")?;
    safetensors(&plain, size, tensors)?;
    lab.make(&["convert", &text(&plain), &text(&source)])?;
    clear(&plain)?;
    let output = lab.path("out.safetensors")?;
    for threads in ["1", "2", "4", "8", "0"] {
        let args = ["convert", &text(&source), &text(&output), "--threads", threads];
        let point = lab.point(&[lab.ours(&args)], &source, &output, Cache::Warm, true)?;
        let named = if threads == "0" { "chosen" } else { threads };
        table.push(cells(&[named.to_owned(), arrow(&source, &output)], &point));
    }
    clear(&source)?;
    Ok(table)
}

/// Plans of a terabyte: all headers are there, what tensors hold is holes. Gives the seconds of the
/// slowest.
pub(super) fn terabyte(lab: &Lab<'_>) -> Result<(Cells, f64), String> {
    const TENSORS: u64 = 10_000;
    const ELEMENTS: u64 = 25_000_000;
    let mut table = vec![head(&["plan (--dry-run)", "wall", "anonymous", "resident"])];
    let mut slowest = 0.0_f64;
    for (format, name) in
        [("safetensors", "huge.safetensors"), ("ckpt", "huge.ckpt"), ("distcp", "huge")]
    {
        let source = lab.path(name)?;
        lab.hollow(format, &source, TENSORS, ELEMENTS)?;
        for (to, more) in [
            ("out.safetensors", &[][..]),
            ("out", &[]),
            ("out.ckpt", &[]),
            ("ranks", &["--to", "distcp", "--ranks", "64"]),
        ] {
            let output = lab.path(to)?;
            let (from, into) = (text(&source), text(&output));
            let args = [&["convert", &from, &into, "--dry-run"], more].concat();
            let what = format!("{} {}", arrow(&source, &output), more.join(" "));
            match lab.point(&[lab.ours(&args)], &source, &output, Cache::Warm, false) {
                Ok(point) => {
                    slowest = slowest.max(point.wall.median);
                    table.push(cells(&[what.trim_end().to_owned()], &point));
                }
                Err(why) => table.push(vec![what, lab.refused(&why), "".into(), "".into()]),
            }
        }
        clear(&source)?;
    }
    Ok((table, slowest))
}

/// What the measured rates come to for a terabyte.
pub(super) fn estimate(rates: Rates, plan: f64) -> Cells {
    const BYTES: f64 = 1e12;
    let mut table = vec![head(&["machines", "limited by", "rate of each", "plan", "a terabyte"])];
    for machines in [1_u32, 64] {
        for (limit, rate) in [("memory", rates.warm), ("disk, with --fsync", rates.disk)] {
            let seconds = plan + BYTES / f64::from(machines) / rate;
            table.push(vec![
                machines.to_string(),
                limit.to_owned(),
                format!("{:.2} GB/s", rate / 1e9),
                time(plan),
                format!("{:.1} min", seconds / 60.0),
            ]);
        }
    }
    table
}
