//! Sinks of a topology file.

use super::diagnostic::Span;
use super::operator::read_input;
use super::plan::{CreateTopic, OnError};
use super::reader::{Reader, Text};
use super::yaml::Entry;

/// A sink whose input is not known yet.
pub(super) struct SinkDraft {
    pub id: String,
    pub id_span: Span,
    pub input: Option<Text>,
    pub topic: Option<Text>,
    pub create: Option<CreateTopic>,
    pub key: Vec<Text>,
    pub on_error: OnError,
    pub dead_letter_span: Option<Span>,
}

/// Reads a sink.
pub(super) fn read_sink(entry: &Entry, reader: &mut Reader) -> SinkDraft {
    reader.check_id(&entry.key, entry.key_span, "a sink's id");
    let mut draft = SinkDraft {
        id: entry.key.clone(),
        id_span: entry.key_span,
        input: None,
        topic: None,
        create: None,
        key: Vec::new(),
        on_error: OnError::Fail,
        dead_letter_span: None,
    };
    let what = format!("sink `{}`", entry.key);
    let Some(fields) = reader.fields(&entry.value, &what, entry.key_span) else { return draft };
    reader.check_keys(&fields, &["input", "topic", "key", "format", "on_error", "create"]);
    draft.input = read_input(&fields, reader);
    draft.topic = reader
        .required(&fields, "topic", "name the Kafka topic that it writes")
        .and_then(|node| reader.topic(node));
    if let Some(node) = fields.get("key") {
        draft.key = reader.names(node, "`key`").unwrap_or_default();
    }
    reader.format(&fields);
    draft.create = reader.create(&fields);
    (draft.on_error, draft.dead_letter_span) = reader.on_error(&fields);
    draft
}
