//! The command line. Every flag is optional and named like its key in the settings file and the environment
//! (`--secret-file`, `secret_file`, `BROKER_SECRET_FILE`); keys that are rarely set have no flag. Flags with secrets in them
//! say that others can read them.

use std::net::SocketAddr;
use std::path::PathBuf;

use admin::Secret;
use admin::logs::LogFormat;
use serde::Serialize;

/// Hands out short-lived TURN credentials to authenticated callers.
#[derive(Debug, Default, clap::Parser, Serialize)]
#[command(name = "credential-broker", version)]
pub struct Args {
    /// Settings file (TOML). Environment variables (BROKER_HTTP ...) win over it, flags over both
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address of the HTTP port [default: 127.0.0.1:7300]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http: Option<SocketAddr>,
    /// Metrics, liveness and readiness [default: 127.0.0.1:7301]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin: Option<SocketAddr>,
    /// A relay: its turn: and turns: URLs, and ready=URL, stun=HOST:PORT or check=none; may repeat
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub relay: Vec<String>,
    /// URL of a STUN server to hand out; may repeat
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub stun: Vec<String>,
    /// Secret shared with the relays, the newest first. Others can read it in the process list: prefer the file or
    /// BROKER_SECRET
    #[arg(long, value_name = "SECRET", value_delimiter = ',')]
    #[serde(serialize_with = "expose_list")]
    pub secret: Vec<Secret>,
    /// File with the secrets shared with the relays, one a line, the newest first
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// API key of a caller as id:key; several with commas. Others can read it in the process list: prefer the file or
    /// BROKER_API_KEY
    #[arg(long, value_name = "ID:KEY", value_delimiter = ',')]
    #[serde(serialize_with = "expose_list")]
    pub api_key: Vec<Secret>,
    /// File with one id:key a line
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Key of signalling's access tokens as kid:secret (HS256); several with commas. Others can read it in the process
    /// list: prefer the file or BROKER_TOKEN_KEYS
    #[arg(long, value_name = "KID:SECRET", value_delimiter = ',')]
    #[serde(serialize_with = "expose_list")]
    pub token_keys: Vec<Secret>,
    /// File with one kid:secret a line
    #[arg(long, value_name = "FILE")]
    pub token_keys_file: Option<PathBuf>,
    /// Settings file of abcdesktop (od.config), of which webrtc.coturn and webrtc.rtc_configuration are read
    #[arg(long, value_name = "FILE")]
    pub abcdesktop_config: Option<PathBuf>,
    /// Origin of a page that may ask, as https://host or https://host:port; several with commas
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<String>,
    /// For a developer's machine: placeholder secrets and short API keys are accepted
    #[arg(long)]
    pub dev: bool,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log: Option<LogFormat>,
    /// What to log, for example info,relay=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
}

fn expose_list<S: serde::Serializer>(secrets: &[Secret], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(Secret::expose))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_with_secrets_in_them_say_who_can_read_them() {
        let command = Args::command();
        let with_secrets = command.get_arguments().filter(|argument| {
            let names = argument.get_value_names().into_iter().flatten().map(|name| name.to_string());
            names.into_iter().any(|name| name.contains("SECRET") || name.contains("KEY"))
        });
        let named = with_secrets.map(|argument| {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let variable = format!("BROKER_{}", argument.get_id().as_str().to_uppercase());
            assert!(help.contains("in the process list") && help.contains(&variable), "{help}");
            argument.get_id().to_string()
        });
        assert_eq!(named.collect::<Vec<_>>(), ["secret", "api_key", "token_keys"]);
    }
}
