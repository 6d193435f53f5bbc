//! The credential broker: hands short-lived TURN credentials to callers that it knows, in each of the forms that clients
//! ask for. It shares secrets with relays (ours or coturn) and nothing else: it speaks with them only to see whether they
//! answer, and it keeps no list of what it handed out.
//!
//! From the inside out: [`mint`] makes a credential, [`envelope`] writes it down, [`access`] and [`limits`] say who may
//! have one, `desk` puts these together for one request, `routes` is HTTP around the desk, `process` the rest.

pub mod access;
mod args;
mod config;
mod desk;
pub mod envelope;
mod health;
pub mod limits;
pub mod literal;
mod metrics;
pub mod mint;
mod origins;
mod process;
mod routes;
pub mod turn_url;

pub use args::Args;
pub use config::{Config, ConfigError};
pub use process::{Broker, RunError, run};
