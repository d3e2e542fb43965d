//! `docs/benchmarks.md`: what is between its marks is written by a run, the rest by hand.

use std::fs;

use crate::root;

const PAGE: &str = "docs/benchmarks.md";

/// Puts text between `<!-- NAME -->` and `<!-- /NAME -->`.
pub(super) fn replace(name: &str, text: &str) -> Result<(), String> {
    let path = root().join(PAGE);
    let page = crate::python::read(&path)?;
    let page = between(&page, name, text).ok_or_else(|| format!("{PAGE} has no marks {name}"))?;
    fs::write(&path, page).map_err(|e| format!("{PAGE}: {e}"))
}

/// The plot beside the page.
pub(super) fn plot(svg: &str) -> Result<(), String> {
    let path = "docs/benchmarks.svg";
    fs::write(root().join(path), svg).map_err(|e| format!("{path}: {e}"))
}

fn between(page: &str, name: &str, text: &str) -> Option<String> {
    let (open, close) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let start = page.find(&open)? + open.len();
    let end = start + page[start..].find(&close)?;
    Some(format!("{}\n{}\n{}", &page[..start], text.trim_end(), &page[end..]))
}

/// A line that says what was run, and a list of what it ran on.
pub(super) fn preface(command: &str, date: &str, machine: &[(&str, String)]) -> String {
    format!("Measured on {date} with\n\n    {command}\n\n{}", list(machine))
}

/// What is known of the machine, a line each.
pub(super) fn list(machine: &[(&str, String)]) -> String {
    let known = machine.iter().filter(|(_, value)| !value.is_empty());
    known.map(|(key, value)| format!("- {key}: {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let page = "a\n<!-- x -->\nold\n<!-- /x -->\nb";
        let new = "a\n<!-- x -->\nnew\n<!-- /x -->\nb";
        assert_eq!(between(page, "x", "new\n").as_deref(), Some(new));
        assert_eq!(between(new, "x", "new").as_deref(), Some(new));
        assert_eq!(between(page, "y", "new"), None);
    }
}
