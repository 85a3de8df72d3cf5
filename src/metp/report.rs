//! Bodies of one chunk and lines of listings: capabilities, limits, rules and settings. State, metrics and accounts are in
//! [`state::report`](crate::state::report).

use std::time::SystemTime;

use super::UNSENT_LIMIT;
use crate::proto::limits::{InForce, LimitKey, Limits};
use crate::proto::rules::Rule;
use crate::proto::users_file::ALL_ACCOUNTS;
use crate::state::control::RulesVerdict;
use crate::state::events::SUBSCRIBERS;
use crate::state::knobs::Knob;
use crate::state::report::{NAME, VERSION};
use crate::state::settings::TrustSettings;
use crate::state::users::{UserId, Users};
use crate::state::{ProcessWide, Shared};
use metp_protocol::network::Network;
use metp_protocol::timestamp::Timestamp;
use metp_protocol::{
    Capabilities, Event, Field, LINE_LIMIT, LONGEST_NAME, LONGEST_PASSWORD, LimitsLine,
    MetricsEvent, PROTOCOL, REPLY_LIMIT, RuleLine, SettingLine, Topic, TrustLine, VerdictLine,
    ended, verbs,
};

/// `CAPA`
pub fn capabilities() -> String {
    let capabilities = Capabilities {
        implementation: Field::new(NAME),
        version: Field::new(VERSION),
        protocol: Field::new(PROTOCOL),
        verbs: Field::list(verbs()),
        topics: Field::list(Topic::ALL.map(Topic::word)),
        command_octets: LINE_LIMIT as u64,
        reply_octets: REPLY_LIMIT as u64,
        name_octets: LONGEST_NAME as u64,
        password_octets: LONGEST_PASSWORD as u64,
        unsent_octets: UNSENT_LIMIT as u64,
        subscribers: SUBSCRIBERS as u64,
    };
    capabilities.lines()
}

/// `TRUST`
pub fn trust(trust: &TrustSettings) -> String {
    let line = |network: &Network| ended(TrustLine { network: Field::new(network) }.to_string());
    trust.networks().iter().map(line).collect()
}

/// The line of `LIMITS` of all accounts that do not say otherwise.
pub fn limits_of_all(users: &Users) -> String {
    let in_force = users.defaults().in_force(&Limits::default());
    limits_line(Field::new("*"), &in_force, Field::NONE)
}

/// The line of `LIMITS` of an account: what is in force for it, and which of that is of all accounts.
pub fn limits(users: &Users, id: UserId) -> Option<String> {
    let account = users.get(id)?;
    let (own, nothing) = (users.limits(id), Limits::default());
    let in_force = own.unwrap_or(&nothing).in_force(users.defaults());
    let of_all =
        |key: &LimitKey| users.defaults().has(*key) && !own.is_some_and(|own| own.has(*key));
    let of_all: Vec<&str> = LimitKey::ALL.into_iter().filter(of_all).map(LimitKey::word).collect();
    let of_all = (!of_all.is_empty()).then(|| of_all.join(","));
    // An account may be called so; the line of all accounts is another one.
    let name = match &*account.name {
        ALL_ACCOUNTS => Field::new("\\x2a"),
        name => Field::name(name),
    };
    Some(limits_line(name, &in_force, Field::optional(of_all)))
}

fn limits_line(user: Field<'_>, in_force: &InForce, of_all: Field<'_>) -> String {
    let limit = |key| Field::new(in_force.written(key));
    let line = LimitsLine {
        user,
        conns: limit(LimitKey::Connections),
        sources: limit(LimitKey::Sources),
        rate: limit(LimitKey::Rate),
        quota: limit(LimitKey::Quota),
        expires: limit(LimitKey::Expires),
        from: limit(LimitKey::From),
        of_all,
    };
    ended(line.to_string())
}

/// A line of `RULES`: line, hits, rule.
pub fn rule((line, hits, rule): (u32, u64, &Rule)) -> String {
    let text = Field::text(&rule.to_string());
    ended(RuleLine { rule: line.into(), hits, text }.to_string())
}

/// The line of `RULES TEST`.
pub fn verdict(verdict: &RulesVerdict) -> String {
    let RulesVerdict { allow, by, rule } = verdict;
    let word = match allow {
        Some(true) => "allow",
        Some(false) => "deny",
        None => "depends",
    };
    let (line, text) = rule.clone().unzip();
    let text = text.map_or(Field::NONE, |text| Field::text(&text));
    let line = line.map(u64::from);
    ended(
        VerdictLine { verdict: Field::new(word), by: Field::new(by), rule: line, text }.to_string(),
    )
}

/// A line of `CONFIG GET`.
pub fn setting(knob: &Knob, process: &ProcessWide) -> String {
    let settings = &process.settings;
    let (min, max) = knob.range().unzip();
    let line = SettingLine {
        key: Field::new(knob.key),
        value: Field::new(knob.get(settings)),
        unit: Field::new(knob.unit),
        min: Field::optional(min),
        max: Field::optional(max),
        applies: Field::new(knob.applies),
        source: Field::new(process.configuration.source(knob.key)),
    };
    ended(line.to_string())
}

/// The event of the topic `metrics`.
pub fn totals(shared: &Shared) -> Event<'static> {
    let counted = &shared.metrics;
    Event::Metrics(MetricsEvent {
        time: Field::new(Timestamp::from(SystemTime::now())),
        accepted: counted.sessions.socks.accepted,
        connections: counted.sessions.socks.open as u64,
        up: counted.up,
        down: counted.down,
    })
}
