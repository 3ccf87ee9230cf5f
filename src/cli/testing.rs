//! `thalweg test` and `thalweg run --embedded`: what needs no Kafka.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::arguments::TestArguments;
use super::{Exit, Shell};
use crate::simulator;
use crate::telemetry::monotonic;
use crate::testing::{self, CaseReport, FileReport};
use crate::topology::Checked;
use crate::topology::case::Case;

/// An input of an embedded run is held in memory, and is no larger than this, in bytes.
const INPUT_BYTES_MAX: u64 = 64 << 20;

impl Shell<'_> {
    pub(super) fn test(&mut self, arguments: &TestArguments) -> io::Result<Exit> {
        let TestArguments { files, only, variant, format } = arguments;
        let mut reports = Vec::new();
        let mut names = Vec::new();
        for file in files {
            let name = file.display().to_string();
            let (checked, findings) = self.check(file);
            self.err.write_all(findings.as_bytes())?;
            let Some(Checked { plan, cases, .. }) = checked else {
                reports.push(FileReport { file: name, cases: Vec::new(), wrong: Some(findings) });
                continue;
            };
            names.extend(cases.iter().map(|case| case.name.clone()));
            let plan = testing::prepare(plan);
            let mut report = FileReport { file: name, cases: Vec::new(), wrong: None };
            for case in chosen(&cases, only.as_deref()) {
                let now = monotonic();
                let start_ms = now();
                match testing::run_case(&plan, case, variant.as_deref(), &simulator::run) {
                    Ok(case) => report.cases.push((case, now() - start_ms)),
                    Err(error) => return self.complain(&error, Exit::Wrong),
                }
            }
            reports.push(report);
        }
        write!(self.out, "{}", testing::render(&reports, (*format).into()))?;
        let cases = || reports.iter().flat_map(|report| &report.cases);
        if reports.iter().any(|report| report.wrong.is_some()) {
            return Ok(Exit::Wrong);
        }
        if let Some(only) = only
            && cases().next().is_none()
        {
            let names = if names.is_empty() { "none".to_owned() } else { names.join("; ") };
            return self
                .complain(&format!("no test has `{only}` in its name; there are: {names}"), Exit::Wrong);
        }
        let failed = |(case, _): &(CaseReport, u64)| case.failure.is_some();
        Ok(if cases().any(failed) { Exit::Failed } else { Exit::Done })
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
        match testing::embedded::run(&testing::prepare(plan), &text, &simulator::run) {
            Ok(out) => {
                self.out.write_all(out.as_bytes())?;
                Ok(Exit::Done)
            }
            Err(error) => self.complain(&error, Exit::Failed),
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
                "{name} is larger than {INPUT_BYTES_MAX} bytes, which an embedded run would hold in memory: take a \
                 part of it, or run on a Kafka cluster"
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

/// The case of that name; without one, all whose name contains it.
fn chosen<'c>(cases: &'c [Case], only: Option<&str>) -> Vec<&'c Case> {
    let Some(only) = only else { return cases.iter().collect() };
    match cases.iter().find(|case| case.name == only) {
        Some(case) => vec![case],
        None => cases.iter().filter(|case| case.name.contains(only)).collect(),
    }
}
