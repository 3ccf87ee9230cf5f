//! Reads typed values out of YAML nodes and reports what is not as it should be.

use std::cell::OnceCell;
use std::ops::RangeInclusive;

use saphyr_parser::ScalarStyle;

use super::diagnostic::{Problem, Problems, Span, known_names, line_starts, nearest, quoted};
use super::plan::{CreateTopic, OnError};
use super::substitute::{Values, substitute};
use super::yaml::{Data, Entry, Kind, Node, places};
use crate::time::parse_duration_ms;

/// No duration of a topology is longer: sums of a few of them and an event time do not overflow.
const DURATION_MS_MAX: i64 = 3650 * 24 * 60 * 60 * 1000;

/// Kafka's own limit for a topic's name, in bytes.
const TOPIC_BYTES_MAX: usize = 249;

/// The limit for ids and names, in bytes.
const ID_BYTES_MAX: usize = 100;

/// Keys that are designed and not built yet.
const LATER: [&str; 2] = ["idle_timeout", "repartition"];

/// A text and where its characters stand in the file.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub value: String,
    pub span: Span,
    /// Of each character and of the end; `None` if it is not the file's text.
    places: Option<Vec<usize>>,
}

impl Text {
    /// The text of a key.
    pub fn of_key(key: &str, span: Span) -> Text {
        Text { value: key.to_owned(), span, places: None }
    }

    /// Where the characters `start..end` of the text stand; all of the scalar where that is not known.
    pub fn part(&self, start: usize, end: usize) -> Span {
        let Some(places) = &self.places else { return self.span };
        let last = places.len() - 1;
        let start_at = places[start.min(last)];
        // The end of the last character meant, not the start of the next: blanks may lie between.
        let end_at = if end > start { places[(end - 1).min(last)] + 1 } else { start_at };
        Span { start: start_at, end: end_at }
    }
}

/// The entries of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Fields<'n> {
    /// What it describes, for messages: source `orders`.
    pub what: String,
    /// Where to point when a key is missing.
    pub owner: Span,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// The value of a key that may be left out.
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &*entry.value)
    }

    /// Key and value.
    pub fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// A scalar as it is after substitution.
pub(super) struct Scalar {
    pub text: Text,
    pub kind: Kind,
    /// Whether it was one `${…}` and nothing else.
    substituted: bool,
}

/// Reads nodes of one file and collects its problems.
pub(super) struct Reader<'a> {
    pub source: Vec<char>,
    pub values: Values<'a>,
    pub problems: Problems,
    /// How many values the tests have had so far.
    pub parts: usize,
    lines: OnceCell<Vec<usize>>,
}

impl<'a> Reader<'a> {
    /// Nothing is read yet.
    pub fn new(source: Vec<char>, values: Values<'a>) -> Reader<'a> {
        Reader { source, values, problems: Problems::default(), parts: 0, lines: OnceCell::new() }
    }

    /// The line on which something begins, from 1.
    pub fn line(&self, span: Span) -> usize {
        let starts = self.lines.get_or_init(|| line_starts(&self.source));
        starts.partition_point(|&start| start <= span.start).max(1)
    }
}

impl Reader<'_> {
    /// The entries of a mapping whose keys are names that the user chose.
    pub fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
        match &node.data {
            Data::Mapping(entries) => Some(entries),
            _ => {
                self.mismatch(node, &format!("{what} must be a mapping"));
                None
            }
        }
    }

    /// The entries of a mapping whose keys are those of the language. Check them with
    /// [`check_keys`](Reader::check_keys).
    pub fn fields<'n>(&mut self, node: &'n Node, what: &str, owner: Span) -> Option<Fields<'n>> {
        let entries = self.entries(node, what)?;
        Some(Fields { what: what.to_owned(), owner, entries })
    }

    /// Reports every key that is not known.
    pub fn check_keys(&mut self, fields: &Fields, known: &[&str]) {
        for entry in fields.entries {
            let key = entry.key.as_str();
            if known.contains(&key) {
                continue;
            }
            if LATER.contains(&key) {
                let message = format!("`{key}` is not supported yet (in {})", fields.what);
                self.problems.error(entry.key_span, message).help("leave it out in this version");
                continue;
            }
            let message = format!("unknown key `{key}` in {}", fields.what);
            self.problems.error(entry.key_span, message).help(known_names(key, known));
        }
    }

    /// The value of a key that must be there. If it is not, but a slip of it is, then that is reported
    /// as an unknown key and not once more here.
    pub fn required<'n>(&mut self, fields: &Fields<'n>, key: &str, help: &str) -> Option<&'n Node> {
        let node = fields.get(key);
        if node.is_none() && !fields.entries.iter().any(|entry| nearest(&entry.key, [key]).is_some()) {
            self.problems.error(fields.owner, format!("{} has no `{key}`", fields.what)).help(help);
        }
        node
    }

    /// Says that a node is not what it must be.
    pub fn mismatch(&mut self, node: &Node, must: &str) -> &mut Problem {
        let found = match &node.data {
            Data::Sequence(_) => "a list".to_owned(),
            Data::Mapping(_) => "a mapping".to_owned(),
            Data::Scalar { text, style: ScalarStyle::Plain } => shown(Kind::of(text), text),
            Data::Scalar { text, .. } => shown(Kind::String, text),
        };
        self.problems.error(node.span, format!("{must}, found {found}"))
    }

    /// A scalar after substitution.
    pub fn scalar(&mut self, node: &Node, must: &str) -> Option<Scalar> {
        let Data::Scalar { text, style } = &node.data else {
            self.mismatch(node, must);
            return None;
        };
        let raw = Text {
            value: text.clone(),
            span: node.span,
            places: places(&self.source, node.span, *style, text),
        };
        let substituted = match substitute(text, self.values) {
            Ok(substituted) => substituted,
            Err(missing) => {
                for missing in missing {
                    let span = raw.part(missing.start, missing.end);
                    self.problems.error(span, missing.message).help(missing.help);
                }
                return None;
            }
        };
        let typed = substituted.alone || (*style == ScalarStyle::Plain && !substituted.changed);
        let kind = if typed { Kind::of(&substituted.text) } else { Kind::String };
        let places = raw.places.filter(|_| !substituted.changed);
        let text = Text { value: substituted.text, span: node.span, places };
        Some(Scalar { text, kind, substituted: substituted.alone })
    }

    /// A string. `what` is what it is for: a topic.
    pub fn text(&mut self, node: &Node, what: &str) -> Option<Text> {
        let must = format!("{what} must be a string");
        let scalar = self.scalar(node, &must)?;
        // What `${…}` alone becomes is typed by its place: a topic may well be called 17.
        if scalar.kind == Kind::String || (scalar.substituted && scalar.kind != Kind::Null) {
            return Some(scalar.text);
        }
        let value = &scalar.text.value;
        let problem = self.problems.error(node.span, format!("{must}, found {}", shown(scalar.kind, value)));
        if scalar.kind != Kind::Null {
            problem.help(format!("quote it: \"{value}\""));
        }
        None
    }

    /// The text of a scalar of any kind but null: expressions, durations and topic settings, where `1`
    /// and `true` mean themselves. `must` says what it has to be: `where` must be an expression.
    pub fn code(&mut self, node: &Node, must: &str) -> Option<Text> {
        let scalar = self.scalar(node, must)?;
        if scalar.kind == Kind::Null || scalar.text.value.trim().is_empty() {
            self.problems.error(node.span, format!("{must}, found nothing"));
            return None;
        }
        Some(scalar.text)
    }

    /// An int within bounds.
    pub fn int(&mut self, node: &Node, what: &str, bounds: RangeInclusive<i32>) -> Option<i32> {
        let must = match bounds.start() == bounds.end() {
            true => format!("{what} must be {}", bounds.start()),
            false => format!("{what} must be an int from {} to {}", bounds.start(), bounds.end()),
        };
        let Scalar { text, kind, .. } = self.scalar(node, &must)?;
        let value =
            text.value.parse::<i32>().ok().filter(|value| kind == Kind::Int && bounds.contains(value));
        if value.is_none() {
            self.problems.error(node.span, format!("{must}, found {}", shown(kind, &text.value)));
        }
        value
    }

    /// A duration in milliseconds.
    pub fn duration(&mut self, node: &Node, what: &str) -> Option<i64> {
        let text = self.code(node, &format!("{what} must be a duration such as 30s"))?;
        match parse_duration_ms(&text.value) {
            Ok(ms @ 0..=DURATION_MS_MAX) => return Some(ms),
            Ok(_) => {
                let message = format!("{what}: `{}` is too long", text.value);
                self.problems.error(node.span, message).help("a duration is at most 3650d");
            }
            Err(error) => {
                self.problems.error(node.span, format!("{what}: {error}"));
            }
        }
        None
    }

    /// A duration of more than 0, in milliseconds.
    pub fn length(&mut self, node: &Node, what: &str, help: &str) -> Option<i64> {
        let length = self.duration(node, what)?;
        if length == 0 {
            self.problems.error(node.span, format!("{what} must be more than 0")).help(help);
            return None;
        }
        Some(length)
    }

    /// One of a few words. `later` are those that are designed and not built yet.
    pub fn choice<T: Copy>(
        &mut self,
        node: &Node,
        what: &str,
        choices: &[(&str, T)],
        later: &[&str],
    ) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        if !matches!(node.data, Data::Scalar { .. }) {
            self.mismatch(node, &format!("{what} must be one of {}", quoted(&names)));
            return None;
        }
        let text = self.text(node, what)?;
        let word = text.value.as_str();
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
            return Some(*choice);
        }
        if later.contains(&word) {
            let message = format!("{what} cannot be `{word}` yet");
            self.problems.error(text.span, message).help(format!("supported: {}", quoted(&names)));
        } else {
            let message = format!("{what} cannot be `{word}`");
            self.problems.error(text.span, message).help(known_names(word, &names));
        }
        None
    }

    /// A list of names, each once.
    pub fn names(&mut self, node: &Node, what: &str) -> Option<Vec<Text>> {
        let Data::Sequence(items) = &node.data else {
            let problem = self.mismatch(node, &format!("{what} must be a list of names"));
            if let Data::Scalar { text, .. } = &node.data
                && !text.is_empty()
            {
                problem.help(format!("write [{text}]"));
            }
            return None;
        };
        let mut names: Vec<Text> = Vec::new();
        for item in items {
            let Some(name) = self.text(item, &format!("a name in {what}")) else { continue };
            match names.iter().find(|other| other.value == name.value) {
                Some(first) => {
                    let message = format!("`{}` stands twice in {what}", name.value);
                    self.problems.error(name.span, message).first_at(first.span);
                }
                None => names.push(name),
            }
        }
        Some(names)
    }

    /// Checks an id or name of the user's.
    pub fn check_id(&mut self, id: &str, span: Span, what: &str) {
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(is_name_byte) {
            self.problems
                .error(span, format!("`{id}` cannot be {what}"))
                .help(format!("use 1 to {ID_BYTES_MAX} letters (a-z, A-Z), digits, `.`, `_` and `-`"));
        }
    }

    /// A topic's name.
    pub fn topic(&mut self, node: &Node) -> Option<Text> {
        let text = self.text(node, "a topic")?;
        let topic = text.value.as_str();
        let valid = (1..=TOPIC_BYTES_MAX).contains(&topic.len()) && topic.bytes().all(is_name_byte);
        if valid && topic != "." && topic != ".." {
            return Some(text);
        }
        self.problems
            .error(text.span, format!("`{topic}` cannot be a topic"))
            .help(format!("Kafka takes 1 to {TOPIC_BYTES_MAX} letters (a-z, A-Z), digits, `.`, `_` and `-`"));
        None
    }

    /// `on_error: fail | skip | { dead_letter: topic }`, with the place of the topic.
    pub fn on_error(&mut self, fields: &Fields) -> (OnError, Option<Span>) {
        let Some(entry) = fields.entry("on_error") else { return (OnError::Fail, None) };
        if !matches!(entry.value.data, Data::Mapping(_)) {
            // The third is a mapping; here it only serves the help.
            let choices = [("fail", false), ("skip", true), ("{ dead_letter: … }", false)];
            let skip = self.choice(&entry.value, "`on_error`", &choices, &[]);
            return (if skip == Some(true) { OnError::Skip } else { OnError::Fail }, None);
        }
        let what = format!("`on_error` of {}", fields.what);
        let Some(inner) = self.fields(&entry.value, &what, entry.key_span) else {
            return (OnError::Fail, None);
        };
        self.check_keys(&inner, &["dead_letter"]);
        let topic = self.required(&inner, "dead_letter", "name the topic that takes the failing records");
        match topic.and_then(|node| self.topic(node)) {
            Some(topic) => (OnError::DeadLetter(topic.value), Some(topic.span)),
            None => (OnError::Fail, None),
        }
    }

    /// `create: { partitions, replication, config }`.
    pub fn create(&mut self, fields: &Fields) -> Option<CreateTopic> {
        let entry = fields.entry("create")?;
        let what = format!("`create` of {}", fields.what);
        let inner = self.fields(&entry.value, &what, entry.key_span)?;
        self.check_keys(&inner, &["partitions", "replication", "config"]);
        let partitions = self
            .required(&inner, "partitions", "say how many partitions the topic is created with")
            .and_then(|node| self.int(node, "`partitions`", 1..=1_000_000));
        let replication = match inner.get("replication") {
            Some(node) => self.int(node, "`replication`", 1..=i32::from(i16::MAX)),
            None => Some(CreateTopic::REPLICATION_OF_CLUSTER),
        };
        let mut config = Vec::new();
        let entries = inner.get("config").and_then(|node| self.entries(node, "`config`"));
        for entry in entries.unwrap_or_default() {
            if let Some(text) =
                self.code(&entry.value, &format!("the topic setting `{}` must have a value", entry.key))
            {
                config.push((entry.key.clone(), text.value));
            }
        }
        Some(CreateTopic { partitions: partitions?, replication: replication?, config })
    }

    /// `format: { type: json }`, which must be there.
    pub fn format(&mut self, fields: &Fields) {
        let Some(node) = self.required(fields, "format", "add `format: { type: json }`") else { return };
        let what = format!("`format` of {}", fields.what);
        let owner = fields.entry("format").map_or(fields.owner, |entry| entry.key_span);
        let Some(inner) = self.fields(node, &what, owner) else { return };
        self.check_keys(&inner, &["type"]);
        if let Some(node) = self.required(&inner, "type", "add `type: json`") {
            self.choice(node, "a format's type", &[("json", ())], &["avro", "protobuf"]);
        }
    }
}

/// A scalar for a message: an int (`17`).
fn shown(kind: Kind, text: &str) -> String {
    if kind == Kind::Null { kind.name().to_owned() } else { format!("{} (`{text}`)", kind.name()) }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}
