//! The file format of pprof (google/pprof, proto/profile.proto): a message in the wire format of protocol buffers,
//! compressed by gzip.

use anyhow::Result;
use flate2::write::GzEncoder;
use flate2::Compression;
use slabside_view::profile::Row;
use slabside_view::unwind::Frame;
use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How the two values of a sample are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// inuse_objects and inuse_space.
    InUse,
    /// alloc_objects and alloc_space.
    Allocated,
}

/// Fields of a message, in the wire format.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number, which is left out if it is 0, as the format has it.
    fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn packed(&mut self, field: u64, values: impl Iterator<Item = u64>) {
        let mut packed = Message::default();
        values.for_each(|value| packed.varint(value));
        self.bytes(field, &packed.0);
    }
}

/// Texts, functions and locations by number.
struct Tables<'a> {
    texts: HashMap<&'a str, u64>,
    order: Vec<&'a str>,
    modules: HashMap<&'a str, u64>,
    functions: HashMap<(&'a str, &'a str), u64>,
    locations: HashMap<&'a Frame, u64>,
    profile: Message,
}

impl<'a> Tables<'a> {
    fn text(&mut self, text: &'a str) -> u64 {
        let next = self.order.len() as u64;
        let number = *self.texts.entry(text).or_insert(next);
        if number == next {
            self.order.push(text);
        }
        number
    }

    fn module(&mut self, module: &'a str) -> u64 {
        if module.is_empty() {
            return 0;
        }
        if let Some(&number) = self.modules.get(module) {
            return number;
        }
        let number = self.modules.len() as u64 + 1;
        self.modules.insert(module, number);
        let mut mapping = Message::default();
        mapping.number(1, number);
        mapping.number(5, self.text(module));
        // Functions, files, line numbers and inlined calls are told already.
        (7..=10).for_each(|field| mapping.number(field, 1));
        self.profile.bytes(3, &mapping.0);
        number
    }

    fn function(&mut self, frame: &'a Frame) -> u64 {
        let key = (&*frame.function, &*frame.file);
        if let Some(&number) = self.functions.get(&key) {
            return number;
        }
        let number = self.functions.len() as u64 + 1;
        self.functions.insert(key, number);
        let mut function = Message::default();
        function.number(1, number);
        let name = self.text(&frame.function);
        function.number(2, name);
        function.number(3, name);
        function.number(4, self.text(&frame.file));
        self.profile.bytes(5, &function.0);
        number
    }

    fn location(&mut self, frame: &'a Frame) -> u64 {
        if let Some(&number) = self.locations.get(frame) {
            return number;
        }
        let number = self.locations.len() as u64 + 1;
        self.locations.insert(frame, number);
        let mut line = Message::default();
        line.number(1, self.function(frame));
        line.number(2, frame.line.into());
        let mut location = Message::default();
        location.number(1, number);
        location.number(2, self.module(&frame.module));
        location.bytes(4, &line.0);
        self.profile.bytes(4, &location.0);
        number
    }

    fn value_type(&mut self, field: u64, kind: &'a str, unit: &'a str) {
        let mut value = Message::default();
        value.number(1, self.text(kind));
        value.number(2, self.text(unit));
        self.profile.bytes(field, &value.0);
    }
}

/// The compressed file.
pub fn file(rows: &[Row], units: Units, interval: u64, time: Duration) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&message(rows, units, interval, time))?;
    Ok(encoder.finish()?)
}

fn message(rows: &[Row], units: Units, interval: u64, time: Duration) -> Vec<u8> {
    let mut tables = Tables {
        texts: HashMap::new(),
        order: Vec::new(),
        modules: HashMap::new(),
        functions: HashMap::new(),
        locations: HashMap::new(),
        profile: Message::default(),
    };
    tables.text("");
    let (objects, space) = match units {
        Units::InUse => ("inuse_objects", "inuse_space"),
        Units::Allocated => ("alloc_objects", "alloc_space"),
    };
    tables.value_type(1, objects, "count");
    tables.value_type(1, space, "bytes");
    for row in rows {
        let locations: Vec<u64> = row
            .stack
            .iter()
            .map(|frame| tables.location(frame))
            .collect();
        let mut sample = Message::default();
        sample.packed(1, locations.into_iter());
        sample.packed(
            2,
            [row.count, row.bytes]
                .map(|value| value.round() as u64)
                .into_iter(),
        );
        tables.profile.bytes(2, &sample.0);
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    tables.profile.number(9, now.as_nanos() as u64);
    tables.profile.number(10, time.as_nanos() as u64);
    tables.value_type(11, "space", "bytes");
    tables.profile.number(12, interval);
    let default = tables.text(space);
    tables.profile.number(14, default);
    let texts = std::mem::take(&mut tables.order);
    for text in texts {
        tables.profile.bytes(6, text.as_bytes());
    }
    tables.profile.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_seven_bits_at_a_time() {
        let mut message = Message::default();
        message.number(1, 300);
        message.number(2, 0);
        message.bytes(3, b"ab");
        assert_eq!(message.0, [0x08, 0xac, 0x02, 0x1a, 2, b'a', b'b']);
    }

    #[test]
    fn equal_functions_and_modules_are_written_once() {
        let frame = |line| Frame {
            function: "work".into(),
            file: "a.c".into(),
            line,
            module: "/bin/a".into(),
        };
        let row = |line| Row {
            stack: vec![frame(line)],
            count: 1.0,
            bytes: 10.0,
            samples: 1,
        };
        let message = message(&[row(1), row(2), row(1)], Units::InUse, 1, Duration::ZERO);
        let times = |text: &[u8]| {
            message
                .windows(text.len())
                .filter(|part| *part == text)
                .count()
        };
        assert_eq!(
            (
                times(b"work"),
                times(b"a.c"),
                times(b"/bin/a"),
                times(b"inuse_space")
            ),
            (1, 1, 1, 1)
        );
    }
}
