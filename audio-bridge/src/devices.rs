//! `audio-bridge devices`: what the sound daemon has, and whether the bridge finds there what its settings name. Only looks.

use std::fmt;

use pulseaudio::protocol::{Command, ServerInfo, SinkInfo, SourceInfo};

use crate::config::DeviceSettings;
use crate::pulse::PulseFailure;
use crate::pulse::wire::Connection;

/// A device of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub description: String,
    pub channels: u8,
    pub rate_hz: u32,
    pub muted: bool,
}

/// What is there.
#[derive(Clone, Debug)]
pub struct Inventory {
    pub server: String,
    pub daemon: String,
    pub sinks: Vec<Device>,
    pub sources: Vec<Device>,
    pub default_sink: String,
    pub default_source: String,
    wanted: DeviceSettings,
}

pub async fn look(settings: &DeviceSettings) -> Result<Inventory, PulseFailure> {
    let mut connection = Connection::open(&settings.pulse).await?;
    let info: ServerInfo = connection.call(&Command::GetServerInfo).await?;
    let sinks: Vec<SinkInfo> = connection.call(&Command::GetSinkInfoList).await?;
    let sources: Vec<SourceInfo> = connection.call(&Command::GetSourceInfoList).await?;
    let text = |text: Option<&std::ffi::CStr>| text.unwrap_or_default().to_string_lossy().into_owned();
    let sinks = sinks.iter().map(|sink| Device {
        name: text(Some(&sink.name)),
        description: text(sink.description.as_deref()),
        channels: sink.sample_spec.channels,
        rate_hz: sink.sample_spec.sample_rate,
        muted: sink.muted,
    });
    let sources = sources.iter().map(|source| Device {
        name: text(Some(&source.name)),
        description: text(source.description.as_deref()),
        channels: source.sample_spec.channels,
        rate_hz: source.sample_spec.sample_rate,
        muted: source.muted,
    });
    Ok(Inventory {
        server: settings.pulse.server.to_string(),
        daemon: format!("{} {}", text(info.server_name.as_deref()), text(info.server_version.as_deref())),
        sinks: sinks.collect(),
        sources: sources.collect(),
        default_sink: text(info.default_sink_name.as_deref()),
        default_source: text(info.default_source_name.as_deref()),
        wanted: settings.clone(),
    })
}

impl Inventory {
    /// What would go wrong, in words; empty when nothing would.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let DeviceSettings { source, sink, microphone, .. } = &self.wanted;
        for (devices, kind, name, what) in [
            (&self.sources, "source", source, "the desktop's sound cannot be published"),
            (&self.sinks, "sink", sink, "the room's voices cannot be played"),
            (&self.sources, "source", microphone, "programs have no microphone to record from"),
        ] {
            match devices.iter().find(|device| device.name == *name) {
                None => complaints.push(format!("There is no {kind} {name}: {what}.")),
                Some(device) if device.muted => complaints.push(format!("The {kind} {name} is muted.")),
                Some(device) if device.rate_hz != crate::pcm::SAMPLE_RATE => complaints
                    .push(format!("The {kind} {name} runs at {} Hz: everything is converted twice.", device.rate_hz)),
                Some(_) => {}
            }
        }
        if self.default_sink == *sink {
            complaints.push(format!("The default sink is {sink}: whatever programs play is heard as microphone."));
        }
        if self.default_source == *source {
            complaints.push(format!("The default source is {source}: programs record the desktop, not the voices."));
        }
        complaints
    }

    fn role(&self, name: &str, of_sink: bool) -> &'static str {
        match of_sink {
            true if name == self.wanted.sink => "   <- voices are played here",
            false if name == self.wanted.source => "   <- is published",
            false if name == self.wanted.microphone => "   <- programs record this",
            true | false => "",
        }
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} at {}", self.daemon, self.server)?;
        for (title, devices, default, of_sink) in [
            ("Sinks, which programs play into", &self.sinks, &self.default_sink, true),
            ("Sources, which programs record from", &self.sources, &self.default_source, false),
        ] {
            writeln!(f, "{title}:")?;
            for device in devices {
                let Device { name, description, channels, rate_hz, .. } = device;
                let mark = if name == default { '*' } else { ' ' };
                let role = self.role(name, of_sink);
                writeln!(f, " {mark} {name:<24} {channels} ch, {rate_hz} Hz, {description}{role}")?;
            }
        }
        let complaints = self.complaints();
        if complaints.is_empty() {
            return writeln!(f, "Everything that the bridge needs is there. (* default)");
        }
        complaints.iter().try_for_each(|complaint| writeln!(f, "{complaint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pulse::{PulseSettings, ServerAddress};

    fn device(name: &str) -> Device {
        Device { name: name.to_owned(), description: String::new(), channels: 2, rate_hz: 48_000, muted: false }
    }

    fn inventory() -> Inventory {
        Inventory {
            server: "unix:/run/native".to_owned(),
            daemon: "pulseaudio 16.1".to_owned(),
            sinks: vec![device("desktop"), device("mic_in")],
            sources: vec![device("desktop.monitor"), device("mic")],
            default_sink: "desktop".to_owned(),
            default_source: "mic".to_owned(),
            wanted: DeviceSettings {
                pulse: PulseSettings { server: ServerAddress::of_this_user(None), cookie: "/cookie".into() },
                source: "desktop.monitor".to_owned(),
                sink: "mic_in".to_owned(),
                microphone: "mic".to_owned(),
            },
        }
    }

    #[test]
    fn a_carillon_desktop_has_no_complaints() {
        assert_eq!(inventory().complaints(), Vec::<String>::new());
        let text = inventory().to_string();
        assert!(text.contains("* desktop ") && text.contains("<- is published"), "{text}");
    }

    #[test]
    fn what_would_go_wrong_is_said() {
        let mut bad = inventory();
        bad.sinks.pop();
        bad.sources[0].muted = true;
        bad.sources[1].rate_hz = 44_100;
        bad.default_source = "desktop.monitor".to_owned();
        let text = bad.complaints().join("\n");
        for part in
            ["no sink mic_in", "desktop.monitor is muted", "mic runs at 44100 Hz", "default source is desktop"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
