//! Puts the parts of a topology file together: names, inputs, order, uses.

use std::collections::BTreeMap;

use super::branch::{report_unknown_input, with_branches};
use super::case::{Case, Scope, Target, read_cases};
use super::diagnostic::Span;
use super::operator::{OperatorDraft, OperatorHead, RepartitionDraft, Word, check_operator, read_head};
use super::order::order;
use super::plan::{OnError, OperatorKind, OperatorPlan, Plan, RepartitionPlan, SinkPlan, StreamRef};
use super::reader::{Fields, Reader, Text};
use super::sink::{SinkDraft, read_sink};
use super::source::{SourceDraft, read_source};
use super::stream::Stream;
use super::topics::{Claim, TopicRole, check_topics};
use super::yaml::{Entry, Node};

/// Checks a whole file. `None` if it has an error; the reader's problems say which.
pub(super) fn check(root: &Node, reader: &mut Reader) -> Option<(Plan, Vec<Case>)> {
    let start = Span { start: root.span.start, end: root.span.start };
    let fields = reader.fields(root, "the topology", start)?;
    reader.check_keys(&fields, &["version", "name", "sources", "operators", "sinks", "tests"]);
    if let Some(node) = reader.required(&fields, "version", "begin with `version: 1`") {
        reader.int(node, "`version`", 1..=1);
    }
    let name = reader
        .required(&fields, "name", "name the application: its consumer group and the prefix of its topics")
        .and_then(|node| reader.text(node, "`name`"));
    if let Some(name) = &name {
        reader.check_id(&name.value, name.span, "an application's name");
    }
    let name = name.map(|name| name.value).unwrap_or_default();

    let section = |key: &str, help: &str, reader: &mut Reader| read_section(&fields, key, help, reader);
    let sources = section("sources", "declare at least one topic to read", reader);
    let sources: Vec<SourceDraft> = sources.iter().map(|entry| read_source(entry, reader)).collect();
    let heads = section("operators", "", reader);
    let heads: Vec<OperatorHead> =
        heads.iter().flat_map(|entry| with_branches(read_head(entry, reader))).collect();
    let sinks = section("sinks", "declare at least one topic to write", reader);
    let sinks: Vec<SinkDraft> = sinks.iter().map(|entry| read_sink(entry, reader)).collect();

    let streams = name_streams(&sources, &heads, &sinks, reader);
    let links = Links {
        operators: heads.iter().map(|head| inputs_of(head, &heads, &streams, reader)).collect(),
        sinks: resolve(sinks.iter().map(|sink| sink.input.as_ref()), &streams, reader),
    };
    let order = order(&heads, &links.operators, reader);
    let operators = check_operators(&sources, &heads, &links.operators, &order, reader);
    let keys = check_sink_keys(&sources, &operators, &sinks, &links.sinks, reader);
    warn_unused(&sources, &heads, &links, reader);
    let claims = claims(&sources, &heads, &operators, &sinks);
    check_topics(&name, &claims, reader);
    check_stage_names(&sources, &heads, &operators, reader);
    let cases = read_cases(&fields, &scope(&sources, &heads, &operators, &sinks, &links, &claims), reader);
    if reader.problems.has_error() {
        return None;
    }
    let plan = build(name, sources, heads, operators, sinks, links, order, keys)?;
    Some((plan, cases))
}

/// What the tests may name.
fn scope<'d>(
    sources: &'d [SourceDraft],
    heads: &'d [OperatorHead],
    drafts: &'d [Option<OperatorDraft>],
    sinks: &'d [SinkDraft],
    links: &Links,
    claims: &'d [Claim],
) -> Scope<'d> {
    let stream = |link: Option<StreamRef>| link.and_then(|link| stream_of(link, sources, drafts));
    let mut targets: Vec<Target> = Vec::new();
    for (sink, link) in sinks.iter().zip(&links.sinks) {
        let topic = sink.topic.as_ref().map_or("", |topic| topic.value.as_str());
        // Of a sink whose input is not known nothing can be wrong.
        targets.push(Target { name: &sink.id, topic, role: TopicRole::Sink, stream: stream(*link) });
    }
    for claim in claims.iter().filter(|claim| matches!(claim.role, TopicRole::DeadLetter | TopicRole::Late)) {
        let same = |target: &&mut Target| target.role == claim.role && target.topic == claim.topic;
        match targets.iter_mut().find(same) {
            Some(shared) => shared.stream = None,
            None => {
                let late = |draft: &Option<OperatorDraft>| {
                    draft
                        .as_ref()
                        .and_then(|draft| draft.late.as_ref())
                        .is_some_and(|(_, span)| *span == claim.span)
                };
                let owner = drafts.iter().position(late).filter(|_| claim.role == TopicRole::Late);
                let stream =
                    owner.and_then(|owner| stream(links.operators[owner].first().copied().flatten()));
                targets.push(Target { name: &claim.topic, topic: &claim.topic, role: claim.role, stream });
            }
        }
    }
    let mut scope = Scope {
        sources: sources.iter().map(|source| source.plan.id.as_str()).collect(),
        targets,
        operators: Vec::new(),
        windows: Vec::new(),
        late: Vec::new(),
        sinks: sinks.iter().map(|sink| sink.id.as_str()).collect(),
    };
    for (head, draft) in heads.iter().zip(drafts) {
        let Some(draft) = draft.as_ref().filter(|_| head.word == Some(Word::Window)) else {
            let is_branch = matches!(head.word, Some(Word::Output(_)));
            scope.operators.extend((!is_branch).then_some(head.id.as_str()));
            scope.late.extend((head.word == Some(Word::Deduplicate)).then_some(head.id.as_str()));
            continue;
        };
        let mut stream = draft.stream.clone();
        // The marks are of rows that are emitted.
        let marks = match &draft.kind {
            Some(OperatorKind::Window(window)) => window.marks().count(),
            Some(OperatorKind::GlobalWindow(window)) => window.marks(),
            _ => 0,
        };
        stream.schema.fields.truncate(stream.schema.fields.len() - marks);
        scope.windows.push((&head.id, stream));
    }
    scope
}

/// Which streams each operator and each sink reads, by the file's order; `None` if that is a mistake.
struct Links {
    operators: Vec<Vec<Option<StreamRef>>>,
    sinks: Vec<Option<StreamRef>>,
}

/// The entries of `sources`, `operators` or `sinks`. An empty `help`: it may be left out.
fn read_section<'n>(fields: &Fields<'n>, key: &str, help: &str, reader: &mut Reader) -> &'n [Entry] {
    let node = if help.is_empty() { fields.get(key) } else { reader.required(fields, key, help) };
    let Some(node) = node else { return &[] };
    let entries = reader.entries(node, &format!("`{key}`")).unwrap_or(&[]);
    if entries.is_empty() && !help.is_empty() && matches!(node.data, super::yaml::Data::Mapping(_)) {
        reader.problems.error(node.span, format!("`{key}` is empty")).help(help);
    }
    entries
}

/// The rows of an operator; none of one that splits them: they are those of its branches.
fn stream_of_head(place: usize, head: &OperatorHead) -> Option<StreamRef> {
    head.branches.is_empty().then_some(StreamRef::Operator(place))
}

/// Sources and operators by id. An id is given once among them and the sinks.
fn name_streams<'d>(
    sources: &'d [SourceDraft],
    heads: &'d [OperatorHead],
    sinks: &'d [SinkDraft],
    reader: &mut Reader,
) -> BTreeMap<&'d str, StreamRef> {
    let mut streams = BTreeMap::new();
    let mut taken: BTreeMap<&str, (&str, Span)> = BTreeMap::new();
    let sources = sources
        .iter()
        .enumerate()
        .map(|(i, source)| ("a source", source.plan.id.as_str(), source.id_span, Some(StreamRef::Source(i))));
    let operators = heads
        .iter()
        .enumerate()
        .map(|(i, head)| ("an operator", head.id.as_str(), head.id_span, stream_of_head(i, head)));
    let sinks = sinks.iter().map(|sink| ("a sink", sink.id.as_str(), sink.id_span, None));
    for (what, id, span, stream) in sources.chain(operators).chain(sinks) {
        if let Some((other, first)) = taken.get(id) {
            let message = format!("`{id}` is the id of {other} already and cannot be that of {what}, too");
            reader.problems.error(span, message).first_at(*first);
            continue;
        }
        taken.insert(id, (what, span));
        if let Some(stream) = stream {
            streams.insert(id, stream);
        }
    }
    streams
}

/// What an operator reads. Only a branch reads the operator that splits.
fn inputs_of(
    head: &OperatorHead,
    heads: &[OperatorHead],
    streams: &BTreeMap<&str, StreamRef>,
    reader: &mut Reader,
) -> Vec<Option<StreamRef>> {
    if let (Some(Word::Output(_)), Some(split)) = (head.word, head.inputs.first()) {
        return vec![heads.iter().position(|other| other.id == split.value).map(StreamRef::Operator)];
    }
    resolve(head.inputs.iter().map(Some), streams, reader)
}

fn resolve<'t>(
    inputs: impl Iterator<Item = Option<&'t Text>>,
    streams: &BTreeMap<&str, StreamRef>,
    reader: &mut Reader,
) -> Vec<Option<StreamRef>> {
    let known: Vec<&str> = streams.keys().copied().collect();
    let mut resolved = Vec::new();
    for input in inputs {
        let stream = input.and_then(|input| streams.get(input.value.as_str()).copied());
        if let (Some(input), None) = (input, stream) {
            report_unknown_input(input, &known, reader);
        }
        resolved.push(stream);
    }
    resolved
}

/// Checks the operators in order; the result is in the file's order.
fn check_operators(
    sources: &[SourceDraft],
    heads: &[OperatorHead],
    inputs: &[Vec<Option<StreamRef>>],
    order: &[usize],
    reader: &mut Reader,
) -> Vec<Option<OperatorDraft>> {
    let mut drafts: Vec<Option<OperatorDraft>> = heads.iter().map(|_| None).collect();
    for &operator in order {
        let unknown = Stream::opaque();
        let stream = |input: &Option<StreamRef>| {
            input.and_then(|input| stream_of(input, sources, &drafts)).unwrap_or(&unknown)
        };
        let streams: Vec<&Stream> = inputs[operator].iter().map(stream).collect();
        let draft = check_operator(&heads[operator], &streams, reader);
        drafts[operator] = Some(draft);
    }
    drafts
}

/// A stream, if it has been checked: one of a cycle may not have been.
fn stream_of<'d>(
    stream: StreamRef,
    sources: &'d [SourceDraft],
    drafts: &'d [Option<OperatorDraft>],
) -> Option<&'d Stream> {
    match stream {
        StreamRef::Source(i) => Some(&sources[i].stream),
        StreamRef::Operator(i) => drafts[i].as_ref().map(|draft| &draft.stream),
        StreamRef::Repartition(_) => None, // the file knows operators; what is behind them shows when the plan is built
    }
}

/// The slots of each sink's key.
fn check_sink_keys(
    sources: &[SourceDraft],
    drafts: &[Option<OperatorDraft>],
    sinks: &[SinkDraft],
    inputs: &[Option<StreamRef>],
    reader: &mut Reader,
) -> Vec<Vec<usize>> {
    let mut keys = Vec::new();
    for (sink, input) in sinks.iter().zip(inputs) {
        let unknown = Stream::opaque();
        let stream = input.and_then(|input| stream_of(input, sources, drafts)).unwrap_or(&unknown);
        keys.push(sink.key.iter().filter_map(|name| stream.key_slot(name, "`key`", reader)).collect());
    }
    keys
}

/// Warns of sources and operators from which no way leads to a sink.
fn warn_unused(sources: &[SourceDraft], heads: &[OperatorHead], links: &Links, reader: &mut Reader) {
    if links.operators.iter().flatten().chain(&links.sinks).any(Option::is_none) {
        return; // whose input is not known may be meant to read any of them
    }
    let mut used_sources = vec![false; sources.len()];
    let mut used_operators = vec![false; heads.len()];
    let mut reached: Vec<StreamRef> = links.sinks.iter().flatten().copied().collect();
    while let Some(stream) = reached.pop() {
        let used = match stream {
            StreamRef::Source(i) => &mut used_sources[i],
            StreamRef::Operator(i) => &mut used_operators[i],
            StreamRef::Repartition(_) => continue,
        };
        if let (false, StreamRef::Operator(i)) = (std::mem::replace(used, true), stream) {
            reached.extend(links.operators[i].iter().flatten());
        }
    }
    let sources = sources
        .iter()
        .zip(used_sources)
        .map(|(source, used)| ("source", &source.plan.id, source.id_span, used));
    // That nobody reads a branch may be what it is for: its rows are left out.
    let is_branch = |head: &OperatorHead| matches!(head.word, Some(Word::Output(_)));
    let operators = heads.iter().zip(used_operators).filter(|(head, _)| !is_branch(head));
    let operators = operators.map(|(head, used)| ("operator", &head.id, head.id_span, used));
    for (what, id, span, used) in sources.chain(operators) {
        if !used {
            reader
                .problems
                .warning(span, format!("{what} `{id}` is unused: no sink writes what becomes of its rows"))
                .help("let a sink read it, or leave it out");
        }
    }
}

/// All topics that the file names and where.
fn claims(
    sources: &[SourceDraft],
    heads: &[OperatorHead],
    drafts: &[Option<OperatorDraft>],
    sinks: &[SinkDraft],
) -> Vec<Claim> {
    let mut claims = Vec::new();
    let dead_letter = |owner: String, on_error: &OnError, span: Option<Span>| match (on_error, span) {
        (OnError::DeadLetter(topic), Some(span)) => {
            Some(Claim { topic: topic.clone(), role: TopicRole::DeadLetter, owner, span })
        }
        _ => None,
    };
    for source in sources.iter().filter(|source| !source.plan.topic.is_empty()) {
        let owner = format!("source `{}`", source.plan.id);
        let topic = source.plan.topic.clone();
        claims.push(Claim { topic, role: TopicRole::Source, owner: owner.clone(), span: source.topic_span });
        claims.extend(dead_letter(owner, &source.plan.on_error, source.dead_letter_span));
    }
    for (head, draft) in heads.iter().zip(drafts) {
        let Some(draft) = draft else { continue };
        let owner = format!("operator `{}`", head.id);
        claims.extend(dead_letter(owner.clone(), &draft.on_error, draft.dead_letter_span));
        if let Some((topic, span)) = draft.late.clone() {
            claims.push(Claim { topic, role: TopicRole::Late, owner, span });
        }
    }
    for sink in sinks {
        let owner = format!("sink `{}`", sink.id);
        if let Some(topic) = &sink.topic {
            let (topic, span) = (topic.value.clone(), topic.span);
            claims.push(Claim { topic, role: TopicRole::Sink, owner: owner.clone(), span });
        }
        claims.extend(dead_letter(owner, &sink.on_error, sink.dead_letter_span));
    }
    claims
}

/// Kafka refuses two topics that differ only in `.` and `_`: so must the ids of stages, which topics of the engine's
/// are called after.
fn check_stage_names(
    sources: &[SourceDraft],
    heads: &[OperatorHead],
    drafts: &[Option<OperatorDraft>],
    reader: &mut Reader,
) {
    let begins_a_stage =
        |draft: &Option<OperatorDraft>| draft.as_ref().is_some_and(|draft| draft.repartition.is_some());
    let heads = heads.iter().zip(drafts).filter(|(_, draft)| begins_a_stage(draft));
    let heads = heads.map(|(head, _)| (&head.id, head.id_span));
    let sources = sources.iter().map(|source| (&source.plan.id, source.id_span));
    let mut taken: BTreeMap<String, &String> = BTreeMap::new();
    for (id, span) in sources.chain(heads) {
        let Some(other) = taken.insert(id.replace('.', "_"), id) else { continue };
        if other == id {
            continue; // reported as a name given twice
        }
        reader
            .problems
            .error(span, format!("`{other}` and `{id}` differ only in `.` and `_`"))
            .help("topics are called after both, which would collide in Kafka: rename one of them");
    }
}

#[expect(clippy::too_many_arguments, reason = "everything that was checked comes together here, once")]
fn build(
    name: String,
    sources: Vec<SourceDraft>,
    heads: Vec<OperatorHead>,
    mut drafts: Vec<Option<OperatorDraft>>,
    sinks: Vec<SinkDraft>,
    links: Links,
    order: Vec<usize>,
    keys: Vec<Vec<usize>>,
) -> Option<Plan> {
    let mut plan = Plan {
        name,
        sources: sources.into_iter().map(|source| source.plan).collect(),
        operators: Vec::new(),
        repartitions: Vec::new(),
        sinks: Vec::new(),
    };
    // Where the rows of each operator are in the plan.
    let mut places: Vec<Option<StreamRef>> = vec![None; heads.len()];
    let moved = |stream: StreamRef, places: &[Option<StreamRef>]| match stream {
        StreamRef::Operator(i) => places[i],
        other => Some(other),
    };
    for operator in order {
        let draft = drafts[operator].take()?;
        let id = &heads[operator].id;
        let inputs = links.operators[operator].iter().map(|input| moved((*input)?, &places));
        let mut inputs: Vec<StreamRef> = inputs.collect::<Option<_>>()?;
        let is_repartition = heads[operator].word == Some(Word::Repartition);
        let mut made = match draft.kind {
            Some(kind) => {
                let (schema, on_error) = (draft.stream.schema, draft.on_error.clone());
                Some(OperatorPlan { id: id.clone(), inputs: Vec::new(), schema, on_error, kind })
            }
            None => None,
        };
        if let (Some(local), Some(made)) = (draft.local, &made) {
            let schema = local.schema_of(&made.fingerprint().unwrap_or_default());
            let (id, on_error, kind) = (id.clone(), made.on_error.clone(), OperatorKind::Window(local.plan));
            plan.operators.push(OperatorPlan { id, inputs, schema, on_error, kind });
            inputs = vec![StreamRef::Operator(plan.operators.len() - 1)];
        }
        if let Some(RepartitionDraft { key, partitions }) = draft.repartition {
            let input = *inputs.first()?;
            plan.repartitions.push(RepartitionPlan {
                id: id.clone(),
                input,
                schema: plan.stream_schema(input),
                key,
                partitions,
                on_error: draft.on_error,
            });
            inputs = vec![StreamRef::Repartition(plan.repartitions.len() - 1)];
        }
        if is_repartition {
            places[operator] = inputs.first().copied();
            continue;
        }
        let mut made = made.take()?;
        made.inputs = inputs;
        plan.operators.push(made);
        places[operator] = Some(StreamRef::Operator(plan.operators.len() - 1));
    }
    for ((sink, input), key) in sinks.into_iter().zip(links.sinks).zip(keys) {
        plan.sinks.push(SinkPlan {
            id: sink.id,
            input: moved(input?, &places)?,
            topic: sink.topic?.value,
            create: sink.create,
            key,
            on_error: sink.on_error,
        });
    }
    Some(plan)
}
