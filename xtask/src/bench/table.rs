//! Results as text: for the terminal, and the same as Markdown.

use super::cases::{ANONYMOUS, CHUNK_BYTES, Limit, RESIDENT};
use super::row::{Rounds, Row, Spread, Verdict};

/// Cells by line; the first line is the head.
pub(super) type Cells = Vec<Vec<String>>;

/// Our rows: one a case.
pub(super) fn ours(rows: &[Row]) -> Cells {
    let head =
        ["case", "wall", "beside it", "result", "in-process", "CPU", "anonymous", "resident"];
    let mut cells = vec![line(&[&head[..], &["target", "at most", "verdict"]].concat())];
    for row in rows {
        let unit = |value: f64| if row.is_ratio() { format!("{value:.2}") } else { time(value) };
        let (rounds, failure) = (&row.ours, row.ours.failure.as_deref());
        let timed = |spread: Option<Spread>, show: &dyn Fn(f64) -> String| match spread {
            Some(spread) if failure.is_none() => range(spread, show),
            _ => "–".to_owned(),
        };
        let verdict =
            failure.map_or_else(|| row.verdict().name().to_owned(), |why| format!("FAILED: {why}"));
        cells.push(vec![
            row.case.name.to_owned(),
            timed(Spread::of(&rounds.wall), &time),
            timed(Spread::of(&row.base), &time),
            timed(Spread::of(&rounds.values), &unit),
            timed(Spread::of(&row.inside), &time),
            Spread::of(&rounds.cpu).map_or("–".to_owned(), |s| time(s.median)),
            size(rounds.memory.anonymous),
            size(rounds.memory.resident),
            unit(row.case.limit.0),
            unit(row.case.limit.1),
            verdict,
        ]);
    }
    cells
}

/// What is judged over all cases: the memory of a chunk, and the most memory of any.
pub(super) fn over_all(rows: &[Row], tensors: u64) -> Cells {
    let mut cells = vec![line(&["of all cases", "result", "case", "target", "at most", "verdict"])];
    let mut judge =
        |what: &str, value: f64, case: &str, limit: Limit, show: &dyn Fn(f64) -> String| {
            let verdict = Verdict::of(value, limit).name();
            cells.push(line(&[what, &show(value), case, &show(limit.0), &show(limit.1), verdict]));
        };
    let (chunks, ..) = CHUNK_BYTES;
    let held = rows.iter().find(|row| row.case.name == chunks && row.ours.failure.is_none());
    if let Some(spread) = held.and_then(|row| Spread::of(&row.chunk)) {
        let show = |bytes: f64| format!("{bytes:.0} B");
        judge("bytes a chunk of .metadata", spread.median, chunks, CHUNK_BYTES.2, &show);
    }
    // The index of a million chunks has the limit above.
    let usual = || rows.iter().filter(|row| row.case.name != chunks && row.ours.failure.is_none());
    let bound = |row: &Row, (fixed, each): (f64, f64)| fixed + each * tensors_of(row, tensors);
    let worst = usual().max_by(|a, b| {
        let part = |row: &Row| mega(row.ours.memory.anonymous) / bound(row, ANONYMOUS[1]);
        part(a).total_cmp(&part(b))
    });
    let show = |mb: f64| size_of(mb * 1e6);
    if let Some(row) = worst {
        let limit = Limit(bound(row, ANONYMOUS[0]) / 1e6, bound(row, ANONYMOUS[1]) / 1e6);
        judge(
            "peak anonymous memory",
            mega(row.ours.memory.anonymous),
            row.case.name,
            limit,
            &show,
        );
    }
    if let Some(row) = usual().max_by_key(|row| row.ours.memory.resident) {
        let limit = Limit(RESIDENT.0 / 1e6, RESIDENT.1 / 1e6);
        judge("peak resident memory", mega(row.ours.memory.resident), row.case.name, limit, &show);
    }
    cells
}

fn tensors_of(row: &Row, tensors: u64) -> f64 {
    let tensors = if row.case.source.starts_with("many") { 10_000 } else { tensors };
    u32::try_from(tensors).map_or(f64::MAX, f64::from)
}

fn mega(bytes: u64) -> f64 {
    u32::try_from(bytes / 1000).map_or(f64::MAX, f64::from) / 1e3
}

/// The peers, each below the case that it was timed beside.
pub(super) fn peers(rows: &[Row]) -> Cells {
    let head = [
        "case",
        "peer",
        "wall",
        "ratio to cp",
        "ours",
        "slower by",
        "anonymous",
        "resident",
        "same tensors",
    ];
    let mut cells = vec![line(&head)];
    for row in rows {
        let ours = Spread::of(&row.ours.values).filter(|_| row.ours.failure.is_none());
        for (peer, rounds) in row.case.peers.iter().zip(&row.peers) {
            let start = [row.case.name, peer.name].map(str::to_owned).to_vec();
            cells.push([start, peer_cells(rounds, ours)].concat());
        }
    }
    cells
}

fn peer_cells(rounds: &Rounds, ours: Option<Spread>) -> Vec<String> {
    let none = || "–".to_owned();
    let memory = [size(rounds.memory.anonymous), size(rounds.memory.resident)];
    if let Some(why) = &rounds.failure {
        let start = [none(), none(), none(), none()];
        return [&start[..], &memory, &[format!("NO: {why}")]].concat();
    }
    let ratio = |value: f64| format!("{value:.2}");
    let theirs = Spread::of(&rounds.values);
    let slower = theirs.zip(ours).map(|(theirs, ours)| theirs.median / ours.median);
    let start = [
        Spread::of(&rounds.wall).map_or_else(none, |s| range(s, &time)),
        theirs.map_or_else(none, |s| range(s, &ratio)),
        ours.map_or_else(none, |s| ratio(s.median)),
        slower.map_or_else(none, |times| format!("{times:.1}")),
    ];
    [&start[..], &memory, &["yes".to_owned()]].concat()
}

fn line(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|c| (*c).to_owned()).collect()
}

fn range(spread: Spread, show: &dyn Fn(f64) -> String) -> String {
    let (median, least, most) = (show(spread.median), show(spread.least), show(spread.most));
    if least == most { median } else { format!("{median} ({least}–{most})") }
}

/// Seconds, or milliseconds where they are few.
pub(super) fn time(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

fn size(bytes: u64) -> String {
    size_of(mega(bytes) * 1e6)
}

pub(super) fn size_of(bytes: f64) -> String {
    match bytes {
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.2} GB", b / 1e9),
    }
}

/// Columns for a terminal.
pub(super) fn text(cells: &Cells) -> String {
    let columns = cells.first().map_or(0, Vec::len);
    let width = |at: usize| cells.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in cells {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out += padded.join("  ").trim_end();
        out.push('\n');
    }
    out
}

/// The same as a table in Markdown.
pub(super) fn markdown(cells: &Cells) -> String {
    let mut out = String::new();
    for (at, line) in cells.iter().enumerate() {
        let escaped: Vec<String> = line.iter().map(|cell| cell.replace('|', "\\|")).collect();
        out += &format!("| {} |\n", escaped.join(" | "));
        if at == 0 {
            out += &format!("|{}\n", " --- |".repeat(line.len()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_escape() {
        let cells: Cells = vec![line(&["a", "b"]), line(&["ckpt → x", "1|2"])];
        assert_eq!(text(&cells), "a         b\nckpt → x  1|2\n");
        assert_eq!(markdown(&cells), "| a | b |\n| --- | --- |\n| ckpt → x | 1\\|2 |\n");
    }

    #[test]
    fn units_suit_what_is_said() {
        assert_eq!(time(0.0123), "12.3 ms");
        assert_eq!(time(1.5), "1.50 s");
        assert_eq!(size(2_345_678), "2.3 MB");
        assert_eq!(size(1_600_000_000), "1.60 GB");
    }
}
