//! Plug-ins that are opened by RTLD_DEEPBIND share the program's heap, and are found where their opener looks for them.

mod common;

use common::{compile, environment, run, Form, Output};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of this test's with a plug-in `libplugin-of-ours.so`.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("deepbind-{name}"));
    let plugin = compile("deepbind/plugin.c", &["-shared", "-fPIC"]);
    fs::create_dir_all(&folder).expect("a folder");
    let place = folder.join("libplugin-of-ours.so");
    let fresh = folder.join(format!("fresh.{}", std::process::id()));
    fs::copy(plugin, &fresh).expect("a copy");
    fs::rename(fresh, place).expect("the copy's place");
    folder
}

fn open(how: &str, plugin: &str, opener: &str, options: &str, flags: &[&str]) -> Output {
    let program = compile("deepbind/open.c", flags);
    let mut variables = environment(Form::Preloaded);
    variables.push(("SLABSIDE_OPTIONS", options));
    run(&program, &[how, plugin, opener], &variables)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn a_plug_in_opened_by_deepbind_has_the_programs_malloc() {
    let plugin = folder("plain").join("libplugin-of-ours.so");
    for how in ["dlopen", "dlmopen"] {
        for options in ["", "deepbind:drop", "hardened"] {
            assert_eq!(open(how, text(&plugin), "", options, &[]).passed(), "ok\n");
        }
    }
}

#[test]
fn the_flag_is_kept_where_the_option_says_so() {
    let plugin = folder("kept").join("libplugin-of-ours.so");
    let output = open("dlopen", text(&plugin), "", "deepbind:keep", &[]);
    // The plug-in has libc's realloc, and the block is ours.
    assert!(output.signal.is_some(), "{output:#?}");
}

#[test]
fn a_plug_in_is_found_by_the_runpath_of_the_program_that_opens_it() {
    folder("program");
    let flags = ["-Wl,--enable-new-dtags,-rpath,$ORIGIN/deepbind-program"];
    for how in ["dlopen", "dlmopen"] {
        let output = open(how, "libplugin-of-ours.so", "", "", &flags);
        assert_eq!(output.passed(), "ok\n");
    }
}

#[test]
fn a_plug_in_is_found_by_the_runpath_of_the_library_that_opens_it() {
    folder("library");
    let runpath = "-Wl,--enable-new-dtags,-rpath,$ORIGIN/deepbind-library";
    let opener = compile("deepbind/opener.c", &["-shared", "-fPIC", runpath]);
    let output = open("library", "libplugin-of-ours.so", text(&opener), "", &[]);
    assert_eq!(output.passed(), "ok\n");
}
