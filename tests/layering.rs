//! The shape of the workspace, as tests: who may depend on whom, which names are refused, how long a file may grow, where
//! `unsafe` and the two sealed-off libraries may be named. Each rule is a function over plain data, so that the lower
//! half of this file can prove on made-up trees that the rule does refuse what it should.
//!
//! Not here: what a tool checks already (format, clippy, licences).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Every arrow between our packages. Exact: an arrow that is gone must leave this list too. Arrows go down only.
const ARROWS: &[(&str, &str)] = &[
    ("audio-bridge", "admin"),
    ("audio-bridge", "signaling-protocol"),
    ("carillon", "admin"),
    ("carillon", "relay"),
    ("carillon", "sfu"),
    ("carillon", "signaling"),
    ("loadgen", "sfu-control"),
    ("loadgen", "signaling-protocol"),
    ("loadgen", "srtp"),
    ("loadgen", "stun"),
    ("loadgen", "udp"),
    ("relay", "admin"),
    ("relay", "relay-core"),
    ("relay", "stun"),
    ("relay", "udp"),
    ("relay-core", "stun"),
    ("sfu", "admin"),
    ("sfu", "sfu-control"),
    ("sfu", "sfu-core"),
    ("sfu", "udp"),
    ("sfu-core", "srtp"),
    ("sfu-core", "stun"),
    ("signaling", "admin"),
    ("signaling", "sfu-control"),
    ("signaling", "signaling-protocol"),
];

/// Arrows that only tests and benches need.
const TEST_ARROWS: &[(&str, &str)] = &[
    // A real node and real signalling in the same process.
    ("loadgen", "sfu"),
    ("loadgen", "signaling"),
    // With its client, which production does not need.
    ("signaling", "signaling-protocol"),
];

/// Packages that do no input or output of their own, and what would let them.
const CORES: &[&str] = &["relay-core", "sfu-core", "srtp", "stun"];
const IO_CRATES: &[&str] =
    &["tokio", "mio", "socket2", "axum", "hyper", "serde", "serde_json", "tracing", "log", "udp"];

const REFUSED_NAMES: &[&str] = &["common", "util", "utils", "shared", "helpers", "types", "misc"];

/// A production file, without its inline tests.
const FILE_LINES_MAX: usize = 500;
/// Longer files that were looked at and left, each with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// The only folder whose code may be `unsafe`: the system calls for batches of datagrams.
const UNSAFE_HOME: &str = "sfu/udp/";

/// The only production files that name the DTLS library, so that it can be replaced in one place: the node's, and that of
/// the load generator's clients.
const DTLS_HOMES: &[&str] = &["sfu/core/src/peer.rs", "loadgen/src/engine/dtls.rs"];
/// The only production folder that knows TURN; elsewhere a relay is an entry of `ice_servers` and nothing more.
const TURN_HOME: &str = "relay/";
/// What makes a `turn` in a name the protocol and not the turn of a loop.
const TURN_WORDS: &[&str] = &[
    "server",
    "servers",
    "client",
    "credential",
    "credentials",
    "secret",
    "allocation",
    "relay",
    "realm",
    "url",
    "urls",
];

#[test]
fn packages_depend_only_along_the_listed_arrows() {
    let metadata = metadata();
    let mut broken = compare_arrows(&arrows(&metadata, false), ARROWS);
    broken.extend(compare_arrows(&arrows(&metadata, true), TEST_ARROWS));
    assert_clean(&broken);
}

#[test]
fn cores_have_no_input_or_output() {
    let metadata = metadata();
    let direct = metadata.workspace_packages().into_iter().flat_map(|package| {
        let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        normal.map(|dependency| (package.name.to_string(), dependency.name.clone()))
    });
    assert_clean(&refused_core_dependencies(direct));
}

#[test]
fn every_package_opts_into_the_workspace_lints() {
    let manifests = metadata().workspace_packages().into_iter().map(|p| p.manifest_path.clone()).collect::<Vec<_>>();
    assert!(!manifests.is_empty());
    let without = manifests.iter().filter(|path| !opts_into_lints(&read(path.as_std_path())));
    assert_clean(&without.map(|path| format!("{path}: no `[lints] workspace = true`")).collect::<Vec<_>>());
}

#[test]
fn nothing_is_called_common_or_misc() {
    let packages = metadata().workspace_packages().into_iter().map(|p| p.name.to_string()).collect::<Vec<_>>();
    let mut broken = refused_names(packages.iter().map(String::as_str));
    broken.extend(tracked_files().iter().flat_map(|path| refused_names(path.split('/').map(stem))));
    assert_clean(&broken);
}

#[test]
fn production_files_stay_short() {
    assert_clean(&rust_sources().iter().filter_map(|(path, text)| too_long(path, text)).collect::<Vec<_>>());
}

#[test]
fn unsafe_code_lives_in_udp_only() {
    let sources = rust_sources();
    assert_clean(&named_outside(&sources, |path| path.starts_with(UNSAFE_HOME), |word| word == "unsafe"));
}

#[test]
fn one_file_names_the_dtls_library() {
    let sources = rust_sources();
    let at_home = |path: &str| DTLS_HOMES.contains(&path) || path.starts_with("sfu/core/tests/");
    assert!(sources.iter().any(|(path, _)| at_home(path)), "none of {DTLS_HOMES:?} is there");
    assert_clean(&named_outside(&sources, at_home, |word| word == "dimpl"));
}

#[test]
fn only_the_relay_knows_turn() {
    let sources = rust_sources();
    let at_home = |path: &str| path.starts_with(TURN_HOME) || path.starts_with("tests/");
    assert_clean(&named_outside(&sources, at_home, is_about_turn));
}

fn is_about_turn(identifier: &str) -> bool {
    let words = words_of(identifier).collect::<Vec<_>>();
    words.iter().any(|word| word == "turn") && words.iter().any(|word| TURN_WORDS.contains(&word.as_str()))
}

/// A dependency that nobody uses costs every build; one without a reason in ARCHITECTURE.md is not understood.
#[test]
fn every_shared_dependency_is_used_and_has_its_reason() {
    let metadata = metadata();
    let used = metadata.workspace_packages().into_iter().flat_map(|p| &p.dependencies);
    let used = used.map(|d| d.rename.clone().unwrap_or_else(|| d.name.clone())).collect::<BTreeSet<_>>();
    let ours = metadata.workspace_packages().into_iter().map(|p| p.name.to_string()).collect::<BTreeSet<_>>();
    let listed = listed_dependencies(&read(&root().join("Cargo.toml")));
    assert!(listed.len() > ours.len(), "found the list of dependencies");
    let page = read(&root().join("ARCHITECTURE.md"));
    let unused = listed.iter().filter(|name| !used.contains(*name)).map(|name| format!("{name}: nobody uses it"));
    let foreign = listed.iter().filter(|name| !ours.contains(*name));
    let silent = foreign.filter(|name| !page.contains(&format!("`{name}`")));
    let silent = silent.map(|name| format!("{name}: no line in ARCHITECTURE.md"));
    assert_clean(&unused.chain(silent).collect::<Vec<_>>());
}

/// The map must not name streets that are gone.
#[test]
fn the_map_names_what_exists() {
    let code = rust_sources().into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n");
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect::<BTreeSet<_>>();
    let page = read(&root().join("ARCHITECTURE.md"));
    let page = page.split("## Dependencies").next().unwrap_or_default();
    assert_clean(&unknown_names(page, |word| words.contains(word), |path| root().join(path).exists()));
}

// ---- the rules ----

fn compare_arrows(found: &BTreeSet<(String, String)>, allowed: &[(&str, &str)]) -> Vec<String> {
    let allowed = allowed.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<BTreeSet<_>>();
    let extra = found.difference(&allowed).map(|(from, to)| format!("{from} -> {to} is not an allowed arrow"));
    let gone = allowed.difference(found).map(|(from, to)| format!("{from} -> {to} is listed, but gone"));
    extra.chain(gone).collect()
}

fn refused_core_dependencies(direct: impl Iterator<Item = (String, String)>) -> Vec<String> {
    direct
        .filter(|(from, to)| CORES.contains(&from.as_str()) && IO_CRATES.contains(&to.as_str()))
        .map(|(from, to)| format!("{from} is a core and must not depend on {to}"))
        .collect()
}

fn opts_into_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.find(|line| !line.is_empty() && !line.starts_with('#')).is_some_and(|line| line == "workspace = true")
}

fn refused_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names
        .filter(|name| REFUSED_NAMES.contains(name))
        .map(|name| format!("`{name}` says nothing: name the thing"))
        .collect()
}

/// Types, functions and files in backquotes that are not there. Plain words, which are packages and modules, pass.
fn unknown_names(page: &str, is_word: impl Fn(&str) -> bool, is_file: impl Fn(&str) -> bool) -> Vec<String> {
    let quoted = page
        .lines()
        .filter(|line| !line.trim_start().starts_with("```"))
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let unknown = quoted.filter(|name| {
        if name.contains('/') && name.ends_with(".rs") {
            return !is_file(name);
        }
        let last = name.rsplit("::").next().unwrap_or(name);
        let is_symbol = last.chars().all(|c| c.is_alphanumeric() || c == '_');
        is_symbol && (name.contains("::") || last.starts_with(char::is_uppercase)) && !is_word(last)
    });
    unknown.map(|name| format!("`{name}` does not exist")).collect()
}

fn too_long(path: &str, text: &str) -> Option<String> {
    let for_tests = path.split('/').any(|part| matches!(part, "tests" | "benches" | "examples" | "fuzz"));
    let listed = LONG_FILES.iter().any(|(file, _)| *file == path);
    let lines = production_lines(text);
    (!for_tests && !listed && lines > FILE_LINES_MAX)
        .then(|| format!("{path}: {lines} lines, at most {FILE_LINES_MAX}"))
}

/// Lines above the inline test module.
fn production_lines(text: &str) -> usize {
    let lines = text.lines().collect::<Vec<_>>();
    let tests = lines.windows(2).position(|pair| {
        pair[0].starts_with("#[cfg(test)]") && pair[1].trim_start_matches("#[").contains("mod ")
            || pair[0] == "mod tests {"
    });
    tests.unwrap_or(lines.len())
}

/// Where the code (not comments, not strings) uses a word that `is_sealed` outside the place that `at_home` allows.
fn named_outside(
    sources: &[(String, String)],
    at_home: impl Fn(&str) -> bool,
    is_sealed: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources.iter().filter(|(path, _)| !at_home(path)) {
        for (number, line) in code_of(text).lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if let Some(word) = words.find(|word| is_sealed(word)) {
                found.push(format!("{path}:{}: `{word}` does not belong here", number + 1));
            }
        }
    }
    found
}

/// `TurnServer`, `turn_server` and `TURN_SERVER` are all `turn`, `server`; `return` is one word of its own.
fn words_of(identifier: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut previous_lower = false;
    for c in identifier.chars() {
        if c == '_' || (c.is_uppercase() && previous_lower) {
            words.push(String::new());
        }
        if let (true, Some(word)) = (c != '_', words.last_mut()) {
            word.extend(c.to_lowercase());
        }
        previous_lower = c.is_lowercase();
    }
    words.into_iter()
}

/// The source with comments and the insides of strings blanked out, line numbers kept.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if first == '"' {
            string_len(rest)
        } else if let Some(len) = raw_string_len(rest, code.chars().next_back()) {
            len
        } else if first == '\'' {
            char_len(rest)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#` and the `b`/`c` forms of them; `None` when no raw string starts here.
fn raw_string_len(text: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let body = text.strip_prefix(['b', 'c']).unwrap_or(text).strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inner = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - inner.len();
    Some(inner.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

/// A character literal; a lifetime is only its quote.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => {
            text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 3)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

// ---- reading the tree ----

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is a folder of the workspace").to_owned()
}

fn metadata() -> Metadata {
    // Not `cargo tree`: it prints a repeated package without its children, and a test over that passes for nothing.
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().expect("cargo metadata")
}

fn arrows(metadata: &Metadata, for_tests: bool) -> BTreeSet<(String, String)> {
    let packages = metadata.workspace_packages();
    let ours = packages.iter().map(|p| p.name.to_string()).collect::<BTreeSet<_>>();
    let all = packages.iter().flat_map(|p| p.dependencies.iter().map(move |d| (p, d)));
    all.filter(|(_, d)| ours.contains(&d.name) && (d.kind == DependencyKind::Development) == for_tests)
        .map(|(p, d)| (p.name.to_string(), d.name.clone()))
        .collect()
}

fn listed_dependencies(manifest: &str) -> Vec<String> {
    let section = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once(" = ").map(|(name, _)| name.to_owned())).collect()
}

/// Every file that belongs to the project: what git tracks or would track, so that build output is not looked at.
fn tracked_files() -> Vec<String> {
    let mut git = std::process::Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = git.output().ok().filter(|output| output.status.success());
    let files = match listed {
        Some(output) => String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(),
        // An archive without git: walk the folders instead.
        None => walk(&root()),
    };
    let there = files.into_iter().filter(|path| root().join(path).is_file()).collect::<Vec<_>>();
    assert!(there.iter().any(|path| path == "tests/layering.rs"), "this file is part of the tree");
    there
}

fn walk(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let visible = entries.filter(|entry| {
        let name = entry.file_name();
        !matches!(name.to_str(), Some("target" | "node_modules" | "dist" | ".git"))
    });
    let found = visible
        .flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![relative(&entry.path())] });
    found.collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

fn rust_sources() -> Vec<(String, String)> {
    let paths = tracked_files().into_iter().filter(|path| Path::new(path).extension().is_some_and(|e| e == "rs"));
    paths.map(|path| (path.clone(), read(&root().join(path)))).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn stem(name: &str) -> &str {
    name.split_once('.').map_or(name, |(stem, _)| stem)
}

#[track_caller]
fn assert_clean(broken: &[String]) {
    assert!(broken.is_empty(), "\n  {}\n", broken.join("\n  "));
}

// ---- the rules refuse what they should ----

fn pairs(list: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn sources(path: &str, text: &str) -> Vec<(String, String)> {
    vec![(path.to_owned(), text.to_owned())]
}

#[test]
fn an_arrow_upwards_and_a_stale_arrow_are_refused() {
    let broken = compare_arrows(&pairs(&[("srtp", "sfu"), ("sfu", "udp")]), &[("sfu", "udp"), ("sfu", "gone")]);
    assert_eq!(broken, ["srtp -> sfu is not an allowed arrow", "sfu -> gone is listed, but gone"]);
    assert!(compare_arrows(&pairs(&[("sfu", "udp")]), &[("sfu", "udp")]).is_empty());
}

#[test]
fn a_socket_crate_in_a_core_is_refused() {
    let direct = pairs(&[("sfu-core", "tokio"), ("sfu-core", "slab"), ("sfu", "tokio")]);
    assert_eq!(refused_core_dependencies(direct.into_iter()), ["sfu-core is a core and must not depend on tokio"]);
}

#[test]
fn a_manifest_without_the_lints_is_refused() {
    assert!(opts_into_lints("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"));
    assert!(!opts_into_lints("[package]\nname = \"a\"\n"));
    assert!(!opts_into_lints("[lints]\nworkspace = false\n"));
    assert!(!opts_into_lints("[lints.rust]\nunsafe_code = \"allow\"\n[dependencies]\nworkspace = true\n"));
}

#[test]
fn junk_drawer_names_are_refused_as_folder_and_as_file() {
    assert_eq!(refused_names("sfu/common/src/lib.rs".split('/').map(stem)).len(), 1);
    assert_eq!(refused_names("sfu/src/utils.rs".split('/').map(stem)).len(), 1);
    assert!(refused_names("sfu/src/utility_room.rs".split('/').map(stem)).is_empty());
}

#[test]
fn a_long_file_is_refused_but_not_for_its_inline_tests() {
    let lines = "fn a() {}\n".repeat(FILE_LINES_MAX);
    let tests = format!("{lines}#[cfg(test)]\nmod tests {{\n{lines}}}\n");
    assert_eq!(too_long("sfu/src/a.rs", &tests), None);
    assert!(too_long("sfu/src/a.rs", &format!("{lines}\n")).is_some_and(|said| said.contains("501 lines")));
    assert_eq!(too_long("sfu/core/tests/a.rs", &format!("{lines}\n")), None);
}

#[test]
fn sealed_words_are_found_in_code_and_not_in_prose() {
    let prose =
        "// unsafe\n/* unsafe /* unsafe */ */ let a = \"unsafe \\\" unsafe\"; let b = r#\"unsafe \" unsafe\"#;\n";
    let found = |text: &str| named_outside(&sources("sfu/src/a.rs", text), |_| false, |word| word == "unsafe");
    assert!(found(prose).is_empty(), "{:?}", found(prose));
    let code = format!("{prose}fn f<'a>(c: &'a str) {{ let q = '\"'; let z = '\\''; unsafe {{ }} }}\n");
    assert_eq!(found(&code), ["sfu/src/a.rs:3: `unsafe` does not belong here"]);
    assert!(
        named_outside(&sources("sfu/udp/src/a.rs", &code), |p| p.starts_with(UNSAFE_HOME), |w| w == "unsafe")
            .is_empty()
    );
}

#[test]
fn a_name_that_is_gone_is_found_in_the_map() {
    let page = "`Node` and `Gone`, `Node::handle`, `Node::lost`, `sfu`, `a/b.rs`, `a/c.rs`, `x --flag`\n";
    let found = unknown_names(page, |word| ["Node", "handle"].contains(&word), |path| path == "a/b.rs");
    assert_eq!(found.join(" "), "`Gone` does not exist `Node::lost` does not exist `a/c.rs` does not exist");
}

#[test]
fn a_turn_is_told_from_a_return() {
    assert!(["TurnServer", "TURN_URLS", "my_turn_client", "turnSecret"].into_iter().all(is_about_turn));
    assert!(!["return", "return_url", "ORDERS_A_TURN", "turned_client", "turn"].into_iter().any(is_about_turn));
}

#[test]
fn the_list_of_dependencies_is_read_from_its_section_only() {
    let manifest = "[workspace.package]\nlicense = \"x\"\n[workspace.dependencies]\n# media\naes = \"1\"\nsfu-core = { path = \"p\" }\n[x]\ny = 1\n";
    assert_eq!(listed_dependencies(manifest), ["aes", "sfu-core"]);
}
