//! The topics that a topology names, and which of them must differ.

use std::collections::BTreeMap;

use super::diagnostic::Span;
use super::plan::{CreateTopic, OnError, Plan};
use super::reader::Reader;

/// What a topology does with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicRole {
    /// It is read.
    Source,
    /// Results are written to it.
    Sink,
    /// Records that failed are written to it.
    DeadLetter,
    /// Records that came too late for a window are written to it.
    Late,
}

impl TopicRole {
    /// As messages and graphs name it.
    pub fn name(self) -> &'static str {
        match self {
            TopicRole::Source => "source",
            TopicRole::Sink => "sink",
            TopicRole::DeadLetter => "dead letter",
            TopicRole::Late => "late",
        }
    }
}

/// A topic of a topology. Those that the engine owns are not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicUse {
    /// Its name.
    pub topic: String,
    /// What it is for; each topic has one role.
    pub role: TopicRole,
    /// The ids of the sources, operators and sinks that use it, in the plan's order.
    pub users: Vec<String>,
    /// How it is created if it is missing; `None`: it must exist.
    pub create: Option<CreateTopic>,
}

/// All topics that a topology reads or writes, each once: first as sources, operators, sinks name
/// them. Those that the engine owns are not among them.
pub fn topics(plan: &Plan) -> Vec<TopicUse> {
    let mut uses: Vec<TopicUse> = Vec::new();
    let mut add = |topic: &str, role: TopicRole, user: &str, create: Option<&CreateTopic>| match uses
        .iter_mut()
        .find(|known| known.topic == topic && known.role == role)
    {
        Some(known) if known.users.iter().any(|other| other == user) => {}
        Some(known) => known.users.push(user.to_owned()),
        None => uses.push(TopicUse {
            topic: topic.to_owned(),
            role,
            users: vec![user.to_owned()],
            create: create.cloned(),
        }),
    };
    for source in &plan.sources {
        add(&source.topic, TopicRole::Source, &source.id, source.create.as_ref());
        if let OnError::DeadLetter(topic) = &source.on_error {
            add(topic, TopicRole::DeadLetter, &source.id, None);
        }
    }
    for operator in &plan.operators {
        if let OnError::DeadLetter(topic) = &operator.on_error {
            add(topic, TopicRole::DeadLetter, &operator.id, None);
        }
        if let Some(topic) = operator.kind.late_topic() {
            add(topic, TopicRole::Late, &operator.id, None);
        }
    }
    for repartition in &plan.repartitions {
        if let OnError::DeadLetter(topic) = &repartition.on_error {
            add(topic, TopicRole::DeadLetter, &repartition.id, None);
        }
    }
    for sink in &plan.sinks {
        add(&sink.topic, TopicRole::Sink, &sink.id, sink.create.as_ref());
        if let OnError::DeadLetter(topic) = &sink.on_error {
            add(topic, TopicRole::DeadLetter, &sink.id, None);
        }
    }
    uses
}

/// A place in a file that names a topic.
#[derive(Debug)]
pub(super) struct Claim {
    pub topic: String,
    pub role: TopicRole,
    /// Who uses it: source `orders`.
    pub owner: String,
    pub span: Span,
}

impl Claim {
    fn describe(&self) -> String {
        match self.role {
            TopicRole::Source => format!("{} reads it", self.owner),
            TopicRole::Sink => format!("{} writes to it", self.owner),
            TopicRole::DeadLetter => format!("{} sends its dead letters there", self.owner),
            TopicRole::Late => format!("{} sends late records there", self.owner),
        }
    }
}

/// Reports topics that are used in two ways that do not go together.
pub(super) fn check_topics(application: &str, claims: &[Claim], reader: &mut Reader) {
    let mut claims: Vec<&Claim> = claims.iter().collect();
    claims.sort_by_key(|claim| claim.span);
    let mut taken: BTreeMap<String, Vec<&Claim>> = BTreeMap::new();
    let owned = format!("thalweg.{application}.");
    for claim in claims {
        let topic = &claim.topic;
        if topic.starts_with(&owned) && (topic.ends_with(".changelog") || topic.ends_with(".repartition")) {
            reader
                .problems
                .error(claim.span, format!("`{topic}` is the name of a topic that the engine owns"))
                .help(format!("choose a name that does not begin with `{owned}`"));
        }
        // To Kafka `a.b` and `a_b` are one name: it refuses to create the second.
        let others = taken.entry(topic.replace('.', "_")).or_default();
        if let Some((message, help)) = others.iter().find_map(|other| conflict(other, claim)) {
            reader.problems.error(claim.span, message).help(help);
        }
        others.push(claim);
    }
}

/// Why two uses do not go together, and what to do.
fn conflict(first: &Claim, second: &Claim) -> Option<(String, &'static str)> {
    if first.topic != second.topic {
        let message = format!("topics `{}` and `{}` differ only in `.` and `_`", first.topic, second.topic);
        return Some((message, "Kafka does not let them exist side by side: rename one of them"));
    }
    let topic = &second.topic;
    let both = format!("{}, and {}", first.describe(), second.describe());
    match (first.role, second.role) {
        (TopicRole::Source, TopicRole::Source) => Some((
            format!("topic `{topic}` has two sources, which is not supported yet: {both}"),
            "declare one source; any number of operators and sinks can read it",
        )),
        (TopicRole::Source, _) | (_, TopicRole::Source) => Some((
            format!("topic `{topic}` would be fed back into the topology: {both}"),
            "write to another topic: every record written would be read again",
        )),
        (TopicRole::Sink, TopicRole::Sink) => {
            Some((format!("topic `{topic}` has two sinks: {both}"), "give each sink a topic of its own"))
        }
        (one, other) if one != other => {
            Some((format!("topic `{topic}` would hold records of two kinds: {both}"), "use a topic for each"))
        }
        _ => None,
    }
}
