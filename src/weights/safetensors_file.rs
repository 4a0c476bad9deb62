//! Reading safetensors files: 8 bytes of header length, a JSON header, then the tensors.

use std::sync::Arc;

use safetensors::tensor::Metadata;

use super::checkpoint::{Contents, Skipped};
use super::dtype::Dtype;
use super::entry::TensorEntry;
use super::mapping::FileMap;
use crate::error::{Error, Result};

/// The format's own limit on its header.
const MAX_HEADER: u64 = 100_000_000;

/// All tensors of a mapped safetensors file, in the order of their bytes.
///
/// # Errors
/// The header is damaged, or the file is shorter or longer than the header says.
pub(crate) fn read(file: &Arc<FileMap>) -> Result<Contents> {
    contents(file).map_err(|e| e.at(file.path().display().to_string()))
}

fn contents(file: &Arc<FileMap>) -> Result<Contents> {
    let bytes = file.bytes();
    let cut = |what: String| Err(Error::weights(what).fix("the download was cut off: get the file again"));
    let Some(Ok(length)) = bytes.get(..8).map(<[u8; 8]>::try_from) else {
        return cut(format!("the file has only {} bytes", bytes.len()));
    };
    let header_len = u64::from_le_bytes(length);
    if header_len > MAX_HEADER {
        return Err(Error::weights(format!(
            "the safetensors header claims {header_len} bytes, the format allows {MAX_HEADER}"
        ))
        .fix("the file is damaged: get it again"));
    }
    // At most MAX_HEADER, so it fits.
    let data_start = 8 + header_len as usize;
    let Some(header) = bytes.get(8..data_start) else {
        return cut(format!("the header needs {data_start} bytes, the file has {}", bytes.len()));
    };
    let damaged = |e: String| {
        Error::weights(format!("the safetensors header is damaged: {e}"))
            .fix("get the file again, or save it again")
    };
    let text = std::str::from_utf8(header).map_err(|e| damaged(e.to_string()))?;
    let header: Metadata = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
    let space = bytes.len() - data_start;
    if header.data_len() > space {
        return cut(format!("the tensors need {} bytes, the file has {space}", header.data_len()));
    }
    if header.data_len() < space {
        return Err(damaged(format!("{} bytes follow the last tensor", space - header.data_len())));
    }
    let mut tensors: Vec<_> = header.tensors().into_iter().collect();
    // Empty tensors share their offset with a neighbour; the name keeps the order the same every time.
    tensors.sort_by(|(a, x), (b, y)| x.data_offsets.cmp(&y.data_offsets).then_with(|| a.cmp(b)));
    let mut found = Contents::default();
    for (name, info) in tensors {
        let Some(dtype) = Dtype::from_safetensors(info.dtype) else {
            let why = format!("elements of type {:?} are not used by networks of this kind", info.dtype);
            found.skipped.push(Skipped { name, why });
            continue;
        };
        let (start, end) = info.data_offsets;
        let region = data_start + start..data_start + end;
        let strides = row_major(&info.shape);
        let entry = TensorEntry::view(file, region, dtype, 0, info.shape.clone(), strides)
            .map_err(|e| damaged(format!("tensor {name} {e}")))?;
        found.tensors.push((name, entry));
    }
    found.metadata.extend(header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
    Ok(found)
}

/// The strides of a contiguous tensor.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        // Saturation only happens for shapes with a zero, which have no elements.
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}
