//! Records as a producer would write them: what a case leaves out is made of the record's fields.

use std::sync::Arc;

use bumpalo::Bump;

use crate::expression::{Environment, Expression};
use crate::format::json::Decoder;
use crate::format::key::{encode_sink_key, partition};
use crate::record::{FieldForm, Slot, SourceField, SourceSchema, TopicPartition};
use crate::simulator::{Input, Step};
use crate::topology::Plan;
use crate::topology::case::{Case, CaseRecord, CaseStep};
use crate::topology::plan::{EventTime, SourcePlan};

/// What happens in a case, on topics of so many partitions.
pub(super) fn steps(plan: &Plan, case: &Case, partitions: i32) -> Vec<Step> {
    let mut producer = Producer::new(plan, partitions);
    let steps = case.steps.iter().map(|step| match step {
        CaseStep::Advance(ms) => {
            producer.now_ms = producer.now_ms.saturating_add_unsigned(*ms);
            Step::Advance(*ms)
        }
        CaseStep::Record(record) => Step::Append(producer.input(plan, record)),
    });
    steps.collect()
}

/// Makes records complete.
pub(super) struct Producer {
    sources: Vec<Fields>,
    partitions: i32,
    /// The time of a record that says nothing about its own.
    now_ms: i64,
}

/// The fields of a source's records that decide about their keys and timestamps. They are decoded by
/// themselves, so that a record with mistakes elsewhere still has them.
struct Fields {
    key: Vec<(String, FieldForm)>,
    key_decoder: Decoder,
    /// Of the fields that date a record, and what does.
    time_decoder: Option<(Decoder, usize, Option<Arc<Expression>>)>,
}

impl Fields {
    fn new(source: &SourcePlan) -> Fields {
        let field = |name: &String| source.schema.fields.iter().find(|field| field.field.name == *name);
        let key: Vec<SourceField> = source.partitioned_by.iter().filter_map(field).cloned().collect();
        let decoder = |fields: Vec<SourceField>| Decoder::new(&SourceSchema { fields });
        Fields {
            key: key.iter().map(|field| (field.field.name.clone(), field.field.form)).collect(),
            key_decoder: decoder(key),
            time_decoder: match &source.event_time.time {
                EventTime::Record => None,
                EventTime::Field(slot) => Some((decoder(vec![source.schema.fields[*slot].clone()]), 1, None)),
                EventTime::Expression(expression) => {
                    let fields = source.schema.fields.clone();
                    Some((decoder(fields.clone()), fields.len(), Some(expression.clone())))
                }
            },
        }
    }

    /// The key that the fields by which the topic is partitioned make; none if there are no such fields.
    fn key(&mut self, value: &[u8]) -> Option<Vec<u8>> {
        let (arena, mut slots) = (Bump::new(), vec![Slot::Null; self.key.len()]);
        if self.key.is_empty() || self.key_decoder.decode(value, &arena, &mut slots).is_err() {
            return None;
        }
        let fields = self.key.iter().zip(&slots);
        let fields: Vec<_> = fields.map(|((name, form), slot)| (name.as_str(), *form, *slot)).collect();
        let mut key = Vec::new();
        encode_sink_key(&fields, &mut key);
        Some(key)
    }

    fn time_ms(&mut self, value: &[u8]) -> Option<i64> {
        let (decoder, fields, expression) = self.time_decoder.as_mut()?;
        let (arena, mut slots) = (Bump::new(), vec![Slot::Null; *fields]);
        decoder.decode(value, &arena, &mut slots).ok()?;
        let time = match expression {
            Some(expression) => expression.eval(&Environment::new(&slots, None, &arena)).ok()?,
            None => *slots.first()?,
        };
        if let Slot::Timestamp(ms) = time { Some(ms) } else { None }
    }
}

impl Producer {
    /// A producer for the topology's sources, whose topics have so many partitions.
    pub fn new(plan: &Plan, partitions: i32) -> Producer {
        Producer { sources: plan.sources.iter().map(Fields::new).collect(), partitions, now_ms: 0 }
    }

    /// A record as it lies in its source's topic.
    pub fn input(&mut self, plan: &Plan, record: &CaseRecord) -> Input {
        let fields = &mut self.sources[record.source];
        let value = record.value.as_deref();
        let key = match &record.key {
            Some(key) => key.key_bytes(),
            None => value.and_then(|value| fields.key(value)),
        };
        let timestamp_ms = record.timestamp_ms.or_else(|| fields.time_ms(value?)).unwrap_or(self.now_ms);
        let partition = record.partition.or_else(|| partition(key.as_deref(), self.partitions)).unwrap_or(0);
        Input {
            partition: TopicPartition::new(&plan.sources[record.source].topic, partition),
            key,
            value: record.value.clone(),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), Some(value.clone().into_bytes())))
                .collect(),
            timestamp_ms,
        }
    }
}
