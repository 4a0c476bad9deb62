//! Where cases run: a device, and the element type of its networks.

use std::cell::RefCell;

use tasr::device::Device;
use tasr::error::{Error, Result};
use tasr::ops::Cx;
use tasr::tensor::DType;

use crate::case::Case;

/// What runs at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cases {
    All,
    /// formulas and tiny networks
    Short,
    /// these, and training, which an emulated GPU would be too slow for
    ShortAndTraining,
}

/// A device and an element type.
pub struct Place {
    cx: Cx,
    /// what the output adds to the names of cases: nothing on the CPU
    pub label: String,
    cases: Cases,
}

thread_local! {
    static CURRENT: RefCell<Option<Cx>> = const { RefCell::new(None) };
}

impl Place {
    fn new(device: Device, dtype: DType, cases: Cases) -> Result<Self> {
        let label = match device {
            Device::Cpu(_) if dtype == DType::F32 => String::new(),
            _ => format!(" on {} in {}", device.name(), dtype.name()),
        };
        Ok(Place { cx: Cx::new(device, dtype)?, label, cases })
    }

    /// Where `$TASR_GOLDEN_DEVICE` and `$TASR_GOLDEN_DTYPE` say. When they say nothing: the CPU in f32, for
    /// short cases and training also in bf16, and, in builds that have it, for short cases the emulator, in f32 and f16.
    pub fn all() -> Result<Vec<Place>> {
        let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let dtype = match said("TASR_GOLDEN_DTYPE").as_deref() {
            None | Some("f32") => DType::F32,
            Some("f16") => DType::F16,
            Some("bf16") => DType::BF16,
            Some(other) => {
                return Err(Error::usage(format!("{other} is no element type")).at("TASR_GOLDEN_DTYPE"));
            }
        };
        match said("TASR_GOLDEN_DEVICE").as_deref() {
            Some("emulator") => Ok(vec![Place::new(emulator()?, dtype, Cases::All)?]),
            Some(name) => Ok(vec![Place::new(Device::open(name)?, dtype, Cases::All)?]),
            None => {
                let mut places = vec![Place::new(Device::cpu(), dtype, Cases::All)?];
                if said("TASR_GOLDEN_DTYPE").is_none() {
                    places.push(Place::new(Device::cpu(), DType::BF16, Cases::ShortAndTraining)?);
                }
                if cfg!(feature = "emulator") {
                    places.push(Place::new(emulator()?, DType::F32, Cases::Short)?);
                    places.push(Place::new(emulator()?, DType::F16, Cases::Short)?);
                }
                Ok(places)
            }
        }
    }

    /// Whether `case` runs here: of a whole set only the cases of tiny networks are short.
    pub fn takes(&self, case: &Case) -> bool {
        let tiny = case.text("preset", "tiny") == "tiny";
        match case.kind() {
            _ if self.cases == Cases::All => true,
            "train" => tiny && self.cases == Cases::ShortAndTraining,
            "networks" => tiny,
            kind => kind == "units",
        }
    }

    /// Makes [`context`] give this place.
    pub fn enter(&self) {
        CURRENT.set(Some(self.cx.clone()));
    }
}

/// The place where cases run now.
pub fn context() -> Result<Cx> {
    CURRENT.with_borrow(|cx| cx.clone()).ok_or_else(|| Error::internal("no case runs"))
}

/// The build without the checks, for whole networks; TASR_EMULATOR_CHECK=1 takes the other.
#[cfg(feature = "emulator")]
fn emulator() -> Result<Device> {
    use tasr::device::gpu::emulator::{Options, open};
    let check = std::env::var_os("TASR_EMULATOR_CHECK").is_some_and(|value| value == "1");
    Ok(open(Options { check, ..Options::default() }))
}

#[cfg(not(feature = "emulator"))]
fn emulator() -> Result<Device> {
    Device::open("emulator")
}
