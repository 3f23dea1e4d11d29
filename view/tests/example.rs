//! The example is a program that works.

use std::path::Path;
use std::process::Command;

#[test]
fn the_example_prints_what_lives_in_a_kept_heap() {
    let own = std::env::current_exe().expect("this program");
    let build = own.ancestors().nth(2).expect("target/debug/deps");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/regions/3.slab");
    let output = Command::new(build.join("examples/live")).arg(kept).output();
    let output = output.expect("cargo test builds the examples");
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        told.contains(" blocks, ") && told.contains(" bytes live, "),
        "{told}"
    );
    assert!(told.lines().count() > 20, "{told}");
}
