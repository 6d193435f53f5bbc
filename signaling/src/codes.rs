//! Every error that a client can see: a stable code for programs, a message for people and a hint what to do. The table
//! in `signaling/protocol/README.md` lists the same codes; a test compares the two.

use signaling_protocol::ProtocolError;

macro_rules! codes {
    ($($variant:ident $text:literal $hint:literal)*) => {
        /// Stable names of the errors.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($variant),* }

        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// What the reader of the error can do.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint),* }
            }
        }
    };
}

codes! {
    // Connecting
    OriginForbidden "origin_forbidden" "open the page from this server, or add the page's origin to allow_origin"
    RoomName "room_name" "use 1 to 64 of the characters A-Z a-z 0-9 _ -"
    HelloExpected "hello_expected" "send hello as the first message, within 5 s"
    HelloCredential "hello_credential" "send exactly one of token and resume"
    ProtocolVersion "protocol_version" "use protocol 1 or leave the field out"
    // Tokens
    TokenMissing "token_missing" "open a link that has a token in it, or ask for one"
    TokenMalformed "token_malformed" "copy the whole token; it has three parts with dots between them"
    TokenClaims "token_claims" "sign a token with a sub of 1 to 128 characters and the other claims in their form"
    TokenAlgorithm "token_algorithm" "sign the token with HS256"
    TokenKeyUnknown "token_key_unknown" "put the id of one of the configured token keys into the token's kid"
    TokenSignature "token_signature" "sign the token with the secret that the server has under this kid"
    TokenNoExpiry "token_no_expiry" "put an exp claim into the token"
    TokenExpired "token_expired" "ask for a new token"
    TokenNotYetValid "token_not_yet_valid" "check the clocks of this server and of the issuer of the token"
    TokenWrongRoom "token_wrong_room" "use a token for this room"
    TokenRole "token_role" "use one of the roles listener, speaker, publisher, moderator"
    // Resuming
    ResumeInvalid "resume_invalid" "say hello with a token"
    ResumeExpired "resume_expired" "say hello with a token"
    // Requests
    BadJson "bad_json" "send one JSON object as the protocol describes it"
    UnknownType "unknown_type" "check the spelling of type, or the server's version"
    TextOnly "text_only" "send text frames"
    MessageTooLarge "message_too_large" "send less; limits.message_bytes_max of welcome says how much is allowed"
    RateLimited "rate_limited" "slow down"
    Busy "busy" "wait for the answer to the offer before"
    AlreadyJoined "already_joined" "say hello once for each connection"
    RoleForbids "role_forbids" "use a token with a role that allows this"
    NoSuchPeer "no_such_peer" "take the peer id from the roster"
    NoSuchTrack "no_such_track" "offer the track first"
    SignalTooLarge "signal_too_large" "keep the data of a signal under 16 KiB of JSON"
    NameTooLong "name_too_long" "use a name of at most 64 characters"
    RoomFull "room_full" "use another room or try again later"
    ServerFull "server_full" "try again later"
    // Offers
    SdpTooLarge "sdp_too_large" "offer fewer m-lines"
    SdpMalformed "sdp_malformed" "send the SDP of createOffer() as it is"
    SdpNoAudio "sdp_no_audio" "offer at least one audio m-line over UDP/TLS/RTP/SAVPF that sends or receives"
    SdpNoOpus "sdp_no_opus" "offer opus/48000/2"
    SdpNoIce "sdp_no_ice" "offer ice-ufrag and ice-pwd of a full ICE agent"
    SdpNoFingerprint "sdp_no_fingerprint" "offer a certificate fingerprint with sha-256"
    SdpNoRtcpMux "sdp_no_rtcp_mux" "offer rtcp-mux"
    SdpTooManyMedia "sdp_too_many_media" "offer at most 64 m-lines"
    SdpProfileMismatch "sdp_profile_mismatch" "give Opus the same payload type on each m-line"
    SdpSetup "sdp_setup" "offer setup actpass, active or passive"
    MediaUse "media_use" "let the media list name m-lines of the offer, each track once, with a use that fits the direction"
    // Media nodes
    NoNode "no_node" "try again; if it stays, check that a media node runs and announces itself"
    NodeUnreachable "node_unreachable" "try again"
    MediaRefused "media_refused" "try again later, with fewer slots or in another room"
}

impl Code {
    /// The error with this code.
    #[must_use]
    pub fn error(self, message: impl Into<String>) -> ProtocolError {
        ProtocolError {
            code: self.as_str().to_owned(),
            message: message.into(),
            hint: self.hint().to_owned(),
            retry_after_ms: None,
        }
    }

    #[must_use]
    pub fn error_retry(self, message: impl Into<String>, retry_after_ms: u64) -> ProtocolError {
        ProtocolError { retry_after_ms: Some(retry_after_ms), ..self.error(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn readme_of_the_protocol_lists_exactly_these_codes() {
        let readme = include_str!("../protocol/README.md");
        let table = readme.split("## Errors").nth(1).expect("README has the section Errors");
        let listed: Vec<_> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `").and_then(|rest| rest.split_once('`')).map(|(code, _)| code))
            .collect();
        let mut expected: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        let mut found = listed.clone();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}
