//! Aggregates: as text, `function(argument)`, where the argument is an expression, or as a mapping with more to say.

use std::sync::Arc;

use crate::expression::Expression;
use crate::record::Type;

use super::diagnostic::{Span, known_names};
use super::plan::{AggregateFunction, AggregatePlan};
use super::reader::{Fields, Reader};
use super::stream::{Stream, check_field_name};
use super::window::plain;
use super::yaml::{Data, Entry, Node};

/// The functions by name.
const FUNCTIONS: [(&str, AggregateFunction); 13] = [
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
];

/// The function called `name`.
fn function(name: &str) -> Option<AggregateFunction> {
    FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
}

/// The name of a function.
pub(super) fn function_name(function: AggregateFunction) -> &'static str {
    FUNCTIONS.iter().find(|(_, known)| *known == function).map_or("", |(name, _)| name)
}

/// The aggregates of a window, whose fields are added to the stream of its rows.
pub(super) fn check_aggregates(
    fields: &Fields,
    input: &Stream,
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
        let field = aggregate
            .as_ref()
            .map(|aggregate| plain(&entry.key, aggregate.ty, aggregate.function != AggregateFunction::Count));
        stream.add(&entry.key, field, entry.key_span, &fields.what, reader);
        aggregates.extend(aggregate);
    }
    (aggregates.len() == entries.len()).then_some(aggregates)
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
    let argument = match call.argument {
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
    let (start, end) = call.argument.unwrap_or(call.function);
    let ty = output_type(function, &name, argument.as_ref(), text.part(start, end), reader)?;
    let argument = argument.map(Arc::new);
    Some(AggregatePlan { name: entry.key.clone(), function, argument, by: None, condition: None, ty })
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
    let keys: &[&str] = if compares(function) { &["of", "by", "where"] } else { &["of", "where"] };
    reader.check_keys(&fields, keys);
    let help = format!("as in `{}`", long_form(&call.key));
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
    let (argument, by, condition) = (of(argument), of(by), of(condition));
    Some(AggregatePlan { name: entry.key.clone(), function, argument, by, condition, ty })
}

/// Whether a function compares something else than its argument.
fn compares(function: AggregateFunction) -> bool {
    matches!(function, AggregateFunction::MinBy | AggregateFunction::MaxBy)
}

/// A function as a mapping, for help.
fn long_form(name: &str) -> String {
    match function(name).is_some_and(compares) {
        true => format!("{{ {name}: {{ of: customer, by: amount }} }}"),
        false => format!("{{ {name}: {{ of: amount, where: 'amount > 10.0' }} }}"),
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
        F::First | F::Last | F::MinBy | F::MaxBy => return Some(ty),
        F::Sum => (&NUMBERS, ty),
        F::Avg | F::Variance | F::VariancePop | F::Stddev | F::StddevPop => (&NUMBERS, Type::Double),
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
    if let Some(comma) = comma {
        return Err(mistake(
            comma,
            comma + 1,
            "an aggregate takes one argument",
            "write one aggregate for each",
        ));
    }
    let inside = &text[open + 1..close];
    if inside.iter().filter(|c| !blank(c)).eq(['*'].iter()) {
        return Err(mistake(open + 1, close, "`*` is no expression", "`count()` counts rows"));
    }
    let argument = inside.iter().any(|c| !blank(c)).then_some((open + 1, close));
    Ok(Call { function: (start, name_end), argument })
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
        assert_eq!(no("sum(a, b)"), "an aggregate takes one argument at ,");
        assert_eq!(no("count( * )"), "`*` is no expression at  * ");
        assert_eq!(no(""), "this is no aggregate at ");
    }
}
