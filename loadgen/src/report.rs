//! What a reader gets of a finished run: a verdict, a summary, JSON, HTML, and the comparison of two runs. Everything is
//! made of [`Results`] alone, and only this file touches the disk.

mod compare;
#[cfg(test)]
mod fixtures;
mod html;
pub(crate) mod number;
mod plot;
mod summary;
mod verdict;

use std::path::{Path, PathBuf};

use crate::results::{RESULTS_VERSION, Results};

pub use compare::{Comparison, compare};
pub use summary::summary;
pub use verdict::{Line, judge};

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
    write(path, &html::page(results))
}

fn write(path: &Path, text: &str) -> Result<(), ReportError> {
    std::fs::write(path, text).map_err(|source| ReportError::Unwritable { path: path.to_owned(), source })
}
