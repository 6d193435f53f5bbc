//! `--check-config`: what became of each line of a coturn file, and every key of our own with its meaning. Values are not
//! shown, since some are secrets.

use std::io::{self, Write};

use crate::config::{Config, KEYS};

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
    let peers = if config.core.policy.general { "everybody who is not denied" } else { "the media nodes" };
    writeln!(out)?;
    writeln!(out, "Listens on {} addresses, port {}; relays to {peers}.", config.listen.len(), config.port)?;
    writeln!(out, "The configuration is good.")
}
