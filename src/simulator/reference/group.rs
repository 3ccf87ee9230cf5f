//! Windows, row by row.

use std::collections::BTreeMap;

use super::changelog::Told;
use super::evaluate::{Environment, Failed};
use super::fold::{Fold, Sample};
use super::{EarlyRows, Event, KeyPart, OpenWindow, States, Task, key_part, object, windows};
use crate::record::Field;
use crate::simulator::generate::formula::{Formula, Value};
use crate::simulator::generate::{Aggregate, Operator, Window};
use crate::topology::plan::{Emit, StreamRef};
use crate::window::EarlyFiring;

impl<'g> Task<'_, 'g> {
    /// A row of aligned windows: it counts in each that is open.
    pub(super) fn group(
        &mut self,
        index: usize,
        operator: &'g Operator,
        window: &'g Window,
        fields: &[Field],
        event: &Event<'_>,
    ) -> Result<(), Failed> {
        let watermark_ms = self.windows[index].watermark_ms;
        let all = windows::ends(window, event.time_ms);
        let is_open = |end_ms: &i64| {
            let closes_ms = end_ms + window.allowed_lateness_ms;
            watermark_ms.is_none_or(|watermark_ms| watermark_ms < closes_ms)
        };
        let open: Vec<i64> = all.iter().copied().filter(is_open).collect();
        let Some(first) = open.first() else {
            // In a gap between windows a row belongs to none.
            if !all.is_empty() {
                self.late(&operator.id, window.late.as_ref(), fields, event);
            }
            return Ok(());
        };
        let key = key_of(&window.key, event)?;
        let (is_due, samples) = (is_due(window, event)?, samples(&window.aggregates, event)?);
        // What the part holds is the same in all windows that have it.
        let part = windows::part(window, event.time_ms);
        let before = self.windows[index].open.get(&(*first, key.clone()));
        let before = before.and_then(|window| window.parts.get(&part));
        let empty = Fold::default();
        let folds =
            window.aggregates.iter().zip(&samples).enumerate().map(|(number, (aggregate, sample))| {
                let fold = before.map_or(&empty, |folds| &folds[number]);
                fold.with(aggregate, sample)
            });
        let folds = folds.collect::<Result<Vec<Fold>, Failed>>()?;
        for end_ms in open {
            let place = (end_ms, key.clone());
            self.tally(index, window, &place);
            let is_over = watermark_ms.is_some_and(|watermark_ms| watermark_ms >= end_ms);
            let opened = self.windows[index].open.entry(place.clone()).or_default();
            opened.start_ms = windows::start(window, end_ms);
            opened.parts.insert(part, folds.clone());
            opened.fired |= is_over;
            opened.rows += 1;
            opened.changed = true;
            let is_early = (window.emit == Emit::OnClose || !opened.fired)
                && (is_due || is_early(window, opened.rows - 1, opened.rows));
            let emits = match window.emit {
                Emit::OnClose => false,
                Emit::OnTime => is_over,
                Emit::OnUpdate => true,
            };
            if window.changelog {
                self.hold(index, operator, &place);
                if emits || is_early {
                    self.tell_changed(index, operator, &place);
                }
            } else if emits || is_early {
                // A refinement is marked, an update is not.
                let row = result(window, &place, opened, window.emit == Emit::OnTime && !is_early);
                let row = if is_early { row.map(|row| marked_early(window, row)) } else { row };
                let start_ms = opened.start_ms;
                if window.purge {
                    self.begin_anew(index, window, &place, is_early);
                }
                self.fire(index, operator, &place, start_ms, row);
            }
            self.holds(index, window, &place);
        }
        Ok(())
    }

    /// Notes what a window holds that makes early rows by a time, if one may tell it.
    fn holds(&mut self, index: usize, window: &Window, place: &(i64, Vec<KeyPart>)) {
        if window.purge || window.changelog || !matches!(window.early, Some(EarlyFiring::EveryMs(..))) {
            return;
        }
        let at = StreamRef::Operator(index);
        let fields = &self.shape.stream(at).fields;
        let Some(open) = self.windows[index].open.get(place) else { return };
        let row = result(window, place, open, false).map(|row| object(fields, &marked_early(window, row)));
        let early = self.out.early.entry(index).or_insert_with(|| EarlyRows {
            names: fields.iter().take(window.key.len() + 2).map(|field| field.name.clone()).collect(),
            states: self.is_in_order.then(States::default),
        });
        if let Ok(row) = row
            && let Some((told, _)) = early.told(&row)
            && let Some(states) = &mut early.states
        {
            states.push(told, String::from_utf8_lossy(&row).into_owned());
        }
    }

    /// A window begins anew with a row that it makes; of those by the clock nobody knows when they come.
    fn begin_anew(&mut self, index: usize, window: &Window, place: &(i64, Vec<KeyPart>), is_early: bool) {
        if window.refine_every_ms.is_none() || is_early {
            let Some(opened) = self.windows[index].open.get_mut(place) else { return };
            let rows = std::mem::take(&mut opened.rows);
            opened.parts.clear();
            self.told_of(index, place, rows);
        }
    }

    /// A row of a session: it joins all open sessions of its key that are not further away than the gap.
    pub(super) fn follow(
        &mut self,
        index: usize,
        operator: &'g Operator,
        window: &'g Window,
        fields: &[Field],
        event: &Event<'_>,
    ) -> Result<(), Failed> {
        let key = key_of(&window.key, event)?;
        let gap_ms = match &window.gap {
            None => window.size_ms,
            Some(gap) => match (Environment { row: event.row, origin: event.origin }).evaluate(gap)? {
                Value::Duration(gap_ms) if (window.size_ms..=A_HUNDRED_YEARS_MS).contains(&gap_ms) => gap_ms,
                _ => return Err(Failed),
            },
        };
        let watermark_ms = self.windows[index].watermark_ms.unwrap_or(i64::MIN);
        let open = &self.windows[index].open;
        let joined: Vec<(i64, Vec<KeyPart>)> = open
            .iter()
            .filter(|(place, session)| {
                place.1 == key && session.start_ms <= event.time_ms + gap_ms && place.0 >= event.time_ms
            })
            .map(|(place, _)| place.clone())
            .collect();
        let end_ms = joined.iter().map(|place| place.0).chain([event.time_ms + gap_ms]).max().unwrap_or(0);
        let starts = joined.iter().filter_map(|place| Some(open.get(place)?.start_ms));
        let start_ms = starts.chain([event.time_ms]).min().unwrap_or(0);
        if watermark_ms >= end_ms + window.allowed_lateness_ms {
            self.late(&operator.id, window.late.as_ref(), fields, event);
            return Ok(());
        }
        let (is_due, samples) = (is_due(window, event)?, samples(&window.aggregates, event)?);
        let mut folds = Vec::new();
        for (number, (aggregate, sample)) in window.aggregates.iter().zip(&samples).enumerate() {
            let mut of_joined = joined.iter().filter_map(|place| open.get(place)?.parts.get(&0)?.get(number));
            let first = of_joined.next().cloned().unwrap_or_default();
            let mut fold = first.with(aggregate, sample)?;
            for later in of_joined {
                fold = fold.and(aggregate, later)?;
            }
            folds.push(fold);
        }
        let place = (end_ms, key);
        let is_over = watermark_ms >= end_ms;
        let counts = joined.iter().filter_map(|place| Some(open.get(place)?.rows));
        let (before, rows) = (counts.clone().max().unwrap_or(0), counts.sum::<i64>() + 1);
        let mut session = OpenWindow {
            start_ms,
            fired: is_over,
            rows,
            parts: [(0, folds)].into(),
            told: None,
            changed: true,
        };
        let is_early =
            (!is_over || window.emit == Emit::OnClose) && (is_due || is_early(window, before, rows));
        let emits = match window.emit {
            Emit::OnClose => false,
            Emit::OnTime => is_over,
            Emit::OnUpdate => true,
        };
        if window.changelog {
            let open = &mut self.windows[index].open;
            let mut told: Vec<Told> = joined.iter().filter_map(|old| open.remove(old)?.told).collect();
            // What is told at times keeps that of one that ends as it does.
            let stays = match window.tells_later() {
                true => told.iter().position(|told| told.place.0 == end_ms),
                false => {
                    told.iter().position(|told| emits && (told.place.0, told.start_ms) == (end_ms, start_ms))
                }
            };
            session.told = stays.map(|stays| told.remove(stays));
            told.into_iter().for_each(|told| self.take_back(index, operator, told));
            self.windows[index].open.insert(place.clone(), session);
            self.hold(index, operator, &place);
            if emits || is_early {
                self.tell_changed(index, operator, &place);
            }
            return Ok(());
        }
        let row = match window.emit {
            _ if is_early => {
                Some(result(window, &place, &session, false).map(|row| marked_early(window, row)))
            }
            // A refinement is marked, an update is not.
            _ => emits.then(|| result(window, &place, &session, window.emit == Emit::OnTime)),
        };
        if row.is_some() && window.purge {
            (session.parts, session.rows) = (BTreeMap::new(), 0);
        }
        joined.iter().for_each(|old| drop(self.windows[index].open.remove(old)));
        self.windows[index].open.insert(place.clone(), session);
        self.holds(index, window, &place);
        if let Some(row) = row {
            self.fire(index, operator, &place, start_ms, row);
        }
        Ok(())
    }

    /// Hands on the row of a window, or what takes its place if it cannot be made.
    pub(super) fn fire(
        &mut self,
        index: usize,
        operator: &'g Operator,
        place: &(i64, Vec<KeyPart>),
        start_ms: i64,
        row: Result<Vec<Value>, Failed>,
    ) {
        let at = StreamRef::Operator(index);
        match row {
            Ok(row) => self.process(at, &Event { row: &row, time_ms: place.0 - 1, origin: None }),
            Err(Failed) => {
                let head = head(place, start_ms);
                let fields = &self.shape.stream(at).fields[..head.len()];
                self.failed(&operator.id, &operator.on_error, None, || object(fields, &head));
            }
        }
    }
}

/// A row's key.
pub(super) fn key_of(key: &[usize], event: &Event<'_>) -> Result<Vec<KeyPart>, Failed> {
    key.iter().map(|slot| key_part(&event.row[*slot])).collect()
}

/// A gap is at most this long.
const A_HUNDRED_YEARS_MS: i64 = 36_525 * 86_400_000;

/// What a row adds to each aggregate.
pub(super) fn samples(aggregates: &[Aggregate], event: &Event<'_>) -> Result<Vec<Sample>, Failed> {
    let environment = Environment { row: event.row, origin: event.origin };
    let sample = |aggregate: &Aggregate| {
        let is_counted = match &aggregate.condition {
            Some(condition) => environment.evaluate(condition)? == Value::Bool(true),
            None => true,
        };
        let value = |formula: &Option<Formula>| match formula {
            Some(formula) if is_counted => environment.evaluate(formula),
            _ => Ok(if is_counted { Value::Bool(true) } else { Value::Null }),
        };
        Ok(Sample {
            argument: value(&aggregate.argument)?,
            by: value(&aggregate.by)?,
            time_ms: event.time_ms,
        })
    };
    aggregates.iter().map(sample).collect()
}

/// The begin of the row of a key and window.
pub(super) fn head(place: &(i64, Vec<KeyPart>), start_ms: i64) -> Vec<Value> {
    let key = place.1.iter().map(|part| match part {
        KeyPart::Bool(value) => Value::Bool(*value),
        KeyPart::Int(value) => Value::Int(*value),
        KeyPart::Text(text) => Value::Text(text.clone()),
    });
    let range = [Value::Timestamp(start_ms), Value::Timestamp(place.0)];
    key.chain(range).collect()
}

/// Whether a row is one after which windows make early ones.
fn is_due(window: &Window, event: &Event<'_>) -> Result<bool, Failed> {
    let environment = Environment { row: event.row, origin: event.origin };
    let holds = |formula| environment.evaluate(formula).map(|value| value == Value::Bool(true));
    window.early_when.as_ref().map_or(Ok(false), holds)
}

/// Whether a window makes an early row that had so many rows, and has so many now.
fn is_early(window: &Window, before: i64, rows: i64) -> bool {
    matches!(window.early, Some(EarlyFiring::EveryRows(every)) if (before + 1..=rows).any(|row| row % every == 0))
}

/// An early row.
fn marked_early(window: &Window, mut row: Vec<Value>) -> Vec<Value> {
    let place = row.len() - 1 - usize::from(window.emit.mark().is_some());
    row[place] = Value::Bool(true);
    row
}

/// The row of a key and window.
pub(super) fn result(
    window: &Window,
    place: &(i64, Vec<KeyPart>),
    open: &OpenWindow,
    mark: bool,
) -> Result<Vec<Value>, Failed> {
    let mut row = head(place, open.start_ms);
    for (number, aggregate) in window.aggregates.iter().enumerate() {
        let mut fold = Fold::default();
        for part in open.parts.values() {
            fold = fold.and(aggregate, &part[number])?;
        }
        row.push(fold.result(aggregate));
    }
    if window.changelog {
        row.push(Value::Text("insert".into()));
        return Ok(row);
    }
    row.extend(window.early.map(|_| Value::Bool(false)));
    row.extend(window.emit.mark().map(|_| Value::Bool(mark)));
    Ok(row)
}
