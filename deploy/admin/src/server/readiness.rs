//! Whether the process can do its work now, part by part, with the reason where it cannot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Cheap to clone; all clones see the same state.
#[derive(Clone, Debug)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

#[derive(Serialize)]
struct Report {
    ready: bool,
    reasons: Vec<Reason>,
}

#[derive(Serialize)]
struct Reason {
    part: &'static str,
    reason: String,
}

impl Readiness {
    /// Every part starts as not ready.
    #[must_use]
    pub fn new(parts: &[&'static str]) -> Self {
        let starting = parts.iter().map(|part| (*part, Some("starting".to_owned()))).collect();
        Self { parts: Arc::new(Mutex::new(starting)) }
    }

    pub fn ready(&self, part: &'static str) {
        self.set(part, None);
    }

    pub fn not_ready(&self, part: &'static str, reason: impl Into<String>) {
        self.set(part, Some(reason.into()));
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    fn set(&self, part: &'static str, reason: Option<String>) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part, reason);
    }

    fn report(&self) -> Report {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons: Vec<_> =
            parts.iter().filter_map(|(part, reason)| Some(Reason { part, reason: reason.clone()? })).collect();
        Report { ready: reasons.is_empty(), reasons }
    }

    pub(super) fn response(&self) -> Response {
        let report = self.report();
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(report)).into_response()
    }
}
