//! `thalweg test` and `thalweg run --embedded`: what needs no Kafka.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::arguments::TestArguments;
use super::{Exit, Shell};
use crate::simulator;
use crate::telemetry::monotonic;
use crate::testing::embedded::{self, NotRun, Printed};
use crate::testing::{self, FileReport};
use crate::topology::Checked;

/// An input of an embedded run is held in memory, and is no larger than this.
const INPUT_MIB_MAX: u64 = 64;
const INPUT_BYTES_MAX: u64 = INPUT_MIB_MAX << 20;

impl Shell<'_> {
    pub(super) fn test(&mut self, arguments: &TestArguments) -> io::Result<Exit> {
        let TestArguments { files, only, variant, format } = arguments;
        if let Some(Err(error)) = variant.as_deref().map(testing::check_variant) {
            return self.complain(&error, Exit::Wrong);
        }
        let mut checked = Vec::new();
        for file in files {
            let (of_file, findings) = self.check(file);
            self.err.write_all(findings.as_bytes())?;
            checked.push(of_file.ok_or(findings));
        }
        let names: Vec<String> =
            checked.iter().flatten().flat_map(|file| &file.cases).map(|case| case.name.clone()).collect();
        let whole = only.as_ref().is_some_and(|only| names.contains(only));
        let chosen = |name: &str| {
            only.as_ref().is_none_or(|only| if whole { name == only } else { name.contains(only) })
        };
        let mut reports = Vec::new();
        for (file, checked) in files.iter().zip(checked) {
            let file = file.display().to_string();
            match test_file(file, checked, &chosen, variant.as_deref()) {
                Ok(report) => reports.push(report),
                Err(error) => return self.complain(&error, Exit::Wrong),
            }
        }
        write!(self.out, "{}", testing::render(&reports, (*format).into()))?;
        if reports.iter().any(|report| report.wrong.is_some()) {
            return Ok(Exit::Wrong);
        }
        let cases = || reports.iter().flat_map(|report| &report.cases).map(|(case, _)| case);
        if let Some(only) = only
            && cases().next().is_none()
        {
            let names = if names.is_empty() { "none".to_owned() } else { names.join("; ") };
            return self
                .complain(&format!("no test has `{only}` in its name; there are: {names}"), Exit::Wrong);
        }
        if let Some(variant) = variant
            && cases().all(|case| case.not_applicable.is_some())
        {
            return self.complain(
                &format!("nothing was run: variant `{variant}` is for no test that was chosen"),
                Exit::Wrong,
            );
        }
        Ok(if cases().any(|case| case.failure.is_some()) { Exit::Failed } else { Exit::Done })
    }

    pub(super) fn run_embedded(&mut self, file: &Path, input: Option<&PathBuf>) -> io::Result<Exit> {
        let Some(Checked { plan, .. }) = self.load(file)? else { return Ok(Exit::Wrong) };
        writeln!(
            self.err,
            "{} runs without Kafka, on one partition, to the end of {}, which closes its windows; nothing is durable",
            plan.name,
            input.map_or_else(|| "standard input".to_owned(), |input| input.display().to_string())
        )?;
        let text = match self.read_input(input) {
            Ok(text) => text,
            Err(error) => return self.complain(&error, Exit::Wrong),
        };
        match embedded::run(&testing::prepare(plan), &text, &simulator::run) {
            Ok(Printed { lines, summary }) => {
                self.out.write_all(lines.as_bytes())?;
                self.out.flush()?;
                self.err.write_all(summary.as_bytes())?;
                Ok(Exit::Done)
            }
            Err(NotRun::Input(error)) => self.complain(&error, Exit::Wrong),
            Err(NotRun::Failed(error)) => self.complain(&error, Exit::Failed),
        }
    }

    fn read_input(&mut self, input: Option<&PathBuf>) -> Result<String, String> {
        let name = input.map_or_else(|| "standard input".to_owned(), |input| input.display().to_string());
        let read = match input {
            Some(input) => File::open(input).and_then(read),
            None => read(&mut *self.input),
        };
        let bytes = read.map_err(|error| format!("cannot read {name}: {error}"))?;
        if bytes.len() as u64 > INPUT_BYTES_MAX {
            return Err(format!(
                "{name} is larger than {INPUT_MIB_MAX} MiB, the most that an embedded run takes, since it holds all \
                 of it in memory: take a part of it, or run on a Kafka cluster"
            ));
        }
        String::from_utf8(bytes).map_err(|error| format!("{name} must be JSON lines in UTF-8: {error}"))
    }
}

fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Runs those tests of a file that are chosen, by their names. `checked`: the file, or its mistakes.
fn test_file(
    file: String,
    checked: Result<Checked, String>,
    chosen: &dyn Fn(&str) -> bool,
    variant: Option<&str>,
) -> Result<FileReport, String> {
    let mut report = FileReport { file, tests: 0, cases: Vec::new(), wrong: None };
    let Checked { plan, cases, .. } = match checked {
        Ok(checked) => checked,
        Err(findings) => return Ok(FileReport { wrong: Some(findings), ..report }),
    };
    report.tests = cases.len();
    let plan = testing::prepare(plan);
    for case in cases.iter().filter(|case| chosen(&case.name)) {
        let now = monotonic();
        let start_ms = now();
        let case = testing::run_case(&plan, case, variant, &simulator::run)?;
        report.cases.push((case, now() - start_ms));
    }
    Ok(report)
}
