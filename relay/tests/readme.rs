//! What the README says is shown exists: tests by their function, rows of the suites by their words.

use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let is_source =
            path.extension().is_some_and(|kind| kind == "rs" || kind == "mjs") || path.ends_with("relay/run");
        match path.is_dir() {
            true if !path.ends_with("node_modules") && !path.ends_with("target") => sources(&path, found),
            false if is_source => found.push_str(&std::fs::read_to_string(&path).expect("text")),
            _ => {}
        }
    }
}

/// What stands between pairs of the mark.
fn marked(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

#[test]
fn every_test_and_row_that_is_named_exists() {
    let relay = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = relay.parent().expect("the workspace");
    let mut code = String::new();
    for folder in ["relay", "signaling/src", "signaling/tests", "tests/relay", "tests/relay-browser"] {
        sources(&root.join(folder), &mut code);
    }
    let page = std::fs::read_to_string(relay.join("README.md")).expect("text");
    let (_, table) = page.split_once("| demand | shown by |").expect("a table");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let tests = marked(table, '`').filter(|name| !name.contains(['/', ' '])).collect::<Vec<_>>();
    let rows = marked(table, '"').collect::<Vec<_>>();
    assert!(tests.len() > 60 && rows.len() > 15, "{} tests, {} rows", tests.len(), rows.len());
    let missing = tests
        .iter()
        .filter(|name| !code.contains(&format!("fn {name}(")))
        .chain(rows.iter().filter(|row| !code.contains(**row)));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&&str>::new());
}
