//! `slabside options`: the allocator's options, from the one table that it reads them by itself.
//!
//! docs/tuning.md is what `slabside options --markdown` prints.

use crate::view;
use anyhow::{bail, Result};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use slabside_base::options::{parse, Kind, Name, Spec, Unit, TABLE};
use std::ffi::OsString;
use std::fmt::Write as _;

/// The environment variable that the allocator reads.
pub const VARIABLE: &str = "SLABSIDE_OPTIONS";

/// List the allocator's options with their values, default, meaning and effect
///
/// slabside-options(7) is the same list, and says how options are given.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  slabside options
  slabside options decay guard-sample

Exit status: 0, or 125 if there is no such option.")]
pub struct Args {
    /// The options to list. All if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Print the page docs/tuning.md of the source
    #[arg(long, conflicts_with = "names")]
    markdown: bool,
}

/// Prints the list on standard output.
pub fn print(args: &Args) -> Result<()> {
    let text = match args.markdown {
        true => page(),
        false => list(&chosen(&args.names)?),
    };
    view::print(&text)
}

/// What is `present` in the environment, with the options `given` after it, each of which must be good.
pub fn joined(present: Option<OsString>, given: &[String]) -> Result<OsString> {
    let mut all = present.unwrap_or_default();
    for item in given {
        if item.contains(',') {
            bail!("--option takes one NAME:VALUE, not '{item}'; repeat it for more");
        }
        if let Err(mistake) = parse(item.as_bytes()) {
            let line = mistake.line(item.as_bytes());
            let text = String::from_utf8_lossy(line.bytes());
            bail!("{}", text.trim_start_matches("slabside: ").trim_end());
        }
        if !all.is_empty() {
            all.push(",");
        }
        all.push(item);
    }
    Ok(all)
}

/// The options called `names`. All where there are none.
fn chosen(names: &[String]) -> Result<Vec<&'static Spec>> {
    if names.is_empty() {
        return Ok(TABLE.iter().collect());
    }
    let found = |name: &String| match Name::of(name.as_bytes()) {
        Some(found) => Ok(found.spec()),
        None => bail!("there is no option '{name}'{}", suggestion(name)),
    };
    names.iter().map(found).collect()
}

/// The option that was probably meant by `name`, as the end of a sentence.
fn suggestion(name: &str) -> String {
    match Name::nearest(name.as_bytes()) {
        Some(nearest) => format!("; the nearest is '{}'", nearest.spec().word),
        None => "; `slabside options` lists them".into(),
    }
}

fn list(specs: &[&Spec]) -> String {
    let mut text = String::new();
    for spec in specs {
        let _ = writeln!(text, "{}:{}", spec.word, values(spec));
        let mut table = Table::new();
        table
            .load_preset(NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic);
        if table.width().is_none() {
            table.set_width(100);
        }
        table.add_row(["default", &default(spec)]);
        table.add_row(["meaning", spec.meaning]);
        table.add_row(["effect", spec.effect]);
        for line in table.lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text.push('\n');
    }
    text
}

/// The values that an option takes, as they are written.
pub fn values(spec: &Spec) -> String {
    match spec.kind {
        Kind::Flag => "on|off".into(),
        Kind::Integer { unit, least, most } => {
            let span = format!("{}..{}", amount(least, unit), amount(most, unit));
            match unit {
                Unit::Count => span,
                _ => format!("{span} {}", unit.name()),
            }
        }
        Kind::Amount { most, .. } => format!("0..{} bytes", amount(most, Unit::Bytes)),
        Kind::Choice(words) => words.join("|"),
        Kind::Text => "TEXT".into(),
    }
}

/// Its value unless set, as it is written.
pub fn default(spec: &Spec) -> String {
    match spec.kind {
        Kind::Flag => ["off", "on"][spec.default].into(),
        Kind::Integer { unit, .. } => match unit {
            Unit::Milliseconds => format!("{} ms", spec.default),
            _ => amount(spec.default, unit),
        },
        Kind::Amount { .. } => amount(spec.default, Unit::Bytes),
        Kind::Choice(words) => words[spec.default].into(),
        Kind::Text => "none".into(),
    }
}

/// A number as it can be written. Bytes with k, m or g where that is shorter.
fn amount(value: usize, unit: Unit) -> String {
    let suffixes = [(30, "g"), (20, "m"), (10, "k")];
    let whole = |shift: usize| value != 0 && value.is_multiple_of(1 << shift);
    match suffixes.into_iter().find(|&(shift, _)| whole(shift)) {
        Some((shift, suffix)) if unit == Unit::Bytes => format!("{}{suffix}", value >> shift),
        _ => value.to_string(),
    }
}

const HEAD: &str = "\
# Tuning

<!-- Made by `slabside options --markdown > docs/tuning.md`; a test compares the two. -->

slabside reads its options once, at the first allocation, and never on the fast paths of malloc and free. An option
that is not set costs nothing. Options are given in three ways:

1. In the environment: `SLABSIDE_OPTIONS=name:value,name:value`. `slabside run --option name:value` adds to the variable,
   and refuses an option that does not exist. Set-user-id programs ignore the variable.
2. By a call of the program before it allocates: `slabside_option_set(\"name\", \"value\")`. After the first allocation
   the call returns `EBUSY`, except for `guard-sample`, which can be set at any time.
3. By a variable of the program: `const char *slabside_options = \"name:value,name:value\"`. In Rust:
   `slabside::options!(\"name:value\")`.

If an option is given in several ways, the first of these wins. Within one text the last item wins.

`=` may stand in place of `:`, `_` in place of `-`, and capital letters in place of small ones. The name of an on|off option
alone means on, and so do 1, true and yes. 0, false and no mean off. Sizes may end in k, m or g (powers of 1024, also
written 8MB or 8MiB), times in ms, s, min or h. slabside reports an item that it does not understand in one line on
standard error, with the nearest name or the possible values. It uses the other items.

";

fn page() -> String {
    let mut text = String::from(HEAD);
    text.push_str("| option | values | default | meaning | effect |\n|---|---|---|---|---|\n");
    for spec in &TABLE {
        let cells = [
            format!("`{}`", spec.word),
            values(spec).replace('|', " \\| "),
            default(spec),
            spec.meaning.into(),
            spec.effect.into(),
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_current() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tuning.md");
        let text = std::fs::read_to_string(file).unwrap();
        assert!(
            text == page(),
            "make it anew: cargo run -p slabside-cli -- options --markdown > docs/tuning.md"
        );
    }

    #[test]
    fn the_list_names_every_option_with_its_default_meaning_and_effect() {
        let list: String = list(&chosen(&[]).unwrap()).split_whitespace().collect();
        for spec in &TABLE {
            for part in [spec.word, &default(spec), spec.meaning, spec.effect] {
                let part: String = part.split_whitespace().collect();
                assert!(list.contains(&part), "{part}");
            }
        }
    }

    #[test]
    fn options_are_listed_by_name_in_any_writing() {
        let list = list(&chosen(&["Huge_Pages".into(), "decay".into()]).unwrap());
        assert!(list.starts_with("huge-pages:auto|off|on\n") && list.contains("\ndecay:0"));
        assert_eq!(list.matches(" default").count(), 2, "{list}");
        let wrong = |name: &str| chosen(&[name.into()]).unwrap_err().to_string();
        assert_eq!(
            wrong("huge"),
            "there is no option 'huge'; the nearest is 'huge-pages'"
        );
        assert_eq!(
            wrong("xyz"),
            "there is no option 'xyz'; `slabside options` lists them"
        );
    }

    #[test]
    fn every_default_that_is_listed_can_be_set() {
        for spec in TABLE.iter().filter(|spec| spec.kind != Kind::Text) {
            let value = default(spec).replace(" ms", "");
            let item = format!("{}:{value}", spec.word);
            assert_eq!(parse(item.as_bytes()), Ok((spec.name, spec.default)));
        }
    }

    #[test]
    fn options_are_added_behind_those_that_are_there() {
        let given = ["decay:5".to_owned(), "huge-pages".to_owned()];
        assert_eq!(joined(None, &given).unwrap(), "decay:5,huge-pages");
        let present = Some("misuse:report".into());
        assert_eq!(
            joined(present, &given).unwrap(),
            "misuse:report,decay:5,huge-pages"
        );
        let wrong = joined(None, &["decoy:5".to_owned()]).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "there is no option 'decoy'; the nearest is 'decay'"
        );
        assert!(joined(None, &["decay:5,misuse:report".to_owned()]).is_err());
    }
}
