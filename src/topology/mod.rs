//! Topology files: from YAML text to a checked [`Plan`], or to all the mistakes in it at once.
//!
//! A file is parsed into nodes that know where they stand (`yaml`), its scalars are substituted
//! (`substitute`) and typed (`reader`), its sources, operators and sinks are read and checked against
//! the streams between them (`source`, `operator`, `branch`, `flat_map`, `keyed`, `window`, `sink`, `stream`) and put together
//! (`check`) with the tests (`case`). A mistake hides as little as possible of what comes behind it, and is told once: a
//! field whose declaration is wrong is remembered as such, and whatever uses it is not complained about.

mod aggregate;
mod branch;
mod carried;
pub mod case;
mod changelog;
mod check;
mod diagnostic;
mod emit;
mod fingerprint;
mod flat_map;
mod global;
mod graph;
mod keyed;
mod operator;
mod order;
pub mod plan;
mod reader;
mod sink;
mod source;
mod stream;
mod substitute;
#[cfg(test)]
mod tests;
mod topics;
mod two_phase;
mod union;
mod window;
mod yaml;

use std::path::Path;

pub use carried::Asked;
pub use diagnostic::{Diagnostic, Severity, render};
pub use fingerprint::fingerprint_difference;
pub use graph::graph;
pub use plan::Plan;
pub use topics::{TopicRole, TopicUse, topics};

use reader::Reader;
use substitute::Values;

/// Larger files are refused, in bytes: no topology is that long.
const FILE_BYTES_MAX: usize = 4 << 20;

/// A file without errors.
#[derive(Debug)]
pub struct Checked {
    /// What it describes.
    pub plan: Plan,
    /// Its tests, in the order of the file.
    pub cases: Vec<case::Case>,
    /// What is probably not meant so, by position.
    pub warnings: Vec<Diagnostic>,
}

/// Loads and checks a topology file. `environment` gives the value of an environment variable;
/// relative paths in `${file:…}` start at the file's folder.
///
/// # Errors
/// All errors and warnings of the file, by position; or that it cannot be read. [`render`] shows them.
pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Checked, Vec<Diagnostic>> {
    let file_name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| vec![unreadable(&file_name, &error)])?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let read_file =
        |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|error| error.to_string());
    parse(&text, &file_name, &read_file, environment)
}

fn unreadable(file: &str, error: &std::io::Error) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        message: format!("cannot read the topology file: {error}"),
        file: file.to_owned(),
        line: 1,
        column: 1,
        length: 0,
        help: Some("check the path, and that it is a text file in UTF-8".to_owned()),
    }
}

/// Checks the text of a topology file. `file_name` stands in the findings; `read_file` reads what
/// `${file:…}` names, `environment` gives the value of an environment variable.
///
/// # Errors
/// All errors and warnings of the text, by position. [`render`] shows them.
///
/// ```
/// let text = "
/// version: 1
/// name: copy
/// sources:
///   orders: { topic: orders, format: { type: json }, schema: { customer: string } }
/// sinks:
///   copies: { input: ordrs, topic: copies, format: { type: json } }
/// ";
/// let no_file = |_: &str| Err("there are no files here".to_owned());
/// let findings = thalweg::topology::parse(text, "copy.yaml", &no_file, &|_| None).unwrap_err();
/// assert_eq!(findings[0].message, "there is no source or operator `ordrs`");
/// assert_eq!((findings[0].line, findings[0].column), (7, 20));
/// assert_eq!(findings[0].help.as_deref(), Some("did you mean `orders`?"));
/// ```
pub fn parse(
    text: &str,
    file_name: &str,
    read_file: &dyn Fn(&str) -> Result<String, String>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Checked, Vec<Diagnostic>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let values = Values { environment, read_file };
    let mut reader = Reader::new(text.chars().collect(), values);
    let mut checked = None;
    if text.len() > FILE_BYTES_MAX {
        reader
            .problems
            .error(diagnostic::Span::default(), format!("the file is larger than {FILE_BYTES_MAX} bytes"));
    } else if let Some(root) = yaml::parse(text, &mut reader.problems) {
        checked = check::check(&root, &mut reader);
    }
    let has_error = reader.problems.has_error();
    let findings = reader.problems.into_diagnostics(file_name, &reader.source);
    match checked {
        Some((plan, cases)) if !has_error => Ok(Checked { plan, cases, warnings: findings }),
        _ => Err(findings),
    }
}
