//! The whole interface from C, with the static library and preloaded: edges and errors of each function.
//! C++ is in tests/cplusplus.rs, Rust in tests/global.rs and tests/arena.rs, the lists of names in
//! tests/exports.rs.

mod common;

use common::{passes, passes_under, run_as, Form, FORMS};

#[track_caller]
fn dies(c_file: &str, case: &str, words: &str) {
    for form in FORMS {
        run_as(form, c_file, &[case]).died_saying(words);
    }
}

// ---- sized free ---------------------------------------------------------------------------------

#[test]
fn a_free_with_the_size_asked_for_is_taken() {
    passes("interface/sized.c", &[]);
}

#[test]
fn the_same_holds_for_blocks_that_are_sampled() {
    passes_under("guard-sample:2", "interface/sized.c", &[]);
}

#[test]
fn a_free_with_another_size_is_found() {
    for (case, size) in [
        ("smaller", "96 (a block of 112 bytes)"),
        ("larger", "113 (a block of 112 bytes)"),
        ("huge", "18446744073709551615 (a block of 112 bytes)"),
        ("zero", "0 (a block of 112 bytes)"),
        ("span-as-slot", "100 (a block of "),
        ("span-larger", "70000 (a block of "),
        ("span-smaller", "50000 (a block of "),
        ("large-larger", "400000 (a block of "),
        ("large-smaller", "100 (a block of "),
        ("alignment", "100 (a block of 128 bytes)"),
        ("no-alignment", "100 (a block of 128 bytes)"),
        ("upper", "2000 (a block of "),
        ("roomy-larger", "2000 (a block of "),
    ] {
        dies(
            "interface/sized.c",
            case,
            &format!(" with the wrong size {size}"),
        );
    }
}

#[test]
fn a_second_free_with_any_size_is_a_double_free() {
    dies("interface/sized.c", "freed", "double free of");
    dies("interface/sized.c", "freed-wrong", "double free of");
}

// ---- glibc's functions --------------------------------------------------------------------------

#[test]
fn mallinfo_tells_the_truth_to_the_byte() {
    passes("interface/glibc.c", &["figures"]);
}

#[test]
fn malloc_trim_gives_back_and_says_so() {
    // On a busy machine memory would be old enough to go back before it is asked for.
    passes_under("decay:1h", "interface/glibc.c", &["trim"]);
    passes("interface/glibc.c", &["pad"]);
}

#[test]
fn mallopt_honours_the_trim_threshold() {
    passes("interface/glibc.c", &["threshold"]);
}

#[test]
fn mallopt_takes_glibcs_parameters_and_no_others() {
    passes("interface/glibc.c", &["parameters"]);
}

#[test]
fn reallocarray_refuses_overflow_and_keeps_the_block() {
    passes("interface/glibc.c", &["refused"]);
}

/// The value of `name` in an XML element.
fn attribute(element: &str, name: &str) -> usize {
    let (_, rest) = element
        .split_once(&format!(" {name}=\""))
        .unwrap_or_else(|| panic!("no {name} in {element}"));
    let (value, _) = rest.split_once('"').expect("a closing quote");
    value.parse().expect("a number")
}

#[test]
fn malloc_info_writes_xml_with_the_figures_of_mallinfo() {
    for form in FORMS {
        let text = run_as(form, "interface/glibc.c", &["xml"]).passed();
        let (xml, figures) = text.split_once("</malloc>\n").expect("a document");
        let mut open = Vec::new();
        for element in xml.split('<').skip(1) {
            let (element, between) = element.split_once('>').expect("a closing bracket");
            assert!(
                between.trim().is_empty(),
                "text between elements: {between:?}"
            );
            if let Some(name) = element.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !element.ends_with('/') {
                open.push(element.split(' ').next().expect("a name"));
            }
        }
        assert_eq!(open, ["malloc"], "what is opened is closed");
        let free_48 = xml
            .lines()
            .find(|line| line.contains("<size from=\"33\" to=\"48\""));
        let free_48 = free_48.expect("free slots of 48 bytes");
        assert!(attribute(free_48, "count") >= 2000);
        assert_eq!(
            attribute(free_48, "total"),
            48 * attribute(free_48, "count")
        );
        let figures: Vec<usize> = figures
            .split_whitespace()
            .map(|figure| figure.parse().expect("a number"))
            .collect();
        let current = xml.lines().find(|line| line.contains("\"current\""));
        let mapped = xml.lines().find(|line| line.contains("\"mmap\""));
        assert_eq!(attribute(current.expect("a line"), "size"), figures[0]);
        assert_eq!(attribute(mapped.expect("a line"), "size"), figures[2]);
    }
}

#[test]
fn malloc_stats_writes_to_standard_error() {
    for form in FORMS {
        let output = run_as(form, "interface/glibc.c", &["statistics"]);
        assert_eq!((output.status, output.stdout.as_str()), (Some(0), ""));
        for name in [
            "system bytes     = ",
            "in use bytes     = ",
            "mmap regions     = 1\n",
        ] {
            assert!(output.stderr.contains(name), "{output:#?}");
        }
    }
}

// ---- beside them --------------------------------------------------------------------------------

#[test]
fn good_sizes_zeros_alignments_and_growth_in_place() {
    for form in FORMS {
        run_as(form, "interface/extras.c", &[]).passed();
    }
}

#[test]
fn a_heap_that_is_defragmented_by_advice_comes_near_to_its_live_bytes() {
    // Before the program moves anything, the heap is to hold what was freed.
    passes_under("decay:1h", "interface/should_move.c", &[]);
}

// ---- first-class heaps --------------------------------------------------------------------------

#[test]
fn a_heap_goes_at_once_with_all_that_it_holds() {
    passes("interface/heaps.c", &["at-once"]);
}

#[test]
fn a_heaps_blocks_can_be_freed_one_by_one() {
    passes("interface/heaps.c", &["one-by-one"]);
}

#[test]
fn any_thread_may_use_a_heap() {
    passes("interface/heaps.c", &["threads"]);
    passes("interface/heaps.c", &["exit"]);
}

#[test]
fn realloc_in_a_heap_keeps_contents_and_moves_blocks_into_it() {
    passes("interface/heaps.c", &["resizing"]);
}

#[test]
fn a_heap_aligns_and_refuses_as_malloc_does() {
    passes("interface/heaps.c", &["alignments"]);
}

#[test]
fn a_fork_child_has_its_parents_heaps() {
    passes("interface/heaps.c", &["fork"]);
}

#[test]
fn there_may_be_many_heaps_and_none_is_left_behind() {
    passes("interface/heaps.c", &["many"]);
}

#[test]
fn a_heap_without_memory_refuses_and_can_be_destroyed() {
    passes("interface/heaps.c", &["limit"]);
}

#[test]
fn what_was_destroyed_is_not_to_be_used() {
    let file = "interface/heaps.c";
    dies(file, "object", "double free of");
    dies(file, "large-object", "free of");
    dies(file, "destroyed", "use of heap");
    dies(file, "destroyed-twice", "use of heap");
    dies(file, "never-created", "use of heap");
    dies(file, "null", "use of heap 0x0");
    dies(file, "double-free", "double free of");
}

#[test]
fn a_figure_is_asked_for_before_the_first_allocation_too() {
    run_as(Form::Prefixed, "interface/first.c", &[]).passed();
}
