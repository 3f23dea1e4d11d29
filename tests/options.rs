//! The options: each does what docs/tuning.md says, from the environment, by `slabside_option_set` and by `slabside run
//! --option`. What is wrong is told and the rest still taken.

mod common;

use common::{
    artifacts, command, compile, compile_as, environment, passes_under, run, run_as, run_under,
    skipped, Form, FORMS,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const VARIABLE: &str = "SLABSIDE_OPTIONS";

#[test]
fn a_thread_in_the_background_gives_back_what_an_idle_process_keeps() {
    for size in ["96", "1000", "30000", "1000000"] {
        passes_under("background", "options/background.c", &[size, "0"]);
    }
    // In slabs in use, where pages have no live block.
    passes_under("background", "options/background.c", &["1000", "64"]);
    run_under(Form::Preloaded, "", "options/background.c", &["off"]).passed();
}

/// Slots of less and more than 8 KiB, spans, large blocks.
#[test]
fn with_a_thread_in_the_background_a_free_gives_nothing_back_itself() {
    for [count, size] in [
        ["15000", "2000"],
        ["1500", "20000"],
        ["400", "80000"],
        ["60", "500000"],
    ] {
        let program = "options/background_frees.c";
        run_under(Form::Preloaded, "", program, &[count, size]).passed();
        passes_under("background:on", program, &[count, size, "waits"]);
        passes_under("background:on", program, &[count, size, "child"]);
    }
}

#[test]
fn a_thread_in_the_background_gives_back_from_the_heaps_of_threads_that_sleep() {
    for [size, kept] in [["96", "0"], ["1000", "64"], ["30000", "0"]] {
        passes_under(
            "background:on",
            "options/background.c",
            &[size, kept, "sleeper"],
        );
    }
}

#[test]
fn a_thread_in_the_background_is_made_under_no_lock_of_a_first_class_heap() {
    let form = Form::Prefixed;
    run_under(form, "background:on", "options/background_heap.c", &[]).passed();
}

/// setuid(3) waits until each thread of the process has answered a signal of libc's own.
#[test]
fn a_thread_in_the_background_lets_a_process_change_its_user() {
    passes_under(
        "background:on",
        "options/background.c",
        &["1000", "64", "identity"],
    );
}

#[test]
fn a_thread_in_the_background_is_there_again_after_a_fork() {
    passes_under(
        "background:on",
        "options/background.c",
        &["1000", "0", "fork"],
    );
}

#[test]
fn a_typo_is_told_once_with_the_nearest_name_and_the_rest_is_taken() {
    for form in FORMS {
        let ended = run_under(
            form,
            "limit-hart:1,trim-threshold:4k",
            "options/trim.c",
            &[],
        );
        assert_eq!(ended.status, Some(0), "{ended:#?}");
        assert_eq!(
            ended.stderr,
            "slabside: there is no option 'limit-hart'; the nearest is 'limit-hard'\n"
        );
        assert!(ended.stdout.trim().parse::<usize>().unwrap() > 1500);
    }
}

#[test]
fn set_user_id_programs_ignore_the_environment() {
    // SAFETY: getuid(2) takes no arguments and cannot fail.
    if unsafe { libc::getuid() } != 0 {
        skipped("only root can make a program that another user owns");
        return;
    }
    let program = compile_as(Form::Prefixed, "options/trim.c", &[]);
    let copy = Path::new("/tmp").join(format!("slabside-set-user-id.{}", std::process::id()));
    fs::copy(program, &copy).expect("a copy");
    std::os::unix::fs::chown(&copy, Some(65534), None).expect("another owner");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).expect("set-user-id");
    let ended = run(&copy, &[], &[(VARIABLE, "dekay:1,trim-threshold:1g")]);
    fs::remove_file(&copy).expect("the copy goes");
    assert!(ended.passed().trim().parse::<usize>().unwrap() > 1500);
}

#[test]
fn a_program_sets_options_before_it_allocates_and_not_after() {
    run_as(Form::Prefixed, "options/set.c", &[]).passed();
}

#[test]
fn slabside_run_sets_options_and_refuses_wrong_ones() {
    let program = compile("options/trim.c", &[]);
    let program = program.to_str().expect("a path in UTF-8");
    let command = &artifacts().command;
    let trimmed = |options: &[&str]| {
        let args = [&["run"], options, &["--", program]].concat();
        run(command, &args, &[])
    };
    let kept = trimmed(&["--option", "trim-threshold:1g", "--option=decay:10000"]);
    assert_eq!(kept.passed(), "0\n");
    let refused = trimmed(&["--option", "trim-treshold:1g"]);
    assert_eq!(refused.status, Some(125));
    assert_eq!(
        refused.stderr,
        "slabside: there is no option 'trim-treshold'; the nearest is 'trim-threshold'\n"
    );
    let listed = run(command, &["options"], &[]).passed();
    assert!(listed.contains("trim-threshold:4k"), "{listed}");
}

#[test]
fn decay_says_how_soon_unused_pages_go_back() {
    passes_under("decay:20", "options/decay.c", &["now"]);
    passes_under("decay:60000", "options/decay.c", &["later"]);
    passes_under("decay:0", "options/decay.c", &["now"]);
}

#[test]
fn trim_threshold_says_how_long_a_free_end_is_kept() {
    for form in FORMS {
        let came_down = |options| {
            let ended = run_under(form, options, "options/trim.c", &[]).passed();
            ended.trim().parse::<usize>().expect("a number")
        };
        assert_eq!(came_down("trim-threshold:1g"), 0);
        let (common, eager) = (came_down("decay:250"), came_down("trim-threshold:4k"));
        assert!(common > 1500 && eager > common, "{common} {eager}");
    }
}

#[test]
fn huge_pages_are_asked_for_and_got_where_the_system_has_them() {
    let policy = "/sys/kernel/mm/transparent_hugepage/enabled";
    let enabled = fs::read_to_string(policy).unwrap_or_default();
    if !enabled.contains("[madvise]") && !enabled.contains("[always]") {
        skipped("no transparent huge pages on this system");
        return;
    }
    for form in FORMS {
        let huge = |options| {
            let ended = run_under(form, options, "options/huge.c", &[]).passed();
            ended.trim().parse::<usize>().expect("a number")
        };
        let (with, without) = (huge("huge-pages"), huge("huge-pages:off"));
        assert!(with >= 32 << 10, "{with} KiB");
        assert!(
            enabled.contains("[always]") || without == 0,
            "{without} KiB"
        );
    }
}

#[test]
fn realloc_to_nothing_frees_or_gives_a_block() {
    passes_under("realloc-zero:free", "options/zero.c", &["free"]);
    passes_under("realloc-zero:block", "options/zero.c", &["block"]);
    passes_under("", "options/zero.c", &["block"]);
}

#[test]
fn reported_misuse_is_dropped_and_the_program_goes_on() {
    for form in FORMS {
        let ended = run_under(form, "misuse:report", "options/misuse.c", &[]);
        assert_eq!(
            (ended.status, &*ended.stdout),
            (Some(0), "went on\n"),
            "{ended:#?}"
        );
        for line in [
            "double free",
            "invalid free",
            "invalid realloc",
            "after free: realloc",
        ] {
            assert!(ended.stderr.contains(line), "{line}\n{}", ended.stderr);
        }
        assert!(ended
            .stderr
            .lines()
            .all(|line| line.starts_with("slabside: ")));
    }
}

#[test]
fn slots_without_an_owner_that_were_freed_twice_are_used_again() {
    for form in FORMS {
        let ended = run_under(form, "misuse:report", "options/ownerless.c", &[]);
        assert_eq!(ended.stderr.lines().count(), 32, "{}", ended.stderr);
        assert_eq!((ended.status, ended.stdout.trim()), (Some(0), "32"));
    }
}

#[test]
fn reported_double_frees_that_meet_in_a_collection_leave_a_sound_heap() {
    for form in FORMS {
        let ended = run_under(form, "misuse:report", "options/collected.c", &[]);
        assert_eq!(
            (ended.status, &*ended.stdout),
            (Some(0), "went on\n"),
            "{ended:#?}"
        );
        assert!(ended.stderr.lines().count() > 1000, "{}", ended.stderr);
    }
}

#[test]
fn foreign_blocks_abort_are_ignored_or_go_to_the_next_malloc() {
    let form = Form::Preloaded;
    run_under(form, "foreign:forward", "options/foreign.c", &["forward"]).passed();
    run_under(form, "foreign:ignore", "options/foreign.c", &["ignore"]).passed();
    let ended = run_under(form, "", "options/foreign.c", &["forward"]);
    assert_eq!(ended.signal, Some(libc::SIGABRT), "{ended:#?}");
    assert!(
        ended
            .stderr
            .contains("not a block of this heap; the option foreign is for those"),
        "{ended:#?}"
    );
}

#[test]
fn an_address_within_a_large_block_is_foreign_to_none() {
    let form = Form::Preloaded;
    for options in [
        "foreign:ignore",
        "foreign:forward",
        "foreign:forward,hardened",
    ] {
        for (call, said) in [
            ("free", "invalid free"),
            ("realloc", "invalid realloc"),
            ("usable", "invalid usable size"),
        ] {
            let ended = run_under(form, options, "options/foreign.c", &[call]);
            assert_eq!(ended.signal, Some(libc::SIGABRT), "{options}: {ended:#?}");
            let told =
                ended.stderr.contains(said) && ended.stderr.contains("(byte 4096 of a block of 3");
            assert!(told, "{options}: {ended:#?}");
        }
    }
}

#[test]
fn the_hard_limit_is_never_exceeded_and_gives_enomem() {
    run_under(
        Form::Prefixed,
        "limit-hard:8m",
        "options/limits.c",
        &["hard"],
    )
    .passed();
    // Preloaded, the program's own figures are not to be had. Its blocks come to an end all the same.
    run_under(
        Form::Preloaded,
        "limit-hard:8m",
        "options/limits.c",
        &["hard"],
    )
    .passed();
}

#[test]
fn above_the_soft_limit_what_is_kept_goes_back() {
    run_under(
        Form::Prefixed,
        "limit-soft:4m",
        "options/limits.c",
        &["soft"],
    )
    .passed();
}

#[test]
fn figures_go_to_standard_error_or_are_appended_to_a_file() {
    for form in FORMS {
        let ended = run_under(form, "stats:stderr", "options/trim.c", &[]);
        assert!(
            ended.status == Some(0) && ended.stderr.contains(" bytes live\n"),
            "{ended:#?}"
        );
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("figures-{form:?}"));
        let _ = fs::remove_file(&file); // it need not be there yet
        let option = format!("stats:{}", file.display());
        for _ in 0..2 {
            run_under(form, &option, "options/trim.c", &[]).passed();
        }
        let told = fs::read_to_string(&file).expect("the file is there");
        assert_eq!(told.matches(" bytes live\n").count(), 2, "{told}");
        let live = told
            .lines()
            .find(|line| line.ends_with(" bytes live"))
            .expect("a line");
        let live: usize = live
            .split(' ')
            .nth(1)
            .expect("a number")
            .parse()
            .expect("a number");
        assert!((2 << 20..3 << 20).contains(&live), "{told}");
    }
}

#[test]
fn a_file_for_the_figures_that_cannot_be_opened_is_told_of() {
    for form in FORMS {
        let ended = run_under(form, "stats:/no/such/place", "options/trim.c", &[]);
        assert_eq!(
            (ended.status, &*ended.stderr),
            (
                Some(0),
                "slabside: the option 'stats' names a file that cannot be opened: '/no/such/place'\n"
            ),
            "{ended:#?}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_told_of_also_by_a_program_that_closes_standard_error_at_its_end()
{
    let mut ls = command("ls");
    ls.env("LD_PRELOAD", &artifacts().preload);
    ls.env("SLABSIDE_OPTIONS", "stats:/no/such/place");
    let told = ls.arg("/dev/null").output().expect("ls is there");
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(
        told.contains("cannot be opened: '/no/such/place'"),
        "{told}"
    );
}

#[test]
fn options_are_taken_in_any_writing() {
    for form in FORMS {
        let ended = run_under(form, "TRIM_THRESHOLD=1GiB,Decay=10s", "options/trim.c", &[]);
        assert_eq!(ended.passed(), "0\n");
        let ended = run_under(form, "trim-threshold=4KB", "options/trim.c", &[]);
        assert!(ended.passed().trim().parse::<usize>().unwrap() > 1500);
    }
}

#[test]
fn a_program_brings_options_which_give_way_to_what_it_sets_and_to_the_environment() {
    let library = artifacts().preload.to_str().expect("a path in UTF-8");
    let beside = compile_as(Form::Prefixed, "options/brought.c", &[]);
    let linked = compile("options/brought.c", &["-Wl,--no-as-needed", library]);
    let told = "slabside: there is no option 'dekay'; the nearest is 'decay'\n";
    for (program, form) in [(&beside, Form::Prefixed), (&linked, Form::Preloaded)] {
        let said = |options: &str, args: &[&str]| {
            let environment = [environment(form), vec![(VARIABLE, options)]].concat();
            let ended = run(program, args, &environment);
            assert_eq!(
                (ended.status, &*ended.stderr),
                (Some(0), told),
                "{ended:#?}"
            );
            ended.stdout
        };
        assert_eq!(said("", &[]), "refused\n");
        assert_eq!(said("limit-hard=32MB", &[]), "had\n");
    }
    // The shared library is ready before the program could set anything.
    assert_eq!(run(&beside, &["sets"], &[]).stdout, "had\n");
}
