//! Values as text that OmegaConf reads back as they are, and other readers too: what YAML 1.1, 1.2
//! or PyYAML might take for something else than a text is quoted.

use ckptkit_core::{Error, Result};

use super::scalar;
use super::value::Value;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// On lines of its own.
    Block,
    /// Between brackets.
    Flow,
    /// Between brackets of a config that is JSON.
    Json,
}

/// The value in one line.
pub(super) fn inline(value: &Value, style: Style) -> Result<String> {
    let mut out = String::new();
    push(value, style, &mut out)?;
    Ok(out)
}

/// A value as YAML, in lines of its own, as OmegaConf writes it; what other readers of YAML might
/// take for something else is quoted.
///
/// ```
/// # fn main() -> ckptkit_core::Result<()> {
/// use nemo_archive::{Value, to_yaml};
///
/// let labels = Value::List(vec![Value::Str("a".into()), Value::Str("n".into()), Value::None]);
/// let value = Value::Dict(vec![(Value::Str("labels".into()), labels)]);
/// assert_eq!(to_yaml(&value)?, "labels:\n- a\n- 'n'\n- null\n");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for values of types that YAML lacks.
pub fn to_yaml(value: &Value) -> Result<String> {
    let mut text = match is_block(value) {
        true => block(value, 0, 2)?.join("\n"),
        false => inline(value, Style::Block)?,
    };
    text.push('\n');
    Ok(text)
}

/// A JSON object of texts, one pair a line.
pub(crate) fn json_object(pairs: &[(String, String)]) -> Result<String> {
    let text = |s: &str| inline(&Value::Str(s.to_owned()), Style::Json);
    let mut lines = Vec::new();
    for (key, value) in pairs {
        lines.push(format!("  {}: {}", text(key)?, text(value)?));
    }
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
}

/// A value for messages, cut short where it is long.
pub(crate) fn shown(value: &Value) -> String {
    const MAX: usize = 60;
    let text = inline(value, Style::Flow).unwrap_or_else(|_| "…".into());
    match text.char_indices().nth(MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Whether the value needs lines of its own in block style.
pub(super) fn is_block(value: &Value) -> bool {
    match value {
        Value::List(items) => !items.is_empty(),
        Value::Dict(pairs) => !pairs.is_empty(),
        _ => false,
    }
}

fn push(value: &Value, style: Style, out: &mut String) -> Result<()> {
    // Brackets stand only around values that are themselves in one line.
    let inner = if style == Style::Block { Style::Flow } else { style };
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => out.push_str(&i.to_string()),
        Value::BigInt(text) => out.push_str(text),
        Value::Float(f) => float(*f, style, out)?,
        Value::Str(text) => string(text, style, out),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                push(item, inner, out)?;
            }
            out.push(']');
        }
        Value::Dict(pairs) => {
            out.push('{');
            for (i, (key, value)) in pairs.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                push_key(key, inner, out)?;
                out.push_str(": ");
                push(value, inner, out)?;
            }
            out.push('}');
        }
        _ => return Err(Error::unsupported("the value is of a type that a config cannot hold")),
    }
    Ok(())
}

/// A key of a mapping.
pub(super) fn key(key: &Value, style: Style) -> Result<String> {
    let mut out = String::new();
    push_key(key, style, &mut out)?;
    Ok(out)
}

fn push_key(key: &Value, style: Style, out: &mut String) -> Result<()> {
    match key {
        Value::List(_) | Value::Dict(_) => {
            Err(Error::unsupported("a key is a list or a mapping, expected a text"))
        }
        key if style == Style::Json && !matches!(key, Value::Str(_)) => {
            Err(Error::unsupported("a key is no text, which JSON cannot hold"))
        }
        key => push(key, style, out),
    }
}

/// The lines of a list or mapping whose dashes or keys stand in `column`.
pub(super) fn block(value: &Value, column: usize, step: usize) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    push_block(value, column, step, &mut lines)?;
    Ok(lines)
}

fn push_block(value: &Value, column: usize, step: usize, lines: &mut Vec<String>) -> Result<()> {
    let indent = " ".repeat(column);
    match value {
        Value::List(items) => {
            for item in items {
                if !is_block(item) {
                    lines.push(format!("{indent}- {}", inline(item, Style::Block)?));
                    continue;
                }
                let first = lines.len();
                push_block(item, column + 2, step, lines)?;
                // What is in an item starts on the line of its dash.
                lines[first].replace_range(column..=column, "-");
            }
        }
        Value::Dict(pairs) => {
            for (name, value) in pairs {
                let name = key(name, Style::Block)?;
                if !is_block(value) {
                    lines.push(format!("{indent}{name}: {}", inline(value, Style::Block)?));
                    continue;
                }
                lines.push(format!("{indent}{name}:"));
                // OmegaConf does not indent lists.
                let more = if matches!(value, Value::List(_)) { 0 } else { step };
                push_block(value, column + more, step, lines)?;
            }
        }
        other => lines.push(format!("{indent}{}", inline(other, Style::Block)?)),
    }
    Ok(())
}

/// `1.0e-05`: YAML 1.1 wants a point and a sign in floats.
fn float(f: f64, style: Style, out: &mut String) -> Result<()> {
    if !f.is_finite() && style == Style::Json {
        return Err(Error::unsupported("JSON has no infinity and no NaN"));
    }
    let text = match f {
        f if f.is_nan() => ".nan".into(),
        f if f.is_infinite() => String::from(if f > 0.0 { ".inf" } else { "-.inf" }),
        f => Value::Float(f).key_text(),
    };
    match text.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => {
            out.push_str(&format!("{mantissa}.0e{exponent}"));
        }
        _ => out.push_str(&text),
    }
    Ok(())
}

fn string(text: &str, style: Style, out: &mut String) {
    if style != Style::Json && is_plain(text, style) {
        out.push_str(text);
    } else if style != Style::Json && text.chars().all(is_simple) {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    } else {
        double_quoted(text, out);
    }
}

/// Characters that every reader takes for themselves.
fn is_simple(c: char) -> bool {
    let noncharacter = matches!(u32::from(c) & 0xffff, 0xfffe | 0xffff);
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') && !noncharacter
}

/// Whether no reader takes the text for anything else, unquoted.
fn is_plain(text: &str, style: Style) -> bool {
    let (Some(first), Some(last)) = (text.chars().next(), text.chars().next_back()) else {
        return false;
    };
    // Numbers, dates and times of some version of YAML all start so.
    let numeric = first.is_ascii_digit() || matches!(first, '+' | '-' | '.');
    let indicator = "?:,[]{}#&*!|>'\"%@`".contains(first);
    let word = matches!(text, "y" | "Y" | "n" | "N" | "<<" | "=");
    // Within brackets parsers differ on more than the brackets.
    let simple = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | '▁');
    let flow = style != Style::Block && !(text.chars().all(simple) && last != '-');
    !numeric
        && !indicator
        && !word
        && !flow
        && !first.is_whitespace()
        && !last.is_whitespace()
        && last != ':'
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(is_simple)
        && matches!(scalar::plain(text), Ok(Value::Str(_)))
}

fn double_quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_simple(c) || u32::from(c) > 0xffff => out.push(c),
            c => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out.push('"');
}
