//! Synthetic participants for Carillon and for servers like it: they join, send and hear, count every packet, and give a
//! verdict. The engine is [`engine`], what it talks to is behind [`targets`], what it finds is [`results`].
//!
//! It is not a conformance test (the bulk clients are ours and share packages with our node; the realistic slice, the
//! browsers and the foreign stacks in the tests are for that), and it does not decode sound.

pub mod cli;
pub mod engine;
pub mod report;
pub mod results;
pub mod scenario;
pub mod sdp;
pub mod targets;
pub mod view;
