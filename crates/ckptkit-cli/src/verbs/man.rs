//! `ckptkit man`.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::Args;
use crate::exit::{Exit, Run};

/// One page: the program, then every verb with its options.
pub(crate) fn run() -> Run {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for verb in command.get_subcommands() {
        section(verb, verb.get_name(), &mut page)?;
        // A verb of verbs has a section for each.
        for inner in verb.get_subcommands().filter(|v| v.get_name() != "help") {
            section(inner, &format!("{} {}", verb.get_name(), inner.get_name()), &mut page)?;
        }
    }
    io::stdout().lock().write_all(&page)?;
    Ok(Exit::Done)
}

fn section(verb: &Command, name: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(verb.clone());
    let mut text = Vec::new();
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    writeln!(page, ".SH \"CKPTKIT {}\"", name.to_uppercase())?;
    // What is a section of the verb's own page is a part of its section here.
    for line in String::from_utf8_lossy(&text).lines() {
        match line.strip_prefix(".SH ") {
            Some(title) => writeln!(page, ".SS {title}")?,
            None => writeln!(page, "{line}")?,
        }
    }
    Ok(())
}
