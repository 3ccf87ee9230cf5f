//! Aggregates as text: `function(argument)`, where the argument is an expression.

use super::plan::AggregateFunction;

/// The functions by name.
pub(super) const FUNCTIONS: [(&str, AggregateFunction); 13] = [
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
pub(super) fn function(name: &str) -> Option<AggregateFunction> {
    FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
}

/// The name of a function.
pub(super) fn function_name(function: AggregateFunction) -> &'static str {
    FUNCTIONS.iter().find(|(_, known)| *known == function).map_or("", |(name, _)| name)
}

/// An aggregate taken apart; ranges of characters, ends exclusive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub function: (usize, usize),
    /// `None`: nothing between the parentheses.
    pub argument: Option<(usize, usize)>,
}

/// Why a text is no aggregate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub start: usize,
    pub end: usize,
    pub message: String,
    pub help: String,
}

/// Takes an aggregate apart.
pub(super) fn split_call(text: &[char]) -> Result<Call, Mistake> {
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
