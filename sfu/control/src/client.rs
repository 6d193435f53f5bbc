//! Typed client of the control link.
