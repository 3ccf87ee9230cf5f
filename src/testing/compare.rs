//! What a case expects against what came out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Difference;
use super::rows::{self, Found};
use super::state;
use crate::simulator::Outcome;
use crate::topology::case::{Case, ExpectedCount, ExpectedRows};
use crate::topology::plan::{Late, OnError, OperatorKind, OperatorPlan, Phase};
use crate::topology::{Plan, TopicRole, topics};

/// Everything that is not as the case expects. Counts are compared only if nothing went wrong: what a
/// process counted dies with it.
pub(super) fn differences(plan: &Plan, case: &Case, outcome: &Outcome, counts: bool) -> Vec<Difference> {
    let mut differences = Vec::new();
    for expected in case.outputs.iter().chain(&unnamed(plan, case)) {
        let written = outcome.topics.get(&expected.topic).map(Vec::as_slice).unwrap_or_default();
        let found: Vec<Found> = written.iter().map(Found::written).collect();
        differences.extend(rows::differences(expected, &found));
    }
    for expected in &case.state {
        match state::rows(plan, &expected.name, outcome) {
            Ok(rows) => {
                let found: Vec<Found> = rows.into_iter().map(Found::row).collect();
                differences.extend(rows::differences(&named_state(expected), &found));
            }
            Err(text) => differences.push(Difference { line: expected.line, text, missing: false }),
        }
    }
    if counts {
        let (late, failed) = silent(plan);
        let counters = &outcome.counters;
        compare_counts("late", "came late", &late, (&case.late, &counters.late), case, &mut differences);
        compare_counts("failed", "failed", &failed, (&case.failed, &counters.failed), case, &mut differences);
    }
    differences
}

/// Dead-letter and late topics that the case does not name must stay empty.
fn unnamed(plan: &Plan, case: &Case) -> Vec<ExpectedRows> {
    let known = |topic: &str| case.outputs.iter().any(|expected| expected.topic == topic);
    topics(plan)
        .into_iter()
        .filter(|topic| matches!(topic.role, TopicRole::DeadLetter | TopicRole::Late) && !known(&topic.topic))
        .map(|topic| ExpectedRows {
            name: topic.topic.clone(),
            topic: topic.topic,
            line: case.line,
            ordered: false,
            exact: true,
            tolerance: 0.0,
            schema: None,
            records: Vec::new(),
        })
        .collect()
}

/// State is told from a topic of the same name.
fn named_state(expected: &ExpectedRows) -> ExpectedRows {
    ExpectedRows { name: format!("state of {}", expected.name), ..expected.clone() }
}

/// The operators, each once: the first of two steps has the id of the second.
fn whole(plan: &Plan) -> impl Iterator<Item = &OperatorPlan> {
    let is_first =
        |kind: &OperatorKind| matches!(kind, OperatorKind::Window(window) if window.phase == Phase::Local);
    plan.operators.iter().filter(move |operator| !is_first(&operator.kind))
}

/// The operators that drop late records, and those that leave out failing ones: nothing but a count
/// tells that they did.
fn silent(plan: &Plan) -> (Vec<&str>, Vec<&str>) {
    let drops = |kind: &OperatorKind| kind.late() == Some(&Late::Drop);
    let late = whole(plan).filter(|operator| drops(&operator.kind));
    let sources = plan.sources.iter().map(|source| (source.id.as_str(), &source.on_error));
    let operators = whole(plan).map(|operator| (operator.id.as_str(), &operator.on_error));
    let sinks = plan.sinks.iter().map(|sink| (sink.id.as_str(), &sink.on_error));
    // One that a window needs has the window's id and policy.
    let alone = plan.repartitions.iter().filter(|one| plan.operators.iter().all(|other| other.id != one.id));
    let repartitions = alone.map(|repartition| (repartition.id.as_str(), &repartition.on_error));
    let failing = sources.chain(operators).chain(repartitions).chain(sinks);
    (
        late.map(|operator| operator.id.as_str()).collect(),
        failing.filter(|(_, on_error)| **on_error == OnError::Skip).map(|(id, _)| id).collect(),
    )
}

fn compare_counts(
    key: &str,
    verb: &str,
    silent: &[&str],
    (expected, found): (&[ExpectedCount], &BTreeMap<Arc<str>, u64>),
    case: &Case,
    differences: &mut Vec<Difference>,
) {
    let count = |id: &str| found.get(id).copied().unwrap_or(0);
    for expected in expected {
        let found = count(&expected.id);
        if found != expected.count {
            let text = format!("`{}`: {} expected that {verb}, found {found}", expected.id, expected.count);
            differences.push(Difference { line: expected.line, text, missing: false });
        }
    }
    for id in silent.iter().filter(|id| !expected.iter().any(|expected| expected.id == **id)) {
        let found = count(id);
        if found > 0 {
            let text = format!(
                "`{id}`: {found} {verb}, and the test expects none; if that is meant, add `{key}: {{ {id}: {found} }}`"
            );
            differences.push(Difference { line: case.line, text, missing: false });
        }
    }
}

/// What may explain that something is missing: windows that have not closed.
pub(super) fn notes(plan: &Plan, case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut notes = Vec::new();
    let windows = whole(plan).filter(|plan| matches!(plan.kind, OperatorKind::Window(_)));
    for operator in windows.filter(|_| !case.bounded) {
        let open = state::rows(plan, &operator.id, outcome).map_or(0, |rows| rows.len());
        if open > 0 {
            notes.push(format!(
                "`{}` still has {open} open (one per key and window): a window closes when a later record of its \
                 partition has moved the watermark past its end and its allowed lateness, or at the end of the input \
                 with `bounded: true`",
                operator.id
            ));
        }
    }
    let counted = plan.operators.iter().filter(|plan| matches!(plan.kind, OperatorKind::GlobalWindow(_)));
    for operator in counted {
        let open = state::rows(plan, &operator.id, outcome).map_or(0, |rows| rows.len());
        if open > 0 {
            notes.push(format!(
                "`{}` still has {open} keys: it makes rows of them when more have come, not at the end of the input",
                operator.id
            ));
        }
    }
    notes
}
