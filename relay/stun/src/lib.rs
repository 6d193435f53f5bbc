//! STUN messages (RFC 8489) with the attributes of ICE (RFC 8445) and TURN (RFC 8656): a checked view over received
//! bytes and a writer into a caller's buffer.
//!
//! It is not an agent: there are no sockets, no clock, no retransmission and no transaction table here, and nothing
//! allocates. Who may do what, and which attributes a request must carry, is decided by the callers (the media
//! node's ICE-lite responder, the relay, the load generator).
//!
//! Security rules that the view holds for every caller:
//! - what follows MESSAGE-INTEGRITY is never returned, since nothing vouches for it (RFC 8489 section 14.5);
//! - a FINGERPRINT that is present is right, or there is no view;
//! - of attributes that occur twice the first one counts (RFC 8489 section 14).

mod attribute;
mod header;
mod integrity;
mod reader;
mod writer;

pub use attribute::{AttributeType, ErrorCode};
pub use header::{Class, HEADER_BYTES, MAGIC_COOKIE, Method, TransactionId};
pub use integrity::{IntegrityError, IntegrityKey};
pub use reader::{Attribute, Attributes, Message, ParseError};
pub use writer::{UNKNOWN_ATTRIBUTES_MAX, WriteError, Writer};
