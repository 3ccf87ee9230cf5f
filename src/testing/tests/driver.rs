//! The operators of a topology in one piece, without log, store or faults: what must come out is known
//! from here, whatever the simulator does.

use std::collections::BTreeMap;
use std::sync::Arc;

use bumpalo::Bump;

use crate::operator::{Counters, OutputTarget, Pipeline, Progress, Staged};
use crate::record::{Records, SourceRecord, TopicPartition};
use crate::simulator::{Failure, Input, Outcome, Scenario, Step, Written};
use crate::state::codec::DeltaWriter;
use crate::task::{TaskId, pipeline_factory};

struct Batch {
    partition: TopicPartition,
    inputs: Vec<Input>,
}

impl Records for Batch {
    fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }
    fn len(&self) -> usize {
        self.inputs.len()
    }
    fn bytes(&self) -> usize {
        0
    }
    fn record(&self, index: usize) -> SourceRecord<'_> {
        let input = &self.inputs[index];
        SourceRecord {
            offset: index as i64,
            timestamp_ms: input.timestamp_ms,
            key: input.key.as_deref(),
            value: input.value.as_deref(),
            records: self,
            index,
        }
    }
    fn headers<'b>(&'b self, index: usize, visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {
        self.inputs[index].headers.iter().for_each(|(name, value)| visit(name, value.as_deref()));
    }
}

/// Plays a scenario as if nothing could go wrong.
pub fn play(scenario: &Scenario) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let target = |(topic, partitions): (&String, &i32)| {
        let target =
            OutputTarget { topic: topic.as_str().into(), partitions: *partitions, record_bytes_max: 1 << 20 };
        (topic.clone(), Arc::new(target))
    };
    let plan = &scenario.plan;
    let mut tasks: Vec<i32> = plan.sources.iter().map(|source| scenario.topics[&source.topic]).collect();
    let mut topics = scenario.topics.clone();
    for repartition in &plan.repartitions {
        tasks.push(plan.partitions_of(repartition, &tasks));
        topics.extend(tasks.last().map(|tasks| (plan.repartition_topic(repartition), *tasks)));
    }
    let (targets, tasks): (Arc<_>, Arc<[i32]>) =
        (Arc::new(topics.iter().map(target).collect()), tasks.into());
    // Each stage comes after those that it reads.
    for (number, stage) in plan.stages().enumerate() {
        let make = pipeline_factory(plan.clone(), number, Arc::clone(&targets), tasks.clone()).unwrap();
        let sent = outcome.topics.remove(&plan.topic_of(stage)).unwrap_or_default();
        for partition in 0..tasks[number] {
            let id = TaskId { stage: stage.id().into(), partition };
            let partition = TopicPartition::new(&plan.topic_of(stage), partition);
            let appended = scenario.steps.iter().filter_map(|step| match step {
                Step::Append(input) if input.partition == partition => Some(input.clone()),
                _ => None,
            });
            let sent =
                sent.iter().filter(|block| block.partition == partition.partition).map(|block| Input {
                    partition: partition.clone(),
                    key: None,
                    value: block.value.clone(),
                    headers: Vec::new(),
                    timestamp_ms: block.timestamp_ms,
                });
            let inputs: Vec<Input> = appended.chain(sent).collect();
            outcome.commits += inputs.len() as u64;
            play_task(make(), &Batch { partition, inputs }, id, scenario.bounded, &mut outcome)?;
        }
    }
    Ok(outcome)
}

fn play_task(
    mut pipeline: Box<dyn Pipeline>,
    batch: &Batch,
    id: TaskId,
    bounded: bool,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let staged = Staged::new(usize::MAX, usize::MAX).of_partition(id.partition);
    let mut staged = staged.with_exchanges(pipeline.exchanges());
    for index in 0..batch.len() {
        let progress = pipeline.process(batch.record(index), &Bump::new(), &mut staged);
        assert_eq!(progress.map_err(|error| Failure { what: error.to_string() })?, Progress::Done);
    }
    if bounded {
        assert_eq!(pipeline.finish(&Bump::new(), &mut staged).unwrap(), Progress::Done);
    }
    staged.send_due(0, 0);
    let (outputs, counters) = staged.take();
    for output in outputs {
        let topic = outcome.topics.entry(output.topic.to_string()).or_default();
        topic.push(Written {
            partition: output.partition,
            offset: topic.len() as i64,
            key: output.key,
            value: output.value,
            headers: output.headers,
            timestamp_ms: output.timestamp_ms,
        });
        topic.sort_by_key(|written| (written.partition, written.offset));
    }
    add(&mut outcome.counters, counters);
    let (mut entries, mut operators) = (BTreeMap::new(), Vec::new());
    pipeline.visit(&mut |operator| {
        let mut delta = DeltaWriter::new(1 << 20);
        operator.collect_ranges(&mut delta);
        operator.collect_points(1, &mut delta);
        let mut put = |key: &[u8], value: &[u8]| drop(entries.insert(key.to_vec(), value.to_vec()));
        operator.chunk(&operator.key_range().0, usize::MAX, &mut put).unwrap();
        operators.push(operator.saved());
    });
    outcome.state.insert(id.clone(), entries);
    outcome.operators.insert(id, operators);
    Ok(())
}

fn add(sum: &mut Counters, counters: Counters) {
    for (sums, counts) in [(&mut sum.late, counters.late), (&mut sum.failed, counters.failed)] {
        for (id, count) in counts {
            *sums.entry(id).or_default() += count;
        }
    }
}
