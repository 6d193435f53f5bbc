//! Who may speak into the desktop, and how loud: the setting, the roster as signalling tells it, and what follows for the
//! playout, which knows people by the CSRC of their packets only. May be changed while the bridge runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use signaling_protocol::{Member, Role};

use crate::playout::{Admitted, Playout};

/// Larger rooms than any node holds.
const MEMBERS_MAX: usize = 4096;
/// People with a gain of their own.
const GAINS_MAX: usize = 256;
const GAIN_MAX: f32 = 4.0;

/// `all`, `none`, `role:speaker,moderator` or `identity:alice,bob`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MaySpeak {
    #[default]
    All,
    None,
    Roles(Vec<Role>),
    Identities(Vec<String>),
}

/// Gains by identity: `alice=0.5,bob=2`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Gains(BTreeMap<String, f32>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpeakersError {
    #[error("may_speak is all, none, role:NAME,.. or identity:NAME,.., not {0:?}")]
    MaySpeak(String),
    #[error("there is no role {0:?}; roles are listener, speaker, publisher and moderator")]
    Role(String),
    #[error("a gain is IDENTITY=NUMBER with a number from 0 to 4, not {0:?}")]
    Gain(String),
    #[error("there are gains for more than {GAINS_MAX} people")]
    TooMany,
}

#[derive(Debug)]
pub struct Speakers {
    state: Mutex<State>,
    playout: Arc<Mutex<Playout>>,
}

#[derive(Debug)]
struct State {
    may_speak: MaySpeak,
    gains: Gains,
    roster: BTreeMap<String, Member>,
}

impl Speakers {
    #[must_use]
    pub fn new(may_speak: MaySpeak, gains: Gains, playout: Arc<Mutex<Playout>>) -> Self {
        let speakers = Self { state: Mutex::new(State { may_speak, gains, roster: BTreeMap::new() }), playout };
        speakers.change(|_| {});
        speakers
    }

    /// What the desktop's owner wants now.
    #[must_use]
    pub fn rules(&self) -> (MaySpeak, Gains) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.may_speak.clone(), state.gains.clone())
    }

    pub fn set(&self, may_speak: Option<MaySpeak>, gains: Option<Gains>) {
        self.change(|state| {
            state.may_speak = may_speak.unwrap_or(std::mem::take(&mut state.may_speak));
            state.gains = gains.unwrap_or(std::mem::take(&mut state.gains));
        });
    }

    pub fn welcomed(&self, roster: Vec<Member>) {
        self.change(|state| {
            let members = roster.into_iter().take(MEMBERS_MAX);
            state.roster = members.map(|member| (member.peer.clone(), member)).collect();
        });
    }

    /// Somebody came, or something about somebody changed.
    pub fn joined(&self, member: Member) {
        self.change(|state| {
            if state.roster.len() < MEMBERS_MAX || state.roster.contains_key(&member.peer) {
                state.roster.insert(member.peer.clone(), member);
            }
        });
    }

    pub fn left(&self, peer: &str) {
        self.change(|state| {
            state.roster.remove(peer);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let (admitted, gains) = state.consequences();
        drop(state);
        self.playout.lock().unwrap_or_else(PoisonError::into_inner).admit(admitted, gains);
    }
}

impl State {
    fn consequences(&self) -> (Admitted, BTreeMap<u32, f32>) {
        let sources = |member: &Member| member.tracks.iter().map(|track| track.csrc).collect::<Vec<_>>();
        let only = |may: &dyn Fn(&Member) -> bool| {
            Admitted::Only(self.roster.values().filter(|member| may(member)).flat_map(sources).collect())
        };
        let admitted = match &self.may_speak {
            MaySpeak::All => Admitted::All,
            MaySpeak::None => only(&|_| false),
            MaySpeak::Roles(roles) => only(&|member| roles.contains(&member.role)),
            MaySpeak::Identities(names) => only(&|member| names.contains(&member.identity)),
        };
        let gains = self.roster.values().filter_map(|member| {
            let gain = *self.gains.0.get(&member.identity)?;
            Some(sources(member).into_iter().map(move |source| (source, gain)))
        });
        (admitted, gains.flatten().collect())
    }
}

impl std::str::FromStr for MaySpeak {
    type Err = SpeakersError;

    fn from_str(text: &str) -> Result<Self, SpeakersError> {
        let names = |list: &str| -> Result<Vec<String>, SpeakersError> {
            let names: Vec<String> =
                list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
            if names.is_empty() { Err(SpeakersError::MaySpeak(text.to_owned())) } else { Ok(names) }
        };
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            None if text == "none" => Ok(Self::None),
            Some(("role", list)) => {
                Ok(Self::Roles(names(list)?.iter().map(|name| role(name)).collect::<Result<_, _>>()?))
            }
            Some(("identity", list)) => Ok(Self::Identities(names(list)?)),
            None | Some(_) => Err(SpeakersError::MaySpeak(text.to_owned())),
        }
    }
}

fn role(name: &str) -> Result<Role, SpeakersError> {
    ROLES
        .iter()
        .find(|(word, _)| *word == name)
        .map(|(_, role)| *role)
        .ok_or_else(|| SpeakersError::Role(name.to_owned()))
}

const ROLES: [(&str, Role); 4] = [
    ("listener", Role::Listener),
    ("speaker", Role::Speaker),
    ("publisher", Role::Publisher),
    ("moderator", Role::Moderator),
];

impl std::str::FromStr for Gains {
    type Err = SpeakersError;

    fn from_str(text: &str) -> Result<Self, SpeakersError> {
        let mut gains = BTreeMap::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let refused = || SpeakersError::Gain(entry.to_owned());
            let (identity, gain) = entry.rsplit_once('=').ok_or_else(refused)?;
            let gain: f32 = gain.parse().map_err(|_| refused())?;
            if identity.is_empty() || !(0.0..=GAIN_MAX).contains(&gain) {
                return Err(refused());
            }
            gains.insert(identity.to_owned(), gain);
        }
        if gains.len() > GAINS_MAX { Err(SpeakersError::TooMany) } else { Ok(Self(gains)) }
    }
}

impl TryFrom<String> for MaySpeak {
    type Error = SpeakersError;

    fn try_from(text: String) -> Result<Self, SpeakersError> {
        text.parse()
    }
}

impl From<MaySpeak> for String {
    fn from(may_speak: MaySpeak) -> Self {
        match may_speak {
            MaySpeak::All => "all".to_owned(),
            MaySpeak::None => "none".to_owned(),
            MaySpeak::Identities(names) => format!("identity:{}", names.join(",")),
            MaySpeak::Roles(roles) => {
                let word = |role: &Role| ROLES.iter().find(|(_, known)| known == role).map_or("", |(word, _)| *word);
                format!("role:{}", roles.iter().map(word).collect::<Vec<_>>().join(","))
            }
        }
    }
}

impl TryFrom<String> for Gains {
    type Error = SpeakersError;

    fn try_from(text: String) -> Result<Self, SpeakersError> {
        text.parse()
    }
}

impl From<Gains> for String {
    fn from(gains: Gains) -> Self {
        gains.0.iter().map(|(identity, gain)| format!("{identity}={gain}")).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signaling_protocol::{Track, TrackKind};

    fn member(identity: &str, role: Role, csrc: u32) -> Member {
        Member {
            peer: format!("p-{identity}"),
            identity: identity.to_owned(),
            name: identity.to_owned(),
            role,
            connected: true,
            away: false,
            tracks: vec![Track { kind: TrackKind::Mic, csrc, muted: false, live: true }],
        }
    }

    fn consequences(may_speak: &str, gains: &str) -> (Admitted, BTreeMap<u32, f32>) {
        let people = [member("alice", Role::Speaker, 11), member("bob", Role::Moderator, 22)];
        let roster = people.into_iter().map(|member| (member.peer.clone(), member)).collect();
        let [may_speak, gains] = [may_speak, gains].map(str::to_owned);
        let state = State {
            may_speak: may_speak.try_into().expect("a rule"),
            gains: gains.try_into().expect("gains"),
            roster,
        };
        state.consequences()
    }

    #[test]
    fn the_setting_names_everybody_nobody_roles_or_people() {
        assert_eq!(consequences("all", "").0, Admitted::All);
        assert_eq!(consequences("none", "").0, Admitted::Only([].into()));
        assert_eq!(consequences("role:moderator", "").0, Admitted::Only([22].into()));
        assert_eq!(consequences("role:speaker, moderator", "").0, Admitted::Only([11, 22].into()));
        assert_eq!(consequences("identity:alice,carol", "").0, Admitted::Only([11].into()));
        assert_eq!(consequences("all", "alice=0.5, nobody=2").1, [(11, 0.5)].into());
    }

    #[test]
    fn mistakes_are_named() {
        for text in ["", "some", "role:", "identity: ,", "peer:x"] {
            assert_eq!(text.parse::<MaySpeak>(), Err(SpeakersError::MaySpeak(text.to_owned())));
        }
        assert_eq!("role:king".parse::<MaySpeak>(), Err(SpeakersError::Role("king".to_owned())));
        for text in ["alice", "=1", "alice=loud", "alice=-1", "alice=5", "alice=NaN"] {
            assert_eq!(text.parse::<Gains>(), Err(SpeakersError::Gain(text.to_owned())));
        }
    }

    #[test]
    fn what_is_read_is_written_again() {
        for text in ["all", "none", "role:speaker,moderator", "identity:alice,bob"] {
            assert_eq!(String::from(text.parse::<MaySpeak>().expect("a rule")), text);
        }
        assert_eq!(String::from("b=2,a=0.5".parse::<Gains>().expect("gains")), "a=0.5,b=2");
    }

    #[test]
    fn a_newcomer_may_speak_as_soon_as_the_roster_says_who_it_is() {
        let playout = Arc::new(Mutex::new(Playout::default()));
        let speakers =
            Speakers::new(MaySpeak::Identities(vec!["alice".to_owned()]), Gains::default(), Arc::clone(&playout));
        let admits = |csrc| playout.lock().expect("not poisoned").admits(Some(csrc));
        assert!(!admits(11));
        speakers.joined(member("alice", Role::Speaker, 11));
        speakers.joined(member("bob", Role::Speaker, 22));
        assert!(admits(11) && !admits(22));
        speakers.left("p-alice");
        assert!(!admits(11));
        speakers.set(Some(MaySpeak::All), None);
        assert!(admits(22) && admits(33));
        speakers.welcomed(Vec::new());
        assert_eq!(speakers.rules().0, MaySpeak::All);
    }
}
