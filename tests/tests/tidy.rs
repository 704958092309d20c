//! The house rules that a program can check: how long files are, that each says what it is for, who
//! may depend on whom, and words that promise later work.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use cairn_tests::binaries::checkout;

const PRODUCTION_LINES: usize = 500;
const PACKAGES: [&str; 5] = ["proto", "storage", "master", "fs-client", "tests"];

fn below(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() && !hidden && !path.ends_with("target") && !path.ends_with("mnt") {
            below(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    for package in PACKAGES {
        below(&checkout().join(package), "rs", &mut paths);
    }
    assert!(paths.len() > 50, "the sources are not where they were");
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

fn fail_if_any(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn files_stay_short_enough_to_be_read() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        if path.ends_with("tests.rs") {
            continue;
        }
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        if lines > PRODUCTION_LINES {
            long.push(format!("{}: {lines}", path.display()));
        }
    }
    fail_if_any("more than 500 lines before the tests", &long);
}

#[test]
fn every_file_says_what_it_is_for() {
    let missing = sources().into_iter().filter(|(path, text)| {
        let tests =
            path.components().any(|c| c.as_os_str() == "tests") && path.ends_with("tests.rs");
        !tests && !text.starts_with("//!")
    });
    let missing: Vec<_> = missing.map(|(path, _)| path.display().to_string()).collect();
    fail_if_any("no `//!` at the top", &missing);
}

#[test]
fn no_word_promises_later_work() {
    let banned = [
        "TO\x44O",
        "FIX\x4dE",
        "X\x58X:",
        "X\x58X ",
        "HA\x43K",
        "unimplemented\x21",
        "todo\x21",
        "for no\x77,",
    ];
    let mut all = sources();
    let mut others = Vec::new();
    for extension in ["sh", "py", "proto", "toml"] {
        below(checkout(), extension, &mut others);
    }
    all.extend(others.into_iter().map(|p| (p.clone(), fs::read_to_string(p).unwrap_or_default())));
    let mut found = Vec::new();
    for (path, text) in &all {
        for (number, line) in text.lines().enumerate() {
            if banned.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    fail_if_any("words that promise later work", &found);
}

#[test]
fn no_file_is_named_after_nothing() {
    const VAGUE: [&str; 7] = ["utils", "util", "common", "helpers", "helper", "manager", "types"];
    let vague = sources()
        .into_iter()
        .filter(|(path, _)| path.file_stem().is_some_and(|stem| VAGUE.iter().any(|v| stem == *v)));
    let vague: Vec<_> = vague.map(|(path, _)| path.display().to_string()).collect();
    fail_if_any("names that say nothing", &vague);
}

#[test]
fn the_processes_do_not_depend_on_each_other() {
    let allowed: [(&str, &[&str]); 5] = [
        ("proto", &[]),
        ("proto/codec", &["cairn-proto"]),
        // A node verifies, copies and deletes chunks without knowing how they are made.
        ("storage", &["cairn-daemon", "cairn-proto"]),
        ("master", &["cairn-codec", "cairn-daemon", "cairn-proto"]),
        ("fs-client", &["cairn-codec", "cairn-daemon", "cairn-proto"]),
    ];
    for (package, allowed) in allowed {
        let manifest = fs::read_to_string(checkout().join(package).join("Cargo.toml")).unwrap();
        let ours = manifest.lines().filter_map(|line| {
            let name = line.split(['.', ' ', '=']).next()?;
            name.starts_with("cairn-").then_some(name)
        });
        for dependency in ours {
            assert!(allowed.contains(&dependency), "{package} depends on {dependency}");
        }
    }
}

/// Compares a page with what the programs say; `CAIRN_UPDATE_DOCS=1` writes it instead.
fn check_page(name: &str, wanted: &str) {
    let path = checkout().join("docs").join(name);
    if std::env::var_os("CAIRN_UPDATE_DOCS").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    let is = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        is == wanted,
        "docs/{name} is not what the programs say: CAIRN_UPDATE_DOCS=1 cargo test -p cairn-tests --test tidy"
    );
}

fn daemons() -> [cairn_daemon::program::Program; 3] {
    [cairn_master::cli::program(), cairn_storage::cli::program(), cairn_client::cli::program()]
}

#[test]
fn the_page_about_configuration_is_what_the_programs_say() {
    check_page("configuration.md", &cairn_daemon::configuration_page::render(&daemons()));
}

#[test]
fn every_setting_of_a_daemon_has_a_variable() {
    for program in daemons() {
        for arg in program.settings() {
            let variable = arg.get_env().and_then(|name| name.to_str()).unwrap_or_default();
            assert!(variable.starts_with("CAIRN_"), "{}: {arg}", program.command().get_name());
        }
    }
}

#[test]
fn the_page_about_json_is_what_the_verbs_print() {
    check_page("json.md", &cairn_client::cli::schema::page());
}
