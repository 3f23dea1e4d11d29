//! The layers within a crate: a module names only modules that are declared before it.
//!
//! rustc keeps the layers between crates. Within one it accepts upward and circular uses silently. So each `lib.rs`
//! declares its modules bottom first, and every `mod.rs` its own likewise. This reads the files by the crate syn, and
//! follows every path that begins with `crate::` or `super::` to the module that it names. The simulated system, whose
//! modules are parts of one thing, is not read. By the same reader: how the tests start programs.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};
use syn::{File, Item, ItemMod, ItemUse, Macro, UseTree};

/// Every module named by its path from the crate root (`["os", "linux"]`; the root is `[]`).
type ModulePath = Vec<String>;

/// The source of every module, in no particular order.
type Sources = BTreeMap<ModulePath, File>;

/// Collects the absolute paths that the file of a module names, as far as they are written there: `["os", "Linux"]`.
/// Groups are opened, `*` ends a path.
struct Paths {
    here: ModulePath,
    found: Vec<ModulePath>,
}

impl Paths {
    /// Adds the path of these words, if it is absolute.
    fn add(&mut self, words: &[String]) {
        let first = words.iter().find(|word| *word != "self");
        if !matches!(first.map(String::as_str), Some("crate" | "super")) {
            return;
        }
        let mut path = self.here.clone();
        for word in words {
            match word.as_str() {
                "crate" => path.clear(),
                "super" => drop(path.pop()),
                "self" => {}
                _ => path.push(word.clone()),
            }
        }
        self.found.push(path);
    }

    /// Adds what the tokens of a macro name. A path before `!` is the name of another macro: an exported one stands at the
    /// root, wherever it was written, and the paths in its body are judged there.
    fn add_tokens(&mut self, tokens: TokenStream, before: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            if let TokenTree::Group(group) = token {
                self.add_tokens(group.stream(), &[]);
                at += 1;
                continue;
            }
            let (words, end) = words_from(&tokens, at);
            at = end.max(at + 1);
            if words.is_empty() {
                continue;
            }
            let path = [before, &words].concat();
            match (tokens.get(end), tokens.get(end + 1)) {
                (Some(TokenTree::Punct(mark)), Some(TokenTree::Group(_)))
                    if mark.as_char() == '!' => {}
                // `path::{...}`
                (Some(TokenTree::Group(group)), _)
                    if group.delimiter() == Delimiter::Brace && is_colon(&tokens, end - 1) =>
                {
                    self.add_tokens(group.stream(), &path);
                    at = end + 1;
                }
                _ if path.len() > 1 => self.add(&path),
                _ => {}
            }
        }
    }
}

fn is_colon(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == ':')
}

/// Whether `::` stands at `at`.
fn are_colons(tokens: &[TokenTree], at: usize) -> bool {
    let joint =
        matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.spacing() == Spacing::Joint);
    joint && is_colon(tokens, at) && is_colon(tokens, at + 1)
}

/// The words of the path that begins at `at`, and where it ends: after its last word, or the `::` that follows it.
fn words_from(tokens: &[TokenTree], mut at: usize) -> (Vec<String>, usize) {
    let mut words = Vec::new();
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        words.push(word.to_string());
        at += 1;
        if !are_colons(tokens, at) {
            break;
        }
        at += 2;
    }
    (words, at)
}

/// The leaves of a `use`, each as words.
fn leaves(tree: &UseTree, before: &[String]) -> Vec<Vec<String>> {
    let with = |word: String| [before, &[word]].concat();
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &with(path.ident.to_string())),
        UseTree::Name(name) => vec![with(name.ident.to_string())],
        UseTree::Rename(name) => vec![with(name.ident.to_string())],
        UseTree::Glob(_) => vec![before.to_vec()],
        UseTree::Group(group) => {
            let trees = group.items.iter();
            trees.flat_map(|tree| leaves(tree, before)).collect()
        }
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_mod(&mut self, module: &'a ItemMod) {
        self.here.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.here.pop();
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        for words in leaves(&item.tree, &[]) {
            self.add(&words);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let words = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        let words: Vec<String> = words.collect();
        // `pub(crate)` has a path of one word.
        if words.len() > 1 {
            self.add(&words);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a Macro) {
        self.add_tokens(call.tokens.clone(), &[]);
    }
}

/// Whether it is `#[cfg(test)] mod … { … }`. Tests may name anything.
fn is_tests(item: &Item) -> bool {
    let Item::Mod(module) = item else {
        return false;
    };
    let is_for_tests = |attribute: &syn::Attribute| {
        let condition = attribute.parse_args::<syn::Ident>();
        attribute.path().is_ident("cfg") && condition.is_ok_and(|condition| condition == "test")
    };
    module.content.is_some() && module.attrs.iter().any(is_for_tests)
}

/// What the file of `module` names. Tests that close it are left out.
fn named_paths(module: &[String], file: &File) -> Vec<ModulePath> {
    let mut paths = Paths {
        here: module.to_vec(),
        found: Vec::new(),
    };
    let closing = file.items.last().is_some_and(is_tests);
    for item in &file.items[..file.items.len() - usize::from(closing)] {
        paths.visit_item(item);
    }
    paths.found
}

/// The modules that a file declares (`mod name;`), in its order.
fn declared(file: &File) -> Vec<String> {
    let declaration = |item: &Item| match item {
        Item::Mod(module) if module.content.is_none() => Some(module.ident.to_string()),
        _ => None,
    };
    file.items.iter().filter_map(declaration).collect()
}

/// The names that the root has from elsewhere, with the module or crate where they come from.
fn imported(root: &File) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for item in &root.items {
        if let Item::Use(item) = item {
            for words in leaves(&item.tree, &[]) {
                if let [first, .., last] = &words[..] {
                    names.insert(last.clone(), first.clone());
                }
            }
        }
    }
    names
}

/// Every broken rule in `sources`, one line each.
fn violations(sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    let order: BTreeMap<&ModulePath, Vec<String>> = sources
        .iter()
        .map(|(module, source)| (module, declared(source)))
        .collect();
    let imported = sources.get(&ModulePath::new()).map(imported);
    let imported = imported.unwrap_or_default();
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
            found.extend(judge(&order, &imported, module, &path));
        }
    }
    found.dedup();
    found
}

/// What is wrong with `module` naming `path`, if anything.
fn judge(
    order: &BTreeMap<&ModulePath, Vec<String>>,
    imported: &BTreeMap<String, String>,
    module: &[String],
    path: &[String],
) -> Option<String> {
    let shared = module.iter().zip(path).take_while(|(a, b)| a == b).count();
    let names = order.get(&module[..shared].to_vec())?;
    let said = format!("{} names crate::{}", module.join("::"), path.join("::"));
    let mut name = path.get(shared);
    // What the root has from a module of its own stands where that module does, what it has from a crate below all.
    if let Some(from) = name
        .filter(|_| shared == 0)
        .and_then(|name| imported.get(name))
    {
        if from.starts_with("slabside_") {
            return None;
        }
        name = Some(from);
    }
    let Some(target) = name.and_then(|name| names.iter().position(|n| n == name)) else {
        // An item of a parent module. The root is above every module, so nothing may come from it.
        return (shared == 0).then(|| format!("{said}, which is no module of the crate"));
    };
    let own = names.iter().position(|n| Some(n) == module.get(shared))?;
    (target > own).then(|| format!("{said}, which is declared after it"))
}

/// The crates whose layers are kept, by their directories.
const CRATES: [&str; 3] = ["src", "crates/base/src", "crates/core/src"];

/// Reads every file of the crate in `directory`.
fn sources_of(directory: &str) -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let module = |path: &Path| module_of(path.strip_prefix(&root).expect("a path of the crate"));
    let files = rust_files(&root).into_iter();
    files
        .map(|(path, text)| (module(&path), parsed(&text)))
        .collect()
}

fn parsed(text: &str) -> File {
    syn::parse_file(text).unwrap_or_else(|error| panic!("{error}: {text}"))
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
        (
            "",
            "use slabside_base::units;\npub use top::Facade;\npub mod low;\nmod os;\npub mod high;\npub mod top;",
        ),
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
    let mut sources: Sources = files.iter().map(|(m, s)| (path(m), parsed(s))).collect();
    sources.insert(path(module), parsed(source));
    sources
}

fn judged(module: &str, source: &str) -> Vec<String> {
    violations(&synthetic(module, source))
}

#[test]
fn every_module_names_only_modules_declared_before_it() {
    for directory in CRATES {
        let sources = sources_of(directory);
        let count = sources.len();
        assert!(count > 3, "only {count} files found under {directory}");
        let found = violations(&sources);
        assert!(found.is_empty(), "{directory}: {}", found.join("\n"));
    }
}

#[test]
fn the_check_follows_the_paths_of_the_real_sources() {
    let files = |directory| sources_of(directory).into_iter();
    let named = CRATES.into_iter().flat_map(files);
    let named: usize = named.map(|(m, s)| named_paths(&m, &s).len()).sum();
    assert!(
        named > 500,
        "only {named} paths found: the check has gone blind"
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
        "use self::super::high::Heap;",
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
    let call = "fn f() { assert!(a, crate::high::g()); }";
    assert_eq!(judged("low", call).len(), 1);
    let group = "macro_rules! make { () => { use $crate::{low::A, high::B}; } }";
    assert_eq!(judged("low", group).len(), 1);
    assert_eq!(judged("low", "fn f() -> bool { crate::top != 1 }").len(), 1);
}

#[test]
fn items_of_the_root_cannot_smuggle_an_upward_use() {
    assert_eq!(judged("low", "use crate::Allocator;").len(), 1);
    assert_eq!(judged("low", "use crate::*;").len(), 1);
    assert_eq!(judged("low", "use crate::Facade;").len(), 1);
    assert_eq!(judged("low", "use crate::units::PAGE;").len(), 0);
    assert_eq!(judged("top", "use crate::Facade;").len(), 0);
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

/// How often `tokens` have `Command::new(`.
fn commands_made(tokens: TokenStream) -> usize {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut count = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => count += commands_made(group.stream()),
            TokenTree::Ident(word) if word == "Command" => {
                let (words, end) = words_from(&tokens, at);
                let called = matches!(tokens.get(end), Some(TokenTree::Group(group))
                    if group.delimiter() == Delimiter::Parenthesis);
                count += usize::from(called && words == ["Command", "new"]);
            }
            _ => {}
        }
    }
    count
}

/// The helper `command` resets the signals and sets a limit; a program that a test starts in another way may wait for
/// ever, or ignore what it is sent.
#[test]
fn tests_start_programs_by_the_helper_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["tests", "cli/tests"] {
        for (path, source) in rust_files(&root.join(folder)) {
            let count = commands_made(source.parse().expect("a source file"));
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
