//! What is measured: the inputs, and what is computed from them.

use std::process::Command;

use crate::cluster::Cluster;
use crate::support::thalweg::binary;

/// What a system does with its input. `benches/peers/README.md` has the exact terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// Orders and their sum per customer and minute, when the minute is over.
    Window,
    /// The same per customer and day.
    Day,
    /// The paid half of all orders, four fields of each.
    Project,
    /// Every bid as it is.
    Q0,
    /// Every bid with its price in euros.
    Q1,
    /// The bids on some auctions.
    Q2,
}

impl Job {
    /// What it is called in arguments and file names.
    pub fn name(self) -> &'static str {
        match self {
            Job::Window | Job::Day => "window",
            Job::Project => "project",
            Job::Q0 => "q0",
            Job::Q1 => "q1",
            Job::Q2 => "q2",
        }
    }

    /// The size of its windows, if it has any.
    pub fn window_ms(self) -> Option<i64> {
        match self {
            Job::Window => Some(60_000),
            Job::Day => Some(86_400_000),
            Job::Project | Job::Q0 | Job::Q1 | Job::Q2 => None,
        }
    }

    fn reads_bids(self) -> bool {
        matches!(self, Job::Q0 | Job::Q1 | Job::Q2)
    }
}

/// The event time of the first record.
pub const START_MS: i64 = 1_700_000_000_000;

/// A topic of generated events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// Bids instead of orders.
    pub bids: bool,
    /// How many, the closing ones not counted.
    pub records: u64,
    /// How many customers.
    pub keys: u64,
    /// The exponent of Zipf's law for the customers, as text; `None`: all are as frequent.
    pub zipf: Option<&'static str>,
    /// The partitions of the topic.
    pub partitions: i32,
}

impl Input {
    /// Its topic, named by all that makes it what it is.
    pub fn topic(&self) -> String {
        let Input { records, keys, partitions, .. } = self;
        match (self.bids, self.zipf) {
            (true, _) => format!("{}-bids", self.prefix()),
            (false, None) => format!("bench-{records}-{partitions}-orders-{keys}-uniform"),
            (false, Some(zipf)) => format!("bench-{records}-{partitions}-orders-{keys}-zipf-{zipf}"),
        }
    }

    fn prefix(&self) -> String {
        format!("bench-{}-{}", self.records, self.partitions)
    }

    /// Writes the topic if it is not there: ten minutes of event time, whatever the number of records.
    pub fn generate(&self, cluster: &Cluster) {
        let topic = self.topic();
        if cluster.admin().partitions(&topic).is_some() {
            let found = cluster.records(&topic);
            assert!(
                found >= self.records,
                "{topic} holds {found} records only: delete it, and it is written anew"
            );
            return;
        }
        eprintln!("bench: generating {topic}");
        let mut command = Command::new(binary());
        command.args(["bench", "generate"]);
        if self.bids {
            command.args(["nexmark", "--only", "bids", "--topic", &self.prefix()]);
        } else {
            command.args(["orders", "--topic", &topic, "--keys", &self.keys.to_string()]);
            command.args(self.zipf.iter().flat_map(|exponent| ["--zipf", exponent]));
        }
        command
            .args(["--records", &self.records.to_string(), "--partitions", &self.partitions.to_string()])
            .args([
                "--span",
                "10m",
                "--start",
                &START_MS.to_string(),
                "--create",
                "--bootstrap-servers",
                &cluster.bootstrap(),
            ]);
        let output = command.output().expect("the generator starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// One line of the comparison.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What it is called.
    pub name: String,
    /// What is computed.
    pub job: Job,
    /// From what.
    pub input: Input,
    /// How often it is committed.
    pub commit_ms: u64,
}

/// All workloads, in the order of their numbers, each of so many records.
pub fn all(records: u64) -> Vec<Workload> {
    let orders = Input { bids: false, records, keys: 100_000, zipf: None, partitions: 4 };
    let bids = Input { bids: true, ..orders.clone() };
    let of = |name: &str, job: Job, input: &Input, commit_ms| Workload {
        name: name.to_owned(),
        job,
        input: input.clone(),
        commit_ms,
    };
    let mut all = vec![
        of("w1-100ms", Job::Window, &orders, 100),
        of("w1-1s", Job::Window, &orders, 1_000),
        of("w2", Job::Project, &orders, 100),
    ];
    for (keys, name) in [(1_000, "1k"), (1_000_000, "1m"), (10_000_000, "10m")] {
        for (zipf, law) in [(None, "uniform"), (Some("1.0"), "zipf")] {
            let input = Input { keys, zipf, ..orders.clone() };
            all.push(of(&format!("w3-{name}-{law}"), Job::Window, &input, 100));
        }
    }
    for partitions in [16, 64, 256] {
        let input = Input { partitions, ..orders.clone() };
        all.push(of(&format!("w4-{partitions}"), Job::Window, &input, 100));
    }
    for job in [Job::Q0, Job::Q1, Job::Q2] {
        all.push(of(&format!("w5-{}", job.name()), job, &bids, 100));
    }
    assert!(all.iter().all(|workload| workload.job.reads_bids() == workload.input.bids));
    all
}
