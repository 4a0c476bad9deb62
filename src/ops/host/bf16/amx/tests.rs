use super::emulated::Emulated;
use super::*;

/// The instruction alone, against sums of products taken straight from its definition.
#[test]
fn the_emulated_product_is_the_defined_one() {
    let (rows, pairs, columns) = (5, 3, 7);
    let mut config = Config::of(16);
    config.rows[..3].copy_from_slice(&[rows as u8, rows as u8, pairs as u8]);
    config.row_bytes[..3].copy_from_slice(&[4 * columns as u16, 4 * pairs as u16, 4 * columns as u16]);
    let value = |i: usize| (i * 29 % 23) as f32 / 4.0 - 2.5;
    let (c, a, b): (Vec<f32>, Vec<bf16>, Vec<bf16>) = (
        (0..rows * columns).map(|i| value(i + 3)).collect(),
        (0..rows * 2 * pairs).map(|i| bf16::from_f32(value(i))).collect(),
        (0..pairs * 2 * columns).map(|i| bf16::from_f32(value(i * 3 + 1))).collect(),
    );
    let mut found = vec![f32::NAN; c.len()];
    let mut tiles = Emulated::default();
    // SAFETY: the arrays hold the tiles' rows.
    unsafe {
        tiles.configure(&config);
        tiles.load::<0>(c.as_ptr().cast(), 4 * columns);
        tiles.load::<1>(a.as_ptr().cast(), 4 * pairs);
        tiles.load::<2>(b.as_ptr().cast(), 4 * columns);
        tiles.multiply::<0, 1, 2>();
        tiles.store::<0>(found.as_mut_ptr().cast(), 4 * columns);
    }
    for m in 0..rows {
        for n in 0..columns {
            let mut expected = c[m * columns + n];
            for k in 0..2 * pairs {
                let (pair, odd) = (k / 2, k % 2);
                expected += a[m * 2 * pairs + k].to_f32() * b[(pair * columns + n) * 2 + odd].to_f32();
            }
            assert_eq!(found[m * columns + n], expected, "[{m}, {n}]");
        }
    }
}

/// Bytes of the configuration, written by hand from the manual's table of palette 1.
#[test]
fn the_configuration_has_the_layout_of_the_manual() {
    for (rows, upper, lower) in [(1, 1, 16), (16, 16, 16), (17, 16, 1), (32, 16, 16)] {
        let mut expected = [0u8; 64];
        expected[0] = 1;
        for tile in 0..8 {
            expected[16 + 2 * tile] = 64;
        }
        expected[48..56].copy_from_slice(&[upper, upper, lower, lower, upper, lower, 16, 16]);
        // SAFETY: 64 plain bytes without padding.
        let bytes: [u8; 64] = unsafe { std::mem::transmute(Config::of(rows)) };
        assert_eq!(bytes, expected, "{rows} rows");
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
std::arch::global_asm!(
    ".globl tasr_amx_encodings",
    "tasr_amx_encodings:",
    "tilezero tmm3",
    "tileloadd tmm6, [rax + rcx*1]",
    "tilestored [rdx + rcx*1], tmm1",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "ldtilecfg [rax]",
    "tilerelease",
);

/// The instructions as the manual encodes them; the assembler of the build has to agree.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn the_instructions_have_the_encodings_of_the_manual() {
    unsafe extern "C" {
        #[link_name = "tasr_amx_encodings"]
        static CODE: [u8; 32];
    }
    const EXPECTED: [u8; 32] = [
        0xc4, 0xe2, 0x7b, 0x49, 0xd8, // VEX.128.F2.0F38.W0 49 11 rrr 000
        0xc4, 0xe2, 0x7b, 0x4b, 0x34, 0x08, // VEX.128.F2.0F38.W0 4B /r with a base and an index
        0xc4, 0xe2, 0x7a, 0x4b, 0x0c, 0x0a, // VEX.128.F3.0F38.W0 4B /r
        0xc4, 0xe2, 0x4a, 0x5c, 0xd5, // VEX.128.F3.0F38.W0 5C 11 rrr bbb, the last operand in VEX.vvvv
        0xc4, 0xe2, 0x78, 0x49, 0x00, // VEX.128.NP.0F38.W0 49 mem
        0xc4, 0xe2, 0x78, 0x49, 0xc0, // VEX.128.NP.0F38.W0 49 C0
    ];
    // SAFETY: the code above is at least this long.
    assert_eq!(unsafe { CODE }, EXPECTED);
}
