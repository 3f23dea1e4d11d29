//! How much is resident for what is live: bounds on the questions that `bench/memory.sh` asks beside the peers.

mod common;

use common::{passes_alone, run_undisturbed, Form};

#[test]
fn blocks_of_which_one_page_is_used_take_that_page() {
    passes_alone("resident/one_page.c", &[]);
}

#[test]
fn phases_with_blocks_of_other_sizes_take_what_is_live() {
    let up = [
        "5000", "9000", "20000", "50000", "120000", "300000", "900000", "2100000",
    ];
    let mut down = up;
    down.reverse();
    passes_alone("resident/phases.c", &up);
    passes_alone("resident/phases.c", &down);
    passes_alone("resident/phases.c", &["5000", "300000", "20000", "2100000"]);
}

/// What a program asks for is hardly ever a power of two: a header of its own comes before the bytes.
#[test]
fn blocks_a_little_above_a_power_of_two_take_little_more() {
    for size in ["4200", "8200", "16400"] {
        passes_alone("resident/little_more.c", &[size]);
    }
}

/// Also while the thread that made them sleeps.
#[test]
fn small_blocks_that_are_replaced_at_random_take_what_is_live() {
    passes_alone("resident/replaced.c", &["500000", "2000000", "112"]);
    passes_alone("resident/replaced.c", &["1500000", "2000000", "120"]);
}

#[test]
fn a_server_takes_what_is_live_however_its_sizes_change() {
    passes_alone("resident/server.c", &["135"]);
}

#[test]
fn a_sleeping_thread_takes_few_pages() {
    passes_alone("resident/idle_thread.c", &["16000"]);
}

#[test]
fn sleeping_threads_that_began_at_once_take_few_pages() {
    passes_alone("resident/idle_thread.c", &["16000", "together"]);
}

#[test]
fn threads_in_turn_leave_little_behind() {
    for size in ["200", "5000", "50000", "1000000"] {
        passes_alone("resident/turns.c", &[size]);
    }
}

/// Where the machine lets the program wait, ticks come in its midst, and the bounds learn from what they give back.
#[track_caller]
fn survivors(args: &[&str]) {
    let check = match args[0] {
        "burst" => "not so: resident <= live + 8 * MIB",
        _ => "not so: paid <= ROUNDS / 2 * each",
    };
    run_undisturbed(Form::Prefixed, "resident/survivors.c", args, check).passed();
}

/// The frees of such a block and its neighbours leave whole pages free, and no later call is needed for them to go.
#[test]
fn blocks_freed_beside_scattered_survivors_go_back_although_no_call_follows() {
    for order in ["in-order", "random"] {
        survivors(&["burst", "16384", "16", order]);
        survivors(&["burst", "16384", "8", order]);
        survivors(&["burst", "9000", "14", order]);
        survivors(&["burst", "30000", "16", order]);
        for size in ["1100", "2000", "4096", "8192"] {
            survivors(&["burst", size, "16", order]);
        }
    }
}

#[test]
fn swells_beside_scattered_survivors_pay_for_few_rounds() {
    survivors(&["swell", "16384", "16"]);
    survivors(&["swell", "9000", "14", "random"]);
    survivors(&["swell", "16384", "0", "random"]);
    survivors(&["swell", "30000", "0", "random"]);
    survivors(&["swell", "2000", "16", "random"]);
    survivors(&["swell", "8192", "16"]);
    survivors(&["swell", "4096", "0", "random"]);
}
