//! Token ids of a case: from its prompts, held against what it stores.

use tasr::error::Result;
use tasr::models::text::Tokenizer;

use crate::case::Case;
use crate::compare::Comparison;

/// Tokenizes `prompts` and compares with the tensor `name`, exactly. A case without that tensor may list its
/// ids under `key`, which must then be the tokenizer's.
pub fn check(
    comparison: &mut Comparison,
    case: &Case,
    name: &str,
    key: &str,
    prompts: &[&str],
) -> Result<Vec<Vec<u32>>> {
    let tokenizer = Tokenizer::new();
    let rows: Vec<Vec<u32>> = prompts.iter().map(|prompt| tokenizer.encode(prompt).ids.to_vec()).collect();
    let values: Vec<f32> = rows.iter().flatten().map(|&id| id as f32).collect();
    let length = rows.first().map_or(0, Vec::len);
    comparison.check(case, name, (vec![rows.len(), length], values), 0.0)?;
    if let Some(listed) = case.option(key).and_then(|value| value.as_array()) {
        let padded = |row: &serde_json::Value| {
            let mut ids: Vec<u32> =
                row.as_array().into_iter().flatten().filter_map(|id| Some(id.as_u64()? as u32)).collect();
            ids.resize(length, 0);
            ids
        };
        if listed.iter().map(padded).ne(rows.iter().cloned()) {
            comparison.absent(&format!("option {key}: the tokenizer gives other ids"));
        }
    }
    Ok(rows)
}
