//! Endurance: sixteen threads, all operations, thread churn, forks, contents checked, what is resident held
//! against what is live, and every invariant walked each second (`tests/c/soak.c`).
//!
//! ```text
//! SLABSIDE_SOAK_MINUTES=60 cargo test --release --test soak -- --nocapture
//! ```
//!
//! Without the variable each form runs for some seconds.

mod common;

use common::{compile_as, environment, run_for, Form};
use std::time::Duration;

fn soak(form: Form) {
    let minutes = std::env::var("SLABSIDE_SOAK_MINUTES").ok();
    let seconds = minutes.map_or(15, |text| 60 * text.parse::<u64>().expect("minutes"));
    let program = compile_as(form, "soak.c", &[]);
    // Forks and a slow machine: what it takes beyond is no failure.
    let patience = Duration::from_secs(2 * seconds + 120);
    let output = run_for(
        patience,
        &program,
        &[&seconds.to_string()],
        &environment(form),
    );
    assert!(output.status == Some(0), "{output:#?}");
    println!("{form:?}: {}", output.stdout.trim_end());
}

/// Beside another malloc: the break is moved only at the start, mapped windows serve.
#[test]
fn the_static_library_endures() {
    soak(Form::Prefixed);
}

/// In place of libc's malloc: the heap moves the break up and down all the time.
#[test]
fn the_preloaded_library_endures() {
    soak(Form::Preloaded);
}
