//! Rules that a compiler does not enforce: who may depend on whom, what every file says first,
//! how large a file may grow. The table of rooms is ARCHITECTURE.md's.

#![allow(
    clippy::unwrap_used,
    reason = "a failure here is a failure of the check"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crate, and the workspace crates it may depend on (not counting tests).
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("kvatlas-protocol", &[]),
    ("kvatlas-controller", &["kvatlas-protocol"]),
    ("kvatlas-worker", &["kvatlas-protocol"]),
    ("kvatlas-bench", &["kvatlas-protocol", "kvatlas-worker"]),
    (
        "kvatlas-server",
        &[
            "kvatlas-protocol",
            "kvatlas-controller",
            "kvatlas-worker",
            "kvatlas-bench",
        ],
    ),
    ("kvatlas-guard", &["kvatlas-protocol", "kvatlas-controller"]),
    ("kvatlas-house", &[]),
];

/// Crates that a room must not reach for, whatever the version.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "kvatlas-protocol",
        &["tokio", "zmq", "axum", "tracing", "log", "parking_lot"],
    ),
    (
        "kvatlas-controller",
        &[
            "tokio",
            "zmq",
            "axum",
            "tracing",
            "log",
            "uuid",
            "rand",
            "prometheus-client",
            "serde",
            "serde_json",
        ],
    ),
    ("kvatlas-worker", &["axum", "prometheus-client"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// `(crate, its direct non-dev dependencies)` of every workspace member.
fn members() -> Vec<(String, BTreeSet<String>)> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|d| d["kind"] != "dev")
                .map(|d| d["name"].as_str().unwrap().to_owned())
                .collect();
            (package["name"].as_str().unwrap().to_owned(), dependencies)
        })
        .collect()
}

/// Rust files of the workspace, build output left out.
fn rust_files() -> Vec<PathBuf> {
    source_files("rs")
}

/// Files of the workspace that end in `extension`, build output left out.
fn source_files(extension: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, extension: &str, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    walk(&path, extension, files);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    for dir in ["crates", "tools", "tests"] {
        walk(&root().join(dir), extension, &mut files);
    }
    assert!(files.len() > 10, "the walk found too little: {files:?}");
    files
}

#[test]
fn crates_depend_only_in_the_allowed_direction() {
    let members = members();
    let names: BTreeSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    let listed: BTreeSet<&str> = DIRECTIONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, listed, "every member needs its line in DIRECTIONS");
    for (name, dependencies) in &members {
        let (_, allowed) = DIRECTIONS.iter().find(|(n, _)| n == name).unwrap();
        for dependency in dependencies.iter().filter(|d| names.contains(d.as_str())) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn rooms_keep_out_of_what_is_not_theirs() {
    for (name, dependencies) in members() {
        for (_, forbidden) in FORBIDDEN.iter().filter(|(n, _)| *n == name) {
            for dependency in *forbidden {
                assert!(
                    !dependencies.contains(*dependency),
                    "{name} must not use {dependency}"
                );
            }
        }
    }
}

#[test]
fn every_source_file_says_what_lives_there() {
    let silent: Vec<_> = rust_files()
        .into_iter()
        .filter(|path| {
            !std::fs::read_to_string(path)
                .unwrap()
                .trim_start()
                .starts_with("//!")
        })
        .collect();
    assert!(
        silent.is_empty(),
        "files without a `//!` header: {silent:#?}"
    );
}

#[test]
fn no_source_file_outgrows_its_room() {
    let large: Vec<_> = rust_files()
        .into_iter()
        .filter_map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
            let lines = text[..tests].lines().count();
            (lines > 800 && !path.to_string_lossy().contains("/tests/")).then_some((lines, path))
        })
        .collect();
    assert!(
        large.is_empty(),
        "more than 800 lines without tests: {large:#?}"
    );
}

#[test]
fn every_difference_is_shown_by_a_test() {
    let names: BTreeSet<String> = ["rs", "py"]
        .into_iter()
        .flat_map(source_files)
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let names = text.lines().filter_map(|line| {
                let line = line.trim_start();
                let line = line.strip_prefix("async ").unwrap_or(line);
                let rest = line.strip_prefix("fn ").or(line.strip_prefix("def "))?;
                Some(rest.split_once('(')?.0.to_owned())
            });
            names.collect::<Vec<_>>()
        })
        .collect();
    let text = std::fs::read_to_string(root().join("COMPAT.md")).unwrap();
    let mut numbers = BTreeSet::new();
    for row in text.lines().filter(|line| line.starts_with("| D")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "number, upstream, ours, why, test: {row}");
        assert!(numbers.insert(cells[0]), "{} stands for two", cells[0]);
        let test = cells[4].trim_matches('`');
        assert!(names.contains(test), "{} names no test: {test:?}", cells[0]);
    }
    assert!(numbers.len() > 50, "too few rows read: {numbers:?}");
}
