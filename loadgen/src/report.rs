//! What a reader gets of a finished run: a summary, JSON, HTML, and the comparison of two runs.

use std::path::{Path, PathBuf};

use crate::results::{RESULTS_VERSION, Results};

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("{} cannot be written: {source}", path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} does not hold the results of a run: {source}", path.display())]
    NoResults { path: PathBuf, source: serde_json::Error },
    #[error("{} was written by another version of loadgen (format {version}, this one has {RESULTS_VERSION})", path.display())]
    Version { path: PathBuf, version: u32 },
}

/// For a terminal, ends with a line break.
#[must_use]
pub fn summary(results: &Results) -> String {
    let Results { joins, media, .. } = results;
    format!(
        "connected {}, failed {}, sent {}, received {} ({:.0}/s), loss {:.3} %, delay p50 {:.2} ms, p99 {:.2} ms\n",
        joins.connected,
        joins.failed,
        media.sent,
        media.received,
        media.received_per_s,
        100.0 * media.loss_share,
        media.delay_ms.p50,
        media.delay_ms.p99,
    )
}

pub fn write_json(path: &Path, results: &Results) -> Result<(), ReportError> {
    let text = serde_json::to_string_pretty(results)
        .map_err(|source| ReportError::NoResults { path: path.to_owned(), source })?;
    write(path, &text)
}

pub fn read_json(path: &Path) -> Result<Results, ReportError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ReportError::Unreadable { path: path.to_owned(), source })?;
    let results: Results =
        serde_json::from_str(&text).map_err(|source| ReportError::NoResults { path: path.to_owned(), source })?;
    match results.version {
        RESULTS_VERSION => Ok(results),
        version => Err(ReportError::Version { path: path.to_owned(), version }),
    }
}

pub fn write_html(path: &Path, results: &Results) -> Result<(), ReportError> {
    let body = summary(results).replace('&', "&amp;").replace('<', "&lt;");
    write(path, &format!("<!doctype html><meta charset=\"utf-8\"><title>loadgen</title><pre>{body}</pre>\n"))
}

/// For a terminal, ends with a line break.
#[must_use]
pub fn compare(before: &Results, after: &Results) -> String {
    format!("before: {}after:  {}", summary(before), summary(after))
}

fn write(path: &Path, text: &str) -> Result<(), ReportError> {
    std::fs::write(path, text).map_err(|source| ReportError::Unwritable { path: path.to_owned(), source })
}
