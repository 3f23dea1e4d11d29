//! The layers of src/: a module names only modules that are declared before it.
//!
//! `src/lib.rs` declares the modules bottom first, and every `mod.rs` its own likewise; rustc accepts
//! upward and circular uses silently, so this reads the files and follows every path that begins with
//! `crate::` or `super::` to the module that it names. By the same reader: how the tests start programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every module named by its path from the crate root (`["os", "linux"]`; the root is `[]`).
type ModulePath = Vec<String>;

/// The source of every module, in no particular order.
type Sources = BTreeMap<ModulePath, String>;

/// The pieces of Rust text that paths are made of.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Colons,
    Mark(char),
}

use Token::{Colons, Mark, Word};

/// Splits `source` into tokens. Comments, literals and lifetimes leave nothing behind.
fn tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut i, mut found) = (0, Vec::new());
    while i < text.len() {
        match at(i) {
            '/' if at(i + 1) == '/' => i = skip_line(&text, i),
            '/' if at(i + 1) == '*' => i = skip_block_comment(&text, i),
            '"' => i = skip_string(&text, i),
            '\'' => i = skip_quote(&text, i),
            ':' if at(i + 1) == ':' => {
                found.push(Colons);
                i += 2;
            }
            c if is_word(c) => {
                let start = i;
                while is_word(at(i)) {
                    i += 1;
                }
                let word: String = text[start..i].iter().collect();
                let raw = matches!(word.as_str(), "r" | "br" | "cr");
                match at(i) {
                    '"' | '#' if raw && opens_raw_string(&text, i) => i = skip_raw_string(&text, i),
                    _ => found.push(Word(word)),
                }
            }
            c => {
                if !c.is_whitespace() {
                    found.push(Mark(c));
                }
                i += 1;
            }
        }
    }
    found
}

fn skip_line(text: &[char], from: usize) -> usize {
    (from..text.len())
        .find(|&i| text[i] == '\n')
        .unwrap_or(text.len())
}

fn skip_block_comment(text: &[char], from: usize) -> usize {
    let (mut i, mut depth) = (from, 0);
    while i < text.len() {
        match (text[i], text.get(i + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            break;
        }
    }
    i
}

fn skip_string(text: &[char], from: usize) -> usize {
    let mut i = from + 1;
    while i < text.len() && text[i] != '"' {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn opens_raw_string(text: &[char], from: usize) -> bool {
    text[from..].iter().find(|&&c| c != '#') == Some(&'"')
}

fn skip_raw_string(text: &[char], from: usize) -> usize {
    let hashes = text[from..].iter().take_while(|&&c| c == '#').count();
    let mut i = from + hashes + 1;
    let closes = |i: usize| {
        text[i] == '"' && text[i + 1..].iter().take_while(|&&c| c == '#').count() >= hashes
    };
    while i < text.len() && !closes(i) {
        i += 1;
    }
    i + 1 + hashes
}

/// Skips a character literal, or only the quote of a lifetime.
fn skip_quote(text: &[char], from: usize) -> usize {
    if text.get(from + 1) == Some(&'\\') {
        let close = (from + 3..text.len()).find(|&i| text[i] == '\'');
        return close.map_or(text.len(), |i| i + 1);
    }
    from + if text.get(from + 2) == Some(&'\'') {
        3
    } else {
        1
    }
}

/// The tokens without `#[cfg(test)] mod … { … }`, if that closes the file. Tests may name anything.
fn without_tests(mut tokens: Vec<Token>) -> Vec<Token> {
    let word = |w: &str| Word(w.to_string());
    let head = [
        Mark('#'),
        Mark('['),
        word("cfg"),
        Mark('('),
        word("test"),
        Mark(')'),
        Mark(']'),
        word("mod"),
    ];
    let start = tokens.windows(head.len()).position(|w| w == head);
    if let Some(start) = start {
        let open = start + head.len() + 1;
        if tokens.get(open) == Some(&Mark('{')) && block_end(&tokens, open) == tokens.len() {
            tokens.truncate(start);
        }
    }
    tokens
}

/// The index after the brace that closes the one at `open`.
fn block_end(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Mark('{') => depth += 1,
            Mark('}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// The modules that a file declares (`mod name;`), in its order.
fn declared(source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let declaration = |w: &[Token]| match w {
        [Word(keyword), Word(name), Mark(';')] if keyword == "mod" => Some(name.clone()),
        _ => None,
    };
    tokens.windows(3).filter_map(declaration).collect()
}

/// Every absolute path that the file of `module` names by `crate::` or `super::`, as far as it is
/// written there: `["os", "Linux"]`. Groups are opened, `*` ends a path.
fn named_paths(module: &[String], source: &str) -> Vec<ModulePath> {
    let tokens = without_tests(tokens(source));
    let (mut inline, mut depth, mut paths) = (Vec::new(), 0, Vec::new());
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Mark('{') => {
                depth += 1;
                if let Some([Word(keyword), Word(name)]) = i.checked_sub(2).map(|k| &tokens[k..i]) {
                    if keyword == "mod" {
                        inline.push((depth, name.clone()));
                    }
                }
            }
            Mark('}') => {
                inline.retain(|(opened, _)| *opened != depth);
                depth -= 1;
            }
            Word(first) if (first == "crate" || first == "super") && starts_path(&tokens, i) => {
                let mut here = module.to_vec();
                here.extend(inline.iter().map(|(_, name)| name.clone()));
                follow(&tokens, i, here, &mut paths);
            }
            _ => {}
        }
    }
    paths
}

/// Whether the word at `i` begins a path: it is followed by `::` and not itself behind one.
fn starts_path(tokens: &[Token], i: usize) -> bool {
    tokens.get(i + 1) == Some(&Colons) && (i == 0 || tokens[i - 1] != Colons)
}

/// Follows the path at `i` from the module `here`, and adds what it names to `paths`. Returns the index behind it.
fn follow(
    tokens: &[Token],
    mut i: usize,
    mut here: ModulePath,
    paths: &mut Vec<ModulePath>,
) -> usize {
    loop {
        match tokens.get(i) {
            Some(Word(word)) if word == "crate" => here.clear(),
            Some(Word(word)) if word == "super" => drop(here.pop()),
            Some(Word(word)) if word == "self" => {}
            Some(Word(word)) => here.push(word.clone()),
            Some(Mark('{')) => return follow_group(tokens, i, here, paths),
            _ => break,
        }
        if tokens.get(i + 1) != Some(&Colons) {
            i += 1;
            break;
        }
        i += 2;
    }
    if !calls_macro(tokens, i) {
        paths.push(here);
    }
    i
}

/// Whether what ends before `i` is the name of a macro that is called: an exported one stands at the root,
/// wherever it was written, and the paths in its body are judged there.
fn calls_macro(tokens: &[Token], i: usize) -> bool {
    let opens = matches!(tokens.get(i + 1), Some(Mark('(' | '[' | '{')));
    tokens.get(i) == Some(&Mark('!')) && opens
}

/// Follows every path of the group `{a, b::c}` that opens at `open`, each from `here`.
fn follow_group(
    tokens: &[Token],
    open: usize,
    here: ModulePath,
    paths: &mut Vec<ModulePath>,
) -> usize {
    let end = block_end(tokens, open);
    let mut i = open + 1;
    while i + 1 < end {
        i = match tokens[i] {
            Word(ref word) if word == "as" => i + 2,
            Word(_) => follow(tokens, i, here.clone(), paths),
            _ => i + 1,
        };
    }
    end
}

/// Every broken rule in `sources`, one line each.
fn violations(sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    let order: BTreeMap<&ModulePath, Vec<String>> = sources
        .iter()
        .map(|(module, source)| (module, declared(source)))
        .collect();
    for (module, source) in sources {
        if let Some((name, parent)) = module.split_last() {
            if !order
                .get(&parent.to_vec())
                .is_some_and(|names| names.contains(name))
            {
                found.push(format!("{} is declared nowhere", module.join("::")));
            }
        }
        if module.is_empty() {
            continue; // the root stands above all of its modules
        }
        for path in named_paths(module, source) {
            found.extend(judge(&order, module, &path));
        }
    }
    found.dedup();
    found
}

/// What is wrong with `module` naming `path`, if anything.
fn judge(
    order: &BTreeMap<&ModulePath, Vec<String>>,
    module: &[String],
    path: &[String],
) -> Option<String> {
    let shared = module.iter().zip(path).take_while(|(a, b)| a == b).count();
    let names = order.get(&module[..shared].to_vec())?;
    let said = format!("{} names crate::{}", module.join("::"), path.join("::"));
    let Some(target) = path
        .get(shared)
        .and_then(|name| names.iter().position(|n| n == name))
    else {
        // An item of a parent module. The root is above every module, so nothing may come from it.
        return (shared == 0).then(|| format!("{said}, which is no module of the crate"));
    };
    let own = names.iter().position(|n| Some(n) == module.get(shared))?;
    (target > own).then(|| format!("{said}, which is declared after it"))
}

/// Reads every file under `src` of the repository.
fn sources_of_the_crate() -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = |path: PathBuf| module_of(path.strip_prefix(&root).expect("a path under src"));
    let files = rust_files(&root).into_iter();
    files.map(|(path, text)| (module(path), text)).collect()
}

/// Every file of Rust under `root`, with its text.
fn rust_files(root: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("a file").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let source = fs::read_to_string(&path).expect("a source file");
                found.push((path, source));
            }
        }
    }
    found
}

/// The module that a file under `src` holds.
fn module_of(file: &Path) -> ModulePath {
    let mut path = PathBuf::from(file);
    path.set_extension("");
    let mut module: ModulePath = path
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

/// A crate of two layers, `low` below `high`, and a folder module `os` in between with two of its own.
fn synthetic(module: &str, source: &str) -> Sources {
    let files = [
        ("", "pub mod low;\nmod os;\npub mod high;\npub mod top;"),
        ("low", ""),
        ("os", "mod linux;\nmod sim;"),
        ("os::linux", ""),
        ("os::sim", ""),
        ("high", ""),
        ("top", ""),
    ];
    let path = |name: &str| {
        name.split("::")
            .filter(|s| !s.is_empty())
            .map(String::from)
            .collect()
    };
    let mut sources: Sources = files
        .iter()
        .map(|(m, s)| (path(m), s.to_string()))
        .collect();
    sources.insert(path(module), source.to_string());
    sources
}

fn judged(module: &str, source: &str) -> Vec<String> {
    violations(&synthetic(module, source))
}

#[test]
fn every_module_names_only_modules_declared_before_it() {
    let sources = sources_of_the_crate();
    assert!(
        sources.len() > 10,
        "only {} files found under src",
        sources.len()
    );
    let found = violations(&sources);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_check_follows_the_paths_of_the_real_sources() {
    let sources = sources_of_the_crate();
    let named: usize = sources.iter().map(|(m, s)| named_paths(m, s).len()).sum();
    assert!(
        named > 20,
        "only {named} paths found under src: the check has gone blind"
    );
}

#[test]
fn uses_of_lower_modules_pass() {
    for source in [
        "use crate::low::Page;",
        "use crate::{low::Page, os::Linux};",
        "use super::low;",
        "fn f() { crate::low::g(); crate::high::h(); }",
        "use crate::high::*;",
        "mod inner { use super::super::low; use super::g; }",
        "pub(crate) fn f() {} pub(super) fn g() {}",
    ] {
        assert_eq!(judged("high", source), Vec::<String>::new(), "{source}");
    }
    assert_eq!(
        judged(
            "os::sim",
            "use super::linux::x; use super::Os; use crate::low::y;"
        ),
        Vec::<String>::new()
    );
}

#[test]
fn upward_uses_are_found_in_every_spelling() {
    for source in [
        "use crate::high::Heap;",
        "use super::high::Heap;",
        "use crate::{\n    os::Linux,\n};",
        "use crate::{low::Page, high::{self, Heap}};",
        "fn f() { crate::top::g() }",
        "fn f(x: &'static str) -> char { crate::top::g(x, 'a', '\\'') }",
        "impl crate::high::Trait for X {}",
        "mod inner { use super::super::top; }",
        "fn f() { let s = r#\"\"# ; crate::top::g(); }",
    ] {
        assert!(!judged("low", source).is_empty(), "{source}");
    }
    assert_eq!(judged("os::linux", "use super::sim::x;").len(), 1);
    assert_eq!(judged("os::linux", "use super::super::high::x;").len(), 1);
    assert_eq!(judged("os::sim", "use crate::high;").len(), 1);
}

#[test]
fn exported_macros_may_be_called_and_their_bodies_are_judged() {
    let call = "const X: u8 = crate::make!(a); crate::make! { a }";
    assert_eq!(judged("low", call), Vec::<String>::new());
    let body = "macro_rules! make { () => { $crate::top::g() } }";
    assert_eq!(judged("low", body).len(), 1);
    assert_eq!(judged("low", "fn f() -> bool { crate::top != 1 }").len(), 1);
}

#[test]
fn items_of_the_root_cannot_smuggle_an_upward_use() {
    assert_eq!(judged("low", "use crate::Allocator;").len(), 1);
    assert_eq!(judged("low", "use crate::*;").len(), 1);
}

#[test]
fn comments_and_literals_name_nothing() {
    for source in [
        "//! See [`crate::high`].",
        "/* crate::high /* nested crate::top */ crate::high */",
        "const S: &str = \"crate::high::x \\\" crate::top::y\";",
        "const S: &str = r#\"crate::high \" crate::top\"#;",
        "const C: &core::ffi::CStr = c\"crate::high::x\";",
    ] {
        assert_eq!(judged("low", source), Vec::<String>::new(), "{source}");
    }
}

#[test]
fn only_a_tests_module_at_the_end_of_a_file_is_skipped() {
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::high::Heap;\n}\n";
    assert_eq!(
        judged("low", &format!("fn f() {{}}\n{tests}")),
        Vec::<String>::new()
    );
    assert_eq!(judged("low", &format!("{tests}fn f() {{}}\n")).len(), 1);
}

#[test]
fn a_file_that_no_module_declares_is_found() {
    assert_eq!(judged("stray", ""), ["stray is declared nowhere"]);
    assert_eq!(judged("os::stray", ""), ["os::stray is declared nowhere"]);
}

/// The helper `command` resets the signals and sets a limit; a program that a test starts in another way may wait for
/// ever, or ignore what it is sent.
#[test]
fn tests_start_programs_by_the_helper_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = [
        Word("Command".into()),
        Colons,
        Word("new".into()),
        Mark('('),
    ];
    let mut found = Vec::new();
    for folder in ["tests", "cli/tests"] {
        for (path, source) in rust_files(&root.join(folder)) {
            let count = tokens(&source)
                .windows(4)
                .filter(|four| four == &made)
                .count();
            let path = path.strip_prefix(root).expect("a path of the repository");
            found.extend((count > 0).then(|| (path.display().to_string(), count)));
        }
    }
    found.sort();
    // The helpers, `run`, and what builds the programs: cargo and the compiler.
    let helpers = [("cli/tests/run.rs", 1), ("tests/common/mod.rs", 4)];
    assert_eq!(
        found,
        helpers.map(|(path, count)| (path.to_string(), count))
    );
}
