//! The contract between a Carillon process and the person or system that runs it: settings, logs, the admin port
//! (`/metrics`, `/livez`, `/readyz`), the end by signal, errors in words, and secrets that do not print. It knows nothing of media,
//! rooms or users; every process of the project looks the same from outside because of it.

pub mod failure;
pub mod logs;
mod secret;
pub mod server;
pub mod settings;
pub mod shutdown;

pub use secret::{Secret, SecretError};
pub use server::Readiness;
