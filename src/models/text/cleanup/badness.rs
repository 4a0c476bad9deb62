//! Does a text look like UTF-8 that was read in another encoding? The heuristic of `ftfy.badness`: some
//! neighbours, such as a small accented letter before a currency sign, hardly ever stand in real text.

use std::sync::LazyLock;

use regex::Regex;

use super::pattern;

/// True where the text holds a sequence that is far likelier an encoding error than meant.
pub fn is_bad(text: &str) -> bool {
    static BAD_SEQUENCE: LazyLock<Regex> = LazyLock::new(|| {
        // Each `{name}` in a rule is replaced by its characters.
        let mut source = RULES.join("|");
        for (name, characters) in CLASSES {
            source = source.replace(&format!("{{{name}}}"), characters);
        }
        pattern(&source)
    });
    BAD_SEQUENCE.is_match(text)
}

/// Kinds of the characters that UTF-8 turns into when misread.
const CLASSES: [(&str, &str); 13] = [
    // Ordinary in many places.
    ("common", r"\x{a0}\x{ad}´·\x{2013}-\x{2015}’…"),
    // Controls without any use of their own.
    ("c1", r"\x{80}-\x{9f}"),
    // Hardly met outside encoding errors.
    ("bad", r"¤¦¨ª¬¯¸ºƒˆˇ˘˛˜†‡‰⌐◊\x{fffd}"),
    ("law", "§¶"),
    ("currency", "¢£¥₧€"),
    ("open", r"¡©«¿΄΅‘‚“„•‹\x{f8ff}"),
    ("close", "®»˝”›™"),
    ("numeric", "±-³µ¹¼-¾×÷⁄№∂∆∏∑√∞∩∫≈≠≡≤≥"),
    // Letters that also draw faces.
    ("face", "°Ò-ÖÙ-Üò-öø-üŌŐŪŲ"),
    ("upper", "À-ÑØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢĪİĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ"),
    ("lower", "ß-ñüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґﬁﬂ"),
    // Greek and Cyrillic letters, and thorn: usual at the end of words.
    ("letter", "ÞΆΈ-ΊΌΎΏΑ-ΫЁ-Яά-ωа-џ"),
    ("box", "│┌┐┘├┤┬┼═-╬▀▄█▌▐-▓"),
];

/// The sequences, as patterns over [`CLASSES`].
const RULES: [&str; 37] = [
    "[{c1}]",
    "[{bad}{lower}{upper}{box}{open}{close}{currency}{numeric}{law}][{bad}]",
    "[a-zA-Z][{letter}][{bad}]",
    "[{bad}][{lower}{upper}{box}{open}{close}{currency}{numeric}{law}]",
    "[{lower}ά-ωа-џ{box}{close}{currency}{numeric}][{upper}]",
    "[{box}{close}{currency}{numeric}][{lower}]",
    "[{lower}{box}{close}][{currency}]",
    r"[\s\x1c-\x1f][{upper}][{currency}]",
    "[{upper}{box}][{numeric}{law}]",
    "[{lower}{upper}{box}{currency}{close}][{open}][{numeric}]",
    "[{lower}{upper}{currency}{numeric}{box}{law}][{close}][{open}]",
    "[{currency}{numeric}{box}][{open}]",
    "[a-z][{upper}][{open}{currency}]",
    "[{box}][{face}]",
    "[{lower}{upper}{currency}{numeric}{open}{close}{law}][{box}]",
    "[{box}][{close}]",
    r"[{lower}{upper}][{open}{close}][\p{L}\p{N}_]",
    "[Œœ][^A-Za-z]",
    "[{upper}]°",
    // Pairs of Windows-1252, then its Arabic and its South Asian sequences.
    r"[ÂÃÎÐ][€œŠš¢£Ÿž\x{a0}\x{ad}®©°·»{open}{close}–—´]",
    "×[²³]",
    "[ØÙ][{common}{currency}{bad}{numeric}{open}ŸŠ®°µ»][ØÙ][{common}{currency}{bad}{numeric}{open}ŸŠ®°µ»]",
    "à[²µ¹¼½¾]",
    // MacRoman.
    "√[±∂†≠®™´≤≥¥µø]",
    "≈[°¢]",
    "‚Ä[ìîïòôúùû†°¢π]",
    "‚[âó][àä°ê]",
    // Windows-1251: general punctuation, Latin-1 and Cyrillic letters, and two errors on top of each other.
    "вЂ",
    "[ВГРС][{c1}{bad}{open}{close}{currency}°µ][ВГРС]",
    "ГўВЂВ.[A-Za-z ]",
    // Windows-1252 of "à", "á" and the no-break space, which may have become a space.
    r"Ã[\x{a0}¡]",
    r"[a-z][\s\x1c-\x1f]?[ÃÂ] ",
    "^[ÃÂ] ",
    "[a-z.,?!{close}]Â[ {open}{close}]",
    // Windows-1253: general punctuation, Latin-1 and Greek letters.
    r"β€[™\x{a0}Ά\x{ad}®°]",
    "[ΒΓΞΟ][{c1}{bad}{open}{close}{currency}°][ΒΓΞΟ]",
    // Windows-1257: general punctuation.
    "ā€",
];
