//! sfu-core

mod command;
mod event;
mod ids;

pub use command::*;
pub use event::*;
pub use ids::*;
