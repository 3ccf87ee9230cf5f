//! A topology as a picture.

use std::fmt::Write;

use super::global::global_description;
use super::plan::{MapSlot, OnError, OperatorKind, OperatorPlan, Phase, Plan, RepartitionPlan, StreamRef};
use super::topics::{TopicRole, topics};
use super::window::{description, duration};
use crate::format::block::Carried;

/// A Mermaid flowchart of a topology: its topics, and a box for each stage with the source and the
/// operators of that stage; dead letters and late records go along dotted lines.
pub fn graph(plan: &Plan) -> String {
    let uses = topics(plan);
    let topic_node = |name: &str, role: TopicRole| {
        let at = uses.iter().position(|known| known.topic == name && known.role == role);
        format!("topic{}", at.unwrap_or_default())
    };
    let mut out = String::from("flowchart LR\n");
    // Writing to a string cannot fail.
    for (i, topic) in uses.iter().enumerate() {
        let _ = writeln!(out, "  topic{i}[(\"{}\")]", escape(&topic.topic));
    }
    for (i, repartition) in plan.repartitions.iter().enumerate() {
        let topic = plan.repartition_topic(repartition);
        let _ = writeln!(out, "  repartition{i}[(\"{}\")]", escape(&topic));
    }
    for (i, stage) in plan.stages().enumerate() {
        let id = escape(stage.id());
        let _ = writeln!(out, "  subgraph stage{i}[\"stage {id}\"]");
        match plan.head_of(i) {
            StreamRef::Repartition(j) => {
                let key = key_names(plan, &plan.repartitions[j]);
                let with = match plan.carried_by(j).carried {
                    Carried::Nothing => "",
                    Carried::Meta => "<br/>with meta",
                    Carried::Whole => "<br/>with the source's records",
                };
                let key = escape(&key);
                let _ = writeln!(out, "    rekeyed{j}[\"{id}<br/>repartitioned {key}{with}\"]");
            }
            _ => drop(writeln!(out, "    source{i}[\"{id}<br/>source\"]")),
        }
        for (j, operator) in boxes(plan) {
            if is_only_of(plan, j, i) {
                let _ = writeln!(out, "    operator{j}{}", shape(plan, operator));
            }
        }
        let _ = writeln!(out, "  end");
    }
    for (j, operator) in boxes(plan) {
        if (0..plan.stages().count()).all(|stage| !is_only_of(plan, j, stage)) {
            let _ = writeln!(out, "  operator{j}{}", shape(plan, operator));
        }
    }
    for (i, sink) in plan.sinks.iter().enumerate() {
        let _ = writeln!(out, "  sink{i}[/\"{}<br/>sink\"/]", escape(&sink.id));
    }
    let dead_letter = |out: &mut String, from: String, on_error: &OnError| {
        if let OnError::DeadLetter(topic) = on_error {
            let _ = writeln!(
                out,
                "  {from} -. \"dead letters\" .-> {}",
                topic_node(topic, TopicRole::DeadLetter)
            );
        }
    };
    for (i, source) in plan.sources.iter().enumerate() {
        let _ = writeln!(out, "  {} --> source{i}", topic_node(&source.topic, TopicRole::Source));
        dead_letter(&mut out, format!("source{i}"), &source.on_error);
    }
    for (i, repartition) in plan.repartitions.iter().enumerate() {
        let _ = writeln!(out, "  {} --> repartition{i} --> rekeyed{i}", stream_node(plan, repartition.input));
        dead_letter(&mut out, format!("rekeyed{i}"), &repartition.on_error);
    }
    for (i, operator) in boxes(plan) {
        for input in &operator.inputs {
            let _ = writeln!(out, "  {} --> operator{i}", stream_node(plan, *input));
        }
        dead_letter(&mut out, format!("operator{i}"), &operator.on_error);
        if let Some(topic) = operator.kind.late_topic() {
            let _ = writeln!(out, "  operator{i} -. \"late\" .-> {}", topic_node(topic, TopicRole::Late));
        }
    }
    for (i, sink) in plan.sinks.iter().enumerate() {
        let _ = writeln!(
            out,
            "  {} --> sink{i} --> {}",
            stream_node(plan, sink.input),
            topic_node(&sink.topic, TopicRole::Sink)
        );
        dead_letter(&mut out, format!("sink{i}"), &sink.on_error);
    }
    out
}

/// The operators that have a box of their own: a branch is a line.
fn boxes(plan: &Plan) -> impl Iterator<Item = (usize, &OperatorPlan)> {
    let operators = plan.operators.iter().enumerate();
    operators.filter(|(_, operator)| !matches!(operator.kind, OperatorKind::Output { .. }))
}

/// Where a line begins that comes from a stream.
fn stream_node(plan: &Plan, stream: StreamRef) -> String {
    match stream {
        StreamRef::Operator(i) if matches!(plan.operators[i].kind, OperatorKind::Output { .. }) => {
            let OperatorPlan { id, inputs, .. } = &plan.operators[i];
            let split = inputs.first().map(|split| (stream_node(plan, *split), plan.stream_id(*split)));
            let (node, split) = split.unwrap_or_default();
            let name = id.strip_prefix(split).unwrap_or(id).trim_start_matches('/');
            format!("{node} -- \"{}\"", escape(name))
        }
        StreamRef::Source(i) => format!("source{i}"),
        StreamRef::Operator(i) => format!("operator{i}"),
        StreamRef::Repartition(i) => format!("rekeyed{i}"),
    }
}

/// Whether all rows of an operator come from a stage. Behind a union they may come from several.
fn is_only_of(plan: &Plan, operator: usize, stage: usize) -> bool {
    plan.routes(StreamRef::Operator(operator)).iter().all(|route| route.stage == stage)
}

/// By what a repartition brings rows together.
fn key_names(plan: &Plan, repartition: &RepartitionPlan) -> String {
    let schema = plan.stream_schema(repartition.input);
    let names: Vec<&str> = repartition.key.iter().map(|slot| schema.fields[*slot].name.as_str()).collect();
    if names.is_empty() { "in one partition".to_owned() } else { format!("by {}", names.join(", ")) }
}

/// The names of fields of an operator's rows.
fn names(operator: &OperatorPlan, slots: &[usize]) -> String {
    let names = slots.iter().map(|slot| operator.schema.fields[*slot].name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

/// The shape and label of an operator: what it does, in a line or two.
fn shape(plan: &Plan, operator: &OperatorPlan) -> String {
    let id = escape(&operator.id);
    match &operator.kind {
        OperatorKind::Filter { predicate } => {
            format!("{{{{\"{id}<br/>filter<br/>{}\"}}}}", escape(predicate.source().trim()))
        }
        OperatorKind::Map { slots } => {
            let input = operator.inputs.first().map(|input| plan.stream_schema(*input)).unwrap_or_default();
            let set = slots.iter().zip(&operator.schema.fields).filter(|(slot, field)| match slot {
                MapSlot::Expression(_) => true,
                MapSlot::Input(i) => input.fields[*i].name != field.name,
            });
            let set: Vec<&str> = set.map(|(_, field)| field.name.as_str()).collect();
            let what =
                if set.is_empty() { "choose fields".to_owned() } else { format!("set {}", set.join(", ")) };
            format!("[\"{id}<br/>map<br/>{}\"]", escape(&what))
        }
        OperatorKind::FlatMap(flat_map) => {
            let made = flat_map.each.len() + usize::from(flat_map.position);
            let fields = operator.schema.fields.iter().rev().take(made).rev();
            let names: Vec<&str> = fields.map(|field| field.name.as_str()).collect();
            format!("[\"{id}<br/>flat_map<br/>{}\"]", escape(&format!("each {}", names.join(", "))))
        }
        OperatorKind::Branch { .. } => format!("{{{{\"{id}<br/>branch\"}}}}"),
        OperatorKind::Output { .. } => String::new(), // it is a line
        OperatorKind::Union { .. } => format!("(({id}<br/>union))"),
        OperatorKind::Window(window) => {
            let key: Vec<&str> =
                operator.schema.fields[..window.key.len()].iter().map(|field| field.name.as_str()).collect();
            let by =
                if key.is_empty() { "over all rows".to_owned() } else { format!("by {}", key.join(", ")) };
            let word = match window.phase {
                Phase::Whole => "window",
                Phase::Local => "window, each task's rows",
                Phase::Global => "window, all tasks'",
            };
            let what = format!("{} {by}", description(window));
            format!("[[\"{id}<br/>{word}<br/>{}\"]]", escape(&what))
        }
        OperatorKind::GlobalWindow(window) => {
            let key: Vec<usize> = (0..window.key.len()).collect();
            let what = global_description(window, &names(operator, &key));
            format!("[[\"{id}<br/>window<br/>{}\"]]", escape(&what))
        }
        OperatorKind::Deduplicate(deduplicate) => {
            let key = names(operator, &deduplicate.key);
            let what = format!("within {} by {key}", duration(deduplicate.within_ms));
            format!("[[\"{id}<br/>deduplicate<br/>{}\"]]", escape(&what))
        }
        OperatorKind::Lag(lag) => {
            let kept = lag.ttl_ms.map_or("for ever".to_owned(), |ttl_ms| format!("for {}", duration(ttl_ms)));
            let what = format!("by {}, kept {kept}", names(operator, &lag.key));
            format!("[[\"{id}<br/>lag<br/>{}\"]]", escape(&what))
        }
    }
}

/// Text for a quoted label.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '#' => out.push_str("&num;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
