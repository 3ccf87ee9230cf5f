//! Refinements by the clock: how many there are is not known, but each tells what its window held then, none of a window
//! less than the one before it, and if all windows have closed the last of each is among them. All other rows are as they must be.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::{States, compare_topic};
use super::json::Json;
use super::{Row, Window, Writer};
use crate::record::Field;
use crate::simulator::Written;
use crate::simulator::generate::Shape;

/// What is known of them.
#[derive(Clone, Debug)]
pub struct Refined {
    /// The fields of the key.
    names: Vec<String>,
    /// Windows may become parts of others.
    join: bool,
    /// Whether all windows have closed in the end.
    all_closed: bool,
}

/// A window of a key, as a row tells it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    partition: i32,
    key: Vec<String>,
    start_ms: i64,
    end_ms: i64,
}

impl Told {
    /// Which window of which key it is.
    fn window(&self) -> Vec<String> {
        let range = [self.start_ms, self.end_ms].map(|ms| ms.to_string());
        self.key.iter().cloned().chain(range).collect()
    }

    /// Whether it is a part of another one.
    fn is_part_of(&self, whole: &Told) -> bool {
        let within = whole.start_ms <= self.start_ms && self.end_ms <= whole.end_ms;
        within && self != whole && self.partition == whole.partition && self.key == whole.key
    }
}

impl Refined {
    /// Those of a window whose rows have these fields.
    pub(super) fn of(window: &Window, fields: &[Field], all_closed: bool) -> Refined {
        let names = fields[..window.key.len()].iter().map(|field| field.name.clone()).collect();
        Refined { names, join: window.shape == Shape::Session, all_closed }
    }

    /// The key and the window of a row.
    fn told(&self, partition: i32, row: &str) -> Option<Told> {
        let json = Json::parse(row.as_bytes())?;
        let key = self.names.iter().map(|name| Some(format!("{:?}", json.member(name)?)));
        let number = |name: &str| match json.member(name)? {
            Json::Number(text) => text.parse().ok(),
            _ => None,
        };
        let (start_ms, end_ms) = (number("window_start")?, number("window_end")?);
        Some(Told { partition, key: key.collect::<Option<_>>()?, start_ms, end_ms })
    }

    /// Whether the rows in a topic are those of its writers.
    pub(super) fn check(
        &self,
        topic: &str,
        writers: &BTreeMap<Writer, Vec<Row>>,
        rows: Vec<&Written>,
    ) -> Result<(), String> {
        const MARK: &str = "\"refinement\":true";
        let text = |value: &Option<Vec<u8>>| {
            String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned()
        };
        let (refinements, others): (Vec<&Written>, Vec<&Written>) =
            rows.into_iter().partition(|row| text(&row.value).contains(MARK));
        let (mut on_time, mut states) = (BTreeMap::new(), States::default());
        let mut last = BTreeMap::new();
        for (writer, rows) in writers {
            let kept = rows.iter().filter(|row| !text(&row.value).contains(MARK)).cloned().collect();
            on_time.insert(writer.clone(), kept);
            for row in rows.iter().map(|row| text(&row.value)) {
                let told = self.told(writer.task.partition, &row);
                let told = told.ok_or_else(|| format!("{topic}: {row} is no row of a window"))?;
                let window = told.window();
                if self.join {
                    // The row of the whole tells of them.
                    last.retain(|part: &Told, _| !part.is_part_of(&told));
                }
                if row.contains(MARK) {
                    last.insert(told, row.clone());
                }
                // Whoever does not know what has changed makes one of what has not.
                states.push(window, row.replace("\"refinement\":false", MARK));
            }
        }
        compare_topic(topic, &on_time, &others)?;
        let mut refinements = refinements;
        refinements.sort_by_key(|row| (row.partition, row.offset));
        let mut found = BTreeSet::new();
        for (partition, row) in refinements.iter().map(|row| (row.partition, text(&row.value))) {
            let told = self.told(0, &row).ok_or_else(|| format!("{topic}: {row} is no row of a window"))?;
            if !states.go_to(partition, told.window(), &row) {
                return Err(format!("{topic}: a refinement of what its window did not hold then: {row}"));
            }
            found.insert(row);
        }
        match last.values().find(|row| self.all_closed && !found.contains(*row)) {
            Some(row) => Err(format!("{topic}: a window closed with late rows that no row tells of: {row}")),
            None => Ok(()),
        }
    }
}
