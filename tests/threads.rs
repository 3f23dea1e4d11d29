//! Threads: owned slabs, frees from other threads, exit, abandonment and adoption.
//!
//! Every program of `tests/c/threads` runs linked with the static library, where it ends by asking the
//! heap to validate itself, and as an ordinary program under `LD_PRELOAD`.

mod common;

use common::passes;

#[test]
fn eight_threads_on_fewer_cores_exchange_blocks_and_lose_no_byte() {
    passes("threads/exchange.c", &["8", "150000"]);
}

#[test]
fn two_threads_that_only_exchange_blocks_lose_no_byte() {
    passes("threads/exchange.c", &["2", "300000"]);
}

#[test]
fn five_thousand_short_threads_use_each_others_memory_again() {
    passes("threads/short_lived.c", &["5000"]);
}

#[test]
fn blocks_are_freed_by_others_during_and_after_their_owners_exit() {
    passes("threads/after_exit.c", &["600"]);
}

#[test]
fn destructors_of_thread_specific_data_allocate_and_free_in_every_round() {
    passes("threads/destructors.c", &["400"]);
}

#[test]
fn an_owner_that_slept_while_others_freed_allocates_from_what_they_freed() {
    passes("threads/sleeping_owner.c", &["itself"]);
}

#[test]
fn what_was_freed_while_its_owner_slept_serves_others_once_the_owner_has_called() {
    passes("threads/sleeping_owner.c", &["others"]);
}

#[test]
fn four_hundred_threads_leave_a_megabyte_each_and_24_are_never_resident() {
    for size in ["0", "16", "48", "200", "1000"] {
        passes("threads/leave.c", &["400", size]);
    }
}

#[test]
fn a_thousand_live_threads_with_fifty_objects_each_stay_under_400_megabytes() {
    passes("threads/many.c", &["1000", "400"]);
}

#[test]
fn guests_that_begin_at_once_free_each_others_blocks_and_lose_no_byte() {
    passes("threads/guests.c", &["meet", "400"]);
}

/// Beside others of its kind: a thread that loses its processor while it makes its heap is forked in the midst of that.
#[test]
fn a_fork_while_others_are_guests_leaves_a_child_that_has_guests_again() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| passes("threads/guests.c", &["fork", "75"]));
        }
    });
}

/// Its call holds the lock of the guests' heap. Nobody waits for that for good.
#[test]
fn a_guest_that_leaves_a_call_by_longjmp_holds_nobody_up() {
    passes("threads/guests.c", &["left"]);
}

#[test]
fn a_thread_of_a_dozen_size_classes_costs_at_most_64_kib() {
    passes("threads/cost.c", &[]);
}

#[test]
fn blocks_are_resized_by_threads_that_did_not_allocate_them() {
    passes("threads/resize.c", &["4", "40000"]);
}

#[test]
fn detached_threads_end_unjoined_and_allocate_while_the_program_exits() {
    passes("threads/detached.c", &["500"]);
}

#[test]
fn threads_that_exchange_blocks_end_and_fork_under_a_heap_profile_lose_no_byte() {
    passes("threads/profiled.c", &["8000"]);
}

#[test]
fn a_trim_gives_back_what_lies_idle_in_the_heaps_of_threads_that_sleep() {
    passes("threads/sleepers.c", &["asleep"]);
}

#[test]
fn a_trim_beside_threads_at_work_touches_nothing_of_theirs() {
    passes("threads/sleepers.c", &["awake"]);
}
