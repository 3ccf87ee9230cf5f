//! From the restart after a SIGKILL to the next commit, with much state: with the local disk kept, and with it
//! lost.
//!
//! Records go on being written, in every partition, all the time. The next commit is the first one that
//! holds a record written after the kill. (For Flink that is the end of a checkpoint.) Group members are static, or
//! come back under their old names: no session time-out is part of it.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Progress};
use crate::measure::size;
use crate::process::Process;
use crate::support::kafka::Writer;
use crate::support::{unix_ms, wait_for};
use crate::systems::{Start, System};
use crate::workload::{Input, Job};

const LIMIT: Duration = Duration::from_secs(3_600);
/// Between two records in each partition.
const TRICKLE: Duration = Duration::from_millis(20);
/// After all of the input is committed: what is written in the background gets to the disk.
const SETTLE: Duration = Duration::from_secs(20);

/// What a recovery is measured with: one window of a day, which stays open, with so many keys.
pub fn recovery(cluster: &Cluster, system: &System, input: &Input, dir: &Path) -> Vec<Value> {
    input.generate(cluster);
    let topic = input.topic();
    let id = format!("bench-recovery-{}", system.name);
    let output = format!("{id}-output");
    cluster.admin().create(&[(&output, input.partitions)]);
    let mut start = Start {
        bootstrap: cluster.bootstrap(),
        job: Job::Day,
        input: topic.clone(),
        output,
        id: id.clone(),
        commit_ms: 100,
        state_dir: dir.join(&id),
        threads: 2,
        restores: false,
    };
    let log = start.state_dir.with_extension("log");
    let progress = Progress::new(cluster, &id, &topic);
    let total = cluster.records(&topic);
    let mut process = Process::spawn(system, &start, &log);
    wait_for("the state to be there", LIMIT, || {
        process.check_runs();
        (progress.committed()? >= total).then_some(())
    });
    std::thread::sleep(SETTLE);
    let state_bytes = size(&start.state_dir);
    start.restores = true;
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| trickle(cluster, &topic, input.partitions, &goes_on));
        let mut results = Vec::new();
        for disk in ["kept", "lost"] {
            if disk == "lost" && !system.has_a_disk_to_lose() {
                continue;
            }
            wait_for("a commit before the kill", LIMIT, || {
                process.check_runs();
                (progress.committed()? > total).then_some(())
            });
            process.kill();
            let written = cluster.records(&topic);
            if disk == "lost" {
                system.lose_disk(&start);
            }
            let restarted = Instant::now();
            process = Process::spawn(system, &start, &log);
            wait_for("the next commit", LIMIT, || {
                process.check_runs();
                (progress.committed()? > written).then_some(())
            });
            results.push(json!({
                "recovery_of": system.name,
                "disk": disk,
                "state_mb": state_bytes as f64 / 1e6,
                "records": total,
                "next_commit_s": restarted.elapsed().as_secs_f64(),
            }));
        }
        goes_on.store(false, Ordering::Relaxed);
        process.stop();
        cluster.forget(&id);
        let _ = fs::remove_dir_all(&start.state_dir);
        results
    })
}

/// Writes a record to each partition, again and again.
fn trickle(cluster: &Cluster, topic: &str, partitions: i32, goes_on: &AtomicBool) {
    let writer = Writer::new(&cluster.bootstrap());
    for number in 0u64.. {
        if !goes_on.load(Ordering::Relaxed) {
            break;
        }
        for partition in 0..partitions {
            let value = format!(
                "{{\"order_id\":\"trickle-{number}\",\"customer\":\"trickle-{partition}\",\"amount\":1,\
                 \"status\":\"paid\",\"created_at\":{},\"currency\":\"EUR\",\"note\":\"\"}}",
                crate::workload::START_MS
            );
            let key = format!("trickle-{partition}");
            writer.send(topic, partition, Some(key.as_bytes()), Some(value.as_bytes()), unix_ms());
        }
        std::thread::sleep(TRICKLE);
    }
    writer.flush();
}
