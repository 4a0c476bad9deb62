//! What `--device` and `--dtype` name.

use clap::ValueEnum;

use crate::device::{Device, Target};
use crate::error::Result;
use crate::ops::Cx;
use crate::tensor::DType;

/// `--dtype`.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum DtypeChoice {
    /// f16 on a GPU, f32 on the CPU
    Auto,
    F32,
    F16,
    Bf16,
}

impl DtypeChoice {
    /// The element type of networks on `device`.
    fn on(self, device: &Device) -> DType {
        match (self, device.target()) {
            (DtypeChoice::Auto, Target::Cpu) | (DtypeChoice::F32, _) => DType::F32,
            (DtypeChoice::Auto, Target::Gpu) | (DtypeChoice::F16, _) => DType::F16,
            (DtypeChoice::Bf16, _) => DType::BF16,
        }
    }
}

/// Opens the device `name` for networks of `dtype`, and says what was taken.
///
/// # Errors
/// There is no such device, or it does not compute in this type.
pub(super) fn open(name: &str, dtype: DtypeChoice, say: &mut dyn FnMut(&str)) -> Result<Cx> {
    let device = match name {
        "auto" => {
            let (device, refused) = Device::best();
            if let Some(why) = refused {
                say(&format!("the GPU is not used: {why}"));
            }
            device
        }
        _ => Device::open(name)?,
    };
    let dtype = dtype.on(&device);
    let cx = Cx::new(device, dtype)?;
    say(&format!("computing on {} in {}", cx.device().describe(), dtype.name()));
    Ok(cx)
}
