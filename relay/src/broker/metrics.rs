//! The broker's series. Labels have few values, all known beforehand.
//!
//! | series | labels | meaning |
//! | --- | --- | --- |
//! | `broker_credentials_total` | `form` | credentials minted, by the form of the answer |
//! | `broker_refusals_total` | `reason` | requests refused: `credential`, `address_rate`, `caller_rate`, `failure_rate`, `request`, `no_relay` |
//! | `broker_relays` | `state` | relays that are `good` or `bad` |
//! | `broker_reloads_total` | `result` | reloads of the settings, `ok` or `failed` |

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Label = [(&'static str, &'static str); 1];

#[derive(Clone, Debug, Default)]
pub(crate) struct Meters {
    credentials: Family<Label, Counter>,
    refusals: Family<Label, Counter>,
    relays: Family<Label, Gauge>,
    reloads: Family<Label, Counter>,
}

impl Meters {
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("broker");
        registry.register("credentials", "Credentials minted", self.credentials.clone());
        registry.register("refusals", "Requests refused", self.refusals.clone());
        registry.register("relays", "Relays by their health", self.relays.clone());
        registry.register("reloads", "Reloads of the settings", self.reloads.clone());
        registry
    }

    pub(crate) fn minted(&self, form: &'static str) {
        self.credentials.get_or_create(&[("form", form)]).inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&[("result", result)]).inc();
    }

    pub(crate) fn relays(&self, good: usize, bad: usize) {
        for (state, count) in [("good", good), ("bad", bad)] {
            self.relays.get_or_create(&[("state", state)]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
