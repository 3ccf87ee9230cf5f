//! Checks on the text of the sources: a lower layer imports no higher one, the engine names nothing of the
//! outside world, unsafe code stands in one room, files stay readable.

use std::fmt::Write;
use std::path::Path;

/// The modules of `src`, by layer. A module may use those of its own and of lower layers.
const LAYERS: [(u8, &[&str]); 8] = [
    (1, &["ablation", "planted", "random", "record", "time"]),
    (2, &["format", "expression"]),
    (3, &["state", "window"]),
    (4, &["operator", "topology"]),
    (5, &["task", "worker"]),
    (6, &["kafka", "rocks", "model", "simulator"]),
    (7, &["generator", "runtime", "telemetry", "service", "settings", "testing"]),
    (8, &["cli"]),
];

/// The engine: no thread, socket, clock or disk of its own.
const ENGINE_LAYER_MAX: u8 = 5;

/// What the engine does not name.
const OUTSIDE: [&str; 6] = ["actix", "actix_rt", "actix_web", "tokio", "rdkafka", "rocksdb"];

/// The folder whose files may hold unsafe code, if they say why it is safe.
const UNSAFE_ROOM: &str = "src/kafka/raw/";

/// How a file's safety argument begins, in its first comment.
const SAFETY_ARGUMENT: &str = "\n//! Safety: ";

/// A file is read from top to bottom; longer ones are split. Files of tests alone may be longer.
const LINES_MAX: usize = 600;

/// A source file.
struct Source {
    /// Relative to the repository.
    path: String,
    text: String,
}

/// What is wrong with `sources`, one line each.
fn check(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let module = module_of(&source.path);
        let layer = module.and_then(layer_of);
        if layer.is_none() && !["src/lib.rs", "src/main.rs"].contains(&source.path.as_str()) {
            findings.push(format!("{}: its module is in no layer; add it to LAYERS", source.path));
        }
        if source.text.lines().count() > LINES_MAX && !may_be_long(&source.path) {
            findings.push(format!("{}: longer than {LINES_MAX} lines; split it", source.path));
        }
        let code = code_of(&source.text);
        check_unsafe(source, &code, &mut findings);
        for (index, line) in code.lines().enumerate() {
            let place = format!("{}:{}", source.path, index + 1);
            if reaches_the_root(&source.path, line) {
                findings.push(format!(
                    "{place}: write the path from the crate's root, so that this test sees it"
                ));
            }
            if words(line).any(|word| word == "unsafe") && !source.path.starts_with(UNSAFE_ROOM) {
                findings.push(format!("{place}: unsafe code stands in {UNSAFE_ROOM} alone"));
            }
            if layer.is_some_and(|layer| layer <= ENGINE_LAYER_MAX) {
                for word in words(line).filter(|word| OUTSIDE.contains(word)) {
                    findings.push(format!("{place}: the engine names {word}"));
                }
            }
        }
        if let (Some(module), Some(layer)) = (module, layer) {
            check_imports(&source.path, module, layer, &code, &mut findings);
        }
    }
    findings
}

/// A file allows unsafe code only if it has some, and has some only with its safety argument.
fn check_unsafe(source: &Source, code: &str, findings: &mut Vec<String>) {
    let path = &source.path;
    let holds = words(code).any(|word| word == "unsafe");
    let allows = code.contains("allow(unsafe_code)");
    if allows && !holds {
        findings.push(format!("{path}: it allows unsafe code and has none"));
    }
    if holds && path.starts_with(UNSAFE_ROOM) && !source.text.contains(SAFETY_ARGUMENT) {
        findings.push(format!("{path}: unsafe code without `//! Safety: ` in the file's first comment"));
    }
}

fn check_imports(path: &str, module: &str, layer: u8, code: &str, findings: &mut Vec<String>) {
    for (line, used) in imports(code) {
        if let Some(other) = layer_of(&used).filter(|other| *other > layer) {
            findings.push(format!("{path}:{line}: layer {layer} ({module}) imports layer {other} ({used})"));
        }
    }
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&module)).map(|(layer, _)| *layer)
}

/// `src/state/cache.rs` and `src/state.rs` belong to `state`.
fn module_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("src/")?.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (!["lib", "main"].contains(&name)).then_some(name)
}

/// Whether a chain of `super::` leads out of the file's module, where `imports` does not follow it. A
/// line that is indented is taken to stand in a module of the file, one further down.
fn reaches_the_root(path: &str, line: &str) -> bool {
    let folders = path.matches('/').count();
    let depth = if path.ends_with("/mod.rs") { folders - 1 } else { folders };
    let indented = usize::from(line.starts_with(' '));
    line.contains(&"super::".repeat((depth + indented).max(1)))
}

fn may_be_long(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.contains("tests") || path.contains("/tests/")
}

/// The text with comments, strings and characters blanked, so that only code is looked at. Lines stay
/// where they are.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
            continue;
        }
        code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Where the comment, string or character that begins at `at` ends; `at` if none begins there.
fn skipped(chars: &[char], at: usize) -> usize {
    let starts = |text: &str| text.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let find = |from: usize, end: &str| {
        let end: Vec<char> = end.chars().collect();
        (from..chars.len()).find(|i| chars[*i..].starts_with(&end)).map_or(chars.len(), |i| i + end.len())
    };
    if starts("//") {
        return find(at, "\n").saturating_sub(1).max(at + 2);
    }
    if starts("/*") {
        return find(at + 2, "*/");
    }
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if (starts("r\"") || starts("r#\"")) && !in_word {
        let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
        return find(at + 2 + hashes, &format!("\"{}", "#".repeat(hashes)));
    }
    // A character, not a lifetime: a quote follows after one character, or an escape begins.
    let is_char = starts("'") && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\''));
    if !is_char && !starts("\"") {
        return at;
    }
    let mut end = at + 1;
    while end < chars.len() && chars[end] != chars[at] {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    (end + 1).min(chars.len())
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The modules of this crate that the code names by `crate::…`, also in groups, with their lines.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].lines().count().max(1);
        let rest = &code[at + "crate::".len()..];
        match rest.trim_start().strip_prefix('{') {
            None => found.extend(words(rest).next().map(|word| (line, word.to_owned()))),
            Some(group) => found.extend(first_words(group).into_iter().map(|word| (line, word))),
        }
    }
    found
}

/// The first word of each entry of a group `{a, b::{c, d}}` whose opening brace is gone.
fn first_words(group: &str) -> Vec<String> {
    let (mut depth, mut entry, mut entries) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => entries.push(std::mem::take(&mut entry)),
            _ if depth == 0 => entry.push(c),
            _ => {}
        }
    }
    entries.push(entry);
    entries.iter().filter_map(|entry| words(entry).next().map(str::to_owned)).collect()
}

fn read_sources(folder: &Path, root: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            read_sources(&path, root, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            sources.push(Source { path: relative, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
}

fn all_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    read_sources(&root.join("src"), root, &mut sources);
    sources
}

#[test]
fn the_sources_keep_the_rules() {
    let sources = all_sources();
    assert!(sources.len() > 20, "only {} files below src", sources.len());
    let findings = check(&sources);
    let text = findings.iter().fold(String::new(), |mut text, finding| {
        writeln!(text, "{finding}").unwrap();
        text
    });
    assert!(findings.is_empty(), "\n{text}");
}

#[test]
fn every_layer_has_its_modules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for module in LAYERS.iter().flat_map(|(_, modules)| *modules) {
        let there = root.join(module).is_dir() || root.join(format!("{module}.rs")).is_file();
        assert!(there, "LAYERS names {module}, and there is no such module");
    }
}

#[test]
fn planted_violations_are_found() {
    let find = |path: &str, text: &str| check(&[Source { path: path.into(), text: text.into() }]);
    let one = |path: &str, text: &str, finding: &str| {
        let found = find(path, text);
        assert!(found.len() == 1 && found[0].contains(finding), "{text:?} in {path}: {found:?}");
    };
    one("src/record/value.rs", "use crate::format::Json;", "layer 1 (record) imports layer 2 (format)");
    one("src/time.rs", "\nfn f() { crate::cli::run() }", "src/time.rs:2: layer 1 (time)");
    one("src/kafka/mod.rs", "use crate::{record::X, runtime::{a, b}};", "layer 6 (kafka)");
    one("src/state/x.rs", "pub(in crate::task) fn f() {}", "imports layer 5 (task)");
    one("src/worker/x.rs", "use tokio::sync::mpsc;", "the engine names tokio");
    one("src/task/x.rs", "let x = \"//\"; rdkafka::f();", "the engine names rdkafka");
    one("src/task/x.rs", "let x = '\"'; rocksdb::f();", "the engine names rocksdb");
    one("src/rocks/x.rs", "unsafe { f() }", "src/rocks/x.rs:1: unsafe");
    one("src/kafka/raw.rs", "//! X.\n//!\n//! Safety: none\nunsafe fn f() {}", "src/kafka/raw.rs:4: unsafe");
    one("src/kafka/raw/x.rs", "//! X.\n\nunsafe { f() } // Safety: none", "without `//! Safety: `");
    one("src/kafka/raw/x.rs", "//! X.\n//!\n//! Safety: y\n#![allow(unsafe_code)]", "and has none");
    one("src/rocks/x.rs", &"\n".repeat(LINES_MAX + 1), "split it");
    one("src/task/x.rs", "use super::super::cli;", "from the crate's root");
    one("src/task/mod.rs", "use super::cli;", "from the crate's root");
    one("src/task/mod.rs", "mod y {\n    use super::super::cli;\n}", "from the crate's root");
    one("src/models/mod.rs", "", "in no layer");
    let none = |path: &str, text: &str| assert_eq!(find(path, text), [""; 0], "{text:?} in {path}");
    none("src/task/x/tests.rs", "use super::super::y;");
    none("src/task/x.rs", "use super::y;\nmod tests {\n    use super::super::y;\n}");
    none("src/cli/mod.rs", "use crate::runtime;");
    none("src/operator/x.rs", "use crate::operator::y; use crate::{state::z, window};");
    none("src/record/x.rs", "/// [`crate::task`] and tokio\n// unsafe\n/* crate::cli */ fn f<'a>() {}");
    none("src/record/x.rs", r##"let x = ("tokio \" unsafe", r#"crate::cli " "#, 'u', b"unsafe");"##);
    none(
        "src/kafka/raw/x.rs",
        "//! X.\n//!\n//! Safety: y\n#![allow(unsafe_code)]\nunsafe impl Send for X {}",
    );
    none("src/rocks/tests.rs", &"\n".repeat(LINES_MAX + 1));
    none("src/kafka/x.rs", "use rdkafka::x; #![deny(unsafe_code)]");
}
