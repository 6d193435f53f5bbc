//! Carillon's signalling process: who is in which room, which media node serves it, and the page. It never touches
//! media: sound goes on when this process dies, and a new one takes the rooms over from the nodes.
//!
//! Pure parts: [`rooms`] (state machine), [`sdp`] (offers and answers), [`tokens`] and [`resume`] (credentials), [`names`].
//! Around them: [`hub`] carries effects out, [`session`] is one client, [`nodes`] are the media nodes, [`ice`] asks for
//! relays, [`web`] the routes, [`listen`] the ports.

pub mod announce;
pub mod codes;
pub mod config;
pub mod hub;
pub mod ice;
pub mod listen;
pub mod metrics;
pub mod names;
pub mod nodes;
pub mod resume;
pub mod rooms;
pub mod sdp;
mod server;
pub mod session;
pub mod tls;
pub mod tokens;
pub mod web;

pub use config::{Args, Config, ConfigError};
pub use server::{RunError, Server, run};
