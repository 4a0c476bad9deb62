//! The picture formats: their names, their extensions and how a file shows which one it is.

use std::path::Path;

/// A picture file format that can be read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Png,
    Jpeg,
    WebP,
    Tiff,
    Bmp,
}

impl Format {
    pub const ALL: [Format; 5] = [Format::Png, Format::Jpeg, Format::WebP, Format::Tiff, Format::Bmp];

    /// The name that people use.
    pub fn name(self) -> &'static str {
        match self {
            Format::Png => "PNG",
            Format::Jpeg => "JPEG",
            Format::WebP => "WebP",
            Format::Tiff => "TIFF",
            Format::Bmp => "BMP",
        }
    }

    /// The extension given to new files, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg => "jpg",
            Format::WebP => "webp",
            Format::Tiff => "tif",
            Format::Bmp => "bmp",
        }
    }

    /// The format that a path's extension names, in any letter case.
    pub fn from_path(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "png" => Some(Format::Png),
            "jpg" | "jpeg" => Some(Format::Jpeg),
            "webp" => Some(Format::WebP),
            "tif" | "tiff" => Some(Format::Tiff),
            "bmp" => Some(Format::Bmp),
            _ => None,
        }
    }

    /// The format that the first bytes of a file show, whatever the file is called.
    pub fn sniff(bytes: &[u8]) -> Option<Format> {
        // "BM" alone also begins English words, so the size of the second header must fit too.
        let bmp_header = |b: &[u8]| matches!(b, [12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]);
        match bytes {
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(Format::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Format::Tiff),
            [b'B', b'M', ..] if bytes.get(14..18).is_some_and(bmp_header) => Some(Format::Bmp),
            _ => None,
        }
    }
}

/// What a file of no known format seems to be, to say so in the error.
pub(super) fn describe_unknown(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "the file is empty",
        [b'G', b'I', b'F', b'8', ..] => "GIF pictures are not read",
        [b'8', b'B', b'P', b'S', ..] => "Photoshop documents are not read",
        [0xff, 0x0a, ..] | [0, 0, 0, 0x0c, b'J', b'X', b'L', b' ', ..] => "JPEG XL pictures are not read",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "HEIC, AVIF and video files are not read",
        [b'%', b'P', b'D', b'F', ..] => "PDF files are not read",
        [b'R', b'I', b'F', b'F', ..] | [0x89, b'P', ..] | [b'B', b'M'] => "not a picture, or cut short",
        _ => {
            let head = &bytes[..bytes.len().min(512)];
            let texty = |&b: &u8| b >= 0x20 && b != 0x7f || matches!(b, b'\n' | b'\r' | b'\t');
            if head.iter().all(texty) && head.iter().filter(|b| b.is_ascii()).count() * 10 >= head.len() * 7 {
                "this is a text file, not a picture"
            } else {
                "this is not a picture in a known format"
            }
        }
    }
}
