//! From text to the parser's tree, and from the tree's nodes back to places in the text.

use cel::IdedExpr;
use cel::common::ast::{Expr, SourceInfo};

use super::ExpressionError;

/// Brackets and `? :` inside each other. The parser and the checker recurse on them.
const NESTING_MAX: usize = 64;
/// Operators and selections in one expression: a chain of them (`a + b + c`) nests as deep as it is
/// long. An expression at both limits fits a stack of 2 MiB, the default of a thread.
const OPERATORS_MAX: usize = 500;

/// A range of an expression's text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    /// The smallest span that covers both.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// An expression's text with the places of its nodes.
pub(super) struct Text<'s> {
    source: &'s str,
    info: SourceInfo,
}

impl Text<'_> {
    /// The main token of a node: an operator, a name, a literal; of a call its opening bracket.
    pub fn token(&self, id: u64) -> Span {
        let Some((start, last)) = self.info.offset_for(id) else {
            return Span { start: 0, end: self.source.len() };
        };
        // `last` is where the token's last character begins.
        let (start, last) = (start as usize, last as usize);
        let end =
            last + self.source.get(last..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        Span { start, end: end.max(start) }
    }

    /// The function's name in a call.
    pub fn call_name(&self, id: u64, name: &str) -> Span {
        let bracket = self.token(id);
        let before = self.source.get(..bracket.start).unwrap_or_default().trim_end();
        match before.strip_suffix(name) {
            Some(rest) => Span { start: rest.len(), end: before.len() },
            None => bracket,
        }
    }

    /// The selected name in `x.name`.
    pub fn selected_name(&self, id: u64, name: &str) -> Span {
        let dot = self.token(id);
        let after = self.source.get(dot.end..).unwrap_or_default();
        let start = dot.end + (after.len() - after.trim_start().len());
        match after.trim_start().starts_with(name) {
            true => Span { start, end: start + name.len() },
            false => dot,
        }
    }

    /// `span` with a closing bracket that follows it.
    pub fn with_bracket(&self, span: Span) -> Span {
        let rest = self.source.get(span.end..).unwrap_or_default();
        let trimmed = rest.trim_start();
        match trimmed.starts_with([')', ']']) {
            true => Span { start: span.start, end: span.end + (rest.len() - trimmed.len()) + 1 },
            false => span,
        }
    }

    /// An error at `span`.
    pub fn error(&self, span: Span, message: String) -> ExpressionError {
        let characters = |bytes: usize| self.source.get(..bytes).unwrap_or(self.source).chars().count();
        ExpressionError {
            message,
            start: characters(span.start),
            end: characters(span.end),
            suggestion: None,
        }
    }
}

/// Whether it is a name and nothing else. Parentheses leave no trace.
pub(super) fn is_name(root: &IdedExpr) -> bool {
    matches!(root.expr, Expr::Ident(_))
}

/// Parses `source`. Macros are not expanded: `has(x)` arrives as a call.
pub(super) fn parse(source: &str) -> Result<(IdedExpr, Text<'_>), Vec<ExpressionError>> {
    if source.trim().is_empty() {
        return Err(vec![error_at(source, 0, "the expression is empty".into())]);
    }
    check_limits(source).map_err(|error| vec![error])?;
    let parser = cel::Env::default()
        .parser()
        .enable_optional_syntax(false)
        .max_recursion_depth(NESTING_MAX as u16 * 2);
    parser
        .parse_with_source_info(source)
        .map(|(root, info)| (root, Text { source, info }))
        .map_err(|errors| grammar_errors(source, &errors.errors))
}

/// The errors that say something: after a wrong token, what the parser finds further on are consequences.
fn grammar_errors(source: &str, errors: &[cel::ParseError]) -> Vec<ExpressionError> {
    let token = errors.iter().find(|error| error.msg.starts_with(SYNTAX));
    let errors: Vec<_> = match token {
        Some(token) => vec![grammar_error(source, token)],
        None => errors.iter().map(|error| grammar_error(source, error)).collect(),
    };
    match errors.is_empty() {
        true => vec![error_at(source, 0, "this is no expression".into())],
        false => errors,
    }
}

/// Refuses what the parser could not read within a thread's stack.
fn check_limits(source: &str) -> Result<(), ExpressionError> {
    let (mut nesting, mut conditionals, mut operators) = (0usize, 0, 0);
    let mut characters = source.chars().enumerate().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' | '\'' => {
                // Good enough for a limit: three quotes are an empty string and another one.
                while let Some((_, inner)) = characters.next_if(|(_, inner)| *inner != character) {
                    if inner == '\\' {
                        characters.next();
                    }
                }
                characters.next();
            }
            '(' | '[' | '{' => nesting += 1,
            ')' | ']' | '}' => nesting = nesting.saturating_sub(1),
            '?' => conditionals += 1,
            '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | '.' | '&' | '|' => operators += 1,
            _ => {}
        }
        if nesting + conditionals > NESTING_MAX {
            let message =
                format!("brackets and ? : are nested deeper than {NESTING_MAX}; split the expression");
            return Err(error_at(source, at, message));
        }
        if operators > OPERATORS_MAX {
            let message = format!("more than {OPERATORS_MAX} operators; split the expression");
            return Err(error_at(source, at, message));
        }
    }
    Ok(())
}

/// The word, or else the character, at `start` (in characters); empty at the end.
fn word_at(source: &str, start: usize) -> &str {
    let rest = source.char_indices().nth(start).map_or("", |(at, _)| &source[at..]);
    let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let first = rest.chars().next().map_or(0, char::len_utf8);
    &rest[..word.max(first)]
}

fn error_at(source: &str, start: usize, message: String) -> ExpressionError {
    let end = start + word_at(source, start).chars().count();
    ExpressionError { message, start, end, suggestion: None }
}

/// How the parser's messages about tokens begin.
const SYNTAX: &str = "Syntax error: ";

/// A parser's error in words of ours: its own list the grammar's tokens and rules.
fn grammar_error(source: &str, error: &cel::ParseError) -> ExpressionError {
    let (line, column) = (error.pos.0.max(1) as usize, error.pos.1.max(1) as usize);
    let before: usize = source.split_inclusive('\n').take(line - 1).map(|line| line.chars().count()).sum();
    let start = (before + column - 1).min(source.chars().count());
    let word = word_at(source, start);
    let message = error.msg.strip_prefix(SYNTAX).unwrap_or(&error.msg);
    let message = if message.starts_with("token recognition error") {
        match word {
            "\"" | "'" => "this text is not closed, or has an unknown escape in it".to_owned(),
            "=" => "`=` does not compare; write `==`".to_owned(),
            "&" | "|" => format!("`{word}` is no operator; write `{word}{word}`"),
            _ => format!("`{word}` means nothing in an expression"),
        }
    } else if word.is_empty() {
        "the expression ends too early".to_owned()
    } else if message == "UNKNOWN" {
        "the expression is nested too deeply; split it".to_owned()
    } else if message.starts_with("reserved identifier") {
        format!("`{word}` is a reserved word of the language and no name of a field")
    } else if message.starts_with("invalid int literal") {
        format!("`{word}` is out of the range of an int (64 bits)")
    } else if message.starts_with("invalid double literal") {
        format!("`{word}` is out of the range of a double")
    } else if message.starts_with("invalid ") || message.starts_with("unsupported ") {
        message.to_owned()
    } else {
        match word {
            "and" | "AND" => format!("`{word}` is no operator; write `&&`"),
            "or" | "OR" => format!("`{word}` is no operator; write `||`"),
            "not" | "NOT" => format!("`{word}` is no operator; write `!`"),
            "`" => "names are not quoted by backticks".to_owned(),
            word => format!("`{word}` is unexpected here"),
        }
    };
    error_at(source, start, message)
}
