//! The forms of the common paths, and what is known where one is compiled.
//!
//! malloc and free are compiled for every processor and any mitigations, and again for what most programs have. Knows no
//! thread and no block. `allocator/guarded.rs` compiles the paths, and asks once which form is to run.

use super::mitigations::Mitigations;
use crate::wide::Wide;

/// For what the common paths are compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// For every processor, and any mitigations.
    Plain,
    /// For a processor with wide registers (see [`with_wide`](crate::wide::with_wide)), and any mitigations.
    Wide,
    /// As `Wide`, and all mitigations as they are by `hardened` alone: none is asked about.
    Whole,
    /// As `Wide`, and just the mitigations of `zero,quarantine`: none is asked about.
    Cleared,
}

/// What is known where a form of the common paths is compiled.
pub trait Known {
    /// Whether the processor has wide registers.
    const WIDE: bool;
    /// The mitigations that are on. `None`: they have to be asked about.
    const MITIGATIONS: Option<Mitigations>;
}

/// Of [`Form::Plain`].
pub enum Plain {}
/// Of [`Form::Wide`].
pub enum WideOnly {}
/// Of [`Form::Whole`].
pub enum Whole {}
/// Of [`Form::Cleared`].
pub enum Cleared {}

impl Known for Plain {
    const WIDE: bool = false;
    const MITIGATIONS: Option<Mitigations> = None;
}

impl Known for WideOnly {
    const WIDE: bool = true;
    const MITIGATIONS: Option<Mitigations> = None;
}

impl Known for Whole {
    const WIDE: bool = true;
    const MITIGATIONS: Option<Mitigations> = Some(Mitigations::ALL);
}

impl Known for Cleared {
    const WIDE: bool = true;
    const MITIGATIONS: Option<Mitigations> = Some(Mitigations::CLEARED);
}

impl Form {
    /// The form for these mitigations, of a processor with wide registers or without.
    pub(super) fn of(mitigations: Mitigations, wide: Wide) -> Form {
        let known = Mitigations {
            sample: 0,
            ..mitigations
        };
        match known {
            _ if !wide.is_so() => Form::Plain,
            Mitigations::ALL => Form::Whole,
            Mitigations::CLEARED => Form::Cleared,
            _ => Form::Wide,
        }
    }
}
