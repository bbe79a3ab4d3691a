//! The rules of the house (docs/ARCHITECTURE.md), checked: reads the sources and fails with file
//! and line where one is broken. Each rule is a function over source files, and has a check of its
//! own that it bites.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A function has fewer lines than this.
const MAX_FUNCTION_LINES: usize = 70;
/// A file has fewer lines than this, unit tests apart.
const MAX_FILE_LINES: usize = 600;
/// A line has at most this many columns.
const MAX_COLUMNS: usize = 100;

/// The modules at the bottom, which know only each other.
const BOTTOM: &[&str] =
    &["node", "id_map", "keyring", "role", "time", "event", "config", "error", "stats"];
/// What only the caller of the state machine may know of: clocks, threads, tasks, chance.
const OUTSIDE: &[&str] = &[
    "SystemTime",
    "std::time::Instant",
    "time::{Instant",
    "tokio",
    "std::thread",
    "thread::spawn",
    "rand::rng(",
    "thread_rng",
    "from_os_rng",
    "OsRng",
    "SysRng",
    "HashMap",
    "HashSet",
];
/// The only file with unsafe code.
const UNSAFE_HOME: &str = "src/view/epoch_map.rs";
/// The only file that names crossbeam, so that model checkers can put something else there.
const CROSSBEAM_HOME: &str = "src/view/sync.rs";

/// A source file: as it is, and with comments and the insides of literals blanked out.
struct Source {
    path: String,
    text: String,
    code: String,
}

/// A rule broken somewhere.
#[derive(Debug, PartialEq)]
struct Finding(String);

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into(), code: without_tests(&blanked(text)) }
    }

    /// The module that the file belongs to, from the crate's root: `["proto", "route", "send"]`.
    fn module(&self) -> Vec<&str> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inner.split('/').filter(|part| *part != "mod").collect()
    }

    /// Whether it holds unit tests only.
    fn is_tests(&self) -> bool {
        self.path.ends_with("/tests.rs")
    }

    fn is_under(&self, modules: &[&str]) -> bool {
        self.path.starts_with("src/") && modules.contains(&self.module()[0])
    }

    fn finding(&self, line: usize, what: &str) -> Finding {
        Finding(format!("{}:{line}: {what}", self.path))
    }

    /// A finding for each line of the code that holds one of these words.
    fn mentions(&self, words: &[&str], what: &str) -> Vec<Finding> {
        let lines = self.code.lines().enumerate();
        let hits = lines.flat_map(|(at, line)| {
            let found = words.iter().filter(move |word| line.contains(**word));
            found.map(move |word| (at + 1, word))
        });
        hits.map(|(line, word)| self.finding(line, &format!("{what}: {word}"))).collect()
    }
}

/// Comments, and what is inside of string and char literals, as blanks; lines stay where they are.
fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at).unwrap_or(at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        for &hidden in &chars[at..end] {
            out.push(if hidden == '\n' { '\n' } else { ' ' });
        }
        at = end;
    }
    out
}

/// Where the comment or literal that begins here ends, if one does.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let rest = &chars[at..];
    let begins = |text: &str| text.chars().eq(rest.iter().copied().take(text.chars().count()));
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if begins("//") {
        return Some(at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()));
    }
    if begins("/*") {
        let close = rest.windows(2).position(|pair| pair == ['*', '/']);
        return Some(at + close.map_or(rest.len(), |close| close + 2));
    }
    let hashes = rest.iter().skip(1).take_while(|c| **c == '#').count();
    if rest[0] == 'r' && !after_word && rest.get(1 + hashes) == Some(&'"') {
        let close: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
        let body = 2 + hashes;
        let end = rest[body..].windows(close.len()).position(|window| window == close);
        return Some(at + end.map_or(rest.len(), |end| body + end + close.len()));
    }
    let quote = rest[0];
    // A quote without its partner right after one character is a lifetime.
    let is_char = quote == '\'' && (rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\''));
    if quote == '"' || is_char {
        let mut end = 1;
        while end < rest.len() && rest[end] != quote {
            end += if rest[end] == '\\' { 2 } else { 1 };
        }
        return Some((at + end + 1).min(chars.len()));
    }
    None
}

/// The code without its `#[cfg(test)]` modules, whose lines are left empty.
fn without_tests(code: &str) -> String {
    let mut out = code.to_string();
    let mut from = 0;
    while let Some(found) = out[from..].find("#[cfg(test)]") {
        let start = from + found;
        from = start + 1;
        let after = out[start..].trim_start_matches("#[cfg(test)]").trim_start();
        if !after.starts_with("mod ") && !after.starts_with("pub(crate) mod ") {
            continue;
        }
        let Some(end) = body_end(&out, start + "#[cfg(test)]".len()) else { continue };
        let kept: String = out[start..end].chars().filter(|c| *c == '\n').collect();
        out.replace_range(start..end, &kept);
    }
    out
}

/// Where the `{ .. }` that an item has ends; `None` when a `;` comes first.
fn body_end(code: &str, item: usize) -> Option<usize> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, c) in code[item..].char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' if braces <= 1 => return Some(item + at + 1),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where a word stands in the code, as a word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// All paths that begin with `crate` or `super` and the line they are on, lists taken apart:
/// `use crate::{a::B, c}` is `crate::a::B` and `crate::c`.
fn inner_paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut paths = Vec::new();
    for root in ["crate", "super"] {
        for at in words(code, root) {
            let continued = code[..at].ends_with("::") || code[..at].ends_with("(in ");
            let visibility = code[at + root.len()..].starts_with(')');
            if !continued && !visibility {
                expand(code, at, &[], &mut paths);
            }
        }
    }
    paths
}

/// Reads one path, or each path of a list, that starts at `at`; returns where it ends.
fn expand(
    code: &str,
    at: usize,
    prefix: &[String],
    paths: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let mut path = prefix.to_vec();
    let mut end = at;
    loop {
        let name: String = code[end..].chars().take_while(|c| is_word(*c)).collect();
        end += name.len();
        path.push(name);
        if !code[end..].starts_with("::") {
            break;
        }
        end += 2;
        if code[end..].starts_with('{') {
            end += 1;
            loop {
                end += code[end..].chars().take_while(|c| c.is_whitespace() || *c == ',').count();
                if code[end..].starts_with('}') || end >= code.len() {
                    return end + 1;
                }
                let next = expand(code, end, &path, paths);
                // Whatever else stands in a list (`self`, `as _`) is passed over.
                end = next.max(end + 1);
                end += code[end..].find([',', '}']).unwrap_or(0);
            }
        }
        if !code[end..].starts_with(is_word) {
            break;
        }
    }
    paths.push((line_of(code, at), path));
    end
}

/// From the names that `lib.rs` re-exports to the modules that they come from.
fn re_exports(lib: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for at in words(lib, "pub use").collect::<Vec<_>>() {
        let mut paths = Vec::new();
        expand(lib, at + "pub use ".len(), &[], &mut paths);
        for (_, path) in paths {
            names.insert(path[path.len() - 1].clone(), path[0].clone());
        }
    }
    names
}

/// The modules that a module at the top may name, besides itself.
fn may_import(module: &str, other: &str) -> bool {
    match module {
        "wire" => BOTTOM.contains(&other),
        "proto" => BOTTOM.contains(&other) || other == "wire",
        "view" => ["node", "role", "event"].contains(&other),
        "driver" | "sim" => BOTTOM.contains(&other) || ["wire", "proto", "view"].contains(&other),
        bottom if BOTTOM.contains(&bottom) => BOTTOM.contains(&other),
        _ => true,
    }
}

/// Rule: who may import whom.
fn imports(sources: &[Source]) -> Vec<Finding> {
    let lib = sources.iter().find(|source| source.path == "src/lib.rs");
    let re_exported = lib.map(|lib| re_exports(&lib.code)).unwrap_or_default();
    let mut findings = Vec::new();
    for source in sources.iter().filter(|it| it.path.starts_with("src/") && !it.is_tests()) {
        let module = source.module();
        if module == ["lib"] {
            continue;
        }
        for (line, path) in inner_paths(&source.code) {
            let Some(target) = resolve(&module, &path) else { continue };
            let top = re_exported.get(&target[0]).unwrap_or(&target[0]);
            if top != module[0] && !may_import(module[0], top) {
                findings.push(source.finding(line, &format!("{} imports {top}", module[0])));
            }
            let leaf = module[0] == "proto" && module.len() == 2 && module[1] != "route";
            let elsewhere = |it: &String| {
                !["timer", "sketch", "faces", "state", module[1]].contains(&it.as_str())
            };
            if leaf && target[0] == "proto" && target.get(1).is_some_and(elsewhere) {
                let what = format!("a leaf of proto imports {}", target[1..].join("::"));
                findings.push(source.finding(line, &what));
            }
        }
    }
    findings
}

/// A path of `crate` or `super` as one from the crate's root.
fn resolve(module: &[&str], path: &[String]) -> Option<Vec<String>> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    let mut root: Vec<String> = Vec::new();
    if ups > 0 {
        let own = module.len();
        root.extend(module.iter().take(own.checked_sub(ups)?).map(ToString::to_string));
    }
    let rest = path.iter().skip(ups.max(1));
    root.extend(rest.filter(|part| !part.is_empty()).cloned());
    (!root.is_empty()).then_some(root)
}

/// Rule: the state machine, the wire and the published maps know no clock, task, thread, unseeded
/// chance or unordered map.
fn purity(sources: &[Source]) -> Vec<Finding> {
    let inner = sources.iter().filter(|it| it.is_under(&["proto", "wire", "view", "sim"]));
    let inner = inner.filter(|it| !it.is_tests());
    inner.flat_map(|source| source.mentions(OUTSIDE, "not for this module")).collect()
}

/// Rule: unsafe code is in one file, crossbeam in one beside it, and every unsafe block says why it
/// is sound.
fn unsafety(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|it| it.path.starts_with("src/") && !it.is_tests()) {
        if source.path != CROSSBEAM_HOME {
            findings.extend(source.mentions(&["crossbeam"], "only in view/sync.rs"));
        }
        let lines: Vec<&str> = source.text.lines().collect();
        for at in words(&source.code, "unsafe") {
            let line = line_of(&source.code, at);
            if source.path != UNSAFE_HOME {
                findings.push(source.finding(line, "unsafe code is in view/epoch_map.rs only"));
            }
            let what = source.code[at + "unsafe".len()..].trim_start();
            let needs_reason = what.starts_with('{') || what.starts_with("impl");
            let above = lines[..line - 1].iter().rev();
            let mut comment = above.take_while(|line| line.trim_start().starts_with("//"));
            if needs_reason && !comment.any(|line| line.contains("// SAFETY:")) {
                findings.push(source.finding(line, "unsafe without a SAFETY comment above it"));
            }
        }
    }
    findings
}

/// Rule: functions, files and lines are short.
fn sizes(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        for (at, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > MAX_COLUMNS {
                findings.push(source.finding(at + 1, &format!("{columns} columns")));
            }
        }
        if !source.path.starts_with("src/") || source.is_tests() {
            continue;
        }
        let lines = source.code.trim_end().lines().count();
        if lines >= MAX_FILE_LINES {
            findings.push(source.finding(lines, &format!("{lines} lines in a file")));
        }
        for at in words(&source.code, "fn") {
            if !source.code[at + 2..].starts_with(' ') {
                continue;
            }
            let Some(end) = body_end(&source.code, at) else { continue };
            let lines = line_of(&source.code, end) - line_of(&source.code, at) + 1;
            if lines >= MAX_FUNCTION_LINES {
                let line = line_of(&source.code, at);
                findings.push(source.finding(line, &format!("{lines} lines in a function")));
            }
        }
    }
    findings
}

/// Rule: nothing is left to be done.
fn leftovers(sources: &[Source]) -> Vec<Finding> {
    // Taken apart, so that this file does not break its own rule.
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let macros = ["todo!", "unimplemented!", "dbg!"];
    let mut findings = Vec::new();
    for source in sources {
        for (at, line) in source.text.lines().enumerate() {
            if notes.iter().any(|note| words(line, note).next().is_some()) {
                findings.push(source.finding(at + 1, "a note of something to be done"));
            }
        }
        // In unit tests too: the blanked text still has them.
        for (at, line) in blanked(&source.text).lines().enumerate() {
            if macros.iter().any(|name| line.contains(name)) {
                findings.push(source.finding(at + 1, "a macro of unfinished work"));
            }
        }
    }
    findings
}

/// Rule: every relative link of a page leads to a file that exists, and to a heading in it.
fn links(pages: &[(String, String)], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in pages {
        for (at, line) in text.lines().enumerate() {
            let mut rest = line;
            while let Some((_, after)) = rest.split_once("](") {
                let target = after.split(')').next().unwrap_or_default();
                rest = after;
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let full = if file.is_empty() { path.clone() } else { beside(path, file) };
                let page = pages.iter().find(|(path, _)| *path == full);
                let heading = anchor.is_empty()
                    || page.is_some_and(|(_, text)| anchors(text).any(|it| it == anchor));
                if !(page.is_some() || exists(&full)) || !heading {
                    findings.push(Finding(format!("{path}:{}: no such link: {target}", at + 1)));
                }
            }
        }
    }
    findings
}

/// A path that a page names, from the root of the repository.
fn beside(page: &str, target: &str) -> String {
    let mut full: Vec<String> = Vec::new();
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => drop(full.pop()),
            Component::Normal(name) => full.push(name.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    full.join("/")
}

/// The anchors of a page's headings, as forges make them.
fn anchors(text: &str) -> impl Iterator<Item = String> + '_ {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| is_word(*c) || *c == ' ' || *c == '-');
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// All files below a folder of the repository with this ending.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("a readable folder").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let name = path.strip_prefix(root).expect("it is below the root");
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                found.push((name.to_string_lossy().replace('\\', "/"), text));
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let folders = ["src", "tests", "examples", "benches", "fuzz/fuzz_targets"];
    let found = folders.iter().flat_map(|folder| files(folder, ".rs"));
    found.map(|(path, text)| Source::new(&path, &text)).collect()
}

#[track_caller]
fn assert_clean(findings: &[Finding]) {
    let list: Vec<&str> = findings.iter().map(|finding| finding.0.as_str()).collect();
    assert!(list.is_empty(), "\n{}\n", list.join("\n"));
}

#[track_caller]
fn assert_bites(findings: &[Finding], expected: &[&str]) {
    let list: Vec<&str> = findings.iter().map(|finding| finding.0.as_str()).collect();
    assert_eq!(list, expected);
}

#[test]
fn modules_import_only_what_they_may() {
    assert_clean(&imports(&sources()));
}

#[test]
fn the_inner_modules_are_pure() {
    assert_clean(&purity(&sources()));
}

#[test]
fn unsafe_code_is_in_one_file_and_explained() {
    assert_clean(&unsafety(&sources()));
}

#[test]
fn functions_files_and_lines_are_short() {
    assert_clean(&sizes(&sources()));
}

#[test]
fn nothing_is_left_to_be_done() {
    assert_clean(&leftovers(&sources()));
}

#[test]
fn links_lead_somewhere() {
    let mut pages = files("docs", ".md");
    for page in ["README.md", "CHANGELOG.md"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(page);
        pages.push((page.into(), fs::read_to_string(path).expect("the page is there")));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_clean(&links(&pages, |path| root.join(path).exists()));
}

#[test]
fn the_sources_are_found() {
    let sources = sources();
    for path in ["src/lib.rs", "src/proto/route/send.rs", UNSAFE_HOME, "tests/tidy.rs"] {
        assert!(sources.iter().any(|source| source.path == path), "{path}");
    }
}

#[test]
fn import_rules_bite() {
    let lib = Source::new("src/lib.rs", "mod event;\npub use event::{Event, Sight};\n");
    let bad = [
        lib,
        Source::new("src/node.rs", "use crate::wire::Frame;\n"),
        Source::new("src/wire/frame.rs", "fn f() { crate::proto::run() }\n"),
        Source::new("src/view/mod.rs", "use crate::{config::Config, node::Node};\n"),
        Source::new("src/proto/pull.rs", "use super::timer::Timer;\nuse super::roles::X;\n"),
        Source::new("src/proto/fetch.rs", "use crate::proto::{pull, timer};\n"),
        Source::new("src/driver/hub.rs", "use crate::Event;\nuse crate::cluster::Cluster;\n"),
    ];
    assert_bites(
        &imports(&bad),
        &[
            "src/node.rs:1: node imports wire",
            "src/wire/frame.rs:1: wire imports proto",
            "src/view/mod.rs:1: view imports config",
            "src/proto/pull.rs:2: a leaf of proto imports roles::X",
            "src/proto/fetch.rs:1: a leaf of proto imports pull",
            "src/driver/hub.rs:2: driver imports cluster",
        ],
    );
    let good = [
        Source::new("src/proto/route/send.rs", "use super::super::members::Members;\n"),
        Source::new("src/proto/mod.rs", "use crate::wire::{ClusterId, Frame};\nuse self::pull;\n"),
        Source::new("src/wire/frame.rs", "// crate::proto\npub(super) fn f() {}\n"),
        Source::new("src/cluster.rs", "use crate::driver::Shared;\n"),
    ];
    assert_clean(&imports(&good));
}

#[test]
fn purity_rules_bite() {
    let bad = [
        Source::new("src/proto/x.rs", "use std::collections::HashMap;\nlet r = rand::rng();\n"),
        Source::new("src/view/x.rs", "let t = std::time::Instant::now();\n"),
        Source::new("src/wire/x.rs", "use tokio::net;\n"),
    ];
    assert_bites(
        &purity(&bad),
        &[
            "src/proto/x.rs:1: not for this module: HashMap",
            "src/proto/x.rs:2: not for this module: rand::rng(",
            "src/view/x.rs:1: not for this module: std::time::Instant",
            "src/wire/x.rs:1: not for this module: tokio",
        ],
    );
    let test = "#[cfg(test)]\nmod tests {\n    use std::thread;\n}\n// tokio\nlet s = \"tokio\";\n";
    let good = [
        Source::new("src/view/x.rs", test),
        Source::new("src/driver/x.rs", "use tokio::net;\n"),
        Source::new("src/view/x/tests.rs", "use std::thread;\n"),
    ];
    assert_clean(&purity(&good));
}

#[test]
fn unsafety_rules_bite() {
    let bad = [
        Source::new("src/node.rs", "// SAFETY: no.\nunsafe { f() }\n"),
        Source::new("src/view/mod.rs", "use crossbeam_epoch::Guard;\n"),
        Source::new(UNSAFE_HOME, "// Sound.\nlet x = unsafe { f() };\nunsafe fn g() {}\n"),
    ];
    assert_bites(
        &unsafety(&bad),
        &[
            "src/node.rs:2: unsafe code is in view/epoch_map.rs only",
            "src/view/mod.rs:1: only in view/sync.rs: crossbeam",
            "src/view/epoch_map.rs:2: unsafe without a SAFETY comment above it",
        ],
    );
    let good = "// SAFETY: it lives,\n// and is ours.\nlet x = unsafe { f() };\n";
    assert_clean(&unsafety(&[Source::new(UNSAFE_HOME, good)]));
}

#[test]
fn size_rules_bite() {
    let function = format!("fn f(a: [u8; 2]) {{\n{}}}\n", "    g();\n".repeat(68));
    let wide = format!("// {}\n", "x".repeat(98));
    let long = "const A: u8 = 0;\n".repeat(600);
    let bad = [
        Source::new("src/a.rs", &function),
        Source::new("tests/b.rs", &wide),
        Source::new("src/c.rs", &long),
    ];
    assert_bites(
        &sizes(&bad),
        &[
            "src/a.rs:1: 70 lines in a function",
            "tests/b.rs:1: 101 columns",
            "src/c.rs:600: 600 lines in a file",
        ],
    );
    let tested = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    g();\n".repeat(700));
    let good = [
        Source::new("src/a.rs", &function.replacen("    g();\n", "", 1)),
        Source::new("src/b.rs", &tested),
        Source::new("src/c/tests.rs", &long),
    ];
    assert_clean(&sizes(&good));
}

#[test]
fn leftover_rules_bite() {
    let note = format!("// {}: later\n", concat!("TO", "DO"));
    let bad = [Source::new("src/a.rs", &note), Source::new("tests/b.rs", "fn f() { todo!() }\n")];
    assert_bites(
        &leftovers(&bad),
        &["src/a.rs:1: a note of something to be done", "tests/b.rs:1: a macro of unfinished work"],
    );
}

#[test]
fn link_rules_bite() {
    let page = |path: &str, text: &str| (path.to_string(), text.to_string());
    let pages = [
        page("README.md", "# A title\n[x](docs/B.md#its-parts) [y](docs/C.md) [z](#a-title)\n"),
        page("docs/B.md", "## Its parts\n[x](../README.md#none) [y](https://example.org)\n"),
    ];
    assert_bites(
        &links(&pages, |_| false),
        &["README.md:2: no such link: docs/C.md", "docs/B.md:2: no such link: ../README.md#none"],
    );
}
