//! fork: the child repairs the heap that it was given in whatever state, and no lock of ours is held
//! while libc takes its own.
//!
//! Every program of `tests/c/fork` runs in both forms, as the ones in `threads.rs` do. A program that
//! hangs is ended by the harness with all of its children, which is a failure.

mod common;

use common::{passes, passes_alone, passes_under};

#[test]
fn children_of_a_program_at_work_free_its_blocks_and_start_threads_that_do() {
    passes("fork/storm.c", &["200"]);
}

#[test]
fn a_fork_during_the_second_threads_first_allocation_leaves_a_child_that_works() {
    passes("fork/first.c", &["300"]);
}

#[test]
fn fork_does_not_hang_while_others_are_in_fflush_and_getline() {
    passes("fork/stdio.c", &["200"]);
}

/// Hardened, too, where the first thread waits for the repair.
#[test]
fn a_child_whose_second_thread_comes_first_leaves_the_first_ones_heap_alone() {
    for options in ["", "hardened"] {
        passes_under(options, "fork/second.c", &["40"]);
    }
}

/// Hardened, a block of such a call has a size before it has a canary.
#[test]
fn a_child_ends_a_first_class_heap_of_which_a_call_was_cut_off() {
    for options in ["", "hardened"] {
        passes_under(options, "fork/heap_cut_off.c", &["40"]);
    }
}

#[test]
fn children_fork_again_and_free_what_their_ancestors_allocated() {
    passes("fork/nested.c", &["5"]);
}

#[test]
fn popen_system_and_posix_spawn_from_many_threads_disturb_nobodys_heap() {
    passes("fork/processes.c", &["40"]);
}

#[test]
fn fork_handlers_of_the_program_allocate_before_and_after_the_heaps_own() {
    passes("fork/handlers.c", &["400"]);
}

#[test]
fn a_childs_figures_begin_as_its_parents_and_go_their_own_way() {
    passes("fork/figures.c", &[]);
}

#[test]
fn a_fork_while_another_thread_sets_an_option_leaves_a_child_that_sets_one() {
    passes_alone("fork/option.c", &["1500"]);
}
