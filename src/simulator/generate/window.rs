//! Generated windows and changes of keys.

use super::aggregate::{aggregate, count, takes_any};
use super::formula::Scope;
use super::{Aggregate, Maker, OF_WINDOWS, OperatorKind, Repartition, Shape, Stream, Window, field};
use crate::record::{Field, Type};
use crate::topology::plan::{AggregateFunction, Emit, marks};
use crate::window::{CalendarUnit, EarlyFiring, TimeDomain};

const UNITS: [CalendarUnit; 5] =
    [CalendarUnit::Day, CalendarUnit::Week, CalendarUnit::Month, CalendarUnit::Quarter, CalendarUnit::Year];

impl Window {
    /// Whether rows are aggregated before they change keys as well.
    pub fn is_two_phase(&self) -> bool {
        let is_bounded = |aggregate: &Aggregate| {
            matches!(aggregate.function, AggregateFunction::Collect | AggregateFunction::CountDistinct)
        };
        let by_itself = self.key.is_empty() && !self.aggregates.iter().any(is_bounded);
        self.two_phase.unwrap_or(by_itself && self.may_be_two_phase())
    }

    /// Whether they can be.
    fn may_be_two_phase(&self) -> bool {
        let has_panes = self.shape != Shape::Session && self.time == TimeDomain::Event;
        let refines = self.emit == Emit::OnTime && self.refine_every_ms.is_none();
        let sees_rows = self.emit == Emit::OnUpdate || refines || self.early.is_some() || self.late.is_some();
        self.rekeys && has_panes && !sees_rows && !self.changelog
    }
}

impl Window {
    /// Whether it is a changelog that does not tell after each update what has changed.
    pub fn tells_later(&self) -> bool {
        self.changelog && (self.early.is_some() || self.refine_every_ms.is_some())
    }

    /// Whether nobody knows when it does.
    pub fn tells_by_time(&self) -> bool {
        let by_time = matches!(self.early, Some(EarlyFiring::EveryMs(..))) || self.refine_every_ms.is_some();
        self.changelog && by_time
    }
}

impl Maker<'_> {
    pub(super) fn repartition(&mut self, input: &Stream) -> (OperatorKind, Stream) {
        let key = self.new_key(input);
        let carried = key.iter().map(|slot| vec![*slot]).collect();
        let made = Stream { carried, rekeyed: true, ..input.clone() };
        let partitions = self.random.one_in(2).then(|| 1 + self.random.below(4) as i32);
        (OperatorKind::Repartition(Repartition { key, partitions }), made)
    }

    /// A key by which rows may not lie together.
    fn new_key(&mut self, input: &Stream) -> Vec<usize> {
        let slots = groupable(&input.fields);
        let mut key = vec![*self.random.pick(&slots)];
        let other = *self.random.pick(&slots);
        if self.random.one_in(3) && !key.contains(&other) {
            key.push(other);
        }
        key
    }

    pub(super) fn window(
        &mut self,
        input: &Stream,
        id: &str,
        number: usize,
        rekeys: bool,
    ) -> (OperatorKind, Stream) {
        let by_clock = !rekeys && !self.idles && self.random.one_in(8);
        let late = match (self.random.one_in(2) && !by_clock) || self.idles {
            true => Some(self.topic(&format!("{id}-late"), 2)),
            false => None,
        };
        let key = match rekeys {
            // One group of all rows.
            true if self.random.fork("all").one_in(5) => Vec::new(),
            true => self.new_key(input),
            false => self.covering_key(input),
        };
        let covered = |slots: &Vec<usize>| slots.iter().any(|slot| key.contains(slot));
        let rekeys = input.carried.is_empty() || !input.carried.iter().all(covered);
        let input = &Stream {
            rekeyed: input.rekeyed || rekeys,
            carried: if rekeys {
                key.iter().map(|slot| vec![*slot]).collect()
            } else {
                input.carried.clone()
            },
            ..input.clone()
        };
        let only_counts = (self.idles && rekeys) || by_clock;
        let random = &mut *self.random;
        let size_ms = match input.size_ms {
            Some(size_ms) => size_ms * *random.pick(&[1, 2, 3]),
            None => *random.pick(&[1_000, 3_000, 5_000, 10_000]),
        };
        let mut aggregates = Vec::new();
        let counts_first = only_counts || random.fork("counts").one_in(12);
        if counts_first {
            aggregates.push(count(format!("a{number}_all")));
        }
        for part in 0..1 + random.below(4) {
            let made = aggregate(format!("a{number}_{part}"), input, random);
            aggregates.extend((!only_counts).then_some(made));
        }
        let steps = *random.pick(&[1, 2, 4, 5]);
        let shape = match random.below(6) {
            5 if by_clock || !only_counts => Shape::Session,
            _ if by_clock => Shape::Tumbling,
            0..=3 if only_counts => Shape::Tumbling,
            0 => Shape::Sliding { slide_ms: *random.pick(&[size_ms / 5, size_ms * 3 / 10, size_ms * 3 / 2]) },
            1 => Shape::Sliding { slide_ms: size_ms },
            2 => Shape::Cumulative { step_ms: size_ms / steps },
            // The end of a day of the clock is far away.
            _ if !by_clock && random.one_in(3) => {
                Shape::Calendar { unit: *random.pick(&UNITS), zone: *random.pick(&[0, 0, 0, 1, 1, 2, 3]) }
            }
            _ => Shape::Tumbling,
        };
        let size_ms = match shape {
            Shape::Cumulative { step_ms } => step_ms * steps,
            // A row at the very end of a session joins it, if that has not fired yet: behind a change of keys nobody
            // knows. No two times lie this far apart, but by a rare chance.
            Shape::Session if input.rekeyed => size_ms + 1,
            _ => size_ms,
        };
        let gap =
            (shape == Shape::Session && !only_counts && !input.rekeyed && random.one_in(2)).then(|| {
                let scope = Scope { fields: &input.fields, meta: input.meta };
                let depth = random.below(3) as u32;
                scope.formula(Type::Duration, depth, random)
            });
        let has_offset = !matches!(shape, Shape::Session | Shape::Calendar { .. });
        let offset_ms = if has_offset && random.one_in(4) { size_ms / 10 } else { 0 };
        // Updates show in which order rows came.
        let updates = if input.rekeyed || only_counts { Emit::OnClose } else { Emit::OnUpdate };
        let emit = *random.pick(&[Emit::OnClose, Emit::OnClose, Emit::OnTime, updates]);
        let emit = if only_counts { Emit::OnClose } else { emit };
        let mut fields: Vec<Field> =
            key.iter().map(|slot| Field { nullable: false, ..input.fields[*slot].clone() }).collect();
        let carried = input.carried.iter().map(|slots| {
            let places = key.iter().enumerate().filter(|(_, slot)| slots.contains(slot));
            places.map(|(place, _)| place).collect()
        });
        let carried = carried.collect();
        fields.extend(["window_start", "window_end"].map(|name| field(name, Type::Timestamp, false)));
        fields.extend(aggregates.iter().map(|aggregate| field(&aggregate.name, aggregate.ty, true)));
        let overlaps = match shape {
            Shape::Tumbling | Shape::Calendar { .. } | Shape::Session => false,
            Shape::Sliding { slide_ms } => slide_ms < size_ms,
            Shape::Cumulative { step_ms } => step_ms < size_ms,
        };
        // Rows that are put together of parts may fail, and how many are made by a time is not known.
        let never_fails = !overlaps || aggregates.iter().all(takes_any);
        let may_be_early = !only_counts && emit != Emit::OnUpdate;
        let early = match random.below(8) {
            0 if may_be_early && never_fails => {
                let by_watermark = random.fork("early").one_in(2);
                let time = if by_watermark { TimeDomain::Event } else { TimeDomain::Processing };
                Some(EarlyFiring::EveryMs(*random.pick(&[50, 700, 5_000]), time))
            }
            // That shows in which order rows came, too.
            1 if may_be_early && !input.rekeyed => Some(EarlyFiring::EveryRows(*random.pick(&[1, 2, 3, 7]))),
            2 if may_be_early && !input.rekeyed => Some(EarlyFiring::When),
            _ => None,
        };
        let early_when = (early == Some(EarlyFiring::When)).then(|| {
            let scope = Scope { fields: &input.fields, meta: input.meta };
            let depth = 1 + random.below(2) as u32;
            scope.formula(Type::Bool, depth, random)
        });
        let may_refine = emit == Emit::OnTime && never_fails && !only_counts;
        let mut forked = random.fork("refinements");
        let is_one_part = !overlaps && shape != Shape::Session;
        let of_parts = if is_one_part { &mut *random } else { &mut forked };
        let refine_every_ms = (may_refine && of_parts.one_in(4)).then(|| *of_parts.pick(&[50, 700, 5_000]));
        let by_time = matches!(early, Some(EarlyFiring::EveryMs(..))) || refine_every_ms.is_some();
        let may_purge = match early {
            _ if overlaps => false,
            // Of what goes by a time the sum of its rows is known, if they count them; and what a window refuses depends on
            // when it began anew.
            _ if by_time => counts_first && shape != Shape::Session && aggregates.iter().all(takes_any),
            None => emit == Emit::OnTime && !input.rekeyed && !only_counts && random.fork("purge").one_in(3),
            Some(_) => true,
        };
        let purge = may_purge && random.one_in(2);
        // What was told early of windows that overlap is kept nowhere.
        let may_change = !purge && if early.is_some() { !overlaps } else { emit != Emit::OnClose };
        let changelog = may_change && random.fork("changelog").one_in(3);
        fields.extend(marks(emit, early, changelog).map(|(mark, ty)| field(mark, ty, false)));
        let allowed_lateness_ms = if by_clock { 0 } else { *random.pick(&[0, 0, 1_000, 4_000]) };
        let time = if by_clock { TimeDomain::Processing } else { TimeDomain::Event };
        let mut window = Window {
            key,
            rekeys,
            two_phase: None,
            shape,
            time,
            size_ms,
            gap,
            offset_ms,
            allowed_lateness_ms,
            emit,
            changelog,
            early,
            early_when,
            purge,
            refine_every_ms,
            late,
            aggregates,
        };
        let mut random = random.fork("two phase");
        window.two_phase = match window.may_be_two_phase() {
            true => *random.pick(&[None, Some(true), Some(true), Some(false)]),
            false => *random.pick(&[None, Some(false)]),
        };
        let of_clock = by_clock || by_time;
        let size_ms = Some(size_ms);
        let made = Stream { fields, meta: false, carried, of_clock, size_ms, ..input.clone() };
        (OperatorKind::Window(window), made)
    }

    /// A key that covers what the rows are partitioned by.
    pub(super) fn covering_key(&mut self, input: &Stream) -> Vec<usize> {
        let random = &mut *self.random;
        let mut key: Vec<usize> = input.carried.iter().map(|slots| *random.pick(slots)).collect();
        let others = groupable(&input.fields);
        if !others.is_empty() && random.one_in(3) {
            key.push(*random.pick(&others));
        }
        key.sort();
        key.dedup();
        if random.one_in(4) {
            key.reverse();
        }
        key
    }
}

/// The slots that rows may be grouped by.
pub(super) fn groupable(fields: &[Field]) -> Vec<usize> {
    let groups = |field: &Field| {
        matches!(field.ty, Type::Int | Type::String | Type::Bool)
            && !OF_WINDOWS.contains(&field.name.as_str())
    };
    (0..fields.len()).filter(|slot| groups(&fields[*slot])).collect()
}
