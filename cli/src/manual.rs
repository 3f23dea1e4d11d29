//! `slabside manual`: the manual pages of the command and of the options, made of what they describe.
//!
//! The page slabside(3) is about the C functions and lies in packaging/slabside.3.

use crate::options::{default, values};
use crate::Cli;
use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::roff::{bold, roman, Roff};
use slabside::options::TABLE;
use std::fs;
use std::path::{Path, PathBuf};

/// Write the manual pages of the command and of the options to a directory
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  slabside manual ~/.local/share/man/man1 && man slabside-run")]
pub struct Args {
    /// Where to; it is made if need be
    directory: PathBuf,
}

/// Writes slabside.1, a page for each command, and slabside-options.7.
pub fn write(args: &Args) -> Result<()> {
    let failed = || format!("cannot write to '{}'", args.directory.display());
    fs::create_dir_all(&args.directory).with_context(failed)?;
    write_pages(&args.directory).with_context(failed)
}

fn write_pages(directory: &Path) -> std::io::Result<()> {
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, directory)?;
    fs::write(directory.join("slabside-options.7"), options_page())
}

const ABOUT: &str = "\
The allocator reads its options once, at the process's first allocation. They are given in the environment variable \
SLABSIDE_OPTIONS as name:value,name:value, by slabside run --option, or by the program itself: it may define the \
variable slabside_options with the same text, or call slabside_option_set(3) before it allocates. The environment has \
the last word, and set-user-id programs ignore it.";

const FORMS: &str = "\
= serves as well as :, capital letters as small ones, and _ as -. A flag may stand alone. Sizes may end in k, m or g \
(powers of 1024; 8MB and 8MiB mean the same), times in ms, s, min or h. The allocator reports an item that it does not \
understand in one line on standard error, and takes the others.";

/// The page slabside-options(7).
fn options_page() -> String {
    let mut page = Roff::new();
    page.control("TH", ["slabside-options", "7"]);
    page.control("SH", ["NAME"]);
    page.text([roman(
        "slabside-options - the options of the allocator slabside",
    )]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("SLABSIDE_OPTIONS="), roman("name:value,name:value")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(ABOUT)]);
    page.control("PP", []);
    page.text([roman(FORMS)]);
    page.control("SH", ["OPTIONS"]);
    for spec in &TABLE {
        page.control("TP", []);
        page.text([bold(spec.word), roman(format!(":{}", values(spec)))]);
        page.text([roman(format!(
            "{} (default: {}).",
            spec.meaning,
            default(spec)
        ))]);
        page.control("IP", []);
        page.text([roman(format!("{}.", spec.effect))]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("slabside(1), slabside-run(1), slabside(3)")]);
    page.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command_and_one_for_the_options() {
        let directory = tempfile::tempdir().unwrap();
        write_pages(directory.path()).unwrap();
        let page = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(page("slabside.1").contains("slabside\\-run(1)"));
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(
                page(&format!("slabside-{name}.1")).contains(".SH SYNOPSIS"),
                "{name}"
            );
        }
        let options = page("slabside-options.7");
        let options = options.replace("\\-", "-").replace("\\*(Aq", "'");
        for spec in &TABLE {
            assert!(
                options.contains(spec.word) && options.contains(spec.meaning),
                "{}",
                spec.word
            );
        }
    }

    #[test]
    fn the_page_of_the_c_functions_names_each_of_them() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/slabside.3");
        let page = fs::read_to_string(file).unwrap();
        for name in slabside::api::table::EXPORTS
            .iter()
            .flat_map(|(_, ours)| ours.iter())
        {
            assert!(page.contains(name), "{name}");
        }
    }
}
