//! TensorBoard event files: length-prefixed records with masked checksums, each a protocol buffer `Event`.
//!
//! Formats: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto and summary.proto. Written by
//! hand: an event needs five fields.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// An event file being written.
pub struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventFile {
    /// Starts a new file in `folder`, named so that it sorts behind those of earlier runs.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(folder: &Path) -> Result<Self> {
        let started = now();
        // A run that is resumed within a second must not write into the file of the one before.
        let free = (0u32..).map(|count| {
            folder.join(format!("events.out.tfevents.{:010}.{}.{count}", started as u64, std::process::id()))
        });
        let path = free
            .into_iter()
            .find(|path| !path.exists())
            .unwrap_or_else(|| folder.join("events.out.tfevents"));
        let file = File::create_new(&path).map_err(|e| Error::io("create", &path, &e))?;
        let mut events = EventFile { path, file: BufWriter::new(file) };
        let mut version = Message::event(started, 0);
        version.bytes(3, b"brain.Event:2");
        events.write(&version.0)?;
        Ok(events)
    }

    /// Adds named numbers at `step`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes());
            entry.float(2, *value as f32);
            summary.bytes(1, &entry.0);
        }
        self.summary(step, &summary)
    }

    /// Adds a picture, as the bytes of a PNG file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn image(&mut self, step: u64, tag: &str, [width, height]: [usize; 2], png: &[u8]) -> Result<()> {
        let mut image = Message::default();
        image.integer(1, height as u64);
        image.integer(2, width as u64);
        image.integer(3, 3); // red, green, blue
        image.bytes(4, png);
        let mut entry = Message::default();
        entry.bytes(1, tag.as_bytes());
        entry.bytes(4, &image.0);
        let mut summary = Message::default();
        summary.bytes(1, &entry.0);
        self.summary(step, &summary)
    }

    fn summary(&mut self, step: u64, summary: &Message) -> Result<()> {
        let mut event = Message::event(now(), step);
        event.bytes(5, &summary.0);
        self.write(&event.0)?;
        // A reader that watches the file sees whole events.
        self.file.flush().map_err(|e| Error::io("write", &self.path, &e))
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        self.file.write_all(&record(event)).map_err(|e| Error::io("write", &self.path, &e))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Length, its checksum, data, their checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let (of_length, of_data) = (masked_crc(&length).to_le_bytes(), masked_crc(data).to_le_bytes());
    [&length[..], &of_length, data, &of_data].concat()
}

/// CRC-32C (Castagnoli), rotated and offset so that checksums of data that holds checksums stay good.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(data: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    static TABLE: LazyLock<[u32; 256]> = LazyLock::new(|| {
        std::array::from_fn(|i| {
            (0..8).fold(i as u32, |c, _| if c & 1 == 1 { (c >> 1) ^ POLYNOMIAL } else { c >> 1 })
        })
    });
    !data.iter().fold(!0u32, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

/// A protocol buffer in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// `Event` with wall time and step.
    fn event(time: f64, step: u64) -> Message {
        let mut event = Message::default();
        event.key(1, 1);
        event.0.extend(time.to_le_bytes());
        event.integer(2, step);
        event
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, B.4, and the usual check value.
    #[test]
    fn checksums_have_their_known_answers() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46dd_794e);
    }

    #[test]
    fn messages_are_protocol_buffers() {
        let mut message = Message::default();
        message.integer(2, 300);
        message.float(2, 1.0);
        message.bytes(1, b"ab");
        assert_eq!(message.0, [0x10, 0xac, 0x02, 0x15, 0, 0, 0x80, 0x3f, 0x0a, 2, b'a', b'b']);
    }

    #[test]
    fn files_hold_whole_records() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path()).unwrap();
        events.scalars(7, &[("loss/total", 0.5), ("rate", 1e-5)]).unwrap();
        events.image(8, "sample", [2, 1], b"PNG").unwrap();
        let mut rest = &std::fs::read(&events.path).unwrap()[..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..][..4], masked_crc(data).to_le_bytes());
            found.push(data.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(found.len(), 3);
        assert!(found[0].ends_with(b"brain.Event:2"));
        let holds = |event: &[u8], part: &[u8]| event.windows(part.len()).any(|window| window == part);
        assert!(holds(&found[1], b"\x0a\x0aloss/total\x15\0\0\0\x3f") && holds(&found[1], b"\x10\x07"));
        assert!(holds(&found[2], b"\x08\x01\x10\x02\x18\x03\x22\x03PNG"));
        assert!(EventFile::create(folder.path()).is_ok(), "a second run in the same second");
    }
}
