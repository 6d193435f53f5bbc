//! audio-bridge
