//! The allow-list: the calls in a checkpoint that make tensors, views of mapped storages.

use std::sync::Arc;

use super::super::dtype::Dtype;
use super::super::entry::TensorEntry;
use super::super::mapping::FileMap;
use super::pickle::{Caller, Node, Outcome, Storage, Value, Values};
use super::zip::Archive;

/// Rebuilds tensors over the storages of one archive.
pub(super) struct Builder<'f> {
    file: &'f Arc<FileMap>,
    archive: &'f Archive<'f>,
    root: String,
}

impl<'f> Builder<'f> {
    /// `root`: the folder of `data.pkl` in the archive, with its slash.
    pub fn new(file: &'f Arc<FileMap>, archive: &'f Archive<'f>, root: &str) -> Self {
        Builder { file, archive, root: root.to_owned() }
    }

    /// A view of `storage`; `dtype` overrides the storage's own type.
    fn tensor<'a>(
        &self,
        values: &Values<'a>,
        args: [Value<'a>; 4],
        dtype: Option<Value<'a>>,
    ) -> Outcome<Node<'a>> {
        let [storage, offset, shape, strides] = args;
        let storage = match values.node(storage) {
            Some(Node::Storage(storage)) => *storage,
            // The storage itself was opaque: so is what views it.
            Some(Node::Object { class: (module, name), .. }) => {
                return Ok(Node::Unusable(format!("its storage is a {module}.{name}")));
            }
            _ => return Err("a tensor is rebuilt without a storage".into()),
        };
        let type_name = match dtype {
            None => storage.class,
            Some(Value::Global("torch", name)) => name,
            Some(_) => return Err("a tensor's dtype is not one of torch".into()),
        };
        let Some(dtype) = Dtype::from_torch(type_name) else {
            return Ok(Node::Unusable(format!(
                "elements of type {type_name} are not used by networks of this kind"
            )));
        };
        let element = Dtype::from_torch(storage.class).map_or(dtype.size(), Dtype::size);
        let (shape, strides) = (sizes(values, shape)?, sizes(values, strides)?);
        let Value::Int(offset) = offset else { return Err("a tensor's offset is no integer".into()) };
        let name = format!("{}data/{}", self.root, storage.key);
        let entry = self
            .archive
            .find(&name)
            .ok_or_else(|| format!("its storage {name} is not in the archive, which was cut off"))?;
        let place = self.archive.stored(entry).map_err(|e| e.to_string())?;
        let length = storage.count.checked_mul(element).filter(|n| *n <= place.len());
        let Some(length) = length else {
            return Err(format!(
                "storage {name} has {} bytes, {} elements are claimed",
                place.len(),
                storage.count
            ));
        };
        let offset = usize::try_from(offset).ok().and_then(|at| at.checked_mul(dtype.size()));
        let offset = offset.ok_or("a tensor's offset is out of range")?;
        TensorEntry::view(self.file, place.start..place.start + length, dtype, offset, shape, strides)
            .map(Node::Tensor)
            .map_err(|what| format!("a tensor {what}"))
    }
}

impl<'a> Caller<'a> for Builder<'_> {
    fn call(
        &mut self,
        values: &mut Values<'a>,
        function: (&'a str, &'a str),
        args: &[Value<'a>],
    ) -> Outcome<Option<Value<'a>>> {
        let node = match (function, args) {
            (
                ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2"),
                [storage, offset, shape, strides, ..],
            ) => self.tensor(values, [*storage, *offset, *shape, *strides], None)?,
            (
                ("torch._utils", "_rebuild_tensor_v3"),
                [storage, offset, shape, strides, _requires_grad, _hooks, dtype, ..],
            ) => self.tensor(values, [*storage, *offset, *shape, *strides], Some(*dtype))?,
            // A parameter is the tensor that it wraps.
            (("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"), [tensor, ..]) => {
                return Ok(Some(*tensor));
            }
            // A tensor with attributes: (rebuild function, type, its arguments, state).
            (("torch._tensor", "_rebuild_from_type_v2"), [Value::Global(module, name), _, inner, ..])
                if *name != "_rebuild_from_type_v2" =>
            {
                let Some(inner) = values.tuple(*inner) else { return Ok(None) };
                let inner: Vec<_> = inner.iter().take(8).copied().collect();
                return self.call(values, (module, name), &inner);
            }
            // torch.Size(sizes) is a tuple.
            (("torch", "Size"), [sizes]) => return Ok(Some(*sizes)),
            // Their items arrive by SETITEMS.
            (("collections", "OrderedDict"), []) | (("collections", "defaultdict"), _) => {
                Node::Dict(Vec::new())
            }
            _ => return Ok(None),
        };
        values.push(node).map(Some)
    }

    /// `('storage', class, key, device, count)`, as torch.save writes it.
    fn persistent(&mut self, values: &Values<'a>, id: Value<'a>) -> Outcome<Storage<'a>> {
        match values.tuple(id) {
            Some(
                [
                    Value::Text("storage"),
                    Value::Global("torch" | "torch.storage" | "torch.cuda", class),
                    Value::Text(key),
                    _device,
                    Value::Int(count),
                    ..,
                ],
            ) => {
                let count = usize::try_from(*count).map_err(|_| "a storage's size is negative")?;
                Ok(Storage { class, key, count })
            }
            _ => Err("a persistent id names no storage".into()),
        }
    }
}

/// A tuple (or list) of sizes or strides.
fn sizes<'a>(values: &Values<'a>, value: Value<'a>) -> Outcome<Vec<usize>> {
    let items = match values.node(value) {
        Some(Node::Tuple(items) | Node::List(items)) => items,
        _ => return Err("a tensor's shape is no tuple".into()),
    };
    if items.len() > 64 {
        return Err(format!("a tensor has {} dimensions", items.len()));
    }
    items
        .iter()
        .map(|item| match item {
            Value::Int(size) => usize::try_from(*size).map_err(|_| "a tensor's size is negative".to_owned()),
            _ => Err("a tensor's size is no integer".into()),
        })
        .collect()
}
