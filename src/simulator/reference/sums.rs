//! Windows that begin anew with rows that they make by a time: when these come is not known, but together with the others they
//! are of each row once.

use std::collections::BTreeMap;

use super::json::Json;
use super::{KeyPart, Task};
use crate::simulator::Written;
use crate::simulator::generate::Window;
use crate::window::EarlyFiring;

/// How many rows windows are of that begin anew by a time.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// The fields of the key, and that of the end.
    names: Vec<String>,
    /// The field that counts.
    count: String,
    /// By end and key: of how many in all, and of how many some row surely tells.
    windows: BTreeMap<(i64, Vec<KeyPart>), (i64, i64)>,
}

impl Task<'_, '_> {
    /// A row counts in the window of a key.
    pub(super) fn tally(&mut self, index: usize, window: &Window, place: &(i64, Vec<KeyPart>)) {
        let by_time =
            matches!(window.early, Some(EarlyFiring::EveryMs(..))) || window.refine_every_ms.is_some();
        if !window.purge || !by_time {
            return;
        }
        let operator = &self.generated.operators[index];
        let sums = self.out.tallies.entry(index).or_default();
        sums.names = operator.fields[..window.key.len()].iter().map(|field| field.name.clone()).collect();
        sums.count = window.aggregates.first().map(|first| first.name.clone()).unwrap_or_default();
        sums.windows.entry(place.clone()).or_default().0 += 1;
    }

    /// A row of a key's window tells of so many more.
    pub(super) fn told_of(&mut self, index: usize, place: &(i64, Vec<KeyPart>), rows: i64) {
        if let Some(window) = self.out.tallies.get_mut(&index).and_then(|sums| sums.windows.get_mut(place)) {
            window.1 += rows;
        }
    }
}

impl Sums {
    /// Whether the rows in a topic are of as many rows; of windows that are open of no more.
    pub(super) fn check(&self, topic: &str, rows: &[Written]) -> Result<(), String> {
        let mut found = BTreeMap::<(i64, Vec<String>), i64>::new();
        for row in rows {
            let value = row.value.as_deref().unwrap_or_default();
            let read = || {
                let json = Json::parse(value)?;
                let key = self.names.iter().map(|name| Some(format!("{:?}", json.member(name)?)));
                let number = |name: &str| match json.member(name)? {
                    Json::Number(text) => text.parse::<i64>().ok(),
                    _ => None,
                };
                Some(((number("window_end")?, key.collect::<Option<_>>()?), number(&self.count)?))
            };
            let (window, count) = read().ok_or_else(|| {
                format!("{topic}: {:?} is no row of a window", String::from_utf8_lossy(value))
            })?;
            *found.entry(window).or_default() += count;
        }
        for ((end_ms, key), (all, closed)) in &self.windows {
            let of_key = found.remove(&(*end_ms, text(key))).unwrap_or(0);
            if !(*closed..=*all).contains(&of_key) {
                return Err(format!(
                    "{topic}: the rows of {key:?} until {end_ms} are of {of_key} rows, which is not within {closed} and {all}"
                ));
            }
        }
        match found.first_key_value() {
            Some((window, _)) => Err(format!("{topic}: there is no window {window:?}")),
            None => Ok(()),
        }
    }
}

/// A key as its JSON values.
fn text(key: &[KeyPart]) -> Vec<String> {
    let value = |part: &KeyPart| match part {
        KeyPart::Bool(value) => format!("{:?}", Json::Bool(*value)),
        KeyPart::Int(value) => format!("{:?}", Json::Number(&value.to_string())),
        KeyPart::Text(text) => format!("{:?}", Json::Text((&**text).into())),
    };
    key.iter().map(value).collect()
}
