//! The synthetic weights equal those of the Python script that defines them, bit for bit.

use serde::Deserialize;
use tasr::weights::synthetic::{affine, fill, fill_at};

#[derive(Deserialize)]
struct Case {
    name: String,
    shape: Vec<usize>,
    a: u32,
    b: u32,
    first: Vec<u32>,
    last: u32,
    crc32: u32,
}

#[test]
fn equals_the_script_for_every_rule() {
    let text = include_str!("../fixtures/synth/values.json");
    let cases: Vec<Case> = serde_json::from_str(text).expect("fixture");
    assert!(cases.len() >= 30);
    for case in cases {
        let (a, b) = affine(&case.name, &case.shape);
        assert_eq!((a.to_bits(), b.to_bits()), (case.a, case.b), "{}: a, b", case.name);
        let mut values = vec![0f32; case.shape.iter().product()];
        fill(&case.name, &case.shape, &mut values);
        let bits: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits[..case.first.len()], case.first, "{}: first values", case.name);
        assert_eq!(bits.last(), Some(&case.last), "{}: last value", case.name);
        let mut crc = flate2::Crc::new();
        crc.update(&super::support::f32_bytes(&values));
        assert_eq!(crc.sum(), case.crc32, "{}: checksum", case.name);
    }
}

#[test]
fn a_piece_equals_its_part_of_the_whole() {
    let (name, shape) = ("out.2.weight", [7, 1000]);
    let mut whole = vec![0f32; 7000];
    fill(name, &shape, &mut whole);
    let mut piece = vec![0f32; 321];
    fill_at(name, &shape, 5003, &mut piece);
    assert_eq!(piece, whole[5003..5324]);
}
