//! A stroke alphabet of its own: letters and digits as lines on a grid of 4 x 6, which a hand then slants, rounds and
//! weighs.

/// Lines of a glyph: points "xy" on the grid, lines apart by spaces. y runs down; 6 is the base line, 8 below it.
const GLYPHS: &[(char, &str)] = &[
    ('A', "062046 1434"),
    ('B', "060030414233034344453606"),
    ('C', "4130100105163645"),
    ('D', "06003041453606"),
    ('E', "40000646 0333"),
    ('F', "400006 0333"),
    ('G', "413010010516364543 4323"),
    ('H', "0006 4046 0343"),
    ('I', "1030 2026 1636"),
    ('J', "1040 30351605"),
    ('K', "0006 400346"),
    ('L', "000646"),
    ('M', "0600234046"),
    ('N', "06004640"),
    ('O', "103041453616050110"),
    ('P', "06003041423303"),
    ('Q', "103041453616050110 2446"),
    ('R', "06003041423303 2346"),
    ('S', "413010010213334445361605"),
    ('T', "0040 2026"),
    ('U', "000516364540"),
    ('V', "002640"),
    ('W', "0016233640"),
    ('X', "0046 4006"),
    ('Y', "002340 2326"),
    ('Z', "00400646"),
    ('a', "12324346 431304051645"),
    ('b', "00063645433202"),
    ('c', "42120305163646"),
    ('d', "40461605031242"),
    ('e', "04444332120305163645"),
    ('f', "4030212516 0333"),
    ('g', "42120304154542 42473818"),
    ('h', "0006 0312324346"),
    ('i', "2226 2020"),
    ('j', "32372818 3030"),
    ('k', "0006 420446"),
    ('l', "20252636"),
    ('m', "0602 03122326 23324346"),
    ('n', "0602 0312324346"),
    ('o', "123243453616050312"),
    ('p', "0802 023243453606"),
    ('q', "48421203051646"),
    ('r', "0602 04123243"),
    ('s', "4212031434453606"),
    ('t', "20253645 0343"),
    ('u', "020516364542 4246"),
    ('v', "022642"),
    ('w', "0216243642"),
    ('x', "0246 4206"),
    ('y', "0226 4208"),
    ('z', "02420646"),
    ('0', "103041453616050110 3115"),
    ('1', "112026 1636"),
    ('2', "01103041420646"),
    ('3', "004023334445361605"),
    ('4', "36300444"),
    ('5', "400003334445361605"),
    ('6', "3010010516364544331304"),
    ('7', "004016"),
    ('8', "13334241301001021304051636454433"),
    ('9', "42130201103041453616"),
    ('.', "2626"),
    (',', "2617"),
    ('-', "1333"),
    ('+', "1434 2325"),
    ('/', "4006"),
    ('?', "0110304142232425 2626"),
    ('!', "2024 2626"),
    (':', "2323 2626"),
    ('&', "4602112031220405162644"),
    ('%', "4006 0101 4545"),
    ('=', "1232 1434"),
    ('(', "30112536"),
    (')', "10213516"),
];

/// The characters that have glyphs.
pub fn characters() -> impl Iterator<Item = char> {
    GLYPHS.iter().map(|(character, _)| *character)
}

/// The lines of a character, in units of which the height of a capital has 6; nothing for one without a glyph.
pub fn lines(character: char) -> Vec<Vec<[f32; 2]>> {
    let drawn = GLYPHS.iter().find(|(known, _)| *known == character).map_or("", |(_, lines)| lines);
    let parse = |line: &str| {
        let digits: Vec<f32> = line.bytes().map(|byte| f32::from(byte.saturating_sub(b'0'))).collect();
        digits.chunks_exact(2).map(|p| [p[0], p[1]]).collect()
    };
    drawn.split_whitespace().map(parse).collect()
}

/// Corners cut twice (Chaikin 1974), ends kept: what a pen makes of a grid.
pub fn rounded(line: &[[f32; 2]]) -> Vec<[f32; 2]> {
    let mut line = line.to_vec();
    for _ in 0..2 {
        if line.len() < 3 {
            return line;
        }
        let mut next = vec![line[0]];
        for ends in line.windows(2) {
            let between = |t: f32| [0, 1].map(|c| ends[0][c] + (ends[1][c] - ends[0][c]) * t);
            next.extend([between(0.25), between(0.75)]);
        }
        next.push(line[line.len() - 1]);
        line = next;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_glyph_lies_on_its_grid_and_differs_from_the_others() {
        let all: Vec<_> = characters().map(lines).collect();
        for (i, lines) in all.iter().enumerate() {
            assert!(!lines.is_empty() && lines.iter().all(|line| line.len() > 1), "{:?}", GLYPHS[i]);
            let on = |p: &[f32; 2]| (0.0..=4.0).contains(&p[0]) && (0.0..=8.0).contains(&p[1]);
            assert!(lines.iter().flatten().all(on), "{:?}", GLYPHS[i]);
            assert!(all[..i].iter().all(|other| other != lines), "{:?}", GLYPHS[i]);
            // Odd digits would be lost silently.
            assert!(GLYPHS[i].1.split_whitespace().all(|line| line.len() % 2 == 0), "{:?}", GLYPHS[i]);
        }
    }
}
