//! Nested dictionaries to dotted tensor names.

use super::super::checkpoint::{Contents, Skipped};
use super::pickle::{Node, Value, Values};
use crate::error::{Error, Result};

/// Entries that wrap the weights proper, the preferred first.
const WRAPPERS: [&str; 6] = ["params_ema", "params", "state_dict", "model_state_dict", "model", "checkpoint"];
/// Entries that mark a checkpoint of several networks, whose names keep the entry as prefix.
const PARTS: [&str; 2] = ["checkpoint_controlnet", "checkpoint_adapter"];
/// Wrappers in wrappers.
const MAX_WRAPPERS: usize = 4;
const MAX_DEPTH: usize = 32;
/// Values visited: shared dictionaries could otherwise multiply a small file without end.
const MAX_VISITS: usize = 1 << 18;
const MAX_NAME: usize = 512;

/// The tensors of the unpickled checkpoint, wrappers removed, optimizer states left out.
pub(super) fn flatten(values: &Values) -> Result<Contents> {
    let mut walk = Walk { values, found: Contents::default(), visits: 0 };
    let mut root = values.root();
    for _ in 0..MAX_WRAPPERS {
        walk.note_scalars(root);
        match walk.wrapped(root) {
            Some(inner) => root = inner,
            None => break,
        }
    }
    walk.visit(root, &mut String::new(), 0)?;
    Ok(walk.found)
}

struct Walk<'v, 'a> {
    values: &'v Values<'a>,
    found: Contents,
    visits: usize,
}

impl<'a> Walk<'_, 'a> {
    /// The items of a dictionary; a TorchScript module is the dictionary of its attributes.
    fn items(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.values.node(value)? {
            Node::Dict(items) => Some(items),
            Node::Object { class: (module, _), state: Some(state) } if module.starts_with("__torch__") => {
                self.values.dict(*state)
            }
            _ => None,
        }
    }

    fn entry(&self, dict: Value<'a>, key: &str) -> Option<Value<'a>> {
        // The last one counts, as in Python.
        self.items(dict)?.iter().rev().find(|(k, _)| *k == Value::Text(key)).map(|(_, value)| *value)
    }

    /// The dictionary of weights inside `root`, if `root` only wraps it.
    fn wrapped(&self, root: Value<'a>) -> Option<Value<'a>> {
        if PARTS.iter().any(|part| self.entry(root, part).is_some()) {
            return None;
        }
        let is_tensor = |value: &Value<'a>| matches!(self.values.node(*value), Some(Node::Tensor(_)));
        if self.items(root)?.iter().any(|(_, value)| is_tensor(value)) {
            return None;
        }
        WRAPPERS
            .iter()
            .filter_map(|key| self.entry(root, key))
            .find(|inner| self.items(*inner).is_some_and(|items| !items.is_empty()))
    }

    /// Numbers and short texts beside the weights (epoch, step) become metadata.
    fn note_scalars(&mut self, root: Value<'a>) {
        let scalars: Vec<_> = self
            .items(root)
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| {
                let Value::Text(key) = key else { return None };
                let text = match value {
                    Value::Int(n) => n.to_string(),
                    Value::Float(x) => x.to_string(),
                    Value::Bool(b) => b.to_string(),
                    Value::Text(text) if text.len() <= 256 => (*text).to_owned(),
                    _ => return None,
                };
                (key.len() <= MAX_NAME).then(|| ((*key).to_owned(), text))
            })
            .take(256)
            .collect();
        self.found.metadata.extend(scalars);
    }

    fn visit(&mut self, value: Value<'a>, name: &mut String, depth: usize) -> Result<()> {
        self.visits += 1;
        if depth > MAX_DEPTH || self.visits > MAX_VISITS || name.len() > MAX_NAME {
            return Err(Error::weights(format!(
                "data.pkl: its dictionaries are nested too deeply or too large (at {:.60}...)",
                name
            ))
            .fix("this is no checkpoint of a network"));
        }
        match self.values.node(value) {
            Some(Node::Tensor(entry)) => self.found.tensors.push((name.clone(), entry.clone())),
            Some(Node::Unusable(why)) => {
                self.found.skipped.push(Skipped { name: name.clone(), why: why.clone() });
            }
            Some(Node::List(items) | Node::Tuple(items)) => {
                self.visits += items.len();
                for (i, item) in items.iter().enumerate() {
                    self.enter(*item, name, &i.to_string(), depth)?;
                }
            }
            _ => {
                let items = self.items(value).map(<[_]>::to_vec).unwrap_or_default();
                self.visits += items.len();
                for (key, item) in items {
                    match key {
                        Value::Text(key) if depth == 0 && key.starts_with("optimizer") => {
                            let why = "optimizer state is not part of a network".to_owned();
                            self.found.skipped.push(Skipped { name: key.chars().take(80).collect(), why });
                        }
                        Value::Text(key) => self.enter(item, name, key, depth)?,
                        Value::Int(key) => self.enter(item, name, &key.to_string(), depth)?,
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, value: Value<'a>, name: &mut String, key: &str, depth: usize) -> Result<()> {
        if !matches!(value, Value::Node(_)) {
            return Ok(());
        }
        let len = name.len();
        if len > 0 {
            name.push('.');
        }
        name.push_str(key);
        self.visit(value, name, depth + 1)?;
        name.truncate(len);
        Ok(())
    }
}
