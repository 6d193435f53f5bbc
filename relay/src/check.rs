//! `--check-config`: what became of each line of a coturn file, and every key of our own with its meaning. Values are not
//! shown, since some are secrets.

use std::io::{self, Write};

use crate::config::{Config, KEYS};

/// For whoever brings a coturn file, which does not say so.
pub(crate) const GENERAL: &str = "A coturn file means a general relay: who has a credential reaches every public address \
    that is not denied, and the other clients' relayed addresses. Limit it to the media nodes with --listed and \
    allowed-peer-ip=ADDRESS (or --peer, --peer-file, --registry), or close parts of it with denied-peer-ip=RANGE";

pub(crate) fn explain(config: &Config, out: &mut impl Write) -> io::Result<()> {
    if !config.notes.is_empty() {
        writeln!(out, "Lines of the coturn file:")?;
        for note in &config.notes {
            let remark = note.remark.as_deref().map_or_else(|| "done".to_owned(), |why| format!("ignored: {why}"));
            writeln!(out, "{:>5}  {:<34} {remark}", note.line, note.key)?;
        }
        writeln!(out)?;
    }
    writeln!(out, "Keys of the settings (file, RELAY_* in the environment):")?;
    for (key, meaning) in KEYS {
        writeln!(out, "       {key:<34} {meaning}")?;
    }
    let peers = match (config.core.policy.general, &config.registry) {
        (true, _) => "everybody who is not denied",
        (false, None) => "the media nodes that are named",
        (false, Some(_)) => "the media nodes that are named or that the registry knows",
    };
    writeln!(out)?;
    writeln!(out, "Listens on {} addresses, port {}; relays to {peers}.", config.listen.len(), config.port)?;
    if config.is_general_by_coturn() {
        writeln!(out, "WARNING: {GENERAL}.")?;
    }
    writeln!(out, "The configuration is good.")
}
