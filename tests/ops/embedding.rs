//! Token and timestep embeddings.

use tasr::ops::embedding::{embed_tokens, timestep_embedding};
use tasr::tensor::DType;

use crate::support::oracle::pointwise as oracle;
use crate::support::{Random, Tolerance, Trial, compare, run};

#[test]
fn tokens_are_looked_up_and_placed() {
    let mut random = Random::new(51);
    for (n, vocabulary, l, d) in [(1, 1, 1, 1), (2, 100, 77, 33), (3, 7, 5, 64)] {
        let tokens: Vec<Vec<u32>> =
            (0..n).map(|_| (0..l).map(|_| random.within(0..=vocabulary - 1) as u32).collect()).collect();
        let rows: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        let inputs = vec![random.array(&[vocabulary, d]).plain(), random.array(&[l, d]).plain()];
        run(
            &Trial::new(format!("embed_tokens {n} x {l} of {vocabulary} x {d}"), inputs, 1),
            |cx, inputs| Ok(vec![embed_tokens(cx, &rows, &inputs[0], &inputs[1])?]),
            |inputs| vec![oracle::embed_tokens(&tokens, &inputs[0], &inputs[1])],
        );
    }
}

#[test]
fn tokens_beyond_the_vocabulary_are_refused() {
    use tasr::{autograd::Cx, device::Device, tensor::Tensor};
    let cx = Cx::new(Device::cpu(), DType::F32).unwrap();
    let table = Tensor::from_f32(cx.device(), &[0.0; 6], [3, 2]).unwrap();
    let positions = Tensor::from_f32(cx.device(), &[0.0; 4], [2, 2]).unwrap();
    assert!(embed_tokens(&cx, &[&[0, 2]], &table, &positions).is_ok());
    assert!(embed_tokens(&cx, &[&[0, 3]], &table, &positions).is_err());
    assert!(embed_tokens(&cx, &[&[0]], &table, &positions).is_err());
}

#[test]
fn timesteps_become_cosines_then_sines() {
    for (t, width) in [(0.0f32, 320), (1.0, 320), (49.0, 64), (999.0, 320), (500.0, 2)] {
        let expected = oracle::timestep_embedding(f64::from(t), width);
        // The angle is t times a rounded frequency.
        let tolerance = Tolerance::new(DType::F32, 1).magnified(f64::from(t));
        compare(&[width], &timestep_embedding(t, width), &expected, tolerance).unwrap();
    }
}
