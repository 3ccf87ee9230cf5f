//! Generated topologies as topology files.

use std::fmt::Write;

use super::formula::Formula;
use super::{
    Aggregate, Choice, Generated, GlobalWindow, Operator, OperatorKind, Shape, Source, Trigger, Window, ZONES,
};
use crate::record::{Field, FieldForm, ListType, Type, shown_path};
use crate::topology::plan::{AggregateFunction, Emit, OnError, Parameter, Start, StreamRef};
use crate::window::{CalendarUnit, EarlyFiring, TimeDomain};

impl Generated {
    /// The topology file. Writing to text cannot fail.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(2_048);
        let _ = writeln!(out, "version: 1\nname: {}\nsources:", self.name);
        for source in &self.sources {
            self.source(source, &mut out);
        }
        if !self.operators.is_empty() {
            out.push_str("operators:\n");
        }
        let is_whole = |operator: &&Operator| !matches!(operator.kind, OperatorKind::Output(_));
        for operator in self.operators.iter().filter(is_whole) {
            self.operator(operator, &mut out);
        }
        out.push_str("sinks:\n");
        for sink in &self.sinks {
            let _ = write!(out, "  {}: {{ input: {}, topic: {}", sink.id, self.id(sink.input), sink.topic);
            if !sink.key.is_empty() {
                let fields = self.fields(sink.input);
                let names: Vec<&str> = sink.key.iter().map(|slot| fields[*slot].name.as_str()).collect();
                let _ = write!(out, ", key: [{}]", names.join(", "));
            }
            if self.creates(&sink.topic) {
                let _ = write!(out, ", create: {{ partitions: {} }}", self.partitions(&sink.topic));
            }
            out.push_str(", format: { type: json }, on_error: skip }\n");
        }
        out
    }

    fn id(&self, stream: StreamRef) -> &str {
        match stream {
            StreamRef::Source(i) => &self.sources[i].id,
            StreamRef::Operator(i) => &self.operators[i].id,
            StreamRef::Repartition(_) => unreachable!("a file names operators"),
        }
    }

    fn source(&self, source: &Source, out: &mut String) {
        let _ = writeln!(out, "  {}:\n    topic: {}\n    format: {{ type: json }}", source.id, source.topic);
        if source.start == Start::Latest {
            out.push_str("    start: latest\n");
        }
        if !source.partitioned_by.is_empty() {
            let names = source.partitioned_by.iter().map(|slot| source.fields[*slot].0.name.as_str());
            let _ = writeln!(out, "    partitioned_by: [{}]", names.collect::<Vec<_>>().join(", "));
        }
        out.push_str("    schema:\n");
        for (field, path) in &source.fields {
            let ty = match (field.ty, field.form) {
                (Type::Timestamp, FieldForm::Plain) => "timestamp_ms".to_owned(),
                (ty, _) => ty.to_string(),
            };
            let null = if field.nullable { "?" } else { "" };
            if let Type::List(ListType { element, nullable }) = field.ty {
                let (of, null) = (element.ty(), if nullable { "?" } else { "" });
                let _ = writeln!(
                    out,
                    "      {}: {{ type: [{of}{null}], nullable: {}, path: \"{}\" }}",
                    field.name,
                    field.nullable,
                    shown_path(path)
                );
                continue;
            }
            let _ = match path.join(".") {
                path if path == field.name => writeln!(out, "      {path}: {ty}{null}"),
                path => writeln!(out, "      {}: {{ type: \"{ty}{null}\", path: {path} }}", field.name),
            };
        }
        let _ = write!(out, "    event_time: {{ max_out_of_orderness: {}ms", source.max_out_of_orderness_ms);
        if let Some(slot) = source.time {
            let name = &source.fields[slot].0.name;
            let time = match source.shift_ms {
                0 => format!("field: {name}"),
                shift_ms => format!("expression: '{name} + duration(\"{shift_ms}ms\")'"),
            };
            let _ = write!(out, ", {time}, max_ahead: {}ms", source.max_ahead_ms);
        }
        if let Some(condition) = &source.punctuated {
            let fields: Vec<Field> = source.fields.iter().map(|(field, _)| field.clone()).collect();
            let _ = write!(out, ", punctuated: {}", quoted(&cel(condition, &fields)));
        }
        if let Some(timeout_ms) = source.idle_timeout_ms {
            let _ = write!(out, ", idle_timeout: {timeout_ms}ms");
        }
        if let Some((group, max_drift_ms)) = &source.alignment {
            let _ = write!(out, ", alignment: {{ group: {group}, max_drift: {max_drift_ms}ms }}");
        }
        out.push_str(" }\n");
        on_error(&source.on_error, out);
    }

    fn operator(&self, operator: &Operator, out: &mut String) {
        let fields = self.fields(operator.input);
        let ty = match operator.kind {
            OperatorKind::Filter(_) => "filter",
            OperatorKind::FlatMap(_) => "flat_map",
            OperatorKind::Map(_) => "map",
            OperatorKind::Repartition(_) => "repartition",
            OperatorKind::Union(_) => "union",
            OperatorKind::Window(_) | OperatorKind::GlobalWindow(_) => "window",
            OperatorKind::Deduplicate(_) => "deduplicate",
            OperatorKind::Lag(_) => "lag",
            OperatorKind::Branch(_) | OperatorKind::Output(_) => "branch",
        };
        let (id, input) = (&operator.id, self.id(operator.input));
        let _ = writeln!(out, "  {id}:\n    type: {ty}");
        let _ = match &operator.kind {
            OperatorKind::Union(other) => writeln!(out, "    inputs: [{input}, {}]", self.id(*other)),
            _ => writeln!(out, "    input: {input}"),
        };
        match &operator.kind {
            OperatorKind::Union(_) | OperatorKind::Output(_) => {}
            OperatorKind::Branch(branch) => {
                out.push_str("    branches:\n");
                for (name, formula) in &branch.conditions {
                    let _ = writeln!(out, "      {name}: {}", quoted(&cel(formula, &fields)));
                }
                if let Some(name) = &branch.otherwise {
                    let _ = writeln!(out, "    otherwise: {name}");
                }
            }
            OperatorKind::Filter(predicate) => {
                let _ = writeln!(out, "    where: {}", quoted(&cel(predicate, &fields)));
            }
            OperatorKind::Map(map) => {
                if !map.set.is_empty() {
                    render_set("set", &map.set, &fields, out);
                }
                render_choice(&map.choice, out);
            }
            OperatorKind::FlatMap(flat_map) => {
                render_set("each", &flat_map.each, &fields, out);
                render_choice(&flat_map.choice, out);
                if let Some(name) = &flat_map.position {
                    let _ = writeln!(out, "    position: {name}");
                }
                if flat_map.outer {
                    out.push_str("    outer: true\n");
                }
            }
            OperatorKind::Repartition(repartition) => {
                render_key(&repartition.key, &fields, out);
                if let Some(partitions) = repartition.partitions {
                    let _ = writeln!(out, "    partitions: {partitions}");
                }
            }
            OperatorKind::Window(window) => render_window(window, &fields, out),
            OperatorKind::GlobalWindow(window) => render_global(window, &fields, &operator.fields, out),
            OperatorKind::Lag(lag) => {
                render_key(&lag.key, &fields, out);
                if let Some(ttl_ms) = lag.ttl_ms {
                    let _ = writeln!(out, "    ttl: {ttl_ms}ms");
                }
                render_set("set", &lag.set, &fields, out);
            }
            OperatorKind::Deduplicate(deduplicate) => {
                render_key(&deduplicate.key, &fields, out);
                let _ = writeln!(out, "    within: {}ms", deduplicate.within_ms);
                if let Some(topic) = &deduplicate.late {
                    let _ = writeln!(out, "    late: {{ topic: {topic} }}");
                }
            }
        }
        on_error(&operator.on_error, out);
    }
}

fn render_choice(choice: &Choice, out: &mut String) {
    let _ = match choice {
        Choice::All => Ok(()),
        Choice::Keep(names) => writeln!(out, "    keep: [{}]", names.join(", ")),
        Choice::Drop(names) => writeln!(out, "    drop: [{}]", names.join(", ")),
    };
}

fn render_set(key: &str, set: &[(String, Formula)], fields: &[Field], out: &mut String) {
    let _ = writeln!(out, "    {key}:");
    for (name, formula) in set {
        let _ = writeln!(out, "      {name}: {}", quoted(&cel(formula, fields)));
    }
}

fn render_key(key: &[usize], fields: &[Field], out: &mut String) {
    let names: Vec<&str> = key.iter().map(|slot| fields[*slot].name.as_str()).collect();
    let _ = writeln!(out, "    key_by: [{}]", names.join(", "));
}

fn render_window(window: &Window, fields: &[Field], out: &mut String) {
    render_key(&window.key, fields, out);
    if let Some(two_phase) = window.two_phase {
        let _ = writeln!(out, "    two_phase: {two_phase}");
    }
    let mut lengths = match window.shape {
        Shape::Tumbling => "type: tumbling".to_owned(),
        Shape::Sliding { slide_ms } => format!("type: sliding, slide: {slide_ms}ms"),
        Shape::Cumulative { step_ms } => format!("type: cumulative, step: {step_ms}ms"),
        Shape::Calendar { unit, zone } => {
            format!("type: calendar, unit: {}, time_zone: {}", unit_name(unit), ZONES[zone])
        }
        Shape::Session => "type: session".to_owned(),
    };
    let length = match (&window.gap, window.shape) {
        (_, Shape::Calendar { .. }) => String::new(),
        (Some(gap), _) => {
            format!(", gap: {{ of: {}, min: {}ms }}", quoted(&cel(gap, fields)), window.size_ms)
        }
        (None, Shape::Session) => format!(", gap: {}ms", window.size_ms),
        (None, _) => format!(", size: {}ms", window.size_ms),
    };
    if window.offset_ms > 0 {
        let _ = write!(lengths, ", offset: {}ms", window.offset_ms);
    }
    let _ = match window.time {
        TimeDomain::Processing => write!(lengths, ", time: processing"),
        TimeDomain::Event => write!(lengths, ", allowed_lateness: {}ms", window.allowed_lateness_ms),
    };
    let _ = writeln!(out, "    window: {{ {lengths}{length} }}");
    let early = window.early.map(|early| match early {
        EarlyFiring::EveryMs(every_ms, TimeDomain::Processing) => format!("every: {every_ms}ms"),
        EarlyFiring::EveryMs(every_ms, TimeDomain::Event) => format!("every: {every_ms}ms, time: event"),
        EarlyFiring::EveryRows(rows) => format!("rows: {rows}"),
        EarlyFiring::When => {
            let condition = window.early_when.as_ref().map_or(String::new(), |formula| cel(formula, fields));
            format!("when: {}", quoted(&condition))
        }
    });
    let refinements =
        window.refine_every_ms.map(|every_ms| format!("refinements: {{ every: {every_ms}ms }}"));
    let purge = window.purge.then(|| "purge: true".to_owned());
    match window.emit {
        emit if early.is_some() || refinements.is_some() || purge.is_some() => {
            let then = if emit == Emit::OnTime { "then: on_time" } else { "then: on_close" };
            let early = early.map(|early| format!("early: {{ {early} }}"));
            let parts = [early, Some(then.to_owned()), purge, refinements];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            let _ = writeln!(out, "    emit: {{ {} }}", parts.join(", "));
        }
        Emit::OnClose => {}
        Emit::OnTime => out.push_str("    emit: on_time\n"),
        Emit::OnUpdate => out.push_str("    emit: on_update\n"),
    }
    if window.changelog {
        out.push_str("    changelog: true\n");
    }
    if let Some(topic) = &window.late {
        let _ = writeln!(out, "    late: {{ topic: {topic} }}");
    }
    render_aggregates(&window.aggregates, fields, out);
}

fn render_global(window: &GlobalWindow, fields: &[Field], made: &[Field], out: &mut String) {
    render_key(&window.key, fields, out);
    let windows = match &window.trigger {
        Trigger::Count { size, slide } if size == slide => format!("type: count, size: {size}"),
        Trigger::Count { size, slide } => format!("type: count, size: {size}, slide: {slide}"),
        _ => "type: global".to_owned(),
    };
    let _ = writeln!(out, "    window: {{ {windows} }}");
    let fires = match &window.trigger {
        Trigger::Count { .. } => None,
        Trigger::Rows(1) if !window.purge => Some("on_update".to_owned()),
        Trigger::Rows(rows) => Some(format!("rows: {rows}")),
        Trigger::When(formula) => Some(format!("when: {}", quoted(&cel(formula, fields)))),
        Trigger::Having(formula) => Some(format!("having: {}", quoted(&cel(formula, made)))),
        Trigger::Changelog => {
            out.push_str("    changelog: true\n");
            Some("on_update".to_owned())
        }
    };
    let _ = match fires {
        None => Ok(()),
        Some(word) if word == "on_update" => writeln!(out, "    emit: {word}"),
        Some(fires) => writeln!(out, "    emit: {{ {fires}, purge: {} }}", window.purge),
    };
    if let Some(ttl_ms) = window.ttl_ms {
        let _ = writeln!(out, "    ttl: {ttl_ms}ms");
    }
    render_aggregates(&window.aggregates, fields, out);
}

fn render_aggregates(aggregates: &[Aggregate], fields: &[Field], out: &mut String) {
    out.push_str("    aggregate:\n");
    for aggregate in aggregates {
        let of = aggregate.argument.as_ref().map_or(String::new(), |formula| cel(formula, fields));
        let function = name(aggregate.function);
        let parameter = match aggregate.parameter {
            Parameter::None | Parameter::Max(Parameter::MAX_DEFAULT) => None,
            Parameter::Max(values) => Some(("max", values.to_string())),
            Parameter::Quantile(q) => Some(("q", q.to_string())),
            Parameter::Number(rows) => Some(("n", rows.to_string())),
        };
        let _ = match (&aggregate.by, &aggregate.condition) {
            (None, None) => {
                let second = parameter.map_or(String::new(), |(_, number)| format!(", {number}"));
                writeln!(out, "      {}: {}", aggregate.name, quoted(&format!("{function}({of}{second})")))
            }
            (by, condition) => {
                let mut parts = Vec::new();
                let mut part = |key: &str, text: &str| parts.push(format!("{key}: {}", quoted(text)));
                if !of.is_empty() {
                    part("of", &of);
                }
                for (key, formula) in [("by", by), ("where", condition)] {
                    if let Some(formula) = formula {
                        part(key, &cel(formula, fields));
                    }
                }
                parts.extend(parameter.map(|(key, number)| format!("{key}: {number}")));
                writeln!(out, "      {}: {{ {function}: {{ {} }} }}", aggregate.name, parts.join(", "))
            }
        };
    }
}

fn unit_name(unit: CalendarUnit) -> &'static str {
    match unit {
        CalendarUnit::Day => "day",
        CalendarUnit::Week => "week",
        CalendarUnit::Month => "month",
        CalendarUnit::Quarter => "quarter",
        CalendarUnit::Year => "year",
    }
}

fn name(function: AggregateFunction) -> &'static str {
    use AggregateFunction as F;
    match function {
        F::Count => "count",
        F::Sum => "sum",
        F::Min => "min",
        F::Max => "max",
        F::Avg => "avg",
        F::Variance => "variance",
        F::VariancePop => "variance_pop",
        F::Stddev => "stddev",
        F::StddevPop => "stddev_pop",
        F::First => "first",
        F::Last => "last",
        F::MinBy => "min_by",
        F::MaxBy => "max_by",
        F::CountDistinct => "count_distinct",
        F::ApproxCountDistinct => "approx_count_distinct",
        F::ApproxQuantile => "approx_quantile",
        F::Collect => "collect",
        F::TopN => "top_n",
    }
}

fn on_error(on_error: &OnError, out: &mut String) {
    let _ = match on_error {
        OnError::Fail => Ok(()),
        OnError::Skip => writeln!(out, "    on_error: skip"),
        OnError::DeadLetter(topic) => writeln!(out, "    on_error: {{ dead_letter: {topic} }}"),
    };
}

fn cel(formula: &Formula, fields: &[Field]) -> String {
    let mut out = String::new();
    formula.render(fields, &mut out);
    out
}

/// As a YAML scalar.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
