//! Generated windows that no time closes.

use super::aggregate::{aggregate, count};
use super::formula::{Binary, Formula, Scope, Value};
use super::{Aggregate, Maker, OperatorKind, Stream, field};
use crate::record::{Field, Type};
use crate::topology::plan::{AggregateFunction, OP_FIELD};

/// A keyed window that no time closes.
#[derive(Clone, Debug)]
pub struct GlobalWindow {
    /// The input's slots of its key, by which rows lie together.
    pub key: Vec<usize>,
    /// When it makes rows.
    pub trigger: Trigger,
    /// Whether it begins anew then; not of windows of so many rows.
    pub purge: bool,
    /// How long a key is remembered; `None`: for ever.
    pub ttl_ms: Option<i64>,
    /// What it computes.
    pub aggregates: Vec<Aggregate>,
}

/// When such a window makes rows.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// After every `slide` rows of a key, of the last `size`.
    Count {
        /// Of how many.
        size: usize,
        /// After how many.
        slide: usize,
    },
    /// After every so many.
    Rows(usize),
    /// After rows of which this is true.
    When(Formula),
    /// If this is true of its row.
    Having(Formula),
    /// After each; its rows are a changelog.
    Changelog,
}

/// How many shares of an entry there may be.
const SHARES_MAX: usize = 8;

/// How many shares of an entry aggregates take at most in each part of it.
fn shares(aggregates: &[Aggregate]) -> usize {
    use AggregateFunction as F;
    let of_one = |aggregate: &Aggregate| match aggregate.function {
        F::Min | F::Max | F::First | F::Last | F::CountDistinct => 1,
        F::MinBy | F::MaxBy | F::ApproxQuantile => 2,
        _ => 0,
    };
    aggregates.iter().map(of_one).sum()
}

impl Maker<'_> {
    pub(super) fn global_window(&mut self, input: &Stream, number: usize) -> (OperatorKind, Stream) {
        let key = self.covering_key(input);
        let random = &mut *self.random;
        let mut aggregates = vec![count(format!("a{number}_all"))];
        for part in 0..random.below(4) {
            aggregates.push(aggregate(format!("a{number}_{part}"), input, random));
        }
        let mut fields: Vec<Field> =
            key.iter().map(|slot| Field { nullable: false, ..input.fields[*slot].clone() }).collect();
        let carried = input.carried.iter().map(|slots| {
            let places = key.iter().enumerate().filter(|(_, slot)| slots.contains(slot));
            places.map(|(place, _)| place).collect()
        });
        let carried = carried.collect();
        fields.extend(["window_start", "window_end"].map(|name| field(name, Type::Timestamp, false)));
        fields.extend(aggregates.iter().map(|aggregate| field(&aggregate.name, aggregate.ty, true)));
        let trigger = match random.below(6) {
            0 => {
                let size = 1 + random.below(7) as usize;
                Trigger::Count { size, slide: size }
            }
            1 | 2 => {
                let (size, slide) = (1 + random.below(9) as usize, 1 + random.below(6) as usize);
                // What an entry holds is limited, and its parts share it: large texts are to fit.
                let fits = size * shares(&aggregates) <= SHARES_MAX;
                Trigger::Count { size, slide: if fits { slide } else { size } }
            }
            3 => Trigger::Rows(*random.pick(&[1, 2, 3, 7])),
            4 => {
                let scope = Scope { fields: &input.fields, meta: input.meta };
                let depth = 1 + random.below(2) as u32;
                Trigger::When(scope.formula(Type::Bool, depth, random))
            }
            _ => {
                let scope = Scope { fields: &fields, meta: false };
                let formula = scope.formula(Type::Bool, 1, random);
                let rows = Formula::Literal(Value::Int(*random.pick(&[2, 3, 5])));
                let all = Formula::Field(key.len() + 2);
                let enough = Formula::Binary(Binary::GreaterOrEqual, all.into(), rows.into());
                Trigger::Having(match random.below(3) {
                    0 => formula,
                    1 => enough,
                    _ => Formula::Or(enough.into(), formula.into()),
                })
            }
        };
        let purge = !matches!(trigger, Trigger::Count { .. }) && random.one_in(2);
        let trigger = match trigger {
            Trigger::Rows(_) if !purge && random.fork("changelog").one_in(2) => {
                fields.push(field(OP_FIELD, Type::String, false));
                Trigger::Changelog
            }
            trigger => trigger,
        };
        let ttl_ms = *random.pick(&[None, None, Some(1), Some(500), Some(2_000), Some(10_000)]);
        let made = Stream { fields, meta: false, carried, ..input.clone() };
        (OperatorKind::GlobalWindow(GlobalWindow { key, trigger, purge, ttl_ms, aggregates }), made)
    }
}
