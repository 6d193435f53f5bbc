//! What a person sees: one line a step with the time it took, plain text, nothing that a closed pipe could break.

use std::io::Write as _;
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Terminal {
    began: Instant,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self { began: Instant::now() }
    }

    /// A step is done. `detail` is what a reader may want to know about it.
    pub(super) fn done(&self, step: &str, detail: &str) {
        write_line(&format!("  {:>5.1} s  {step:<22} {detail}", self.began.elapsed().as_secs_f32()));
    }

    /// Something happened that is not a step.
    pub(super) fn say(&self, text: &str) {
        write_line(&format!("  {:>5.1} s  {text}", self.began.elapsed().as_secs_f32()));
    }

    pub(super) fn block(&self, text: &str) {
        write_line(text);
    }
}

/// Whoever read the output may be gone; the calls go on.
pub(super) fn write_line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
