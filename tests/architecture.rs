//! Who may use whom: read from the `use` lines of src, so that nothing has to be built or run for it.
//!
//! A module may use those of lower floors; nothing uses a file that uses it, however far around.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of src, the lowest floor first. Those of one floor do not use each other.
const FLOORS: &[&[&str]] = &[
    &[
        "limits",
        "exit",
        "secret",
        "cidr",
        "network",
        "descriptors",
        "ports",
        "layout",
        "files",
        "bucket",
        "json",
        "clock",
        "plural",
        "prometheus",
    ],
    &["wire", "failure"],
    &["throttle", "fairness", "config", "mapping", "supervisor"],
    &["logging", "crash", "store"],
    &["net"],
    &["relay", "agent"],
    &["control"],
    &["daemon"],
    &["cli"],
];

/// Modules by their path (`net::link::reading`), and what each file says but for its tests.
fn modules() -> BTreeMap<String, String> {
    let mut found = all_files();
    found.values_mut().for_each(|text| *text = without_tests(text));
    found.retain(|name, _| !["main", "lib", "testing", "fuzzing"].contains(&name.split("::").next().unwrap_or("")));
    found.retain(|name, _| !name.ends_with("::tests") && !name.ends_with("::fake"));
    found
}

/// Every file of src by its module's path.
fn all_files() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be listed") {
            let path = entry.expect("an entry of src").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.insert(name(path.strip_prefix(&src).expect("a file of src")), text);
            }
        }
    }
    found
}

fn name(path: &Path) -> String {
    let parts: Vec<_> = path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.join("::").trim_end_matches("::mod").to_owned()
}

fn without_tests(text: &str) -> String {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

/// The paths of all `use` declarations, groups taken apart, from the crate's root.
fn uses(module: &str, text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for declaration in text.split("\nuse ").skip(1) {
        let declaration: String = declaration.split(';').next().unwrap_or_default().split_whitespace().collect();
        take_apart("", &declaration, &mut paths);
    }
    paths.into_iter().filter_map(|path| absolute(module, &path)).collect()
}

fn take_apart(prefix: &str, declaration: &str, paths: &mut Vec<String>) {
    let Some(open) = declaration.find('{') else { return paths.push(format!("{prefix}{declaration}")) };
    let (head, rest) = declaration.split_at(open);
    let inner = rest[1..].strip_suffix('}').unwrap_or(&rest[1..]);
    let (mut depth, mut from) = (0, 0);
    for (at, letter) in inner.char_indices().chain([(inner.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                take_apart(&format!("{prefix}{head}"), &inner[from..at], paths);
                from = at + 1;
            }
            _ => {}
        }
    }
}

fn absolute(module: &str, path: &str) -> Option<String> {
    if let Some(rest) = path.strip_prefix("crate::") {
        return Some(rest.to_owned());
    }
    let mut here: Vec<&str> = module.split("::").collect();
    let mut rest = path;
    while let Some(shorter) = rest.strip_prefix("super::") {
        here.pop();
        rest = shorter;
    }
    (rest.len() < path.len()).then(|| here.into_iter().chain([rest]).collect::<Vec<_>>().join("::"))
}

/// The file that a path names something of.
fn file_of(path: &str, modules: &BTreeMap<String, String>) -> Option<String> {
    let parts: Vec<&str> = path.split("::").collect();
    (1..=parts.len()).rev().map(|count| parts[..count].join("::")).find(|name| modules.contains_key(name))
}

fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules();
    let of = |(name, text): (&String, &String)| {
        let used = uses(name, text).into_iter().filter_map(|path| file_of(&path, &modules));
        (name.clone(), used.filter(|other| other != name).collect())
    };
    modules.iter().map(of).collect()
}

#[test]
fn every_module_stands_on_a_floor_and_uses_only_lower_ones() {
    let floor = |module: &str| FLOORS.iter().position(|floor| floor.contains(&module));
    let top = |name: &str| name.split("::").next().unwrap_or_default().to_owned();
    let mut wrong = Vec::new();
    for (name, used) in edges() {
        let own = floor(&top(&name)).unwrap_or_else(|| panic!("src/{name}: give it a floor in {}", file!()));
        for other in used.iter().filter(|other| top(other) != top(&name)) {
            if floor(&top(other)).is_none_or(|theirs| theirs >= own) {
                wrong.push(format!("{name} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "these use a module that is not on a lower floor: {wrong:#?}");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut edges = edges();
    // A type whose methods stand in several files: they use it, and it is put together where they are declared.
    for (name, used) in &mut edges {
        used.retain(|other| !name.starts_with(&format!("{other}::")));
    }
    // What uses nothing that is left cannot be in a circle.
    while let Some(leaf) = edges.iter().find(|(_, used)| used.is_empty()).map(|(name, _)| name.clone()) {
        edges.remove(&leaf);
        for used in edges.values_mut() {
            used.remove(&leaf);
        }
    }
    assert!(edges.is_empty(), "a circle is among these: {edges:#?}");
}

#[test]
fn a_file_is_read_as_the_compiler_reads_it() {
    let text = "\nuse super::{a::{B, c::D}, E};\nuse crate::f::G;\nuse std::io;\n";
    assert_eq!(uses("x::y", text), ["x::a::B", "x::a::c::D", "x::E", "f::G"]);
    assert_eq!(name(&PathBuf::from("net/link/reading.rs")), "net::link::reading");
}

/// The standard library's time of day ends in 2038 on 32-bit machines (src/clock.rs).
#[test]
fn the_time_of_day_comes_from_one_place() {
    for (name, text) in modules() {
        for call in
            ["SystemTime::now()", "now_utc()", "now_local()", "UnixTime::now()", "Config::builder_with_provider"]
        {
            assert!(name == "clock" || !text.contains(call), "{name} uses {call} instead of clock");
        }
    }
}

/// `unsafe` blocks by module: each around one system call that no crate offers.
const UNSAFE: &[(&str, usize)] = &[("cli::identity", 1), ("clock", 1), ("net::tcp", 2)];

#[test]
fn unsafe_code_is_where_it_is_expected_and_says_why_it_is_sound() {
    let word = concat!("un", "safe");
    let mut found = Vec::new();
    for (name, text) in all_files() {
        let lines: Vec<&str> = text.lines().collect();
        let code = |line: &str| !line.trim_start().starts_with("//");
        let mut count = 0;
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| code(line)) {
            if !line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|part| part == word) {
                continue;
            }
            count += 1;
            // The comment may have several lines.
            let above = lines[..at].iter().rev().take_while(|line| !code(line));
            assert!(above.clone().any(|line| line.contains("// SAFETY: ")), "{name}, line {}: no SAFETY", at + 1);
        }
        if count > 0 {
            found.push((name, count));
        }
    }
    let found: Vec<(&str, usize)> = found.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(found, UNSAFE);
}
