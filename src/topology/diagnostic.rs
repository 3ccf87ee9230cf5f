//! What is wrong with a topology file, where, and how it is shown.

use std::fmt::Write;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file cannot be run.
    Error,
    /// It can, but something in it is probably not meant so.
    Warning,
}

/// One finding in a topology file. Lines and columns start at 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stops the file from being run.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The file, as it was named to the loader.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column of the first character meant, from 1.
    pub column: usize,
    /// How many characters of the line are meant; at least 1, unless the file could not be read.
    pub length: usize,
    /// What to do about it.
    pub help: Option<String>,
}

/// Lines longer than this many characters are shown in part, around the marker.
const SHOWN_MAX: usize = 120;

/// Shows findings the way compilers do: message, place, the line with the place marked, help.
///
/// `source` is the text of the file that they are about; lines that it does not have are left out.
///
/// ```
/// use thalweg::topology::{Diagnostic, Severity, render};
/// let finding = Diagnostic {
///     severity: Severity::Error,
///     message: "unknown key `nam`".into(),
///     file: "a.yaml".into(),
///     line: 1,
///     column: 1,
///     length: 3,
///     help: Some("did you mean `name`?".into()),
/// };
/// let shown = render(&[finding], "nam: a");
/// assert_eq!(
///     shown,
///     "error: unknown key `nam`\n --> a.yaml:1:1\n  |\n1 | nam: a\n  | ^^^\n  = help: did you mean `name`?\n"
/// );
/// ```
pub fn render(diagnostics: &[Diagnostic], source: &str) -> String {
    let lines = lines(source);
    let mut out = String::new();
    for (i, diagnostic) in diagnostics.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        render_one(&mut out, diagnostic, &lines);
    }
    out
}

fn render_one(out: &mut String, diagnostic: &Diagnostic, lines: &[&str]) {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let number = diagnostic.line.to_string();
    let margin = " ".repeat(number.len());
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{severity}: {}", diagnostic.message);
    let _ = writeln!(out, "{margin}--> {}:{}:{}", diagnostic.file, diagnostic.line, diagnostic.column);
    if let Some(line) = diagnostic.line.checked_sub(1).and_then(|line| lines.get(line)) {
        let (shown, indent, length) = excerpt(line, diagnostic.column.saturating_sub(1), diagnostic.length);
        let _ = writeln!(out, "{margin} |");
        let _ = writeln!(out, "{number} | {}", shown.trim_end());
        let _ = writeln!(out, "{margin} | {}{}", " ".repeat(indent), "^".repeat(length));
    }
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(out, "{margin} = help: {help}");
    }
}

/// The part of a line that is shown, where in it the marker starts, and the marker's length. Control
/// characters become spaces, so that they keep their one column.
fn excerpt(line: &str, column: usize, length: usize) -> (String, usize, usize) {
    let characters: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let from = if characters.len() <= SHOWN_MAX { 0 } else { column.saturating_sub(SHOWN_MAX / 3) };
    let to = characters.len().min(from + SHOWN_MAX);
    let mut shown = String::new();
    if from > 0 {
        shown.push('…');
    }
    shown.extend(characters.get(from..to).unwrap_or_default());
    if to < characters.len() {
        shown.push('…');
    }
    let indent = column - from + usize::from(from > 0);
    (shown, indent, length.clamp(1, to.saturating_sub(column).max(1)))
}

/// The lines of a text as YAML counts them: after `\n`, `\r\n` and a lone `\r`.
fn lines(source: &str) -> Vec<&str> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut lines = Vec::new();
    for line in source.split('\n') {
        lines.extend(line.strip_suffix('\r').unwrap_or(line).split('\r'));
    }
    lines
}

/// A range of characters of the file: `start..end`, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub start: usize,
    pub end: usize,
}

/// A finding before its place is turned into line and column.
#[derive(Debug)]
pub(super) struct Problem {
    severity: Severity,
    span: Span,
    message: String,
    help: Option<String>,
    /// For a name given twice: where it was given first.
    first: Option<Span>,
}

impl Problem {
    /// Says what to do about it.
    pub fn help(&mut self, help: impl Into<String>) {
        self.help = Some(help.into());
    }

    /// Says where the name in question was given first.
    pub fn first_at(&mut self, span: Span) {
        self.first = Some(span);
    }
}

/// The findings in a file so far, in any order.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether one of them is an error.
    pub fn has_error(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Adds an error.
    pub fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Problem {
        self.add(Severity::Error, span, message.into())
    }

    /// Adds a warning.
    pub fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Problem {
        self.add(Severity::Warning, span, message.into())
    }

    fn add(&mut self, severity: Severity, span: Span, message: String) -> &mut Problem {
        self.list.push(Problem { severity, span, message, help: None, first: None });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// The findings with their lines and columns in `source`, sorted by position, each once (what an
    /// alias repeats is found again at the same place).
    pub fn into_diagnostics(self, file: &str, source: &[char]) -> Vec<Diagnostic> {
        let starts = line_starts(source);
        let position = |span: Span| {
            let line = starts.partition_point(|&start| start <= span.start).max(1);
            (line, span.start - starts[line - 1] + 1)
        };
        let mut list = self.list;
        list.sort_by_key(|problem| (problem.span, problem.severity));
        let mut diagnostics: Vec<Diagnostic> = Vec::new();
        for problem in list {
            let (line, column) = position(problem.span);
            let rest = source.get(problem.span.start..).unwrap_or_default();
            let rest_of_line = rest.iter().position(|&c| c == '\n' || c == '\r').unwrap_or(rest.len());
            let length = problem.span.end.saturating_sub(problem.span.start).min(rest_of_line).max(1);
            let first = problem.first.map(position);
            let diagnostic = Diagnostic {
                severity: problem.severity,
                message: problem.message,
                file: file.to_owned(),
                line,
                column,
                length,
                help: first
                    .map(|(line, column)| format!("the first one is at line {line}, column {column}"))
                    .or(problem.help),
            };
            if !diagnostics.contains(&diagnostic) {
                diagnostics.push(diagnostic);
            }
        }
        diagnostics
    }
}

/// Where each line begins.
pub(super) fn line_starts(source: &[char]) -> Vec<usize> {
    let mut starts = vec![0];
    for (i, &c) in source.iter().enumerate() {
        if c == '\n' || (c == '\r' && source.get(i + 1) != Some(&'\n')) {
            starts.push(i + 1);
        }
    }
    starts
}

/// The known name that `name` is most likely a slip of: few edits away, or the same but for case.
pub(super) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let lower = name.to_lowercase();
    let edits_max = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|&(edits, _)| edits <= edits_max)
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

/// What to say about a name that is not known: the nearest one, or all of them if they are few.
pub(super) fn known_names(name: &str, known: &[&str]) -> String {
    const LISTED_MAX: usize = 20;
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "none is known here".to_owned(),
        None if known.len() <= LISTED_MAX => format!("known here: {}", quoted(known)),
        None => format!("known here: {} and {} more", quoted(&known[..LISTED_MAX]), known.len() - LISTED_MAX),
    }
}

/// `a`, `b`, `c`.
pub(super) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    names.join(", ")
}
