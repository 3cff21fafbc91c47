//! The rules of `tests/architecture.rs`, as functions of a file's name and text.

mod source;

use source::{code_without_tests, only_code};
use std::fmt;

/// Most lines of a file.
const LINES_MAX: usize = 500;

/// The layer of each module below `src`. Modules of one layer do not know each other.
const LAYERS: [(&str, u8); 15] = [
    ("config", 0),
    ("telemetry", 0),
    ("wire", 1),
    ("state", 2),
    ("auth", 2),
    ("net", 3),
    ("credentials", 3),
    ("server", 4),
    ("target", 5),
    ("pool", 6),
    ("client", 7),
    ("listener", 8),
    ("admin", 8),
    ("app", 9),
    // Names what it declares and nothing else.
    ("lib", 10),
];

/// Modules that are functions of their arguments.
const PURE: [&str; 4] = ["wire", "state", "auth", "config"];

/// What a pure module must not name: the outside world, time, chance, and shared state.
const FORBIDDEN: [&str; 13] = [
    "tokio",
    "tracing",
    "parking_lot",
    "dashmap",
    "Mutex",
    "RwLock",
    "Condvar",
    "Instant::now",
    "SystemTime",
    "rand",
    "getrandom",
    "SystemRandom",
    "SecureRandom",
];

/// A rule broken, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Every fault of one file; `file` is its path below `src`.
pub fn check(file: &str, text: &str) -> Vec<Fault> {
    let mut found: Vec<(usize, String)> = Vec::new();
    if !text.starts_with("//!") {
        found.push((1, "a file begins with `//!`".to_owned()));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found.push((lines, format!("{lines} lines, {LINES_MAX} are the most")));
    }
    let module = module_of(file);
    if module != "main" {
        let code = only_code(text);
        found.extend(arrows(module, file, &code));
        if PURE.contains(&module) && !is_test(file) {
            found.extend(forbidden(module, &code_without_tests(&code)));
        }
    }
    found.sort();
    found.dedup();
    found.into_iter().map(|(line, what)| Fault { file: file.to_owned(), line, what }).collect()
}

/// The module directly below the crate's root that a file belongs to.
fn module_of(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

/// Whether a file is compiled for tests only, by its name.
fn is_test(file: &str) -> bool {
    file.trim_end_matches(".rs").split('/').any(|part| part == "tests" || part.ends_with("_tests"))
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

fn without_layer(module: &str) -> String {
    format!("the module {module} has no layer in tests/rules/mod.rs")
}

fn arrows(module: &str, file: &str, code: &str) -> Vec<(usize, String)> {
    let Some(from) = layer_of(module) else {
        return vec![(1, without_layer(module))];
    };
    let mut named = named_modules(code, file);
    if module == "lib" {
        named.extend(declared_modules(code));
    }
    named
        .into_iter()
        .filter(|(_, other)| other != module)
        .filter_map(|(at, other)| {
            let line = line_of(code, at);
            let Some(to) = layer_of(&other) else {
                return Some((line, without_layer(&other)));
            };
            let fault = format!("{module} (layer {from}) must not know {other} (layer {to})");
            (to >= from).then_some((line, fault))
        })
        .collect()
}

/// Modules below the root that are named by `crate::` or a chain of `super::`, and where.
fn named_modules(code: &str, file: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (at, _) in words(code, "crate") {
        let after = &code[at + "crate".len()..];
        if let Some(path) = after.trim_start().strip_prefix("::") {
            named.extend(heads(path).into_iter().map(|name| (at, name)));
        }
    }
    for (at, path) in super_chains(code) {
        let depth = module_depth(file) + blocks_around(code, at);
        if path.supers == depth {
            named.extend(heads(path.rest).into_iter().map(|name| (at, name)));
        }
    }
    named
}

/// How many `super` lead from a file's module to the crate's root.
fn module_depth(file: &str) -> usize {
    let parts = file.split('/').count();
    if file.ends_with("mod.rs") || file == "lib.rs" { parts - 1 } else { parts }
}

/// How many `mod name { ... }` stand around this place.
fn blocks_around(code: &str, at: usize) -> usize {
    words(code, "mod")
        .into_iter()
        // `mod name;` has no block.
        .filter(|(_, after)| after.find('{') < after.find(';').or(Some(usize::MAX)))
        .filter_map(|(start, _)| source::block_after(code, start))
        .filter(|block| block.contains(&at))
        .count()
}

struct SuperChain<'a> {
    supers: usize,
    rest: &'a str,
}

fn super_chains(code: &str) -> Vec<(usize, SuperChain<'_>)> {
    let mut chains = Vec::new();
    let mut end = 0;
    for (at, _) in words(code, "super") {
        if at < end {
            continue;
        }
        let mut chain = SuperChain { supers: 0, rest: &code[at..] };
        while let Some(rest) = chain.rest.strip_prefix("super::") {
            chain = SuperChain { supers: chain.supers + 1, rest };
        }
        end = code.len() - chain.rest.len();
        chains.push((at, chain));
    }
    chains
}

/// The first names of a path's branches: `a` of `a::b`, `a` and `c` of `{a::b, c::{d, e}}`.
fn heads(path: &str) -> Vec<String> {
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else {
        let name: String = path.chars().take_while(|&c| is_word(c)).collect();
        // `crate::Type` and `crate::*` name no module.
        let is_module = name.starts_with(|c: char| c.is_lowercase()) && name != "self";
        return if is_module { vec![name] } else { Vec::new() };
    };
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut begin = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.extend(heads(&group[begin..at]));
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn declared_modules(code: &str) -> Vec<(usize, String)> {
    words(code, "mod")
        .into_iter()
        .flat_map(|(at, after)| heads(after).into_iter().map(move |name| (at, name)))
        .collect()
}

fn forbidden(module: &str, code: &str) -> Vec<(usize, String)> {
    let found = FORBIDDEN.iter().flat_map(|word| {
        words(code, word).into_iter().map(move |(at, _)| (line_of(code, at), word))
    });
    found.map(|(line, word)| (line, format!("{module} is pure and must not name {word}"))).collect()
}

/// Where `word` stands as a word of its own, and what follows it.
fn words<'a>(code: &'a str, word: &str) -> Vec<(usize, &'a str)> {
    code.match_indices(word)
        .filter(|(at, _)| {
            let before = code[..*at].chars().next_back();
            let after = code[at + word.len()..].chars().next();
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
        .map(|(at, _)| (at, &code[at + word.len()..]))
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_of(code: &str, at: usize) -> usize {
    1 + code[..at].matches('\n').count()
}
