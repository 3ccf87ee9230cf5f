//! The command line.

mod arguments;
mod generating;
mod testing;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::kafka::KafkaAdmin;
use crate::runtime::identity::StateDir;
use crate::runtime::reset::{Reset, ResetError};
use crate::runtime::{Member, Outcome, RunError, RunOptions, connection};
use crate::settings::{LogFormat, Settings};
use crate::telemetry::crash::{self, CrashPoints};
use crate::telemetry::{end_process_on_panic, init_logging};
use crate::topology::{self, Checked, Diagnostic};
use arguments::{Arguments, Command};

/// How a command ends: the exit codes of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It failed while running: what is committed is right, a restart goes on from there.
    Failed = 1,
    /// A file, a setting or the usage is wrong: a restart changes nothing.
    Wrong = 2,
}

/// The program: reads the arguments of the process, does what they say, gives its exit code.
pub fn main() -> ExitCode {
    // Help and wrong usage end the process here, with exit code 0 or 2.
    let arguments = Arguments::parse();
    let mut shell = Shell {
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        input: &mut io::stdin(),
        out: &mut io::stdout(),
        err: &mut io::stderr(),
    };
    match shell.execute(arguments) {
        Ok(exit) => ExitCode::from(exit as u8),
        // Whoever reads has had enough, as in `thalweg graph FILE | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(Exit::Failed as u8),
    }
}

/// What a command has to do with.
struct Shell<'s> {
    environment: Vec<(String, String)>,
    input: &'s mut dyn Read,
    out: &'s mut dyn Write,
    err: &'s mut dyn Write,
}

impl Shell<'_> {
    /// Fails only if nobody can be told any more.
    fn execute(&mut self, arguments: Arguments) -> io::Result<Exit> {
        let settings = &arguments.settings;
        match &arguments.command {
            Command::Validate { files } => self.validate(files.iter().map(AsRef::as_ref)),
            Command::Test(arguments) => self.test(arguments),
            Command::Graph { file } => {
                let Some(checked) = self.load(file)? else { return Ok(Exit::Wrong) };
                write!(self.out, "{}", topology::graph(&checked.plan))?;
                Ok(Exit::Done)
            }
            Command::Settings => {
                let Some(settings) = self.settings(settings)? else { return Ok(Exit::Wrong) };
                write!(self.out, "{}", settings.render())?;
                Ok(Exit::Done)
            }
            Command::Run { file, embedded: true, input, .. } => self.run_embedded(file, input.as_ref()),
            Command::Run { file, bounded, drop_state, .. } => {
                let Some(settings) = self.settings_and_logs(settings)? else { return Ok(Exit::Wrong) };
                self.run(file, settings, *bounded, drop_state)
            }
            Command::Reset { file, dry_run } => {
                let Some(settings) = self.settings_and_logs(settings)? else { return Ok(Exit::Wrong) };
                self.reset(file, &settings, *dry_run)
            }
            Command::Bench { command } => self.bench(command, settings),
        }
    }

    fn run(
        &mut self,
        file: &Path,
        settings: Settings,
        bounded: bool,
        drop_state: &[String],
    ) -> io::Result<Exit> {
        let crash_points = match CrashPoints::from_environment(self.variable(crash::VARIABLE).as_deref()) {
            Ok(crash_points) => crash_points,
            Err(error) => return self.complain(&error, Exit::Wrong),
        };
        let Some(Checked { plan, .. }) = self.load(file)? else { return Ok(Exit::Wrong) };
        let (name, format) = (plan.name.clone(), settings.log.format);
        let options = RunOptions { bounded, drop_state: drop_state.to_vec(), crash_points };
        match crate::runtime::run(plan, &settings, options) {
            Ok(Outcome::Stopped | Outcome::Finished) => Ok(Exit::Done),
            Ok(Outcome::AlreadyFinished) => {
                writeln!(
                    self.out,
                    "{name} was run to the end of its input before; what came later is not read; to run it \
                     again from the start: thalweg reset {}, with the same --bootstrap-servers and --state-dir",
                    file.display()
                )?;
                Ok(Exit::Done)
            }
            Err(RunError::Failed(error)) => self.last_word(&error, format, Exit::Failed),
            Err(RunError::Refused(error)) => self.last_word(&error, format, Exit::Wrong),
        }
    }

    /// Why a run ended, in the form of its log.
    fn last_word(&mut self, error: &str, format: LogFormat, exit: Exit) -> io::Result<Exit> {
        match format {
            LogFormat::Text => self.complain(error, exit),
            LogFormat::Json => {
                tracing::error!("{error}");
                Ok(exit)
            }
        }
    }

    fn validate<'f>(&mut self, files: impl Iterator<Item = &'f Path>) -> io::Result<Exit> {
        let mut exit = Exit::Done;
        for file in files {
            match self.load(file)? {
                Some(Checked { plan, cases, .. }) => writeln!(
                    self.out,
                    "{}: {} is valid: {}, {}, {}, {}",
                    file.display(),
                    plan.name,
                    counted(plan.sources.len(), "source"),
                    counted(plan.operator_count(), "operator"),
                    counted(plan.sinks.len(), "sink"),
                    counted(cases.len(), "test")
                )?,
                None => exit = Exit::Wrong,
            }
        }
        Ok(exit)
    }

    fn reset(&mut self, file: &Path, settings: &Settings, dry_run: bool) -> io::Result<Exit> {
        let Some(Checked { plan, .. }) = self.load(file)? else { return Ok(Exit::Wrong) };
        let result = (|| -> Result<Reset, ResetError> {
            let state = StateDir::open_existing(&settings.state.dir, &plan.name)?;
            let mut admin = KafkaAdmin::new(&connection(settings, &plan.name, Member::None))?;
            let reset = Reset::find(&mut admin, &plan, state.as_ref())?;
            if !dry_run {
                reset.carry_out(&mut admin, state.as_ref())?;
            }
            Ok(reset)
        })();
        match result {
            Ok(reset) => {
                let what = if dry_run { "this would be removed" } else { "removed" };
                write!(self.out, "{}: {what}:\n{reset}", plan.name)?;
                Ok(Exit::Done)
            }
            Err(error) => self.complain(&error.to_string(), Exit::Failed),
        }
    }

    /// The topology of a file. Shows its warnings, or all its errors.
    fn load(&mut self, file: &Path) -> io::Result<Option<Checked>> {
        let (checked, findings) = self.check(file);
        self.err.write_all(findings.as_bytes())?;
        Ok(checked)
    }

    /// The topology of a file, if it has no errors; and its warnings, or all its errors, as text.
    fn check(&self, file: &Path) -> (Option<Checked>, String) {
        let checked = topology::load(file, &|name| self.variable(name));
        let findings: &[Diagnostic] = match &checked {
            Ok(checked) => &checked.warnings,
            Err(findings) => findings,
        };
        let mut shown = String::new();
        if !findings.is_empty() {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            shown = topology::render(findings, &text);
        }
        (checked.ok(), shown)
    }

    fn settings(&mut self, arguments: &arguments::SettingsArguments) -> io::Result<Option<Settings>> {
        let environment = self.environment.iter().cloned();
        match Settings::load(arguments.settings_file.as_deref(), environment, &arguments.pairs()) {
            Ok(settings) => Ok(Some(settings)),
            Err(error) => {
                for problem in error.problems {
                    writeln!(self.err, "error: {problem}")?;
                }
                Ok(None)
            }
        }
    }

    /// For commands that do something: from here on there are logs, and a panic ends the process.
    fn settings_and_logs(
        &mut self,
        arguments: &arguments::SettingsArguments,
    ) -> io::Result<Option<Settings>> {
        let Some(settings) = self.settings(arguments)? else { return Ok(None) };
        if let Err(error) = init_logging(settings.log.format, &settings.log.filter) {
            self.complain(&error, Exit::Wrong)?;
            return Ok(None);
        }
        end_process_on_panic();
        Ok(Some(settings))
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    fn complain(&mut self, error: &str, exit: Exit) -> io::Result<Exit> {
        writeln!(self.err, "error: {error}")?;
        Ok(exit)
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
