//! What can be written on the command line.

mod generate;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::testing::Format;
use generate::BENCH_EXAMPLES;
pub(super) use generate::BenchCommand;

const EXAMPLES: &str = "\
Examples:
  thalweg validate topologies/*.yaml
  thalweg test topologies/*.yaml
  thalweg run topologies/revenue_per_minute.yaml --bootstrap-servers kafka-1:9092,kafka-2:9092
  thalweg run revenue.yaml --settings production.yaml --state-dir /var/lib/thalweg --workers 4
  thalweg run revenue.yaml --set kafka.session_timeout=6s --set kafka.librdkafka.security.protocol=SSL
  THALWEG__KAFKA__BOOTSTRAP_SERVERS=kafka-1:9092 thalweg run revenue.yaml

Settings come from defaults, --settings, the environment and flags; the later one wins. `thalweg
settings` prints the effective ones.

Exit codes: 0 done, 1 failed while running, 2 a wrong file, setting or usage.";

const RUN_EXAMPLES: &str = "\
Examples:
  thalweg run revenue.yaml
  thalweg run revenue.yaml --bounded                 to the present end of the input, as a batch job
  thalweg run revenue.yaml --drop-state per_minute   after that operator was taken out of the file
  thalweg run revenue.yaml --embedded --input orders.jsonl   without Kafka, from a file to the terminal

With --embedded nothing is durable and no setting matters: it reads JSON lines from --input or standard
input, to the end, closes all windows and prints what sinks, dead-letter and late topics hold, as JSON
lines. A line is a record's value; of a topology with several sources it is {\"source\": ID, \"value\": {}},
with \"key\" and \"timestamp\" where they matter. The input is held in memory and has at most 64 MiB. At the
end it says on standard error how many records came in, went out, became dead letters, were late or failed.

SIGTERM and SIGINT end it in order: it finishes, commits and leaves the group.

Exit codes: 0 done, 1 failed while running, 2 a wrong file, setting or usage, or a file that does not fit
the state that is there; with --embedded also an input that cannot be read or is too large, or a line of
it that names no source.";

const TEST_EXAMPLES: &str = "\
Examples:
  thalweg test revenue.yaml
  thalweg test topologies/*.yaml --format junit > report.xml
  thalweg test revenue.yaml --only late
  thalweg test revenue.yaml --only late --variant crash-written-3

Plays each test of the files in many variants: record by record and all at once, with several workers and
processes, with a crash at every commit point and with random faults. All must give what it expects. Needs
no Kafka. A variant that can show nothing in a test is not applicable (n/a) and not played.

Exit codes: 0 all passed, or the files have no tests; 1 some failed; 2 a file has mistakes, no file has
such a test, there is no such variant, or it applies to none of the tests.";

const VALIDATE_EXAMPLES: &str = "\
Examples:
  thalweg validate revenue.yaml
  thalweg validate topologies/*.yaml

Shows every mistake of every file with its place. Needs no Kafka.";

const GRAPH_EXAMPLES: &str = "\
Examples:
  thalweg graph revenue.yaml > revenue.mmd";

const SETTINGS_EXAMPLES: &str = "\
Examples:
  thalweg settings
  thalweg settings --settings production.yaml --workers 4

The values of secrets are hidden.";

const RESET_EXAMPLES: &str = "\
Examples:
  thalweg reset revenue.yaml --dry-run
  thalweg reset revenue.yaml

Removes the group's offsets, the changelog and repartition topics and the stores in --state-dir, so that
the next run begins at the start of the input. Results that were written stay. Stores in the state
directories of other machines are not seen from here; they are set aside when they are opened.";

/// A Kafka-native stream processor: topology files in, exactly-once results out.
#[derive(Debug, Parser)]
#[command(name = "thalweg", version, about, after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub settings: SettingsArguments,
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a topology until SIGTERM or SIGINT, or to the end of its input.
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        /// The topology file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Run to the present end of the input, close all windows, and exit.
        #[arg(long)]
        bounded: bool,
        /// Drop the state of an operator that the file no longer has. Can be given several times.
        #[arg(long, value_name = "ID")]
        drop_state: Vec<String>,
        /// Run without Kafka, on JSON lines from standard input; nothing is durable.
        #[arg(long, conflicts_with_all = ["bounded", "drop_state"])]
        embedded: bool,
        /// Read the JSON lines from a file.
        #[arg(long, value_name = "FILE", requires = "embedded")]
        input: Option<PathBuf>,
    },
    /// Run the tests of topology files.
    #[command(after_help = TEST_EXAMPLES)]
    Test(TestArguments),
    /// Check topology files.
    #[command(after_help = VALIDATE_EXAMPLES)]
    Validate {
        /// The topology files.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Print a topology as a Mermaid diagram.
    #[command(after_help = GRAPH_EXAMPLES)]
    Graph {
        /// The topology file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the effective settings.
    #[command(after_help = SETTINGS_EXAMPLES)]
    Settings,
    /// Forget what an application that is not running has done.
    #[command(after_help = RESET_EXAMPLES)]
    Reset {
        /// The topology file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Write the input of benchmarks.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench {
        /// What to do.
        #[command(subcommand)]
        command: BenchCommand,
    },
}

/// Which tests are run, and how that is reported.
#[derive(Args, Debug)]
pub(super) struct TestArguments {
    /// The topology files.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Only the test of this name, or all that have it in their names, of all files together.
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// Only this variant, as a failure names it.
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<String>,
    /// How to report.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub format: ReportFormat,
}

/// How tests are reported.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ReportFormat {
    /// For people.
    Text,
    /// JUnit's XML, for CI.
    Junit,
    /// JSON, for programs.
    Json,
}

impl From<ReportFormat> for Format {
    fn from(format: ReportFormat) -> Format {
        match format {
            ReportFormat::Text => Format::Text,
            ReportFormat::Junit => Format::Junit,
            ReportFormat::Json => Format::Json,
        }
    }
}

/// Where settings come from, for every command.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Settings")]
pub(super) struct SettingsArguments {
    /// A file of settings, YAML or TOML by its extension.
    #[arg(long = "settings", value_name = "FILE", global = true)]
    pub settings_file: Option<PathBuf>,
    /// The first brokers to ask: HOST:PORT, separated by commas.
    #[arg(long, value_name = "LIST", global = true)]
    pub bootstrap_servers: Option<String>,
    /// The directory of this process's state.
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<String>,
    /// How many worker threads; 0: as many as there are cores.
    #[arg(long, value_name = "N", global = true)]
    pub workers: Option<String>,
    /// How often results are committed, such as 100ms.
    #[arg(long, value_name = "DURATION", global = true)]
    pub commit_interval: Option<String>,
    /// Where /livez, /readyz and /metrics are served: HOST:PORT, or off.
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub listen: Option<String>,
    /// For people or for machines: text or json.
    #[arg(long, value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
    /// What is logged: info, or info,thalweg::kafka=debug.
    #[arg(long, value_name = "FILTER", global = true)]
    pub log: Option<String>,
    /// Any setting. Can be given several times.
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = pair, global = true)]
    pub set: Vec<(String, String)>,
}

impl SettingsArguments {
    /// As dotted keys and their values; `--set` comes last and wins.
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        let named = [
            ("kafka.bootstrap_servers", &self.bootstrap_servers),
            ("state.dir", &self.state_dir),
            ("run.workers", &self.workers),
            ("run.commit_interval", &self.commit_interval),
            ("http.listen", &self.listen),
            ("log.format", &self.log_format),
            ("log.filter", &self.log),
        ];
        let named = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
        named.chain(self.set.iter().cloned()).collect()
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write SECTION.KEY=VALUE, such as run.workers=2")?;
    Ok((key.to_owned(), value.to_owned()))
}
