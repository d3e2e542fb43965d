//! Prints the state dict of a distributed checkpoint as the tree that was saved.
//!
//! ```text
//! cargo run --example tree -- path/to/checkpoint [path.in.the.tree]
//! ```

use distcp::DistCheckpoint;
use torch_save::Value;

fn show(key: &str, value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Dict(pairs) => {
            println!("{pad}{key}: {{{}}}", pairs.len());
            pairs.iter().for_each(|(k, v)| show(&k.key_text(), v, depth + 1));
        }
        Value::List(items) if !items.is_empty() => {
            println!("{pad}{key}: [{}]", items.len());
            items.iter().enumerate().for_each(|(i, v)| show(&i.to_string(), v, depth + 1));
        }
        other => println!("{pad}{key}: {other:?}"),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("give the path of a checkpoint")?;
    let path = args.next().unwrap_or_default();
    let checkpoint = DistCheckpoint::open(dir)?;
    show(if path.is_empty() { "." } else { &path }, &checkpoint.value(&path)?, 0);
    Ok(())
}
