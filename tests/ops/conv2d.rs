//! Convolutions: every method, segment, prologue, padding, stride and part of the epilogue.

use tasr::autograd::Cx;
use tasr::error::Result;
use tasr::ops::conv2d::{Conv2d, ConvWeight, Padding, conv2d};
use tasr::ops::group_norm::Affine;
use tasr::ops::{Activation, Epilogue, Segment, Segments};
use tasr::tensor::Tensor;

use crate::support::oracle::conv as oracle;
use crate::support::{Array, Random, Trial, Types, check_gradients, run};

/// Rows of the epilogue's addition to each image.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PerImage {
    None,
    Own,
    Common,
}

/// One convolution; what is absent is not given to the op at all.
#[derive(Clone, Debug)]
struct Case {
    n: usize,
    h: usize,
    w: usize,
    /// channels of each segment, and whether it is a sum of two tensors
    parts: Vec<(usize, bool)>,
    o: usize,
    kernel: usize,
    stride: usize,
    padding: Padding,
    upsample: bool,
    prologue: Option<Activation>,
    bias: bool,
    per_image: PerImage,
    activation: Activation,
    scale: Option<f32>,
    residual: bool,
    /// packed for large images
    large: bool,
}

impl Case {
    fn new([n, h, w]: [usize; 3], c: usize, o: usize, kernel: usize) -> Self {
        Case {
            n,
            h,
            w,
            parts: vec![(c, false)],
            o,
            kernel,
            stride: 1,
            padding: Padding::Same,
            upsample: false,
            prologue: None,
            bias: false,
            per_image: PerImage::None,
            activation: Activation::None,
            scale: None,
            residual: false,
            large: false,
        }
    }

    fn full(self) -> Self {
        Case {
            prologue: Some(Activation::Silu),
            bias: true,
            per_image: PerImage::Own,
            activation: Activation::LeakyRelu(0.2),
            scale: Some(0.2),
            residual: true,
            ..self
        }
    }

    fn channels(&self) -> usize {
        self.parts.iter().map(|part| part.0).sum()
    }

    /// Zeros (above and left, below and right).
    fn zeros(&self) -> (usize, usize) {
        match self.padding {
            Padding::Same => (self.kernel / 2, self.kernel / 2),
            Padding::RightBelow => (0, 1),
        }
    }

    fn out(&self) -> [usize; 2] {
        let zoom = if self.upsample { 2 } else { 1 };
        let (before, after) = self.zeros();
        [self.h, self.w].map(|size| (size * zoom + before + after - self.kernel) / self.stride + 1)
    }

    /// Weight, then parts with their sums, then prologue, bias, per image, residual.
    fn inputs(&self, random: &mut Random) -> Vec<Array> {
        let (c, o) = (self.channels(), self.o);
        let mut inputs = vec![random.array(&[o, c, self.kernel, self.kernel])];
        for &(c, sum) in &self.parts {
            for _ in 0..1 + usize::from(sum) {
                inputs.push(random.array(&[self.n, self.h, self.w, c]));
            }
        }
        if self.prologue.is_some() {
            inputs.push(random.array(&[self.n, 2, c]).plain());
        }
        if self.bias {
            inputs.push(random.array(&[o]).plain());
        }
        match self.per_image {
            PerImage::None => {}
            PerImage::Own => inputs.push(random.array(&[self.n, o])),
            PerImage::Common => inputs.push(random.array(&[1, o])),
        }
        if self.residual {
            let [out_h, out_w] = self.out();
            inputs.push(random.array(&[self.n, out_h, out_w, o]));
        }
        inputs
    }

    fn on_device(&self, cx: &Cx, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut rest = inputs.iter();
        let mut next = |given: bool| if given { rest.next() } else { None };
        let master = next(true).expect("a weight");
        let sizes = [self.o, self.channels(), self.kernel, self.kernel];
        let weight = match self.large {
            true => ConvWeight::pack_for_large(cx, &master.to_f32()?, sizes)?,
            false => ConvWeight::pack(cx, &master.to_f32()?, sizes)?,
        };
        let weight = weight.with_node(master.node());
        let parts = self.parts.iter().map(|&(_, sum)| {
            let tensor = next(true).expect("a segment");
            Segment { tensor, plus: next(sum) }
        });
        let mut conv = Conv2d::new(Segments::new(parts.collect())).stride(self.stride, self.padding);
        let affine = self
            .prologue
            .map(|activation| Affine { coefficients: next(true).expect("coefficients").clone(), activation });
        if let Some(affine) = &affine {
            conv = conv.prologue(affine);
        }
        if self.upsample {
            conv = conv.upsample();
        }
        let epilogue = Epilogue {
            bias: next(self.bias),
            per_image: next(self.per_image != PerImage::None),
            activation: self.activation,
            scale: self.scale.unwrap_or(1.0),
            residual: next(self.residual),
        };
        Ok(vec![conv2d(cx, &conv, &weight, &epilogue)?])
    }

    fn in_oracle(&self, inputs: &[Array]) -> Vec<Array> {
        let mut rest = inputs.iter();
        let mut next = |given: bool| if given { rest.next() } else { None };
        let weight = next(true).expect("a weight");
        let parts: Vec<_> =
            self.parts.iter().map(|&(_, sum)| (next(true).expect("a segment"), next(sum))).collect();
        let mut x = oracle::concatenate(&parts);
        if let Some(activation) = self.prologue {
            x = oracle::affine(&x, next(true).expect("coefficients"), activation);
        }
        if self.upsample {
            x = oracle::upsample(&x);
        }
        let epilogue = oracle::Epilogue {
            bias: next(self.bias),
            per_image: next(self.per_image != PerImage::None),
            activation: self.activation,
            scale: self.scale.map(f64::from),
            residual: next(self.residual),
        };
        vec![oracle::conv2d(&x, weight, self.stride, self.zeros(), &epilogue)]
    }

    fn check(&self, seed: u64) {
        let terms = self.channels() * self.kernel * self.kernel;
        // In half precision what the prologue makes is rounded once more, and the sums may cancel.
        let rounded = if self.prologue.is_some() { 2.0 } else { 1.0 };
        let trial =
            Trial::new(format!("{self:?}"), self.inputs(&mut Random::new(seed)), terms).magnified(rounded);
        run(&trial, |cx, inputs| self.on_device(cx, inputs), |inputs| self.in_oracle(inputs));
    }

    fn check_gradients(&self, seed: u64) {
        // A sum that rounding takes across a kink has the other slope: in half precision the gradients of kinked
        // activations are tried in `elementwise`, of inputs that are exact.
        let smooth = match self.activation {
            Activation::Relu | Activation::LeakyRelu(_) => Activation::Gelu,
            smooth => smooth,
        };
        let terms = (self.channels() * self.kernel * self.kernel).max(self.n * self.h * self.w);
        for (activation, types) in [(self.activation, Types::F32), (smooth, Types::Halves)] {
            let case = Case { activation, ..self.clone() };
            let inputs = case.inputs(&mut Random::new(seed));
            let trial = Trial::new(format!("{case:?}"), inputs, terms).types(types).behind(activation);
            check_gradients(&trial, |cx, inputs| case.on_device(cx, inputs), |inputs| case.in_oracle(inputs));
        }
    }
}

/// (C, O) that take each of the CPU's methods: few outputs, few inputs, many of both.
const METHODS: [(usize, usize); 6] = [(17, 1), (40, 8), (3, 9), (16, 33), (17, 9), (45, 37)];

#[test]
fn small_images_of_every_method_and_kernel() {
    for (i, (c, o)) in METHODS.into_iter().enumerate() {
        for kernel in [1, 3] {
            for size in [[1, 1, 1], [3, 1, 2], [2, 3, 1], [1, 2, 5], [2, 5, 4], [3, 7, 3]] {
                Case::new(size, c, o, kernel).check(i as u64);
                Case::new(size, c, o, kernel).full().check(100 + i as u64);
            }
        }
    }
}

#[test]
fn strides_paddings_and_upsampling() {
    for (i, (c, o)) in METHODS.into_iter().enumerate() {
        for size in [[1, 2, 2], [2, 5, 4], [3, 4, 7], [1, 9, 3]] {
            for padding in [Padding::Same, Padding::RightBelow] {
                for (stride, upsample) in [(2, false), (1, true), (2, true)] {
                    let case = Case { stride, padding, upsample, ..Case::new(size, c, o, 3) };
                    case.check(i as u64);
                    case.full().check(i as u64);
                }
            }
            for (stride, upsample) in [(2, false), (1, true)] {
                Case { stride, upsample, ..Case::new(size, c, o, 1) }.full().check(i as u64);
            }
        }
    }
}

#[test]
fn each_part_of_the_epilogue_alone() {
    let base = Case::new([2, 3, 5], 19, 11, 3);
    for case in [
        Case { bias: true, ..base.clone() },
        Case { per_image: PerImage::Own, ..base.clone() },
        Case { per_image: PerImage::Common, ..base.clone() },
        Case { scale: Some(-1.5), ..base.clone() },
        Case { residual: true, ..base.clone() },
        Case { activation: Activation::Silu, ..base.clone() },
        Case { activation: Activation::Relu, ..base.clone() },
        Case { activation: Activation::LeakyRelu(0.1), ..base.clone() },
        Case { activation: Activation::Gelu, ..base.clone() },
    ] {
        case.check(1);
        Case { kernel: 1, ..case }.check(2);
    }
}

#[test]
fn segments_and_sums_are_read_in_place() {
    let two = vec![(5, false), (3, true)];
    let five = vec![(7, false), (4, true), (1, false), (9, true), (16, false)];
    for parts in [two, five] {
        for (kernel, o) in [(1, 12), (3, 12), (3, 2)] {
            let case = Case { parts: parts.clone(), ..Case::new([2, 4, 3], 0, o, kernel) };
            case.check(3);
            case.full().check(4);
        }
    }
    // A 1x1 convolution over plain segments is one product per segment.
    let parts = vec![(7, false), (1, false), (20, false)];
    Case { parts, bias: true, ..Case::new([3, 2, 5], 0, 21, 1) }.check(5);
}

#[test]
fn images_larger_than_a_chunk_and_images_that_share_one() {
    for (i, (c, o)) in METHODS.into_iter().enumerate() {
        // several chunks an image, the last one shorter; a chunk of one row; many images in a chunk
        for size in [[2, 83, 61], [1, 2, 4200], [3, 45, 40], [7, 33, 31]] {
            Case::new(size, c.min(20), o.min(12), 3).full().check(i as u64);
        }
        Case { stride: 2, padding: Padding::RightBelow, ..Case::new([2, 150, 63], c.min(20), o.min(12), 3) }
            .check(i as u64);
        Case { upsample: true, ..Case::new([3, 37, 29], c.min(20), o.min(12), 3) }.check(i as u64);
    }
}

/// What is packed for large images: Winograd's algorithm where lanes of channels are whole, else the direct one.
#[test]
fn packed_for_large_images() {
    let large = |size, c, o| Case { large: true, ..Case::new(size, c, o, 3) };
    // small, flat and tall ones, images that share a chunk, a row longer than a chunk
    let sizes = [
        [1, 2, 2],
        [2, 4, 6],
        [3, 32, 40],
        [2, 34, 46],
        [1, 2, 2200],
        [1, 520, 2],
        [5, 34, 32],
        [1, 2, 8200],
    ];
    for (i, size) in sizes.into_iter().enumerate() {
        for (c, o) in [(24, 16), (40, 24), (17, 11), (8, 64)] {
            large(size, c, o).check(i as u64);
            large(size, c, o).full().check(20 + i as u64);
        }
    }
    Case { upsample: true, ..large([2, 18, 17], 24, 32) }.full().check(13);
    Case { parts: vec![(7, false), (13, true), (4, false)], ..large([2, 32, 34], 0, 24) }.full().check(14);
    // several chunks an image, the last one shorter
    large([1, 150, 64], 24, 24).full().check(15);
}

/// Narrow convolutions share out pixels or taps among threads, wide ones each product.
#[test]
fn products_that_are_wide_enough_for_all_threads() {
    let wide = |size| Case::new(size, 136, 128, 3);
    wide([2, 5, 7]).full().check(16);
    Case { stride: 2, padding: Padding::RightBelow, ..wide([1, 6, 5]) }.check(17);
    Case { large: true, ..wide([1, 6, 4]) }.check(18);
    wide([1, 3, 5]).check_gradients(19);
    Case { stride: 2, ..wide([1, 4, 5]) }.check_gradients(20);
    Case { large: true, ..wide([1, 4, 2]) }.check_gradients(21);
}

#[test]
fn odd_images_and_strides_do_not_fit_what_is_packed_for_large_ones() {
    let cx = Cx::new(tasr::device::Device::cpu(), tasr::tensor::DType::F32).unwrap();
    let weight = ConvWeight::pack_for_large(&cx, &[0.0; 32 * 24 * 9], [32, 24, 3, 3]).unwrap();
    let image = |h, w| Tensor::from_f32(cx.device(), &vec![0.0; h * w * 24], [1, h, w, 24]).unwrap();
    for (h, w, stride, fits) in [(4, 4, 1, true), (5, 4, 1, false), (4, 5, 1, false), (4, 4, 2, false)] {
        let x = image(h, w);
        let conv = Conv2d::new(Segments::one(&x)).stride(stride, Padding::Same);
        assert_eq!(
            conv2d(&cx, &conv, &weight, &Epilogue::default()).is_ok(),
            fits,
            "{h} x {w}, stride {stride}"
        );
    }
}

#[test]
fn so_many_channels_that_scratch_limits_the_chunk() {
    Case { prologue: Some(Activation::Silu), ..Case::new([1, 64, 64], 4500, 9, 3) }.check(6);
}

#[test]
fn random_convolutions() {
    let mut random = Random::new(7);
    for round in 0..150 {
        let parts = (0..random.within(1..=4)).map(|_| (random.within(1..=24), random.chance(3))).collect();
        let size = [random.within(1..=3), random.within(1..=14), random.within(1..=14)];
        let kernel = random.pick(&[1, 3, 3]);
        let tight = size[1] < 2 || size[2] < 2;
        let padding = if tight || random.chance(2) { Padding::Same } else { Padding::RightBelow };
        let activation = |random: &mut Random| {
            random.pick(&[
                Activation::None,
                Activation::Silu,
                Activation::Relu,
                Activation::LeakyRelu(0.2),
                Activation::Gelu,
            ])
        };
        let case = Case {
            parts,
            stride: random.pick(&[1, 1, 2]),
            padding,
            upsample: random.chance(4),
            prologue: random.chance(2).then(|| activation(&mut random)),
            bias: random.chance(2),
            per_image: random.pick(&[PerImage::None, PerImage::Own, PerImage::Common]),
            activation: activation(&mut random),
            scale: random.chance(3).then_some(0.7),
            residual: random.chance(2),
            ..Case::new(size, 0, random.within(1..=40), kernel)
        };
        case.check(round);
    }
}

#[test]
fn gradients_of_every_method_kernel_and_stride() {
    for (i, (c, o)) in METHODS.into_iter().enumerate() {
        let seed = i as u64;
        for size in [[1, 1, 1], [2, 5, 4], [2, 3, 7]] {
            Case::new(size, c, o, 1).check_gradients(seed);
            Case::new(size, c, o, 3).full().check_gradients(seed);
        }
        for padding in [Padding::Same, Padding::RightBelow] {
            for (stride, upsample) in [(2, false), (1, true), (2, true), (1, false)] {
                let case = Case { stride, padding, upsample, ..Case::new([2, 4, 5], c, o, 3) };
                case.check_gradients(seed);
                case.full().check_gradients(seed);
            }
        }
        Case { stride: 2, ..Case::new([2, 5, 4], c, o, 1) }.full().check_gradients(seed);
        Case { upsample: true, ..Case::new([2, 5, 4], c, o, 1) }.full().check_gradients(seed);
    }
}

#[test]
fn gradients_of_each_part_of_the_epilogue_and_of_segments() {
    let base = Case::new([2, 3, 5], 9, 11, 3);
    for case in [
        Case { bias: true, per_image: PerImage::Own, ..base.clone() },
        Case { per_image: PerImage::Common, scale: Some(-1.5), ..base.clone() },
        Case { residual: true, scale: Some(0.5), ..base.clone() },
        Case { activation: Activation::Silu, prologue: Some(Activation::Relu), ..base.clone() },
        Case {
            activation: Activation::Gelu,
            prologue: Some(Activation::None),
            residual: true,
            ..base.clone()
        },
        Case { parts: vec![(5, false), (3, true)], ..base.clone() },
        Case { parts: vec![(2, false), (4, true), (1, false)], ..base }.full(),
    ] {
        case.check_gradients(1);
        Case { kernel: 1, ..case }.check_gradients(2);
    }
    // A 1x1 convolution over plain segments is one product per segment.
    Case { parts: vec![(7, false), (1, false)], bias: true, ..Case::new([3, 2, 5], 0, 21, 1) }
        .check_gradients(5);
}

#[test]
fn gradients_of_images_larger_than_a_chunk_and_of_images_that_share_one() {
    for (c, o) in [(3, 2), (17, 9), (5, 9)] {
        for size in [[1, 83, 61], [1, 2, 4200], [3, 9, 8], [3, 45, 40]] {
            Case::new(size, c, o, 3).full().check_gradients(1);
        }
        let halved = Case { stride: 2, padding: Padding::RightBelow, ..Case::new([1, 150, 63], c, o, 3) };
        halved.check_gradients(2);
        Case { upsample: true, ..Case::new([1, 37, 29], c, o, 3) }.check_gradients(3);
    }
}

#[test]
fn gradients_of_what_is_packed_for_large_images() {
    let large = |size, c, o| Case { large: true, ..Case::new(size, c, o, 3) };
    for size in [[1, 2, 2], [2, 4, 6], [3, 8, 10]] {
        large(size, 24, 16).full().check_gradients(1);
        large(size, 17, 11).full().check_gradients(2);
    }
    large([1, 70, 60], 24, 16).check_gradients(4);
    Case { upsample: true, ..large([2, 4, 3], 24, 32) }.full().check_gradients(5);
    Case { parts: vec![(7, false), (13, true), (4, false)], ..large([2, 6, 4], 0, 24) }
        .full()
        .check_gradients(6);
}

#[test]
fn what_does_not_fit_is_refused() {
    let cx = Cx::new(tasr::device::Device::cpu(), tasr::tensor::DType::F32).unwrap();
    let tensor = |sizes: [usize; 4]| {
        Tensor::from_f32(&cx.device().clone(), &vec![0.0; sizes.iter().product()], sizes).unwrap()
    };
    let (x, other) = (tensor([1, 4, 4, 3]), tensor([1, 4, 5, 3]));
    let weight = ConvWeight::pack(&cx, &[0.0; 2 * 3 * 9], [2, 3, 3, 3]).unwrap();
    let wide = ConvWeight::pack(&cx, &[0.0; 2 * 4 * 9], [2, 4, 3, 3]).unwrap();
    let plain = Epilogue::default();
    assert!(conv2d(&cx, &Conv2d::new(Segments::one(&x)), &weight, &plain).is_ok());
    assert!(conv2d(&cx, &Conv2d::new(Segments::one(&x)), &wide, &plain).is_err());
    assert!(conv2d(&cx, &Conv2d::new(Segments::cat(&[&x, &other])), &weight, &plain).is_err());
    assert!(conv2d(&cx, &Conv2d::new(Segments::cat(&[])), &weight, &plain).is_err());
    let stride = Conv2d::new(Segments::one(&x)).stride(3, Padding::Same);
    assert!(conv2d(&cx, &stride, &weight, &plain).is_err());
    assert!(conv2d(&cx, &Conv2d::new(Segments::one(&x)), &weight, &plain.residual(&x)).is_err());
    assert!(ConvWeight::pack(&cx, &[0.0; 25], [1, 1, 5, 5]).is_err());
}
