//! The single-byte encodings through which UTF-8 is most often misread, and UTF-8 with its common variants.
//!
//! A "sloppy" codec (a term of ftfy) gives bytes that its standard leaves unassigned their Latin-1 meaning,
//! and stands byte 0x1A for U+FFFD, the mark of a byte that was lost.

use std::sync::LazyLock;

/// One single-byte encoding; its lower half is ASCII.
pub struct Codec {
    /// Characters of the bytes 0x80 to 0xFF.
    high: Vec<char>,
    /// The same by character, for encoding.
    bytes: Vec<(char, u8)>,
    /// Unassigned bytes were filled and 0x1A means U+FFFD.
    pub sloppy: bool,
    /// A space can be what is left of byte 0xA0. Not so in MacRoman, where text has a dash before a space
    /// and that dash is a lead byte.
    pub space_hides_a0: bool,
}

impl Codec {
    /// `rows` ends with byte 0xFF; what it does not reach, and each [`GAP`], is Latin-1.
    fn new(rows: &str, sloppy: bool) -> Self {
        let written: Vec<char> = rows.chars().collect();
        let skipped = 128 - written.len();
        let high: Vec<char> = (0x80..=0xffu8)
            .enumerate()
            .map(|(place, byte)| match place.checked_sub(skipped).map(|at| written[at]) {
                Some(c) if c != GAP => c,
                _ => char::from(byte),
            })
            .collect();
        let mut bytes: Vec<(char, u8)> = high.iter().copied().zip(0x80..=0xff).collect();
        bytes.sort_unstable();
        Codec { high, bytes, sloppy, space_hides_a0: rows != MACROMAN }
    }

    /// The bytes that this codec decodes to `text`, if there are any.
    pub fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|c| self.encode_char(c)).collect()
    }

    fn encode_char(&self, c: char) -> Option<u8> {
        match c {
            '\u{1a}' if self.sloppy => None,
            '\u{fffd}' if self.sloppy => Some(0x1a),
            _ if c.is_ascii() => Some(c as u8),
            _ => self.bytes.binary_search_by_key(&c, |pair| pair.0).ok().map(|at| self.bytes[at].1),
        }
    }

    /// The characters of a range of bytes from 0x80 up.
    fn decode(&self, bytes: std::ops::RangeInclusive<u8>) -> impl Iterator<Item = char> + '_ {
        bytes.map(|byte| self.high[usize::from(byte & 0x7f)])
    }
}

/// The codecs to try, likeliest first.
pub static CODECS: LazyLock<[Codec; 10]> = LazyLock::new(|| {
    [
        Codec::new("", false),
        Codec::new(WINDOWS_1252, true),
        Codec::new(WINDOWS_1251, true),
        Codec::new(WINDOWS_1250, true),
        Codec::new(WINDOWS_1253, true),
        Codec::new(WINDOWS_1254, true),
        Codec::new(WINDOWS_1257, true),
        Codec::new(ISO_8859_2, false),
        Codec::new(MACROMAN, false),
        Codec::new(CP437, false),
    ]
});

/// Characters that a range of bytes stands for in the codecs akin to Latin-1 (all but the last three),
/// sorted.
pub fn latin_like(bytes: std::ops::RangeInclusive<u8>) -> Vec<char> {
    let mut all: Vec<char> = CODECS[..7].iter().flat_map(|codec| codec.decode(bytes.clone())).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A C1 control character as Windows-1252 reads its byte; any other character is kept.
pub fn c1_as_windows_1252(c: char) -> char {
    match c {
        '\u{80}'..='\u{9f}' => CODECS[1].high[c as usize - 0x80],
        _ => c,
    }
}

/// Decodes UTF-8 strictly; where the bytes hint at them, also CESU-8 (surrogates as three bytes each) and
/// Java's two-byte zero.
pub fn decode_utf8(bytes: Vec<u8>) -> Option<String> {
    if bytes.contains(&0xed) || bytes.contains(&0xc0) {
        return String::from_utf8(to_standard(&bytes)?).ok();
    }
    String::from_utf8(bytes).ok()
}

/// Rewrites the variants in standard UTF-8. `None`: a lone surrogate.
///
/// A newline that ends the text is taken for the last byte of an otherwise whole sequence: ftfy's patterns
/// do so (their end-of-input anchor also holds before a final newline), and its result is what counts here.
fn to_standard(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&first) = bytes.get(at) {
        let rest = &bytes[at..];
        match first {
            0xc0 if matches!(rest, [_, 0x80, ..] | [_, b'\n']) => {
                out.push(0);
                at += 2;
            }
            0xed if matches!(rest, [_, 0xa0..=0xbf, ..]) => {
                let c = surrogate_pair(rest)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                at += 6;
            }
            _ => {
                out.push(first);
                at += 1;
            }
        }
    }
    Some(out)
}

/// The character of a CESU-8 sequence of six bytes.
fn surrogate_pair(bytes: &[u8]) -> Option<char> {
    match *bytes {
        [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d, ref rest @ ..]
            if matches!(d, 0x80..=0xbf) || (d == b'\n' && rest.is_empty()) =>
        {
            let bits = |byte: u8, mask: u8| u32::from(byte & mask);
            let code = (bits(a, 0x0f) << 16) + (bits(b, 0x3f) << 10) + (bits(c, 0x0f) << 6) + bits(d, 0x3f);
            char::from_u32(code + 0x10000)
        }
        _ => None,
    }
}

/// Marks a byte that the standard leaves unassigned.
const GAP: char = '\u{fffd}';

// The tables follow the mapping files of the Unicode Consortium (vendor and ISO 8859 mappings).

const WINDOWS_1252: &str = "\
    €\u{fffd}‚ƒ„…†‡ˆ‰Š‹Œ\u{fffd}Ž\u{fffd}\u{fffd}‘’“”•–—˜™š›œ\u{fffd}žŸ\
    \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß\
    àáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ";
const WINDOWS_1251: &str = "\
    ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{fffd}™љ›њќћџ\
    \u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕї\
    АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ\
    абвгдежзийклмнопрстуфхцчшщъыьэюя";
const WINDOWS_1250: &str = "\
    €\u{fffd}‚\u{fffd}„…†‡\u{fffd}‰Š‹ŚŤŽŹ\u{fffd}‘’“”•–—\u{fffd}™š›śťžź\
    \u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
    ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
const WINDOWS_1253: &str = "\
    €\u{fffd}‚ƒ„…†‡\u{fffd}‰\u{fffd}‹\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}‘’“”•–—\u{fffd}™\u{fffd}›\u{fffd}\u{fffd}\u{fffd}\u{fffd}\
    \u{a0}΅Ά£¤¥¦§¨©\u{fffd}«¬\u{ad}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏ\
    ΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡ\u{fffd}ΣΤΥΦΧΨΩΪΫάέήί\
    ΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώ\u{fffd}";
const WINDOWS_1254: &str = "\
    €\u{fffd}‚ƒ„…†‡ˆ‰Š‹Œ\u{fffd}\u{fffd}\u{fffd}\u{fffd}‘’“”•–—˜™š›œ\u{fffd}\u{fffd}Ÿ\
    \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞß\
    àáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ";
const WINDOWS_1257: &str = "\
    €\u{fffd}‚\u{fffd}„…†‡\u{fffd}‰\u{fffd}‹\u{fffd}¨ˇ¸\u{fffd}‘’“”•–—\u{fffd}™\u{fffd}›\u{fffd}¯˛\u{fffd}\
    \u{a0}\u{fffd}¢£¤\u{fffd}¦§Ø©Ŗ«¬\u{ad}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æ\
    ĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽß\
    ąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙";
const ISO_8859_2: &str = "\
    \u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
    ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
const MACROMAN: &str = "\
    ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü\
    †°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø\
    ¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ\
    ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";
const CP437: &str = "\
    ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ\
    áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
    αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
