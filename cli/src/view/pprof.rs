//! The file format of pprof (google/pprof, proto/profile.proto): a message of protocol buffers, compressed by gzip. Of the
//! messages there are the fields that are written.

use anyhow::Result;
use flate2::write::GzEncoder;
use flate2::Compression;
use prost::Message;
use slabside_view::profile::Sums;
use slabside_view::unwind::Frame;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the sums of a file are of.
#[derive(Clone, Copy)]
pub enum Values<'a> {
    /// Live blocks: inuse_objects and inuse_space.
    InUse(&'a Sums),
    /// All blocks that were allocated: alloc_objects and alloc_space.
    Allocated(&'a Sums),
    /// All that were allocated, and those that are live.
    Both(&'a Sums, &'a Sums),
}

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// Texts, modules, functions and locations by number.
#[derive(Default)]
struct Tables<'a> {
    texts: HashMap<&'a str, i64>,
    modules: HashMap<&'a str, u64>,
    functions: HashMap<(&'a str, &'a str), u64>,
    locations: HashMap<&'a Frame, u64>,
    profile: Profile,
}

impl<'a> Tables<'a> {
    fn text(&mut self, text: &'a str) -> i64 {
        let next = self.texts.len() as i64;
        let number = *self.texts.entry(text).or_insert(next);
        if number == next {
            self.profile.string_table.push(text.into());
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
        let id = self.modules.len() as u64 + 1;
        self.modules.insert(module, id);
        let filename = self.text(module);
        self.profile.mapping.push(Mapping {
            id,
            filename,
            // They are told already.
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        });
        id
    }

    fn function(&mut self, frame: &'a Frame) -> u64 {
        let key = (&*frame.function, &*frame.file);
        if let Some(&number) = self.functions.get(&key) {
            return number;
        }
        let id = self.functions.len() as u64 + 1;
        self.functions.insert(key, id);
        let name = self.text(&frame.function);
        let filename = self.text(&frame.file);
        self.profile.function.push(Function {
            id,
            name,
            system_name: name,
            filename,
        });
        id
    }

    fn location(&mut self, frame: &'a Frame) -> u64 {
        if let Some(&number) = self.locations.get(frame) {
            return number;
        }
        let id = self.locations.len() as u64 + 1;
        self.locations.insert(frame, id);
        let line = Line {
            function_id: self.function(frame),
            line: frame.line.into(),
        };
        let mapping_id = self.module(&frame.module);
        self.profile.location.push(Location {
            id,
            mapping_id,
            line: vec![line],
        });
        id
    }

    fn value_type(&mut self, kind: &'a str, unit: &'a str) -> ValueType {
        let r#type = self.text(kind);
        let unit = self.text(unit);
        ValueType { r#type, unit }
    }
}

/// The compressed file.
pub fn file(values: Values<'_>, interval: u64, time: Duration) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&profile(values, interval, time).encode_to_vec())?;
    Ok(encoder.finish()?)
}

fn profile(values: Values<'_>, interval: u64, time: Duration) -> Profile {
    let mut tables = Tables::default();
    tables.text("");
    let (allocated, live) = match values {
        Values::InUse(live) => (None, Some(live)),
        Values::Allocated(all) => (Some(all), None),
        Values::Both(all, live) => (Some(all), Some(live)),
    };
    let named = [
        (allocated, "alloc_objects", "alloc_space"),
        (live, "inuse_objects", "inuse_space"),
    ];
    let mut rows: BTreeMap<&[Frame], Vec<i64>> = BTreeMap::new();
    let mut kinds = Vec::new();
    for (sums, objects, space) in named {
        let Some(sums) = sums else { continue };
        let first = kinds.len();
        kinds.push(tables.value_type(objects, "count"));
        kinds.push(tables.value_type(space, "bytes"));
        for row in &sums.rows {
            let values = rows.entry(&row.stack).or_default();
            values.resize(first, 0);
            values.extend([row.count, row.bytes].map(|value| value.round() as i64));
        }
    }
    for (stack, mut values) in rows {
        values.resize(kinds.len(), 0);
        let location_id = stack.iter().map(|frame| tables.location(frame)).collect();
        tables.profile.sample.push(Sample {
            location_id,
            value: values,
        });
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let period_type = tables.value_type("space", "bytes");
    Profile {
        default_sample_type: kinds.get(1).map_or(0, |kind| kind.r#type),
        sample_type: kinds,
        time_nanos: now.as_nanos() as i64,
        duration_nanos: time.as_nanos() as i64,
        period_type: Some(period_type),
        period: interval as i64,
        ..tables.profile
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slabside_view::profile::Row;

    fn sums(rows: &[(u32, f64)]) -> Sums {
        let frame = |line| Frame {
            function: "work".into(),
            file: "a.c".into(),
            line,
            module: "/bin/a".into(),
        };
        let row = |&(line, bytes): &(u32, f64)| Row {
            stack: [frame(line)].into(),
            count: 1.0,
            bytes,
            samples: 1,
        };
        Sums {
            rows: rows.iter().map(row).collect(),
            ..Sums::default()
        }
    }

    #[test]
    fn equal_functions_and_modules_are_written_once() {
        let profile = profile(
            Values::InUse(&sums(&[(1, 10.0), (2, 10.0)])),
            1,
            Duration::ZERO,
        );
        assert_eq!((profile.function.len(), profile.mapping.len()), (1, 1));
        assert_eq!(profile.location.len(), 2);
        assert_eq!(profile.string_table[0], "");
        let mut texts = profile.string_table.clone();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), profile.string_table.len());
    }

    #[test]
    fn what_was_allocated_and_what_is_live_of_a_stack_are_one_sample() {
        let (all, live) = (sums(&[(1, 10.0), (2, 20.0)]), sums(&[(2, 5.0), (3, 7.0)]));
        let profile = profile(Values::Both(&all, &live), 1, Duration::ZERO);
        let values: Vec<&[i64]> = profile.sample.iter().map(|one| &*one.value).collect();
        assert_eq!(values, [[1, 10, 0, 0], [1, 20, 1, 5], [0, 0, 1, 7]]);
        let names: Vec<&str> = profile
            .sample_type
            .iter()
            .map(|kind| &*profile.string_table[kind.r#type as usize])
            .collect();
        assert_eq!(
            names,
            [
                "alloc_objects",
                "alloc_space",
                "inuse_objects",
                "inuse_space"
            ]
        );
        let default = profile.default_sample_type as usize;
        assert_eq!(profile.string_table[default], "alloc_space");
    }
}
