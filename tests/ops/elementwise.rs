//! Sums, activations and stacks.

use tasr::ops::elementwise::{combine, concat, pointwise, stack};
use tasr::ops::{Activation, Segment, Segments};

use crate::support::oracle::{conv, pointwise as oracle};
use crate::support::{Random, Trial, check_gradients, run};

#[test]
fn combinations_across_block_boundaries() {
    let mut random = Random::new(41);
    for shape in [&[1][..], &[3, 5], &[2, 3, 5, 7], &[16384], &[16385], &[2, 20000]] {
        for count in 1..=4 {
            let inputs = (0..count).map(|_| random.array(shape)).collect();
            let factors = [1.0f32, -0.5, 3.0, 0.125];
            run(
                &Trial::new(format!("combine {count} of {shape:?}"), inputs, count + 1),
                |cx, inputs| {
                    let terms: Vec<_> = factors.into_iter().zip(inputs).collect();
                    Ok(vec![combine(cx, &terms, 0.25)?])
                },
                |inputs| {
                    let terms: Vec<_> = factors.into_iter().map(f64::from).zip(inputs).collect();
                    vec![oracle::combine(&terms, 0.25)]
                },
            );
        }
    }
}

#[test]
fn activations_from_tail_to_tail() {
    let mut random = Random::new(42);
    for activation in
        [Activation::None, Activation::Silu, Activation::Relu, Activation::LeakyRelu(0.2), Activation::Gelu]
    {
        for (shape, scale) in [(&[1][..], 1.0), (&[7, 9], 1.0), (&[2, 16384], 4.0), (&[1001], 60.0)] {
            let input = random.array(shape).map(|v| v * scale);
            run(
                &Trial::new(format!("{activation:?} of {shape:?} by {scale}"), vec![input], 1),
                |cx, inputs| Ok(vec![pointwise(cx, &inputs[0], activation)?]),
                |inputs| vec![inputs[0].map(|v| oracle::activate(v, activation))],
            );
        }
    }
}

#[test]
fn gradients_of_sums_activations_stacks_and_concatenations() {
    let mut random = Random::new(45);
    let inputs = (0..3).map(|_| random.array(&[2, 3, 5])).collect();
    let factors = [1.0f32, -0.5, 3.0];
    check_gradients(
        &Trial::new("combine", inputs, 3),
        // the second is read twice
        |cx, inputs| {
            let terms: Vec<_> = factors.into_iter().zip(inputs).chain([(0.25, &inputs[1])]).collect();
            Ok(vec![combine(cx, &terms, 0.25)?])
        },
        |inputs| {
            let factors = factors.into_iter().map(f64::from);
            let terms: Vec<_> = factors.zip(inputs).chain([(0.25, &inputs[1])]).collect();
            vec![oracle::combine(&terms, 0.25)]
        },
    );
    for activation in
        [Activation::None, Activation::Silu, Activation::Relu, Activation::LeakyRelu(0.2), Activation::Gelu]
    {
        let input = random.array(&[7, 9]).map(|v| 2.0 * v);
        check_gradients(
            &Trial::new(format!("{activation:?}"), vec![input], 1),
            |cx, inputs| Ok(vec![pointwise(cx, &inputs[0], activation)?]),
            |inputs| vec![inputs[0].map(|v| oracle::activate(v, activation))],
        );
    }
    for rest in [&[][..], &[3], &[4, 5], &[2, 3, 7]] {
        let inputs = [1, 3, 2].map(|rows| random.array(&[&[rows], rest].concat())).to_vec();
        check_gradients(
            &Trial::new(format!("stack of {rest:?}"), inputs, 1),
            |cx, inputs| Ok(vec![stack(cx, &inputs.iter().collect::<Vec<_>>())?]),
            |inputs| vec![oracle::stack(&inputs.iter().collect::<Vec<_>>())],
        );
    }
    let inputs = [3, 5, 1].map(|c| random.array(&[2, 3, 5, c])).to_vec();
    check_gradients(
        &Trial::new("concat", inputs, 2),
        // one tensor is a part and a term of a sum, twice
        |cx, inputs| {
            let [a, b, c] = inputs else { unreachable!() };
            let plain = |tensor| Segment { tensor, plus: None };
            let sum = Segment { tensor: b, plus: Some(b) };
            Ok(vec![concat(cx, &Segments::new(vec![plain(a), sum, plain(c), plain(b)]))?])
        },
        |inputs| {
            let [a, b, c] = inputs else { unreachable!() };
            vec![conv::concatenate(&[(a, None), (b, Some(b)), (c, None), (b, None)])]
        },
    );
}

#[test]
fn stacks_of_every_rank() {
    let mut random = Random::new(43);
    for rest in [&[][..], &[3], &[4, 5], &[2, 3, 7]] {
        let inputs = [1, 3, 2].map(|rows| random.array(&[&[rows], rest].concat())).to_vec();
        run(
            &Trial::new(format!("stack of {rest:?}"), inputs, 1),
            |cx, inputs| Ok(vec![stack(cx, &inputs.iter().collect::<Vec<_>>())?]),
            |inputs| vec![oracle::stack(&inputs.iter().collect::<Vec<_>>())],
        );
    }
}

#[test]
fn concatenations_are_written_out() {
    let mut random = Random::new(44);
    for [n, h, w] in [[1, 1, 1], [2, 3, 5], [3, 17, 4]] {
        let inputs = [3, 5, 5, 1].map(|c| random.array(&[n, h, w, c])).to_vec();
        run(
            &Trial::new(format!("concat of {:?}", [n, h, w]), inputs, 2),
            |cx, inputs| {
                let [a, b, plus, c] = inputs else { unreachable!() };
                let plain = |tensor| Segment { tensor, plus: None };
                let sum = Segment { tensor: b, plus: Some(plus) };
                Ok(vec![concat(cx, &Segments::new(vec![plain(a), sum, plain(c)]))?])
            },
            |inputs| {
                let [a, b, plus, c] = inputs else { unreachable!() };
                vec![conv::concatenate(&[(a, None), (b, Some(plus)), (c, None)])]
            },
        );
    }
}
