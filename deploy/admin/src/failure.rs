//! An error in words for the person who has to do something about it: in one line with its causes, and, where a port
//! cannot be opened, with what to try.

use std::error::Error;
use std::io::{self, ErrorKind};

/// An error and its causes in one line. A cause that the text before it tells already is not said twice.
#[must_use]
pub fn in_full(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// What to do when a port cannot be opened. `port` and `address` are the keys that set the two; often it is one key.
#[must_use]
pub fn port_remedy(error: &io::Error, port: &str, address: &str) -> String {
    let setting = |key: &str| format!("--{} (key {key})", key.replace('_', "-"));
    let kind = error.kind();
    if kind == ErrorKind::AddrInUse {
        format!("end the program that has it or choose another by {}", setting(port))
    } else if kind == ErrorKind::AddrNotAvailable {
        format!("choose an address of this machine by {}", setting(address))
    } else if kind == ErrorKind::PermissionDenied {
        format!("choose a port above 1023 by {}, or grant CAP_NET_BIND_SERVICE", setting(port))
    } else {
        format!("see {}", setting(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Told {
        #[error("link is lost")]
        Apart(#[source] io::Error),
        #[error("file x cannot be read: {0}; give another")]
        Inside(#[source] io::Error),
        #[error("no call: {0}")]
        Twice(#[source] Box<Self>),
    }

    #[test]
    fn each_cause_is_said_once() {
        let absent = || io::Error::from_raw_os_error(2);
        let why = absent().to_string();
        assert_eq!(in_full(&Told::Apart(absent())), format!("link is lost: {why}"));
        assert_eq!(in_full(&Told::Inside(absent())), format!("file x cannot be read: {why}; give another"));
        let nested = Told::Twice(Box::new(Told::Inside(absent())));
        assert_eq!(in_full(&nested).matches("os error 2").count(), 1);
        assert_eq!(in_full(&Told::Twice(Box::new(Told::Apart(absent())))), format!("no call: link is lost: {why}"));
    }

    #[test]
    fn a_port_in_use_and_a_foreign_address_name_the_setting_that_helps() {
        let remedy = |kind: ErrorKind| port_remedy(&kind.into(), "tls_port", "listen");
        assert!(remedy(ErrorKind::AddrInUse).ends_with("--tls-port (key tls_port)"));
        assert!(remedy(ErrorKind::AddrNotAvailable).ends_with("--listen (key listen)"));
        assert!(remedy(ErrorKind::PermissionDenied).contains("CAP_NET_BIND_SERVICE"));
        assert!(remedy(ErrorKind::OutOfMemory).contains("--tls-port"));
    }
}
