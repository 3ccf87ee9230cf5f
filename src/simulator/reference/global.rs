//! Windows that no time closes: all rows of a key are kept since its window began, and looked through each time.

use super::changelog::Told;
use super::evaluate::{Environment, Failed};
use super::fold::{Fold, Sample};
use super::group::{head, key_of, samples};
use super::{Event, KeyPart, Task};
use crate::simulator::generate::formula::Value;
use crate::simulator::generate::{GlobalWindow, Operator, Trigger};

/// What there is of a key.
#[derive(Default)]
pub(super) struct Rows {
    /// The greatest event time of all.
    newest_ms: i64,
    /// Their event times, and what they add.
    rows: Vec<(i64, Vec<Sample>)>,
    /// How many of them came before the last row was made.
    told: usize,
}

impl<'g> Task<'_, 'g> {
    pub(super) fn gather(
        &mut self,
        index: usize,
        operator: &'g Operator,
        window: &'g GlobalWindow,
        event: &Event<'_>,
    ) -> Result<(), Failed> {
        let key = key_of(&window.key, event)?;
        let environment = Environment { row: event.row, origin: event.origin };
        let is_due = match &window.trigger {
            Trigger::When(formula) => environment.evaluate(formula)? == Value::Bool(true),
            _ => false,
        };
        let samples = samples(&window.aggregates, event)?;
        let watermark_ms = self.windows[index].watermark_ms;
        let is_forgotten = |time_ms: i64| match (window.ttl_ms, watermark_ms) {
            (Some(ttl_ms), Some(watermark_ms)) => watermark_ms >= time_ms + ttl_ms,
            _ => false,
        };
        let of_keys = &mut self.windows[index].rows;
        let mut of_key = of_keys.remove(&key).filter(|of_key| !is_forgotten(of_key.newest_ms));
        let mut rows = of_key.as_mut().map_or(Vec::new(), |of_key| std::mem::take(&mut of_key.rows));
        let told = match &window.trigger {
            Trigger::Changelog if !rows.is_empty() => result(window, &key, &rows).ok().map(|row| {
                let (start_ms, end_ms) = range(window, &rows);
                Told { place: (end_ms, key.clone()), start_ms, row }
            }),
            _ => None,
        };
        rows.push((event.time_ms, samples));
        let last = rows.len() - 1;
        // What its part holds must take it.
        if let Err(Failed) = part_of(window, last).map_or(Ok(()), |part| fold(window, &rows, part).map(drop))
        {
            rows.pop();
            if let Some(of_key) = of_key {
                of_keys.insert(key, Rows { rows, ..of_key });
            }
            return Err(Failed);
        }
        let of_key = of_key.unwrap_or(Rows { newest_ms: event.time_ms, ..Rows::default() });
        let mut of_key = Rows { rows, newest_ms: of_key.newest_ms.max(event.time_ms), ..of_key };
        let since = of_key.rows.len() - of_key.told;
        let fires = match &window.trigger {
            Trigger::Count { slide, .. } => since == *slide,
            Trigger::Rows(rows) => since == *rows,
            Trigger::When(_) => is_due,
            Trigger::Having(_) | Trigger::Changelog => true,
        };
        if fires {
            let row = result(window, &key, &of_key.rows);
            let holds = match (&window.trigger, &row) {
                (Trigger::Having(formula), Ok(row)) => {
                    let environment = Environment { row, origin: None };
                    environment.evaluate(formula).map(|value| value == Value::Bool(true))
                }
                (Trigger::Having(_), Err(Failed)) => Err(Failed),
                _ => Ok(true),
            };
            let (start_ms, end_ms) = range(window, &of_key.rows);
            let place = (end_ms, key.clone());
            let row = match holds {
                Ok(false) => None,
                Ok(true) => Some(row),
                Err(Failed) => Some(Err(Failed)),
            };
            if holds == Ok(true) {
                of_key.told = of_key.rows.len();
                if window.purge {
                    of_key = Rows { newest_ms: of_key.newest_ms, ..Rows::default() };
                }
            }
            match (row, &window.trigger) {
                (Some(row), Trigger::Changelog) => {
                    self.change(index, operator, told, (&place, start_ms), row);
                }
                (Some(row), _) => self.fire(index, operator, &place, start_ms, row),
                (None, _) => {}
            }
        }
        if !is_forgotten(of_key.newest_ms) {
            self.windows[index].rows.insert(key, of_key);
        }
        Ok(())
    }
}

/// The number of the part that a row belongs to, of a window as many rows as lie in all or none; `None`: in no window.
fn part_of(window: &GlobalWindow, row: usize) -> Option<usize> {
    match window.trigger {
        Trigger::Count { size, slide } if slide >= size => {
            (row % slide >= slide - size).then_some(row / slide)
        }
        Trigger::Count { size, slide } => {
            let rows = (1..=size).rev().find(|rows| size % rows == 0 && slide % rows == 0)?;
            Some(row / rows)
        }
        _ => Some(0),
    }
}

/// The aggregates over the rows of a part.
fn fold(window: &GlobalWindow, rows: &[(i64, Vec<Sample>)], part: usize) -> Result<Vec<Fold>, Failed> {
    let of_part = |row: &usize| part_of(window, *row) == Some(part);
    let aggregates = window.aggregates.iter().enumerate();
    let folds = aggregates.map(|(number, aggregate)| {
        let mut of_rows = (0..rows.len()).filter(of_part);
        of_rows.try_fold(Fold::default(), |fold, row| fold.with(aggregate, &rows[row].1[number]))
    });
    folds.collect()
}

/// The rows that the next row is of.
fn of_window(window: &GlobalWindow, rows: &[(i64, Vec<Sample>)]) -> std::ops::Range<usize> {
    match window.trigger {
        Trigger::Count { size, .. } => rows.len().saturating_sub(size)..rows.len(),
        _ => 0..rows.len(),
    }
}

/// From the least event time of these rows to behind the greatest.
fn range(window: &GlobalWindow, rows: &[(i64, Vec<Sample>)]) -> (i64, i64) {
    let times = rows[of_window(window, rows)].iter().map(|(time_ms, _)| *time_ms);
    (times.clone().min().unwrap_or(0), times.max().unwrap_or(0) + 1)
}

/// The row of a key.
fn result(window: &GlobalWindow, key: &[KeyPart], rows: &[(i64, Vec<Sample>)]) -> Result<Vec<Value>, Failed> {
    let (start_ms, end_ms) = range(window, rows);
    let mut parts: Vec<usize> = of_window(window, rows).filter_map(|row| part_of(window, row)).collect();
    parts.dedup();
    let mut row = head(&(end_ms, key.to_vec()), start_ms);
    let folds = parts.into_iter().map(|part| fold(window, rows, part));
    let folds = folds.collect::<Result<Vec<Vec<Fold>>, Failed>>()?;
    for (number, aggregate) in window.aggregates.iter().enumerate() {
        let all = folds.iter().try_fold(Fold::default(), |all, part| all.and(aggregate, &part[number]))?;
        row.push(all.result(aggregate));
    }
    if let Trigger::Changelog = window.trigger {
        row.push(Value::Text("insert".into()));
    }
    Ok(row)
}
