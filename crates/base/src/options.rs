//! The options: one table of names, kinds, defaults and meanings, and the values that were set. They are read once,
//! then frozen.
//!
//! ```text
//!   slabside_option_set --.
//!                          +--> values --(the first allocation freezes them)--> read by slow paths
//!   SLABSIDE_OPTIONS -----'     the environment comes last, so the user has the last word
//! ```
//!
//! `SLABSIDE_OPTIONS=name:value,name:value`: `=` serves as well as `:`, capital letters as small ones, `_` as `-`. A
//! flag may stand alone. A size may end in k, m or g (powers of 1024, also MB, MiB), a time in ms, s, min or h. An item
//! that cannot be understood is reported once, with the nearest name if one is near. The other items are used.
//!
//! Knows nothing of what the options do. No fast path reads one. `slabside options`, `slabside run --option` and
//! docs/tuning.md are made of the same table.

use crate::misuse::Line;
use crate::mutex::{Lock, Mutex, Registry};
use crate::os::Os;
use crate::read_only::ReadOnly;
use crate::sync::{AtomicU32, AtomicUsize};
use crate::sync::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use core::cell::UnsafeCell;

pub use crate::os::OPTIONS as VARIABLE;

/// What a value of an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On or off. The name alone means on.
    Flag,
    /// A number from `least` to `most`.
    Integer {
        /// What it counts.
        unit: Unit,
        /// The smallest value.
        least: usize,
        /// The largest value.
        most: usize,
    },
    /// A number of bytes from 0 to `most`. The name alone means `alone`.
    Amount {
        /// The largest value.
        most: usize,
        /// What the name alone means.
        alone: usize,
    },
    /// One of these words. The value is its place among them.
    Choice(&'static [&'static str]),
    /// A word of the user's, [`TEXT`] bytes at most, without a comma.
    Text,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes. k, m and g may follow.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Nothing in particular.
    Count,
}

impl Unit {
    /// Its name after a number, empty for a bare count.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Milliseconds => "ms",
            Unit::Count => "",
        }
    }
}

/// The options, in the order of [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Name {
    /// Time that memory lies unused before it is given back.
    Decay,
    /// A thread that gives back while the program makes no call.
    Background,
    /// Free bytes at the heap's end that are given back at once.
    TrimThreshold,
    /// Ask for huge pages.
    HugePages,
    /// What `realloc(block, 0)` does.
    ReallocZero,
    /// What follows a misuse.
    Misuse,
    /// What follows a pointer that is not ours.
    Foreign,
    /// What follows a free that says another size.
    Sizes,
    /// What becomes of RTLD_DEEPBIND.
    Deepbind,
    /// Bytes above which memory is purged.
    LimitSoft,
    /// Bytes above which there is no memory.
    LimitHard,
    /// Where figures go at the program's end.
    Stats,
    /// Who may look into the process.
    Watch,
    /// All parts of hardened mode.
    Hardened,
    /// Freed blocks are cleared, and verified when they are used again.
    Zero,
    /// A secret word after each block.
    Canary,
    /// Freed blocks wait before they are used again.
    Quarantine,
    /// Slots are chosen at random.
    Random,
    /// Pages that fault around slabs and larger blocks.
    Guard,
    /// One in so many allocations gets pages of its own.
    GuardSample,
    /// Bytes between two samples of the heap profile.
    Profile,
}

/// Number of options.
pub const COUNT: usize = TABLE.len();

/// One option, as the lists and messages state it.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Which it is.
    pub name: Name,
    /// How it is written.
    pub word: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Its value unless set: for a choice the place of the word, for a text 0, which means none.
    pub default: usize,
    /// What it is, in one line.
    pub meaning: &'static str,
    /// What setting it brings and costs.
    pub effect: &'static str,
}

/// `choice` of [`Name::ReallocZero`]: the block is freed and null returned.
pub const REALLOC_FREES: usize = 1;
/// `huge-pages:auto`.
pub const HUGE_AUTO: usize = 0;
/// `huge-pages:off`.
pub const HUGE_OFF: usize = 1;
/// `huge-pages:on`.
pub const HUGE_ON: usize = 2;
/// `choice` of [`Name::Misuse`]: a message, and on.
pub const MISUSE_REPORTS: usize = 1;
/// `choice` of [`Name::Foreign`]: as any misuse.
pub const FOREIGN_ABORTS: usize = 0;
/// `choice` of [`Name::Foreign`]: nothing is done.
pub const FOREIGN_IGNORED: usize = 1;
/// `choice` of [`Name::Foreign`]: the next malloc's function is called.
pub const FOREIGN_FORWARDED: usize = 2;

/// `choice` of [`Name::Sizes`]: as [`SIZES_CHECKED`] in hardened mode and where the program itself says the size.
pub const SIZES_AUTO: usize = 0;
/// `choice` of [`Name::Sizes`]: as any misuse.
pub const SIZES_CHECKED: usize = 1;
/// `choice` of [`Name::Sizes`]: the block is freed.
pub const SIZES_IGNORED: usize = 2;
/// `choice` of [`Name::Watch`]: any process of the same user.
pub const WATCH_ANY: usize = 1;
/// `choice` of [`Name::Deepbind`]: the flag is passed on.
pub const DEEPBIND_KEPT: usize = 1;

/// The largest limit and threshold, in bytes.
const BYTES_MOST: usize = 1 << 46;
/// Bytes of `quarantine` without a value.
pub const QUARANTINE_BYTES: usize = 256 << 10;
/// The largest interval of the heap profile, in bytes.
pub const PROFILE_MOST: usize = 1 << 40;
/// Bytes of `profile` without a value.
pub const PROFILE_BYTES: usize = 512 << 10;
/// A size with any value.
const SIZE: Kind = Kind::Integer {
    unit: Unit::Bytes,
    least: 0,
    most: BYTES_MOST,
};

/// All options.
pub const TABLE: [Spec; 21] = [
    Spec {
        name: Name::Decay,
        word: "decay",
        kind: Kind::Integer {
            unit: Unit::Milliseconds,
            least: 0,
            most: 86_400_000,
        },
        default: 250,
        meaning: "how long freed memory may lie unused before it goes back to the system",
        effect: "A shorter time returns memory sooner, and costs more system calls and page faults. A longer one \
                 suits programs that swell again and again. Large blocks are kept twice as long. With 0 memory goes \
                 back each time slabside looks at the clock",
    },
    Spec {
        name: Name::Background,
        word: "background",
        kind: Kind::Flag,
        default: 0,
        meaning: "whether a thread of slabside's own gives back memory while the program makes no call",
        effect: "Unused memory goes back within two or three times the decay also in an idle process, from the heaps of \
                 sleeping threads and out of slabs in use. A free gives nothing back itself then, and takes a tenth of \
                 the time or less where much is freed. The thread starts once the heap holds 4 MiB, sleeps while \
                 nothing is freed, and starts anew in a fork child. Leave it off in a program that must have one \
                 thread",
    },
    Spec {
        name: Name::TrimThreshold,
        word: "trim-threshold",
        kind: Kind::Integer {
            unit: Unit::Bytes,
            least: 4096,
            most: BYTES_MOST,
        },
        default: 256 << 10,
        meaning: "free bytes at the heap's end that go back at once, without waiting for decay",
        effect: "A smaller threshold moves the break down more often. A quarter of it stays at the heap's end. When \
                 a program soon grows again, its threshold becomes four times as large",
    },
    Spec {
        name: Name::HugePages,
        word: "huge-pages",
        kind: Kind::Choice(&["auto", "off", "on"]),
        default: HUGE_AUTO,
        meaning: "whether to ask for transparent huge pages (MADV_HUGEPAGE)",
        effect: "Huge pages cause fewer page faults and TLB misses. The heap then grows to the end of a huge page \
                 each time, so up to 2 MiB more are resident. auto: when the heap grows for blocks of up to \
                 8 KiB beyond 24 MiB, or grows again after it was that large. on: always, and for larger blocks too. \
                 off: never",
    },
    Spec {
        name: Name::ReallocZero,
        word: "realloc-zero",
        kind: Kind::Choice(&["block", "free"]),
        default: 0,
        meaning: "what realloc(block, 0) does",
        effect: "block: shrinks the block to the smallest size, so a null result always means failure. free: frees \
                 it and returns null, as glibc does",
    },
    Spec {
        name: Name::Misuse,
        word: "misuse",
        kind: Kind::Choice(&["abort", "report"]),
        default: 0,
        meaning: "what happens when free, realloc or malloc_usable_size gets a pointer that is no live block",
        effect: "abort: slabside prints one line on standard error and aborts (SIGABRT). report: it prints the line \
                 and drops the call (realloc returns null and sets EINVAL), and the program goes on",
    },
    Spec {
        name: Name::Foreign,
        word: "foreign",
        kind: Kind::Choice(&["abort", "ignore", "forward"]),
        default: 0,
        meaning: "what happens when they get a pointer that lies outside the heap",
        effect: "abort: as the option misuse says. ignore: nothing is done, so the block leaks. forward: the \
                 pointer goes to the next malloc (RTLD_NEXT), for libraries opened with RTLD_DEEPBIND or dlmopen, \
                 whose blocks come from libc",
    },
    Spec {
        name: Name::Sizes,
        word: "sizes",
        kind: Kind::Choice(&["auto", "check", "ignore"]),
        default: SIZES_AUTO,
        meaning: "what happens when a free or delete gives another size than the block was allocated with",
        effect: "check: as the option misuse says. ignore: the block is freed, as other allocators do. auto: \
                 free_sized and free_aligned_sized are checked, and C++'s delete in hardened mode only. The \
                 compiler writes delete's size from the type that it sees, and old code (a struct with data after \
                 it, a base without a virtual destructor, new[] freed by delete) frees a block as another type",
    },
    Spec {
        name: Name::Deepbind,
        word: "deepbind",
        kind: Kind::Choice(&["drop", "keep"]),
        default: 0,
        meaning: "what happens to the flag RTLD_DEEPBIND in the program's calls of dlopen, under LD_PRELOAD",
        effect: "drop: the flag is left out, so a plug-in uses the same malloc as the code that frees its blocks. \
                 keep: the plug-in gets libc's malloc, and a block that one side allocates and the other frees ends \
                 the program",
    },
    Spec {
        name: Name::LimitSoft,
        word: "limit-soft",
        kind: SIZE,
        default: 0,
        meaning: "bytes of heap above which each growth first gives back all that is kept for reuse, or 0 for no limit",
        effect: "Above the limit the program's memory stays near its live bytes, for more system calls",
    },
    Spec {
        name: Name::LimitHard,
        word: "limit-hard",
        kind: SIZE,
        default: 0,
        meaning: "bytes of heap, metadata not counted, that are never exceeded, or 0 for no limit",
        effect: "Before an allocation would exceed it, slabside gives back all that it keeps for reuse. If that is \
                 not enough, the allocation returns null and sets ENOMEM",
    },
    Spec {
        name: Name::Stats,
        word: "stats",
        kind: Kind::Text,
        default: 0,
        meaning: "where slabside writes the heap's figures when the program exits: stderr, or the path of a file",
        effect: "It walks the heap once at exit. It appends to the file, so several processes can share one. A \
                 relative path starts in the directory that the program is in at its end. For a program that closes \
                 standard error at its end, as ls does, name a file",
    },
    Spec {
        name: Name::Watch,
        word: "watch",
        kind: Kind::Choice(&["off", "any"]),
        default: 0,
        meaning: "which processes may read this one where kernel.yama.ptrace_scope is 1: its ancestors alone (off), or all of the same user (any)",
        effect: "With any, `slabside top` and the other commands work without root, and so does every debugger. It costs \
                 one system call (PR_SET_PTRACER) at the start and in each fork child",
    },
    Spec {
        name: Name::Hardened,
        word: "hardened",
        kind: Kind::Flag,
        default: 0,
        meaning: "all parts of hardened mode: zero, canary, quarantine, random, guard. None of them can be left out",
        effect: "slabside also detects overflows, writes after free and wrong sizes, as docs/security.md lists. \
                 Every allocation takes the slow path",
    },
    Spec {
        name: Name::Zero,
        word: "zero",
        kind: Kind::Flag,
        default: 0,
        meaning: "clear a block when it is freed, and check that it is still clear before it is used again",
        effect: "A write after free is reported at the next allocation from the slot. Freed blocks hold nothing to \
                 read. A pair of free and malloc takes 2 times as long at 64 bytes, 4 at 512, 11 at 20,000",
    },
    Spec {
        name: Name::Canary,
        word: "canary",
        kind: Kind::Flag,
        default: 0,
        meaning: "a secret word after the bytes asked for, which free and realloc check",
        effect: "An overflow by a single byte is reported. Each block is 8 bytes longer",
    },
    Spec {
        name: Name::Quarantine,
        word: "quarantine",
        kind: Kind::Amount {
            most: BYTES_MOST,
            alone: QUARANTINE_BYTES,
        },
        default: 0,
        meaning: "bytes of freed blocks that each thread keeps out of use, first in first out, or 0 for none",
        effect: "For that time a dangling pointer meets no new object. The bytes stay resident. The name alone \
                 means 256k",
    },
    Spec {
        name: Name::Random,
        word: "random",
        kind: Kind::Flag,
        default: 0,
        meaning: "choose slots at random, and the blocks that leave the quarantine",
        effect: "Nobody can predict the order of blocks in memory, nor the order of their reuse",
    },
    Spec {
        name: Name::Guard,
        word: "guard",
        kind: Kind::Flag,
        default: 0,
        meaning: "pages that fault after each slab and span and around each large block, and pages that keep their size class",
        effect: "A long overflow faults. A freed large block faults for a while. The heap's end does not go back",
    },
    Spec {
        name: Name::GuardSample,
        word: "guard-sample",
        kind: Kind::Integer {
            unit: Unit::Count,
            least: 0,
            most: 1 << 40,
        },
        default: 0,
        meaning: "one in this many allocations of up to a page gets a page of its own between guard pages, or 0 for none",
        effect: "Overflows and uses after free of such a block fault, and the stacks of its allocation and free are \
                 printed. This option alone can also be set after the first allocation: slabside_option_set then \
                 returns 0, not EBUSY, and counts from there",
    },
    Spec {
        name: Name::Profile,
        word: "profile",
        kind: Kind::Amount {
            most: PROFILE_MOST,
            alone: PROFILE_BYTES,
        },
        default: 0,
        meaning: "bytes between two samples of the heap profile on average, or 0 for none",
        effect: "`slabside profile` tells which code holds the memory. At 512k it costs less than 1 % of the time, and 4 \
                 KiB for each live sample. The name alone means 512k. It can be changed at any time, by \
                 slabside_profile and by `slabside profile PID --on`",
    },
];

/// The longest text of an option, in bytes.
pub const TEXT: usize = 255;

/// Why something was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// There is no such option. The one that was probably meant.
    Unknown(Option<Name>),
    /// The option takes no such value.
    Value(Name),
    /// The options are frozen.
    Frozen,
}

impl Name {
    /// Its row of the table.
    pub const fn spec(self) -> &'static Spec {
        &TABLE[self as usize]
    }

    /// The option written as `word`, in letters of any case and with `_` or `-`.
    pub fn of(word: &[u8]) -> Option<Name> {
        let found = TABLE
            .iter()
            .find(|spec| is_same(word, spec.word.as_bytes()));
        found.map(|spec| spec.name)
    }

    /// The option whose name is nearest to `word` by edits of one letter or the exchange of two neighbours, if there is at
    /// most one for each three letters. If there is none, the one whose name begins with `word`, of three letters or more.
    pub fn nearest(word: &[u8]) -> Option<Name> {
        let far = |spec: &Spec| distance(spec.word.as_bytes(), word);
        let spec = TABLE.iter().min_by_key(|spec| far(spec))?;
        let letters = word.len().min(WORD).max(spec.word.len());
        if far(spec) * 3 <= letters {
            return Some(spec.name);
        }
        let is_begun = |spec: &&Spec| {
            let start = spec.word.as_bytes().get(..word.len());
            word.len() >= 3 && start.is_some_and(|start| is_same(word, start))
        };
        TABLE.iter().find(is_begun).map(|spec| spec.name)
    }
}

/// `letter` as names and values are compared: small, and `-` for `_`.
fn folded(letter: u8) -> u8 {
    match letter {
        b'_' => b'-',
        _ => letter.to_ascii_lowercase(),
    }
}

/// Whether `text` is `word`, which is written in small letters with `-`.
fn is_same(text: &[u8], word: &[u8]) -> bool {
    text.len() == word.len() && text.iter().zip(word).all(|(a, b)| folded(*a) == *b)
}

/// Longest word for which distances are computed. The rest of a longer one is left out.
const WORD: usize = 32;

/// Insertions, deletions, changes and exchanges of two neighbours that make one word of the other (Wagner, Fischer 1974;
/// Damerau 1964). No letter takes part in two of them.
fn distance(word: &[u8], other: &[u8]) -> usize {
    let (word, other) = (
        &word[..word.len().min(WORD)],
        &other[..other.len().min(WORD)],
    );
    let same = |line: usize, column: usize| folded(word[line]) == folded(other[column]);
    let mut before = [0; WORD + 1];
    let mut row: [usize; WORD + 1] = core::array::from_fn(|column| column);
    for line in 0..word.len() {
        let mut next = [line + 1; WORD + 1];
        for column in 0..other.len() {
            let change = row[column] + usize::from(!same(line, column));
            next[column + 1] = change.min(row[column + 1] + 1).min(next[column] + 1);
            if line > 0 && column > 0 && same(line, column - 1) && same(line - 1, column) {
                next[column + 1] = next[column + 1].min(before[column - 1] + 1);
            }
        }
        (before, row) = (row, next);
    }
    row[other.len()]
}

/// What may follow a number of bytes, and what it is multiplied by.
const SIZES: [(&str, usize); 11] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kb", 1 << 10),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mb", 1 << 20),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gb", 1 << 30),
    ("gib", 1 << 30),
];
/// What may follow a number of milliseconds.
const TIMES: [(&str, usize); 5] = [
    ("", 1),
    ("ms", 1),
    ("s", 1000),
    ("min", 60_000),
    ("h", 3_600_000),
];
/// What may follow a bare count.
const COUNTS: [(&str, usize); 1] = [("", 1)];

/// A decimal number, and after it what it is measured in.
fn number(text: &[u8], unit: Unit) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, ending) = text.split_at(digits);
    if digits.is_empty() {
        return None;
    }
    let endings: &[(&str, usize)] = match unit {
        Unit::Bytes => &SIZES,
        Unit::Milliseconds => &TIMES,
        Unit::Count => &COUNTS,
    };
    let known = |&&(word, _): &&(&str, usize)| is_same(ending, word.as_bytes());
    let &(_, factor) = endings.iter().find(known)?;
    let value = digits.iter().try_fold(0usize, |value, digit| {
        value
            .checked_mul(10)?
            .checked_add(usize::from(digit - b'0'))
    })?;
    value.checked_mul(factor)
}

/// The value that `text` means for an option of `kind`. `None` for a flag that stands alone.
fn value_of(kind: Kind, text: Option<&[u8]>) -> Option<usize> {
    let Some(text) = text else {
        return match kind {
            Kind::Flag => Some(1),
            Kind::Choice(words) => words.iter().position(|&word| word == "on"),
            Kind::Amount { alone, .. } => Some(alone),
            _ => None,
        };
    };
    let is = |word: &&str| is_same(text, word.as_bytes());
    match kind {
        Kind::Flag if ["on", "1", "true", "yes"].iter().any(is) => Some(1),
        Kind::Flag if ["off", "0", "false", "no"].iter().any(is) => Some(0),
        Kind::Flag => None,
        Kind::Integer { unit, least, most } => {
            number(text, unit).filter(|value| (least..=most).contains(value))
        }
        Kind::Amount { most, .. } => number(text, Unit::Bytes).filter(|value| *value <= most),
        Kind::Choice(words) => words.iter().position(is),
        Kind::Text => (1..=TEXT).contains(&text.len()).then_some(text.len()),
    }
}

/// What `name:value` sets, or the `name` alone of a flag or of a choice that can be on.
pub fn parse(item: &[u8]) -> Result<(Name, usize), Mistake> {
    let (word, text) = split(item);
    let name = Name::of(word).ok_or_else(|| Mistake::Unknown(Name::nearest(word)))?;
    match value_of(name.spec().kind, text) {
        Some(value) => Ok((name, value)),
        None => Err(Mistake::Value(name)),
    }
}

/// The name, and the value after the first colon or equals sign.
fn split(item: &[u8]) -> (&[u8], Option<&[u8]>) {
    match item.iter().position(|byte| b":=".contains(byte)) {
        Some(place) => (&item[..place], Some(&item[place + 1..])),
        None => (item, None),
    }
}

impl Mistake {
    /// The line that reports this mistake in `item`, with its newline.
    pub fn line(self, item: &[u8]) -> Line {
        let (word, text) = split(item);
        let mut line = Line::new();
        line.text("slabside: ");
        match self {
            Mistake::Unknown(nearest) => {
                line.text("there is no option '").quoted(word);
                line.text("'; ");
                match nearest {
                    Some(name) => line
                        .text("the nearest is '")
                        .text(name.spec().word)
                        .text("'"),
                    None => line.text("`slabside options` lists them"),
                };
            }
            Mistake::Value(name) => {
                line.text("the option '")
                    .text(name.spec().word)
                    .text("' takes ");
                takes(&mut line, name.spec().kind);
                line.text(", not '").quoted(text.unwrap_or(b"")).text("'");
            }
            Mistake::Frozen => {
                line.text("the option '").quoted(word);
                line.text("' cannot be set any more");
            }
        }
        line.text("\n");
        line
    }
}

/// What values there are, in words.
fn takes(line: &mut Line, kind: Kind) {
    match kind {
        Kind::Flag => {
            line.text("on or off");
        }
        Kind::Integer { unit, least, most } => {
            line.decimal(least).text(" to ").decimal(most);
            let unit = unit.name();
            line.text(if unit.is_empty() { "" } else { " " }).text(unit);
        }
        Kind::Amount { most, .. } => {
            line.text("0 to ").decimal(most).text(" bytes");
        }
        Kind::Choice(words) => {
            for (place, word) in words.iter().enumerate() {
                let before = match place {
                    0 => "",
                    _ if place + 1 == words.len() => " or ",
                    _ => ", ",
                };
                line.text(before).text(word);
            }
        }
        Kind::Text => {
            line.text("1 to ").decimal(TEXT).text(" bytes of text");
        }
    }
}

/// What the first allocation freezes.
struct Fixed {
    values: [AtomicUsize; COUNT],
    /// The one text there is, that of [`Name::Stats`], ended by a zero.
    text: UnsafeCell<[u8; TEXT + 1]>,
}

// SAFETY: the text is written under the lock before `frozen`, and read after it.
unsafe impl Sync for Fixed {}

/// The values of all options.
pub struct Options {
    fixed: ReadOnly<Fixed>,
    /// The value of [`Name::GuardSample`], which alone may change later.
    sample: AtomicUsize,
    /// How often that was set after the first allocation.
    changes: AtomicU32,
    frozen: AtomicU32,
    /// A bit for each option that was set.
    chosen: AtomicUsize,
    /// Held while values are set.
    setting: Mutex<()>,
}

impl Options {
    /// Every option at its default.
    pub const fn new(locks: &mut Registry) -> Options {
        let mut values = [const { AtomicUsize::new(0) }; COUNT];
        let mut index = 0;
        while index < COUNT {
            values[index] = AtomicUsize::new(TABLE[index].default);
            index += 1;
        }
        Options {
            fixed: ReadOnly::new(Fixed {
                values,
                text: UnsafeCell::new([0; TEXT + 1]),
            }),
            sample: AtomicUsize::new(TABLE[Name::GuardSample as usize].default),
            changes: AtomicU32::new(0),
            frozen: AtomicU32::new(0),
            chosen: AtomicUsize::new(0),
            setting: Mutex::new(locks, ()),
        }
    }

    /// The value of `name`: of a flag 0 or 1, of a choice the word's place.
    #[inline]
    pub fn get(&self, name: Name) -> usize {
        self.place(name).load(Relaxed)
    }

    #[inline]
    fn place(&self, name: Name) -> &AtomicUsize {
        match name {
            Name::GuardSample => &self.sample,
            _ => &self.fixed.values[name as usize],
        }
    }

    /// From now on a write to what is frozen faults.
    pub fn seal<O: Os>(&self, os: &O) -> bool {
        self.fixed.seal(os)
    }

    /// Whether the flag `name` is set.
    #[inline]
    pub fn is_on(&self, name: Name) -> bool {
        self.get(name) != 0
    }

    /// The text of [`Name::Stats`]. `None` while it can still change, or was not set.
    pub fn text(&self) -> Option<&core::ffi::CStr> {
        if self.frozen.load(Acquire) == 0 || self.get(Name::Stats) == 0 {
            return None;
        }
        // SAFETY: frozen, so nobody writes it any more.
        let text = unsafe { &*self.fixed.text.get() };
        core::ffi::CStr::from_bytes_until_nul(text).ok()
    }

    /// Sets what `item` (`name:value`) says, unless the options are frozen. The rate of sampling can be set at any
    /// time. A mistake in `item` is told also once they are frozen.
    pub fn set(&self, item: &[u8]) -> Result<(), Mistake> {
        let (name, _) = parse(item)?;
        let _guard = self.setting.lock();
        if self.frozen.load(Relaxed) != 0 {
            if name != Name::GuardSample {
                return Err(Mistake::Frozen);
            }
            // Before the rate: nobody counts what was handed out before against the new one.
            self.changes.fetch_add(1, Release);
        }
        self.put(item)
    }

    /// How often the rate of sampling was set while the program ran.
    pub fn changes(&self) -> u32 {
        self.changes.load(Relaxed)
    }

    fn put(&self, item: &[u8]) -> Result<(), Mistake> {
        let (name, value) = parse(item)?;
        self.chosen.fetch_or(1 << name as usize, Relaxed);
        self.place(name).store(value, Relaxed);
        if let (Kind::Text, (_, Some(text))) = (name.spec().kind, split(item)) {
            // SAFETY: under the lock and not frozen: nobody reads it.
            let place = unsafe { &mut *self.fixed.text.get() };
            place.fill(0);
            place
                .iter_mut()
                .zip(text)
                .for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }

    /// Sets what the list `text` (`name:value,name:value`) says, of those that were not set yet, and tells `told` of
    /// each mistake in it. Once they are frozen it does nothing.
    pub fn set_defaults(&self, text: &[u8], told: impl FnMut(&Line)) {
        let _guard = self.setting.lock();
        if self.frozen.load(Relaxed) == 0 && !text.is_empty() {
            self.put_list(text, self.chosen.load(Relaxed), told);
        }
    }

    /// Sets what the list `text` says, tells `told` of each mistake in it, and freezes the options. A second call does
    /// nothing.
    pub fn freeze(&self, text: &[u8], told: impl FnMut(&Line)) {
        let _guard = self.setting.lock();
        if self.frozen.load(Relaxed) != 0 {
            return;
        }
        // Most processes have none, and never touch the code that reads them.
        if !text.is_empty() {
            self.put_list(text, 0, told);
        }
        self.frozen.store(1, Release);
    }

    /// Sets the items of a list but for the options of `kept`, a bit each.
    fn put_list(&self, text: &[u8], kept: usize, mut told: impl FnMut(&Line)) {
        let items = text.split(|&byte| byte == b',');
        for item in items.filter(|item| !item.is_empty()) {
            if matches!(parse(item), Ok((name, _)) if kept & 1 << name as usize != 0) {
                continue;
            }
            if let Err(mistake) = self.put(item) {
                told(&mistake.line(item));
            }
        }
    }

    /// Shows the lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.setting.as_lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn frozen(text: &str) -> (Options, Vec<String>) {
        let options = Options::new(&mut Registry::new());
        let mut told = Vec::new();
        options.freeze(text.as_bytes(), |line| {
            told.push(String::from_utf8(line.bytes().to_vec()).unwrap())
        });
        (options, told)
    }

    #[test]
    fn the_table_is_in_the_order_of_the_names() {
        for (index, spec) in TABLE.iter().enumerate() {
            assert_eq!(spec.name as usize, index, "{}", spec.word);
            assert_eq!(Name::of(spec.word.as_bytes()), Some(spec.name));
        }
    }

    #[test]
    fn every_default_is_a_value_that_its_option_takes() {
        for spec in &TABLE {
            match spec.kind {
                Kind::Flag => assert!(spec.default <= 1),
                Kind::Amount { most, .. } => assert!(spec.default <= most),
                Kind::Integer { least, most, .. } => {
                    assert!((least..=most).contains(&spec.default), "{}", spec.word)
                }
                Kind::Choice(words) => assert!(spec.default < words.len()),
                Kind::Text => assert_eq!(spec.default, 0),
            }
        }
    }

    #[test]
    fn the_choices_have_the_values_that_the_code_compares_with() {
        let value = |item: &str| parse(item.as_bytes()).unwrap().1;
        assert_eq!(value("realloc-zero:free"), REALLOC_FREES);
        assert_eq!(value("misuse:report"), MISUSE_REPORTS);
        assert_eq!(value("foreign:abort"), FOREIGN_ABORTS);
        assert_eq!(value("foreign:ignore"), FOREIGN_IGNORED);
        assert_eq!(value("foreign:forward"), FOREIGN_FORWARDED);
        assert_eq!(value("sizes:auto"), SIZES_AUTO);
        assert_eq!(value("sizes:check"), SIZES_CHECKED);
        assert_eq!(value("sizes:ignore"), SIZES_IGNORED);
        assert_eq!(value("deepbind:keep"), DEEPBIND_KEPT);
    }

    #[test]
    fn each_kind_is_read() {
        let (options, told) =
            frozen("decay:50,,huge-pages,misuse:report,limit-hard:3g,stats:/tmp/a b");
        assert_eq!(told, Vec::<String>::new());
        assert_eq!(options.get(Name::Decay), 50);
        assert_eq!(options.get(Name::HugePages), HUGE_ON);
        assert_eq!(options.get(Name::Misuse), MISUSE_REPORTS);
        assert_eq!(options.get(Name::LimitHard), 3 << 30);
        assert_eq!(options.get(Name::TrimThreshold), 256 << 10);
        assert_eq!(options.text(), Some(c"/tmp/a b"));
    }

    #[test]
    fn options_are_understood_however_they_are_written() {
        for (item, name, value) in [
            ("decay=50", Name::Decay, 50),
            ("DECAY:1s", Name::Decay, 1000),
            ("decay:90S", Name::Decay, 90_000),
            ("decay:2min", Name::Decay, 120_000),
            ("decay:24h", Name::Decay, 86_400_000),
            ("decay=250ms", Name::Decay, 250),
            ("Limit_Hard=8MB", Name::LimitHard, 8 << 20),
            ("limit-hard:8MiB", Name::LimitHard, 8 << 20),
            ("limit-hard:8M", Name::LimitHard, 8 << 20),
            ("trim_threshold=64KiB", Name::TrimThreshold, 64 << 10),
            ("limit-soft:1gib", Name::LimitSoft, 1 << 30),
            ("limit-soft:512b", Name::LimitSoft, 512),
            ("quarantine:1Mb", Name::Quarantine, 1 << 20),
            ("HARDENED", Name::Hardened, 1),
            ("zero=On", Name::Zero, 1),
            ("zero:FALSE", Name::Zero, 0),
            ("huge_pages:OFF", Name::HugePages, HUGE_OFF),
            ("misuse=Report", Name::Misuse, MISUSE_REPORTS),
        ] {
            assert_eq!(parse(item.as_bytes()), Ok((name, value)), "{item}");
        }
        assert_eq!(frozen("stats=/tmp/a:b=c").0.text(), Some(c"/tmp/a:b=c"));
        assert_eq!(frozen("STATS:/Tmp_A").0.text(), Some(c"/Tmp_A"));
    }

    #[test]
    fn what_is_like_no_option_is_not_told_of_another() {
        for word in ["nothing", "x", "", "hu", "verbose", "retain"] {
            assert_eq!(Name::nearest(word.as_bytes()), None, "{word}");
        }
        for (word, name) in [
            ("DEKAY", Name::Decay),
            ("decya", Name::Decay),
            ("hardend", Name::Hardened),
            ("guard_samples", Name::GuardSample),
            ("stat", Name::Stats),
            ("Huge", Name::HugePages),
            ("trim_", Name::TrimThreshold),
        ] {
            assert_eq!(Name::nearest(word.as_bytes()), Some(name), "{word}");
        }
        let (_, told) = frozen("verbose:1");
        assert_eq!(
            told,
            ["slabside: there is no option 'verbose'; `slabside options` lists them\n"]
        );
    }

    #[test]
    fn a_typo_is_told_with_the_nearest_name_and_the_rest_is_taken() {
        let (options, told) = frozen("dekay:50,missuse:report,decay:60,limit_hart:1g");
        let nearest: Vec<_> = told
            .iter()
            .map(|line| line.rsplit(' ').next().unwrap())
            .collect();
        assert_eq!(nearest, ["'decay'\n", "'misuse'\n", "'limit-hard'\n"]);
        assert_eq!(
            told[0],
            "slabside: there is no option 'dekay'; the nearest is 'decay'\n"
        );
        assert_eq!(options.get(Name::Decay), 60);
        assert_eq!(options.get(Name::Misuse), 0);
    }

    #[test]
    fn a_bad_value_is_told_with_what_there_is() {
        for (item, expected) in [
            ("decay:x", "'decay' takes 0 to 86400000 ms, not 'x'"),
            ("decay", "'decay' takes 0 to 86400000 ms, not ''"),
            ("decay:-1", "not '-1'"),
            ("decay:1k", "not '1k'"),
            ("decay:s", "not 's'"),
            ("decay:25h", "not '25h'"),
            ("guard-sample:1k", "not '1k'"),
            ("limit-soft:8MBs", "not '8MBs'"),
            ("limit-soft:8 m", "not '8 m'"),
            (
                "misuse:abrot",
                "'misuse' takes abort or report, not 'abrot'",
            ),
            (
                "foreign:",
                "'foreign' takes abort, ignore or forward, not ''",
            ),
            (
                "huge-pages:maybe",
                "'huge-pages' takes auto, off or on, not 'maybe'",
            ),
            (
                "limit-soft:99999999999999999999",
                "not '99999999999999999999'",
            ),
            (
                "limit-soft:18446744073709551615g",
                "not '18446744073709551615g'",
            ),
            ("limit-soft:k", "not 'k'"),
            ("trim-threshold:4095", "takes 4096 to"),
            ("stats:", "1 to 255 bytes of text"),
        ] {
            let (options, told) = frozen(item);
            assert_eq!(told.len(), 1, "{item}");
            assert!(told[0].contains(expected), "{item}: {}", told[0]);
            for spec in &TABLE {
                assert_eq!(options.get(spec.name), spec.default);
            }
        }
    }

    #[test]
    fn the_environment_has_the_last_word_and_then_nothing_changes() {
        let options = Options::new(&mut Registry::new());
        assert_eq!(options.set(b"decay:1"), Ok(()));
        assert_eq!(options.set(b"misuse:report"), Ok(()));
        assert_eq!(options.set(b"nothing:1"), Err(Mistake::Unknown(None)));
        options.freeze(b"decay:2", |_| unreachable!());
        assert_eq!(options.get(Name::Decay), 2);
        assert_eq!(options.get(Name::Misuse), MISUSE_REPORTS);
        assert_eq!(options.set(b"decay:3"), Err(Mistake::Frozen));
        let (none, no_value) = (Mistake::Unknown(None), Mistake::Value(Name::GuardSample));
        assert_eq!(options.set(b"nothing:1"), Err(none));
        assert_eq!(options.set(b"guard-sample:x"), Err(no_value));
        assert_eq!(
            (options.changes(), options.set(b"guard-sample:5")),
            (0, Ok(()))
        );
        assert_eq!((options.changes(), options.get(Name::GuardSample)), (1, 5));
        options.freeze(b"decay:4", |_| unreachable!());
        assert_eq!(options.get(Name::Decay), 2);
    }

    #[test]
    fn what_the_program_brings_gives_way_to_what_it_sets_and_to_the_environment() {
        let options = Options::new(&mut Registry::new());
        assert_eq!(options.set(b"decay:1"), Ok(()));
        let mut told = 0;
        options.set_defaults(
            b"decay:2,misuse:report,dekay:3,limit-soft:1m,limit-soft:2m",
            |_| told += 1,
        );
        options.freeze(b"misuse:abort", |_| unreachable!());
        assert_eq!(told, 1);
        assert_eq!(options.get(Name::Decay), 1);
        assert_eq!(options.get(Name::Misuse), 0);
        assert_eq!(options.get(Name::LimitSoft), 2 << 20);
        options.set_defaults(b"limit-soft:3m", |_| unreachable!());
        assert_eq!(options.get(Name::LimitSoft), 2 << 20);
    }

    #[test]
    fn what_was_written_wrongly_is_quoted_without_control_characters() {
        let (_, told) = frozen("de\u{1b}[31mcay\n:1");
        assert_eq!(
            told[0].matches(|c: char| c.is_control()).count(),
            1,
            "{told:?}"
        );
        let (_, told) = frozen(&"x".repeat(5000));
        assert!(told[0].len() < 160, "{told:?}");
        assert!(told[0].ends_with('\n'));
    }

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (a, b, edits) in [
            ("", "", 0),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("saturday", "sunday", 3),
            ("decay", "decay", 0),
            ("decya", "decay", 1),
            ("ba", "abc", 2),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), edits);
            assert_eq!(distance(b.as_bytes(), a.as_bytes()), edits);
        }
    }
}
