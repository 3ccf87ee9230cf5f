//! Reports of tests, for people and for machines.

use std::fmt::Write;

use serde_json::json;

use super::{CaseFailure, CaseReport};

/// How reports are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// XML as JUnit's, which CI systems read.
    Junit,
    /// One JSON object.
    Json,
}

/// How the tests of a file went.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// The file, as it was named.
    pub file: String,
    /// How many cases it has, chosen or not.
    pub tests: usize,
    /// The cases that were chosen, and how many milliseconds each took.
    pub cases: Vec<(CaseReport, u64)>,
    /// Why it has no cases: its mistakes, as text.
    pub wrong: Option<String>,
}

impl FileReport {
    fn failures(&self) -> usize {
        self.cases.iter().filter(|(case, _)| case.failure.is_some()).count()
    }

    fn not_applicable(&self) -> usize {
        self.cases.iter().filter(|(case, _)| case.not_applicable.is_some()).count()
    }

    fn time_ms(&self) -> u64 {
        self.cases.iter().map(|(_, ms)| ms).sum()
    }
}

/// The reports of all files.
pub fn render(files: &[FileReport], format: Format) -> String {
    match format {
        Format::Text => text(files),
        Format::Junit => junit(files),
        Format::Json => json(files),
    }
}

fn text(files: &[FileReport]) -> String {
    // Writing to a string cannot fail.
    let mut out = String::new();
    for file in files {
        if file.wrong.is_some() {
            let _ = writeln!(out, "{}: not tested, it has mistakes", file.file);
            continue;
        }
        if file.cases.is_empty() {
            let _ = match file.tests {
                0 => writeln!(out, "{}: it has no tests", file.file),
                1 => writeln!(out, "{}: its test was not chosen", file.file),
                tests => writeln!(out, "{}: none of its {tests} tests was chosen", file.file),
            };
            continue;
        }
        let _ = writeln!(out, "{}", file.file);
        for (case, ms) in &file.cases {
            if let Some(why) = &case.not_applicable {
                let _ = writeln!(out, "  n/a     {} ({why})", case.name);
                continue;
            }
            let (word, plural) = (
                if case.failure.is_some() { "FAILED" } else { "ok" },
                if case.variants == 1 { "" } else { "s" },
            );
            let _ = writeln!(out, "  {word:<6}  {} ({} variant{plural}, {ms} ms)", case.name, case.variants);
            if let Some(failure) = &case.failure {
                for line in describe(&file.file, case, failure).lines() {
                    let _ = writeln!(out, "          {line}");
                }
            }
        }
    }
    out.push_str(&sum(files));
    out
}

/// The last line: how many tests were run, and how that went.
fn sum(files: &[FileReport]) -> String {
    let failed: usize = files.iter().map(FileReport::failures).sum();
    let skipped: usize = files.iter().map(FileReport::not_applicable).sum();
    let run = files.iter().map(|file| file.cases.len()).sum::<usize>() - skipped;
    let mut out = match (run, failed) {
        (0, _) => "no test was run".to_owned(),
        (1, 0) => "1 test passed".to_owned(),
        (run, 0) => format!("{run} tests passed"),
        (run, failed) => format!("{failed} of {run} tests failed"),
    };
    if skipped > 0 {
        // Writing to a string cannot fail.
        let _ = write!(out, "; {skipped} not applicable");
    }
    out.push('\n');
    out
}

/// What differs, in which variant, and how to see only that.
fn describe(file: &str, case: &CaseReport, failure: &CaseFailure) -> String {
    let mut out = String::new();
    for difference in &failure.differences {
        let _ = writeln!(out, "{file}:{}: {}", difference.line, difference.text);
    }
    for note in &failure.notes {
        let _ = writeln!(out, "note: {note}");
    }
    let variant = &failure.variant;
    let _ = writeln!(out, "- expected, + found, in the variant {}: {variant}", variant.name);
    let _ = writeln!(
        out,
        "to run it alone: thalweg test {} --only {} --variant {}",
        quoted(file),
        quoted(&case.name),
        variant.name
    );
    out
}

/// A word of a shell's command line.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn junit(files: &[FileReport]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for file in files {
        let name = xml(&file.file);
        let errors = usize::from(file.wrong.is_some());
        let _ = writeln!(
            out,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\" errors=\"{errors}\" skipped=\"{}\" \
             time=\"{}\">",
            file.cases.len() + errors,
            file.failures(),
            file.not_applicable(),
            seconds(file.time_ms())
        );
        if let Some(wrong) = &file.wrong {
            let _ = writeln!(
                out,
                "    <testcase name=\"the file\" classname=\"{name}\" file=\"{name}\" line=\"1\">\n      <error \
                 message=\"the file has mistakes\">{}</error>\n    </testcase>",
                xml(wrong)
            );
        }
        for (case, ms) in &file.cases {
            let _ = write!(
                out,
                "    <testcase name=\"{}\" classname=\"{name}\" file=\"{name}\" line=\"{}\" time=\"{}\"",
                xml(&case.name),
                case.line,
                seconds(*ms)
            );
            if let Some(why) = &case.not_applicable {
                let _ = writeln!(out, ">\n      <skipped message=\"{}\"/>\n    </testcase>", xml(why));
                continue;
            }
            let Some(failure) = &case.failure else {
                out.push_str("/>\n");
                continue;
            };
            let first = failure.differences.first().and_then(|first| first.text.lines().next());
            let _ = writeln!(
                out,
                ">\n      <failure message=\"{}\" type=\"{}\">{}</failure>\n    </testcase>",
                xml(first.unwrap_or_default()),
                xml(&failure.variant.name),
                xml(&describe(&file.file, case, failure))
            );
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Text within XML. What XML cannot hold at all becomes U+FFFD.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn json(files: &[FileReport]) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|file| {
            let cases = file.cases.iter().map(|(case, ms)| case_json(&file.file, case, *ms));
            json!({ "file": file.file, "wrong": file.wrong, "tests": cases.collect::<Vec<_>>() })
        })
        .collect();
    format!("{}\n", json!({ "files": files }))
}

fn case_json(file: &str, case: &CaseReport, ms: u64) -> serde_json::Value {
    let failure = case.failure.as_ref().map(|failure| {
        let differences = failure.differences.iter();
        let differences =
            differences.map(|difference| json!({ "line": difference.line, "text": difference.text }));
        json!({
            "variant": failure.variant.name,
            "differences": differences.collect::<Vec<_>>(),
            "notes": failure.notes,
            "text": describe(file, case, failure),
        })
    });
    json!({
        "name": case.name,
        "line": case.line,
        "passed": case.not_applicable.is_none().then_some(case.failure.is_none()),
        "not_applicable": case.not_applicable,
        "variants": case.variants,
        "time_ms": ms,
        "failure": failure,
    })
}
