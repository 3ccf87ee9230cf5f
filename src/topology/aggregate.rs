//! Aggregates: as text, `function(argument)`, where the argument is an expression, or as a mapping with more to say.

use std::sync::Arc;

use crate::expression::Expression;
use crate::operator::reserved_bytes;
use crate::record::Type;
use crate::state::key::STATE_RESERVED_BYTES_MAX;

use super::diagnostic::{Span, known_names};
use super::plan::{AggregateFunction, AggregatePlan, Parameter};
use super::reader::{Fields, Reader, Text};
use super::stream::{Stream, check_field_name};
use super::substitute::substitute;
use super::window::plain;
use super::yaml::{Data, Entry, Kind, Node};

/// The functions by name.
const FUNCTIONS: [(&str, AggregateFunction); 18] = [
    ("count", AggregateFunction::Count),
    ("sum", AggregateFunction::Sum),
    ("min", AggregateFunction::Min),
    ("max", AggregateFunction::Max),
    ("avg", AggregateFunction::Avg),
    ("variance", AggregateFunction::Variance),
    ("variance_pop", AggregateFunction::VariancePop),
    ("stddev", AggregateFunction::Stddev),
    ("stddev_pop", AggregateFunction::StddevPop),
    ("first", AggregateFunction::First),
    ("last", AggregateFunction::Last),
    ("min_by", AggregateFunction::MinBy),
    ("max_by", AggregateFunction::MaxBy),
    ("count_distinct", AggregateFunction::CountDistinct),
    ("approx_count_distinct", AggregateFunction::ApproxCountDistinct),
    ("approx_quantile", AggregateFunction::ApproxQuantile),
    ("collect", AggregateFunction::Collect),
    ("top_n", AggregateFunction::TopN),
];

/// The function called `name`.
fn function(name: &str) -> Option<AggregateFunction> {
    FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
}

/// The name of a function.
pub(super) fn function_name(function: AggregateFunction) -> &'static str {
    FUNCTIONS.iter().find(|(_, known)| *known == function).map_or("", |(name, _)| name)
}

/// The aggregates of a window, whose fields are added to the stream of its rows. `keeps_told`: what was told of it is kept as
/// well.
pub(super) fn check_aggregates(
    fields: &Fields,
    input: &Stream,
    keeps_told: bool,
    stream: &mut Stream,
    reader: &mut Reader,
) -> Option<Vec<AggregatePlan>> {
    let help = "say what is computed, as in `aggregate: { orders: 'count()' }`";
    let node = reader.required(fields, "aggregate", help)?;
    let entries = reader.entries(node, "`aggregate`")?;
    if entries.is_empty() {
        reader.problems.error(node.span, format!("{} has no aggregate", fields.what)).help(help);
    }
    let mut aggregates = Vec::new();
    for entry in entries {
        check_field_name(&entry.key, entry.key_span, "choose another name", reader);
        let aggregate = check_aggregate(entry, input, reader);
        let field =
            aggregate.as_ref().map(|aggregate| plain(&entry.key, aggregate.ty, !counts(aggregate.function)));
        stream.add(&entry.key, field, entry.key_span, &fields.what, reader);
        aggregates.extend(aggregate);
    }
    check_reserved(&aggregates, keeps_told, node, fields, reader);
    (aggregates.len() == entries.len()).then_some(aggregates)
}

/// Whether a window names an aggregate of a bounded number of values. If it is merged of parts the bound may be met by none of
/// them, but by all together, and then it is not one row that has no room.
pub(super) fn has_bounded_aggregate(fields: &Fields, reader: &Reader) -> bool {
    let Some(Data::Mapping(entries)) = fields.get("aggregate").map(|node| &node.data) else { return false };
    let is_bounded = |entry: &Entry| {
        let name = match &entry.value.data {
            Data::Mapping(calls) => calls.first().map(|call| call.key.clone()),
            Data::Scalar { text, .. } => substitute(text, reader.values).ok().map(|call| call.text),
            Data::Sequence(_) => None,
        };
        let name = name.unwrap_or_default();
        let function = function(name.split('(').next().unwrap_or_default().trim());
        matches!(function, Some(AggregateFunction::Collect | AggregateFunction::CountDistinct))
    };
    entries.iter().any(is_bounded)
}

/// Reports aggregates that together may keep more than an entry of the state holds.
fn check_reserved(
    aggregates: &[AggregatePlan],
    keeps_told: bool,
    node: &Node,
    fields: &Fields,
    reader: &mut Reader,
) {
    let reserved: usize = aggregates.iter().map(reserved_bytes).sum();
    let (reserved, twice) = match keeps_told {
        true => (2 * reserved, ", what was told in the changelog included,"),
        false => (reserved, ""),
    };
    if reserved > STATE_RESERVED_BYTES_MAX {
        let most = STATE_RESERVED_BYTES_MAX;
        let message = format!(
            "{}: its aggregates may keep {reserved} bytes for a key and window{twice}, more than {most}",
            fields.what
        );
        let help = "lower a `max` of `count_distinct` (10 bytes for each value) or `collect` (14) or an `n` of `top_n` (48), \
                    or use another window";
        reader.problems.error(node.span, message).help(help);
    }
}

/// Whether a function counts, so that its result is never null.
fn counts(function: AggregateFunction) -> bool {
    use AggregateFunction::{ApproxCountDistinct, Count, CountDistinct};
    matches!(function, Count | CountDistinct | ApproxCountDistinct)
}

fn check_aggregate(entry: &Entry, input: &Stream, reader: &mut Reader) -> Option<AggregatePlan> {
    match &entry.value.data {
        Data::Mapping(_) => check_long_aggregate(entry, input, reader),
        _ => check_short_aggregate(entry, input, reader),
    }
}

/// An aggregate as text: `sum(amount)`.
fn check_short_aggregate(entry: &Entry, input: &Stream, reader: &mut Reader) -> Option<AggregatePlan> {
    let text =
        reader.code(&entry.value, &format!("`{}` must be an aggregate such as `sum(amount)`", entry.key))?;
    let characters: Vec<char> = text.value.chars().collect();
    let call = match split_call(&characters) {
        Ok(call) => call,
        Err(mistake) => {
            reader.problems.error(text.part(mistake.start, mistake.end), mistake.message).help(mistake.help);
            return None;
        }
    };
    let name: String = characters[call.function.0..call.function.1].iter().collect();
    let function = known_function(&name, text.part(call.function.0, call.function.1), reader)?;
    if compares(function) {
        reader
            .problems
            .error(text.part(call.function.0, characters.len()), format!("`{name}` needs two expressions"))
            .help(format!("write it as a mapping: `{}`", long_form(&name)));
        return None;
    }
    let (parameter, end) = check_short_parameter(&name, function, &call, &text, reader)?;
    let argument = match call.argument.map(|(start, _)| (start, end)) {
        Some(part) => Some(input.compile(&text, part, reader)?),
        None if function == AggregateFunction::Count => None,
        None => {
            let span = text.part(call.function.0, characters.len());
            reader
                .problems
                .error(span, format!("`{name}` needs an argument"))
                .help(format!("name a field or write an expression: `{name}(amount)`"));
            return None;
        }
    };
    let (start, end) = call.argument.map_or(call.function, |(start, _)| (start, end));
    let ty = output_type(function, &name, argument.as_ref(), text.part(start, end), reader)?;
    let argument = argument.map(Arc::new);
    let (by, condition) = (None, None);
    Some(AggregatePlan { name: entry.key.clone(), function, argument, by, condition, parameter, ty })
}

/// What stands behind the comma of `approx_quantile(latency, 0.99)`, and where the argument before it ends.
fn check_short_parameter(
    name: &str,
    function: AggregateFunction,
    call: &Call,
    text: &Text,
    reader: &mut Reader,
) -> Option<(Parameter, usize)> {
    let end = call.argument.map_or(call.function.1, |(_, end)| end);
    let Some(comma) = call.comma else {
        if function == AggregateFunction::ApproxQuantile && call.argument.is_some() {
            let span = text.part(call.function.0, end + 1);
            let message = format!("`{name}` needs a quantile");
            reader.problems.error(span, message).help(format!("as in `{name}(latency, 0.99)`"));
            return None;
        }
        return Some((default_parameter(function), end));
    };
    if parameter_key(function).is_none() {
        let help = "write one aggregate for each";
        reader.problems.error(text.part(comma, comma + 1), "an aggregate takes one argument").help(help);
        return None;
    }
    let written: String = text.value.chars().skip(comma + 1).take(end - comma - 1).collect();
    match parse_parameter(function, written.trim()) {
        Ok(parameter) => Some((parameter, comma)),
        Err(must) => {
            let message = format!("the second argument of `{name}` must be {must}");
            let blanks = written.chars().take_while(|c| c.is_whitespace()).count();
            reader.problems.error(text.part(comma + 1 + blanks, end), message);
            None
        }
    }
}

/// What a function's parameter is called.
fn parameter_key(function: AggregateFunction) -> Option<&'static str> {
    match function {
        AggregateFunction::CountDistinct | AggregateFunction::Collect => Some("max"),
        AggregateFunction::TopN => Some("n"),
        AggregateFunction::ApproxQuantile => Some("q"),
        _ => None,
    }
}

/// The parameter where the file gives none.
fn default_parameter(function: AggregateFunction) -> Parameter {
    match function {
        AggregateFunction::CountDistinct | AggregateFunction::Collect => {
            Parameter::Max(Parameter::MAX_DEFAULT)
        }
        _ => Parameter::None,
    }
}

/// A parameter as it is written; the error says what it must be.
fn parse_parameter(function: AggregateFunction, text: &str) -> Result<Parameter, String> {
    if function == AggregateFunction::ApproxQuantile {
        let q = text.parse().ok().filter(|q| (0.0..=1.0).contains(q));
        return q.map(Parameter::Quantile).ok_or_else(|| "a number from 0 to 1".to_owned());
    }
    if function == AggregateFunction::TopN {
        return parse_number(text, Parameter::NUMBER_LIMIT).map(Parameter::Number);
    }
    let most = match function {
        AggregateFunction::Collect => Parameter::COLLECT_LIMIT,
        _ => Parameter::MAX_LIMIT,
    };
    parse_number(text, most).map(Parameter::Max)
}

fn parse_number(text: &str, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("an int from 1 to {most}"))
}

/// The parameter of a mapping.
fn check_long_parameter(
    function: AggregateFunction,
    fields: &Fields,
    help: &str,
    reader: &mut Reader,
) -> Option<Parameter> {
    let Some(key) = parameter_key(function) else { return Some(Parameter::None) };
    let node = match default_parameter(function) {
        Parameter::None => reader.required(fields, key, help)?,
        default => match fields.get(key) {
            None => return Some(default),
            Some(node) => node,
        },
    };
    let scalar = reader.scalar(node, &format!("`{key}` of {} must be a number", fields.what))?;
    let number = matches!(scalar.kind, Kind::Int | Kind::Double).then_some(scalar.text.value.as_str());
    match parse_parameter(function, number.unwrap_or_default()) {
        Ok(parameter) => Some(parameter),
        Err(must) => {
            reader.mismatch(node, &format!("`{key}` of {} must be {must}", fields.what));
            None
        }
    }
}

/// An aggregate as a mapping: `{ sum: { of: 'amount', where: 'amount > 10.0' } }`.
fn check_long_aggregate(entry: &Entry, input: &Stream, reader: &mut Reader) -> Option<AggregatePlan> {
    let entries = reader.entries(&entry.value, &format!("`{}`", entry.key))?;
    let [call] = entries else {
        reader
            .problems
            .error(entry.value.span, format!("`{}` must have one key, the function", entry.key))
            .help(format!("as in `{}`", long_form("sum")));
        return None;
    };
    let function = known_function(&call.key, call.key_span, reader)?;
    let what = format!("`{}` of `{}`", call.key, entry.key);
    let fields = reader.fields(&call.value, &what, call.key_span)?;
    let mut keys = vec!["of", "where"];
    keys.extend(compares(function).then_some("by"));
    keys.extend(parameter_key(function));
    reader.check_keys(&fields, &keys);
    let help = format!("as in `{}`", long_form(&call.key));
    let parameter = check_long_parameter(function, &fields, &help, reader);
    let argument = match function {
        AggregateFunction::Count => fields.get("of"),
        _ => Some(reader.required(&fields, "of", &help)?),
    };
    let mut expression = |key: &str, node: Option<&Node>| match node {
        None => Some(None),
        Some(node) => {
            let text = reader.code(node, &format!("`{key}` of {what} must be an expression"))?;
            let expression = input.compile_all(&text, reader)?;
            Some(Some((expression, text.part(0, text.value.trim_end().chars().count()))))
        }
    };
    let argument = expression("of", argument);
    let condition = expression("where", fields.get("where"));
    let by = expression("by", fields.get("by").filter(|_| compares(function)));
    let (argument, condition, by) = (argument?, condition?, by?);
    if compares(function) {
        reader.required(&fields, "by", &help)?;
    }
    if let Some((by, span)) = &by
        && !ORDERED.contains(&by.ty())
    {
        refuse_type(&call.key, by.ty(), &ORDERED, *span, reader);
        return None;
    }
    if let Some((condition, span)) = &condition
        && condition.ty() != Type::Bool
    {
        let message = format!("`where` is of type {}, not bool", condition.ty());
        reader.problems.error(*span, message).help("write a condition, as in `amount > 0.0`");
        return None;
    }
    let span = argument.as_ref().map_or(call.key_span, |(_, span)| *span);
    let of = |part: Option<(Expression, Span)>| part.map(|(expression, _)| Arc::new(expression));
    let ty = output_type(function, &call.key, argument.as_ref().map(|(argument, _)| argument), span, reader)?;
    let (argument, by, condition, parameter) = (of(argument), of(by), of(condition), parameter?);
    Some(AggregatePlan { name: entry.key.clone(), function, argument, by, condition, parameter, ty })
}

/// Whether a function compares something else than its argument.
fn compares(function: AggregateFunction) -> bool {
    matches!(function, AggregateFunction::MinBy | AggregateFunction::MaxBy | AggregateFunction::TopN)
}

/// A function as a mapping, for help.
fn long_form(name: &str) -> String {
    let function = function(name);
    match function.and_then(parameter_key) {
        Some("n") => format!("{{ {name}: {{ of: product, by: amount, n: 3 }} }}"),
        Some("q") => format!("{{ {name}: {{ of: latency, q: 0.99 }} }}"),
        Some(key) => format!("{{ {name}: {{ of: customer, {key}: 10000 }} }}"),
        None if function.is_some_and(compares) => format!("{{ {name}: {{ of: customer, by: amount }} }}"),
        None => format!("{{ {name}: {{ of: amount, where: 'amount > 10.0' }} }}"),
    }
}

fn known_function(name: &str, span: Span, reader: &mut Reader) -> Option<AggregateFunction> {
    let known = function(name);
    if known.is_none() {
        let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        reader.problems.error(span, format!("unknown aggregate `{name}`")).help(known_names(name, &names));
    }
    known
}

const NUMBERS: [Type; 2] = [Type::Int, Type::Double];
/// All but lists.
const PLAIN: [Type; 7] =
    [Type::String, Type::Bool, Type::Int, Type::Double, Type::Timestamp, Type::Duration, Type::Bytes];
const ORDERED: [Type; 5] = [Type::Int, Type::Double, Type::Timestamp, Type::Duration, Type::String];

/// The type of an aggregate's result; reports an argument that it cannot take.
fn output_type(
    function: AggregateFunction,
    name: &str,
    argument: Option<&Expression>,
    span: Span,
    reader: &mut Reader,
) -> Option<Type> {
    use AggregateFunction as F;
    let Some(ty) = argument.map(Expression::ty) else { return Some(Type::Int) };
    let (accepted, output): (&[Type], Type) = match function {
        F::Count => return Some(Type::Int),
        F::CountDistinct | F::ApproxCountDistinct => (&PLAIN, Type::Int),
        F::Collect | F::TopN => {
            let nullable = function == F::TopN && argument.is_some_and(Expression::nullable);
            (&PLAIN, ty.list(nullable).unwrap_or(ty))
        }
        F::First | F::Last | F::MinBy | F::MaxBy => return Some(ty),
        F::Sum => (&NUMBERS, ty),
        F::Avg | F::Variance | F::VariancePop | F::Stddev | F::StddevPop | F::ApproxQuantile => {
            (&NUMBERS, Type::Double)
        }
        F::Min | F::Max => (&ORDERED, ty),
    };
    if accepted.contains(&ty) {
        return Some(output);
    }
    refuse_type(name, ty, accepted, span, reader);
    None
}

fn refuse_type(name: &str, ty: Type, accepted: &[Type], span: Span, reader: &mut Reader) {
    let names: Vec<String> = accepted.iter().map(Type::to_string).collect();
    reader
        .problems
        .error(span, format!("`{name}` cannot take a value of type {ty}"))
        .help(format!("it takes {}; convert the value or count it", names.join(", ")));
}

/// An aggregate taken apart; ranges of characters, ends exclusive.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    pub function: (usize, usize),
    /// `None`: nothing between the parentheses.
    pub argument: Option<(usize, usize)>,
    /// The first comma directly between the parentheses.
    pub comma: Option<usize>,
}

/// Why a text is no aggregate.
#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    pub start: usize,
    pub end: usize,
    pub message: String,
    pub help: String,
}

/// Takes an aggregate apart.
fn split_call(text: &[char]) -> Result<Call, Mistake> {
    let mistake = |start: usize, end: usize, message: &str, help: &str| Mistake {
        start,
        end,
        message: message.to_owned(),
        help: help.to_owned(),
    };
    let blank = |c: &char| c.is_whitespace();
    let start = text.iter().position(|c| !blank(c)).unwrap_or(0);
    let end = text.iter().rposition(|c| !blank(c)).map_or(start, |last| last + 1);
    let name = text[start..end].iter().position(|&c| !(c.is_alphanumeric() || c == '_'));
    let name_end = name.map_or(end, |length| start + length);
    let open = text[name_end..end].iter().position(|c| !blank(c)).map(|blanks| name_end + blanks);
    let Some(open) = open.filter(|&open| name_end > start && text[open] == '(') else {
        return Err(mistake(
            start,
            end,
            "this is no aggregate",
            "write a function of an expression, as in `sum(amount)`",
        ));
    };
    let (close, comma) = match_parenthesis(&text[..end], open);
    let Some(close) = close else {
        return Err(mistake(open, open + 1, "this parenthesis is not closed", "an aggregate ends with `)`"));
    };
    if close + 1 < end {
        let help = "an aggregate is one function; compute with its result in a map behind the window";
        return Err(mistake(close + 1, end, "nothing can follow an aggregate", help));
    }
    let inside = &text[open + 1..close];
    if inside.iter().filter(|c| !blank(c)).eq(['*'].iter()) {
        return Err(mistake(open + 1, close, "`*` is no expression", "`count()` counts rows"));
    }
    let argument = inside.iter().any(|c| !blank(c)).then_some((open + 1, close));
    Ok(Call { function: (start, name_end), argument, comma })
}

/// The parenthesis that closes the one at `open`, and the first comma directly between the two.
fn match_parenthesis(text: &[char], open: usize) -> (Option<usize>, Option<usize>) {
    let mut depth = 0usize;
    let mut comma = None;
    let mut at = open;
    while at < text.len() {
        match text[at] {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth -= 1; // at least 1: the walk ends at 0, and it began with an opening one
                if depth == 0 {
                    return (Some(at), comma);
                }
            }
            ',' if depth == 1 => comma = comma.or(Some(at)),
            quote @ ('"' | '\'') => {
                let raw = at > 0 && matches!(text[at - 1], 'r' | 'R');
                at += 1;
                while at < text.len() && text[at] != quote {
                    at += if text[at] == '\\' && !raw { 2 } else { 1 };
                }
            }
            _ => {}
        }
        at += 1;
    }
    (None, comma)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Result<(String, Option<String>), String> {
        let characters: Vec<char> = text.chars().collect();
        let part = |(start, end): (usize, usize)| characters[start..end].iter().collect::<String>();
        match split_call(&characters) {
            Ok(call) => Ok((part(call.function), call.argument.map(part))),
            Err(mistake) => Err(format!("{} at {}", mistake.message, part((mistake.start, mistake.end)))),
        }
    }

    #[test]
    fn takes_calls_apart() {
        let call =
            |function: &str, argument: Option<&str>| Ok((function.to_owned(), argument.map(str::to_owned)));
        assert_eq!(split("count()"), call("count", None));
        assert_eq!(split(" sum ( amount ) "), call("sum", Some(" amount ")));
        assert_eq!(split("sum(a * (b + 1))"), call("sum", Some("a * (b + 1)")));
        assert_eq!(
            split(r#"max(x == ")" ? [1, 2][0] : f(1, 2))"#),
            call("max", Some(r#"x == ")" ? [1, 2][0] : f(1, 2)"#))
        );
        assert_eq!(split(r#"max("\")")"#), call("max", Some(r#""\")""#)));
        assert_eq!(split(r"max(r'\')"), call("max", Some(r"r'\'")));
    }

    #[test]
    fn says_what_is_no_call() {
        let no = |text: &str| split(text).expect_err("no aggregate");
        assert_eq!(no("amount"), "this is no aggregate at amount");
        assert_eq!(no("(amount)"), "this is no aggregate at (amount)");
        assert_eq!(no("sum(a"), "this parenthesis is not closed at (");
        assert_eq!(no("sum(a) / count()"), "nothing can follow an aggregate at  / count()");
        assert_eq!(no("count( * )"), "`*` is no expression at  * ");
        assert_eq!(no(""), "this is no aggregate at ");
    }
}
