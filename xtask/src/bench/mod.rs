//! `bench`: whole conversions by the program as users have it, beside `cp` and beside what users
//! run today, in one table. How it measures is told in `docs/benchmarks.md`.

mod cases;
mod check;
mod docs;
mod machine;
mod measure;
mod mount;
mod options;
mod peers;
mod progress;
mod row;
mod run;
mod scaling;
mod svg;
mod table;
mod tools;

use std::fs;

use serde_json::{Value, json};

use cases::{CASES, Case, Place};
use mount::Mount;
use options::Options;
use row::{Row, Verdict};
use run::Bench;
use tools::Tools;

use crate::{Outcome, python};

const BYTES: u64 = 1_600_000_000;

pub(crate) fn run(args: &[String]) -> Outcome {
    let options = Options::parse(args)?;
    let command = repeat(args);
    python::TORCH.prepare()?;
    let tools = Tools::build()?;
    let out = tools::folder().join("out");
    if out.exists() {
        fs::remove_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    }
    if options.scaling {
        return scaling::run(&options, &tools, &command);
    }
    conversions(&options, &tools, &command)
}

/// The command as somebody types it who only wants to see.
fn repeat(args: &[String]) -> String {
    let plain = |arg: &str| arg.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let mut command = "cargo xtask bench".to_owned();
    for arg in args.iter().filter(|arg| *arg != "--write-docs") {
        command.push(' ');
        command += &if plain(arg) { arg.clone() } else { format!("'{arg}'") };
    }
    command
}

fn conversions(options: &Options, tools: &Tools, command: &str) -> Outcome {
    let bytes = options.bytes.unwrap_or(BYTES);
    let mut wanted: Vec<&Case> = CASES.iter().filter(|case| options.wants(case.name)).collect();
    if wanted.is_empty() {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(format!("no case matches; there are {}", names.join(", ")));
    }
    let mut skipped = Vec::new();
    let mut mount = None;
    if wanted.iter().any(|case| case.place == Place::Shared) {
        match Mount::new(options.shared.as_deref(), bytes) {
            Ok(found) => mount = Some(found),
            Err(why) => {
                let (out, stay) = wanted.iter().partition(|case| case.place == Place::Shared);
                wanted = stay;
                let out: Vec<&Case> = out;
                skipped.extend(out.iter().map(|case| (case.name, why.clone())));
            }
        }
    }
    let inputs = tools::inputs(bytes, options.tensors);
    tools::make(&inputs, bytes, options.tensors, &wanted)?;
    if let Some(mount) = &mount {
        tools::align(mount, &inputs, tools)?;
    }
    if options.peers && wanted.iter().any(|c| c.peers.iter().any(peers::Peer::is_crate)) {
        peers::build()?;
    }
    let bench = Bench {
        tools,
        inputs: &inputs,
        mount: mount.as_ref(),
        bytes,
        rounds: options.rounds,
        cold: options.cold,
        fsync: options.fsync,
        peers: options.peers,
    };
    let rows = bench.run(&wanted)?;
    report(options, command, &rows, &skipped)
}

fn report(options: &Options, command: &str, rows: &[Row], skipped: &[(&str, String)]) -> Outcome {
    let (date, machine) = (machine::date(), machine::describe(&tools::folder()));
    println!("{}", docs::list(&machine));
    let ours = table::ours(rows);
    let all = table::over_all(rows, options.tensors);
    let peers = table::peers(rows);
    println!("{}\n{}", table::text(&ours), table::text(&all));
    if peers.len() > 1 {
        println!("{}", table::text(&peers));
    }
    for (name, why) in skipped {
        println!("skipped {name}: {why}");
    }
    let told: Vec<Value> =
        skipped.iter().map(|(name, why)| json!({"name": name, "why": why})).collect();
    let json = json!({
        "command": command,
        "date": date,
        "machine": machine.iter().map(|(k, v)| ((*k).to_owned(), json!(v)))
            .collect::<serde_json::Map<_, _>>(),
        "cases": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "of_all_cases": all,
        "skipped": told,
    });
    write_json("bench.json", &json)?;
    let plot = svg::draw(rows);
    let path = tools::folder().join("bench.svg");
    fs::write(&path, &plot).map_err(|e| format!("{}: {e}", path.display()))?;
    if options.write_docs {
        let mut text = docs::preface(command, &date, &machine);
        text += "\n![Ratios to cp by case](benchmarks.svg)\n\n";
        text += &table::markdown(&ours);
        text.push('\n');
        text += &table::markdown(&all);
        if peers.len() > 1 {
            text += &format!("\n### Beside other programs\n\n{}", table::markdown(&peers));
        }
        for (name, why) in skipped {
            text += &format!("\nSkipped: {name} ({why}).\n");
        }
        docs::replace("measured", &text)?;
        docs::plot(&plot)?;
    }
    let failed: Vec<&str> =
        rows.iter().filter(|r| r.verdict() == Verdict::Failed).map(|r| r.case.name).collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("{} of {} cases failed: {}", failed.len(), rows.len(), failed.join(", ")))
    }
}

fn write_json(name: &str, value: &Value) -> Result<(), String> {
    let path = tools::folder().join(name);
    let text = serde_json::to_string_pretty(value).map_err(|e| format!("{name}: {e}"))?;
    fs::write(&path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))
}
