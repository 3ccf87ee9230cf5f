//! `thalweg bench generate`.

use std::io;

use serde::Serialize;

use super::arguments::{BenchCommand, SettingsArguments};
use super::{Exit, Shell};
use crate::generator::kafka::{self, Error, Report};
use crate::runtime::{Member, connection};

/// What Kafka sees as the client's name, with `thalweg-` before it.
const CLIENT: &str = "bench";

/// The line at the end.
#[derive(Serialize)]
struct Line<'r> {
    generated: &'static str,
    topics: Vec<TopicLine<'r>>,
    records: u64,
    bytes: u64,
    seconds: f64,
    records_per_s: f64,
    lag_max_ms: f64,
    first_event_ms: i64,
    last_event_ms: i64,
}

/// One topic's part of it.
#[derive(Serialize)]
struct TopicLine<'r> {
    topic: &'r str,
    partitions: i32,
    records: u64,
}

impl Shell<'_> {
    pub(super) fn bench(&mut self, command: &BenchCommand, settings: &SettingsArguments) -> io::Result<Exit> {
        let BenchCommand::Generate { events } = command;
        let request = events.request();
        if let Err(error) = request.check() {
            return self.complain(&error, Exit::Wrong);
        }
        let Some(settings) = self.settings_and_logs(settings)? else { return Ok(Exit::Wrong) };
        match kafka::write(&request, &connection(&settings, CLIENT, Member::None)) {
            Ok(report) => {
                writeln!(self.out, "{}", line(events.name(), &report))?;
                Ok(Exit::Done)
            }
            Err(Error::Refused(error)) => self.complain(&error, Exit::Wrong),
            Err(Error::Failed(error)) => self.complain(&error, Exit::Failed),
        }
    }
}

fn line(generated: &'static str, report: &Report) -> String {
    let topics = report.topics.iter();
    let topics = topics.map(|(topic, partitions, records)| TopicLine {
        topic,
        partitions: *partitions,
        records: *records,
    });
    let (sent, records) = (&report.sent, report.sent.records.iter().sum::<u64>());
    let seconds = sent.time.as_secs_f64();
    let line = Line {
        generated,
        topics: topics.collect(),
        records,
        bytes: sent.bytes,
        seconds: rounded(seconds),
        records_per_s: (records as f64 / seconds.max(1e-9)).round(),
        lag_max_ms: rounded(sent.lag_max.as_secs_f64() * 1e3),
        first_event_ms: report.event_ms.0,
        last_event_ms: report.event_ms.1,
    };
    // Texts and numbers: there is nothing in it that JSON has no form for.
    serde_json::to_string(&line).unwrap_or_default()
}

/// To three digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::generator::send::Sent;

    #[test]
    fn the_line_at_the_end_is_json() {
        let sent = Sent {
            records: vec![1_002, 8],
            bytes: 215_000,
            time: Duration::from_micros(1_234_567),
            lag_max: Duration::from_micros(1_500),
        };
        let topics = vec![("orders".into(), 2, 1_002), ("more".into(), 8, 8)];
        assert_eq!(
            line("orders", &Report { topics, event_ms: (5, 605), sent }),
            "{\"generated\":\"orders\",\"topics\":[{\"topic\":\"orders\",\"partitions\":2,\"records\":1002},\
             {\"topic\":\"more\",\"partitions\":8,\"records\":8}],\"records\":1010,\"bytes\":215000,\
             \"seconds\":1.235,\"records_per_s\":818.0,\"lag_max_ms\":1.5,\"first_event_ms\":5,\
             \"last_event_ms\":605}"
        );
    }
}
