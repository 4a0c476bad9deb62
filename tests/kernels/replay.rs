//! Recorded work, and notes of values that are not finite.

use crate::support::*;
use tasr::ops::Cx;
use tasr::ops::elementwise::combine;
use tasr::ops::finite::{FiniteChecks, is_finite};
use tasr::tensor::{DType, Input, Tensor};

fn contexts() -> impl Iterator<Item = Cx> {
    own_devices().into_iter().map(|device| Cx::new(device, DType::F32).unwrap())
}

fn values(cx: &Cx, values: &[f32]) -> Tensor {
    upload(cx.device(), values, [values.len()], DType::F32)
}

#[test]
fn a_replay_reads_its_inputs_anew_and_starts_nothing_one_by_one() {
    for cx in contexts() {
        let gpu = cx.device().gpu().unwrap();
        let input = Input::new(cx.device(), [5], DType::F32).unwrap();
        let work = || {
            let twice = combine(&cx, &[(2.0, input.tensor())], 1.0)?;
            // Freed within the recording: its memory must stay the recording's own.
            let sum = combine(&cx, &[(1.0, &twice), (1.0, input.tensor())], 0.0)?;
            drop(twice);
            combine(&cx, &[(1.0, &sum)], 0.5)
        };
        let (result, replay) = gpu.capture(work).unwrap();
        let mut others = Vec::new();
        for round in 0..3 {
            let x = [round as f32, 1.0, -2.0, 0.25, 1e6];
            input.set(&values(&cx, &x)).unwrap();
            // Whoever allocates between replays gets other memory.
            others.push((values(&cx, &[7.0; 5]), 7.0));
            let before = gpu.counts();
            // SAFETY: the input and all that the work made are alive.
            unsafe { replay.run() }.unwrap();
            let spent = gpu.counts() - before;
            assert_eq!((spent.replays, spent.launches, spent.slabs, spent.uploads), (1, 0, 0, 0));
            let wanted: Vec<f32> = x.iter().map(|x| 2.0 * x + 1.0 + x + 0.5).collect();
            assert_eq!(result.to_f32().unwrap(), wanted);
        }
        assert!(others.iter().all(|(other, value)| other.to_f32().unwrap() == [*value; 5]));
        let shape = combine(&cx, &[(1.0, &values(&cx, &[1.0; 4]))], 0.0).unwrap();
        assert!(input.set(&shape).is_err(), "another shape");
        assert!(input.set(&input.tensor().clone()).is_err(), "itself");
    }
}

#[test]
fn work_that_meets_the_host_cannot_be_recorded() {
    for cx in contexts() {
        let gpu = cx.device().gpu().unwrap();
        let x = values(&cx, &[1.0, 2.0]);
        for error in [
            gpu.capture(|| x.to_f32()).unwrap_err(),
            gpu.capture(|| Tensor::from_f32(cx.device(), &[1.0], [1])).unwrap_err(),
            gpu.capture(|| gpu.synchronize()).unwrap_err(),
            gpu.capture(|| gpu.capture(|| Ok(()))).unwrap_err(),
        ] {
            assert!(error.to_string().contains("recorded"), "{error}");
        }
        // After a failure work is done again, and memory is given back.
        assert_eq!(combine(&cx, &[(3.0, &x)], 0.0).unwrap().to_f32().unwrap(), [3.0, 6.0]);
    }
}

/// What the emulator finds wrong when a recording outlives what it reads.
#[test]
fn memory_that_has_gone_since_the_recording_is_noticed() {
    for cx in contexts() {
        let gpu = cx.device().gpu().unwrap();
        if !gpu.info().name.contains("emulator") {
            continue;
        }
        let x = values(&cx, &[1.0; 64]);
        let (_result, replay) = gpu.capture(|| combine(&cx, &[(1.0, &x)], 0.0)).unwrap();
        drop(x);
        // SAFETY: not kept, which the checks of the emulator must find before anything is read.
        let error = unsafe { replay.run() }.unwrap_err().to_string();
        assert!(error.contains("combine"), "{error}");
    }
}

#[test]
fn values_that_are_not_finite_are_found_wherever_they_are() {
    for dtype in DTYPES {
        for device in devices().iter().chain([oracle().device()]) {
            if device.gpu().is_none() && dtype != DType::F32 {
                continue;
            }
            let cx = Cx::new(device.clone(), dtype).unwrap();
            let mut checks = FiniteChecks::new(&cx, 5).unwrap();
            for count in [1, 8, 13, 2049] {
                let mut list = random(count as u64, count);
                for (value, wanted) in [(f32::MAX.min(6e4), true), (f32::INFINITY, false), (f32::NAN, false)]
                {
                    list[count - 1] = value;
                    let x = upload(device, &list, [count], dtype);
                    assert_eq!(is_finite(&cx, &x).unwrap(), wanted, "{value} at the end of {count}");
                    if count == 13 && !wanted {
                        checks.note(&cx, 3, &x).unwrap();
                        checks.note(&cx, 4, &x).unwrap();
                    } else if wanted {
                        checks.note(&cx, 1, &x).unwrap();
                    }
                }
            }
            assert!(checks.note(&cx, 5, &upload(device, &[0.0], [1], dtype)).is_err());
            assert_eq!(checks.first().unwrap(), Some(3));
        }
    }
}
