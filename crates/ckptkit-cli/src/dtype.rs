//! `--dtype`.

use ckptkit::Dtype;

/// The name of a dtype, as safetensors or as torch spells it, in either case.
pub(crate) fn parse(text: &str) -> Result<Dtype, String> {
    let upper = text.to_ascii_uppercase();
    let name = text.strip_prefix("torch.").unwrap_or(text);
    let found = Dtype::from_name(&upper).or_else(|| Dtype::from_torch(name));
    found.filter(|d| d.is_castable()).ok_or_else(|| {
        let known: Vec<_> = Dtype::all().filter(|d| d.is_castable()).map(Dtype::name).collect();
        format!("a floating-point type is wanted: {}", known.join(", "))
    })
}
