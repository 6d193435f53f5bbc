//! From text to a [`Scenario`], with errors that name the place: file, line, key, and the nearest key that exists.

use std::path::{Path, PathBuf};

use super::Scenario;

/// A longer file is a wrong path.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("scenario {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("scenario {} is longer than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("scenario {} line {line}: {message}", path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
    #[error(
        "scenario {} line {line}, key {key}: unknown key{}",
        path.display(),
        nearest.as_deref().map(|n| format!(", did you mean {n}?")).unwrap_or_default()
    )]
    UnknownKey { path: PathBuf, line: usize, key: String, nearest: Option<String> },
    #[error("scenario {} line {line}, key {key}: {message}", path.display())]
    BadValue { path: PathBuf, line: usize, key: String, message: String },
    /// Not from a file: the flags made it.
    #[error("{key} must be {allowed}")]
    OutOfRange { key: String, allowed: String },
}

impl Scenario {
    /// The text of a scenario file.
    pub fn read(path: &Path) -> Result<String, ScenarioError> {
        let unreadable = |source| ScenarioError::Unreadable { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(ScenarioError::TooLong { path: path.to_owned() });
        }
        std::fs::read_to_string(path).map_err(unreadable)
    }

    /// `path` is for messages only. Values out of range are found by [`Scenario::checked`], since flags may still replace
    /// them.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ScenarioError> {
        toml::from_str(text).map_err(|error| located(path, text, &error))
    }

    /// The scenario, when all its values are in their ranges. `file` is the file that it came from, and its text.
    pub fn checked(self, file: Option<(&Path, &str)>) -> Result<Self, ScenarioError> {
        let Some(found) = self.out_of_range() else { return Ok(self) };
        let key = found.key.join(".");
        let line = file.and_then(|(path, text)| Some((path, line_of_key(text, found.key)?)));
        Err(match line {
            Some((path, line)) => ScenarioError::BadValue {
                path: path.to_owned(),
                line,
                key,
                message: format!("must be {}", found.allowed),
            },
            None => ScenarioError::OutOfRange { key, allowed: found.allowed },
        })
    }
}

fn located(path: &Path, text: &str, error: &toml::de::Error) -> ScenarioError {
    let path = path.to_owned();
    let span = error.span().unwrap_or_default();
    let line = line_at(text, span.start);
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    if let Some((key, candidates)) = unknown_field(&message) {
        let nearest = nearest(key, &candidates);
        return ScenarioError::UnknownKey { path, line, key: key.to_owned(), nearest };
    }
    match key_on_line(text, line) {
        Some(key) if text.parse::<toml::Table>().is_ok() => ScenarioError::BadValue { path, line, key, message },
        _ => ScenarioError::Syntax { path, line, message },
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn key_on_line(text: &str, line: usize) -> Option<String> {
    let (key, _) = text.lines().nth(line.checked_sub(1)?)?.split_once('=')?;
    Some(key.trim().to_owned())
}

/// serde says: unknown field `a`, expected one of `b`, `c`.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

fn nearest(key: &str, candidates: &[&str]) -> Option<String> {
    let normal = key.replace('-', "_");
    let distances = candidates.iter().map(|candidate| (strsim::damerau_levenshtein(&normal, candidate), *candidate));
    let close = distances.filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3).min();
    close.map(|(_, candidate)| candidate.to_owned())
}

/// Where the file sets a key; it does not when the default is what is wrong.
fn line_of_key(text: &str, key: &[&str]) -> Option<usize> {
    let table = toml::de::DeTable::parse(text).ok()?;
    let mut table = table.get_ref();
    let (last, parents) = key.split_last()?;
    for parent in parents {
        let toml::de::DeValue::Table(inner) = table.get(*parent)?.get_ref() else { return None };
        table = inner;
    }
    let value = table.get(*last)?;
    Some(line_at(text, value.span().start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let path = Path::new("x.toml");
        let parsed = Scenario::parse(path, text).and_then(|scenario| scenario.checked(Some((path, text))));
        parsed.expect_err("refused").to_string()
    }

    #[test]
    fn an_unknown_key_is_refused_with_line_and_nearest_key() {
        let text = "[rooms]\ncount = 1\nlisteners = 3\npublisher = 2\n";
        assert_eq!(refusal(text), "scenario x.toml line 4, key publisher: unknown key, did you mean publishers?");
        assert_eq!(
            refusal("[room]\ncount = 1\n"),
            "scenario x.toml line 1, key room: unknown key, did you mean rooms?"
        );
        assert_eq!(refusal("[rooms]\nzzzzzzzzzz = 1\n"), "scenario x.toml line 2, key zzzzzzzzzz: unknown key");
        assert!(refusal("[run]\nwarmup-s = 1\n").ends_with("did you mean warmup_s?"));
    }

    #[test]
    fn a_wrong_value_is_refused_with_line_key_and_what_is_expected() {
        let kind = refusal("[rooms]\ncount = \"many\"\n");
        assert!(kind.starts_with("scenario x.toml line 2, key count: ") && kind.contains("u32"), "{kind}");
        let name = refusal("[talk]\n\npattern = \"al\"\n");
        assert!(name.starts_with("scenario x.toml line 3, key pattern: ") && name.contains("`all`"), "{name}");
        let range = refusal("[target]\nurl = \"ws://127.0.0.1:1\"\n[loss]\nsend = 1.5\n");
        assert_eq!(range, "scenario x.toml line 4, key loss.send: must be 0 to 1");
    }

    #[test]
    fn a_missing_address_names_its_key() {
        assert_eq!(refusal("[rooms]\ncount = 1\n"), "target.url must be a ws:// or wss:// address");
    }

    #[test]
    fn a_syntax_error_names_the_line() {
        let error = refusal("[rooms]\ncount = \n");
        assert!(error.starts_with("scenario x.toml line 2: "), "{error}");
    }

    #[test]
    fn every_error_names_a_line_of_the_file() {
        proptest::proptest!(|(lines in proptest::collection::vec("[\\[\\]a-z_=\" 0-9.]{0,20}", 0..8))| {
            let text = lines.join("\n");
            if let Err(error) = Scenario::parse(Path::new("x.toml"), &text) {
                let shown = error.to_string();
                let line = shown.split("line ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
                let line: usize = line.unwrap_or_default().parse().expect("a line number");
                proptest::prop_assert!(line >= 1 && line <= lines.len().max(1), "{}", shown);
            }
        });
    }
}
