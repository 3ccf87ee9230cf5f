//! What an operator's state depends on, as text.

use std::fmt::Write;

use super::aggregate::function_name;
use super::global::count_description;
use super::plan::{
    AggregateFunction, AggregatePlan, OperatorKind, OperatorPlan, Parameter, Phase, TriggerPlan, WindowPlan,
};
use super::window::{description, duration};
use crate::expression::Expression;
use crate::record::{ListType, Type};
use crate::window::EarlyFiring;

impl OperatorPlan {
    /// What the operator's state depends on, a line each: kind, key, window or lengths of time, what is kept and its
    /// type. `None` for an operator without state. The text is stored with the state and compared at
    /// each start, so its form never changes; what differs is told by [`fingerprint_difference`].
    pub fn fingerprint(&self) -> Option<String> {
        match &self.kind {
            OperatorKind::Window(window) if window.phase == Phase::Local => None,
            // The key fields lead the rows.
            OperatorKind::Window(window) => Some(self.of_window(window)),
            OperatorKind::GlobalWindow(window) => {
                let mut text = self.head("window", 0..window.key.len());
                let windows = match &window.trigger {
                    TriggerPlan::Count(windows) => count_description(windows),
                    // When it makes rows may be changed: what is kept is the same.
                    TriggerPlan::Global { .. } | TriggerPlan::Changelog => "global".to_owned(),
                };
                let _ = writeln!(text, "window: {windows}");
                let _ = writeln!(text, "ttl: {}", window.ttl_ms.map_or("none".to_owned(), duration));
                Some(Self::with_aggregates(text, &window.aggregates))
            }
            OperatorKind::Deduplicate(deduplicate) => {
                let mut text = self.head("deduplicate", deduplicate.key.iter().copied());
                let _ = writeln!(text, "within: {}", duration(deduplicate.within_ms));
                Some(text)
            }
            OperatorKind::Lag(lag) => {
                let mut text = self.head("lag", lag.key.iter().copied());
                let _ = writeln!(text, "ttl: {}", lag.ttl_ms.map_or("none".to_owned(), duration));
                let first = self.schema.fields.len() - lag.values.len();
                for (field, expression) in self.schema.fields[first..].iter().zip(&lag.values) {
                    let _ = writeln!(text, "value {}: {} {}", field.name, line(expression), kept(field.ty));
                }
                Some(text)
            }
            _ => None,
        }
    }

    /// The kind and the key, whose fields have these slots in the rows. Writing to a string cannot fail.
    fn head(&self, kind: &str, key: impl Iterator<Item = usize>) -> String {
        let mut text = format!("kind: {kind}\n");
        for field in key.map(|slot| &self.schema.fields[slot]) {
            let _ = writeln!(text, "key {}: {}", field.name, field.ty);
        }
        text
    }

    fn of_window(&self, window: &WindowPlan) -> String {
        let mut text = self.head("window", 0..window.key.len());
        let _ = writeln!(text, "window: {}", description(window));
        let _ = writeln!(text, "allowed_lateness: {}", duration(window.allowed_lateness_ms));
        if window.purge {
            text.push_str("early: purged, with the number of rows\n");
            // What is outstanding is in the state, and nobody else would tell of it.
            if window.refine_every_ms.is_some() {
                text.push_str("refinements: by the clock\n");
            }
        } else if let Some(EarlyFiring::EveryRows(_)) = window.early {
            text.push_str("early: by number of rows\n");
        }
        if window.phase == Phase::Global {
            text.push_str("two_phase: true\n");
        }
        Self::with_aggregates(text, &window.aggregates)
    }

    /// With a line for each aggregate.
    fn with_aggregates(mut text: String, aggregates: &[AggregatePlan]) -> String {
        for aggregate in aggregates {
            let _ = write!(text, "aggregate {}: {}(", aggregate.name, function_name(aggregate.function));
            let _ = write!(text, "{}", aggregate.argument.as_deref().map(line).unwrap_or_default());
            // Their results do not tell of what type the values are that they hold, or hashes of them.
            if let (AggregateFunction::CountDistinct | AggregateFunction::ApproxCountDistinct, Some(of)) =
                (aggregate.function, &aggregate.argument)
            {
                let _ = write!(text, ": {}", kept(of.ty()));
            }
            if let Some(by) = &aggregate.by {
                // Nor does the result's type tell that of what is compared.
                let _ = write!(text, " by {}: {}", line(by), kept(by.ty()));
            }
            if let Parameter::Number(rows) = aggregate.parameter {
                let _ = write!(text, ", {rows}");
            }
            let _ = write!(text, ") {}", kept(aggregate.ty));
            if let Some(condition) = &aggregate.condition {
                let _ = write!(text, " where {}", line(condition));
            }
            text.push('\n');
        }
        text
    }
}

/// The type as the state knows it: that elements of a list may be null is no part of it, as it is none that a field may be.
fn kept(ty: Type) -> Type {
    match ty {
        Type::List(of) => Type::List(ListType { nullable: false, ..of }),
        _ => ty,
    }
}

/// An expression in one line.
pub(super) fn line(expression: &Expression) -> String {
    let lines: Vec<&str> = expression.source().trim().lines().map(str::trim).collect();
    lines.join(" ")
}

/// What differs between the fingerprint that is stored with a state and the operator's own, for a
/// message: `window: tumbling 1m is now tumbling 5m; key region: string is new`. `None` if nothing.
pub fn fingerprint_difference(stored: &str, now: &str) -> Option<String> {
    fn parts(text: &str) -> Vec<(&str, &str)> {
        text.lines().filter_map(|line| line.split_once(": ")).collect()
    }
    if stored == now {
        return None;
    }
    let (old, new) = (parts(stored), parts(now));
    let value = |parts: &[(&str, &str)], key: &str| {
        parts.iter().find(|(other, _)| *other == key).map(|(_, value)| (*value).to_owned())
    };
    let mut differences = Vec::new();
    for (key, was) in &old {
        match value(&new, key) {
            Some(is) if is == *was => {}
            Some(is) => differences.push(format!("{key}: {was} is now {is}")),
            None => differences.push(format!("{key}: {was} is gone")),
        }
    }
    for (key, is) in &new {
        if value(&old, key).is_none() {
            differences.push(format!("{key}: {is} is new"));
        }
    }
    if differences.is_empty() {
        differences.push("the order of its keys or aggregates differs".to_owned());
    }
    Some(differences.join("; "))
}
