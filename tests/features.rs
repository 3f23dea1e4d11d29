//! Every feature with every other: one exercise (`tests/c/features.c`), one table, a test for each pair.
//!
//! Each pair runs with the static library and under LD_PRELOAD, so that these meet all others as well.

mod common;

use common::passes_under;

/// Something that is switched on: an option, or what the program does.
#[derive(Clone, Copy)]
struct Feature {
    option: &'static str,
    argument: &'static str,
}

const fn option(option: &'static str) -> Feature {
    let argument = "";
    Feature { option, argument }
}

const fn argument(argument: &'static str) -> Feature {
    let option = "";
    Feature { option, argument }
}

const FIRST_CLASS_HEAPS: Feature = argument("heaps");
const HARDENED: Feature = option("hardened");
const ZERO: Feature = option("zero");
const CANARY: Feature = option("canary");
const RANDOM: Feature = option("random");
const GUARD: Feature = option("guard");
const QUARANTINE: Feature = option("quarantine:64k");
const SAMPLING: Feature = option("guard-sample:20");
const FORK: Feature = argument("fork");
const DIRECT_FORK: Feature = argument("_fork");
const ADDRESS_SPACE: Feature = argument("rlimit");
const REFUSED_CALLS: Feature = argument("refused");
const HARD_LIMIT: Feature = Feature {
    option: "limit-hard:6m",
    argument: "limited",
};
const SOFT_LIMIT: Feature = option("limit-soft:4m");
const QUICK_DECAY: Feature = option("decay:1");

fn both(one: Feature, other: Feature) {
    let text = |part: fn(&Feature) -> &'static str| {
        let parts = [part(&one), part(&other)];
        parts.into_iter().filter(|part| !part.is_empty())
    };
    let options = text(|feature| feature.option).collect::<Vec<_>>().join(",");
    let arguments: Vec<&str> = text(|feature| feature.argument).collect();
    passes_under(&options, "features.c", &arguments);
}

/// A module for each feature, with a test for each feature that stands behind it in the table.
macro_rules! pairs {
    () => {};
    ($one:ident $name:ident, $($other:ident $others:ident,)*) => {
        mod $name {
            $(
                #[test]
                fn $others() {
                    super::both(super::$one, super::$other);
                }
            )*
        }
        pairs!($($other $others,)*);
    };
}

pairs! {
    FIRST_CLASS_HEAPS first_class_heaps,
    HARDENED hardened,
    ZERO zero,
    CANARY canary,
    RANDOM random,
    GUARD guard,
    QUARANTINE quarantine,
    SAMPLING sampling,
    FORK fork,
    DIRECT_FORK direct_fork,
    ADDRESS_SPACE address_space,
    REFUSED_CALLS refused_calls,
    HARD_LIMIT hard_limit,
    SOFT_LIMIT soft_limit,
    QUICK_DECAY quick_decay,
}
