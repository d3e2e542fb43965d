//! `bench scaling`: how time and memory grow with bytes, tensors, files and threads, and what a
//! terabyte would take.
//!
//! Inputs are made by the program itself, whose outputs the real libraries judge elsewhere
//! (`cargo xtask interop`); what is converted is compared with its source here as well.

mod points;
mod series;

use serde_json::json;

use super::options::Options;
use super::tools::{self, Tools};
use super::{docs, machine, progress, table, write_json};
use crate::Outcome;

const LARGEST: u64 = 6_400_000_000;

pub(super) fn run(options: &Options, tools: &Tools, command: &str) -> Outcome {
    let folder = tools::folder().join("scaling");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let largest = options.bytes.unwrap_or(LARGEST);
    let lab = points::Lab { tools, folder: &folder, rounds: options.rounds };
    let mut sections = Vec::new();
    let wanted = |name: &str| options.wants(name);
    let mut rates = None;
    if wanted("bytes") {
        progress::part("bytes");
        let (cells, found) = series::bytes(&lab, largest, options.tensors)?;
        rates = Some(found);
        sections.push(("Bytes", cells));
    }
    if wanted("tensors") {
        progress::part("tensors");
        sections.push(("Tensors", series::tensors(&lab)?));
    }
    if wanted("ranks") {
        progress::part("ranks");
        sections.push(("Files of a distributed checkpoint", series::ranks(&lab)?));
    }
    if wanted("threads") {
        progress::part("threads");
        sections.push(("Threads", series::threads(&lab, largest / 4, options.tensors)?));
    }
    if wanted("terabyte") {
        progress::part("terabyte");
        let (cells, plan) = series::terabyte(&lab)?;
        sections.push(("The plan of a terabyte", cells));
        if let Some(rates) = rates {
            sections.push(("A terabyte, on paper", series::estimate(rates, plan)));
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    let (date, machine) = (machine::date(), machine::describe(&tools::folder()));
    println!("{}", docs::list(&machine));
    let mut text = String::new();
    for (title, cells) in &sections {
        println!("{title}\n{}", table::text(cells));
        text += &format!("\n### {title}\n\n{}", table::markdown(cells));
    }
    let told: Vec<_> =
        sections.iter().map(|(title, cells)| json!({"title": title, "cells": cells})).collect();
    write_json("scaling.json", &json!({"command": command, "date": date, "sections": told}))?;
    if options.write_docs {
        docs::replace("scaling", &(docs::preface(command, &date, &machine) + &text))?;
    }
    Ok(())
}
