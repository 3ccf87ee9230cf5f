//! Windows that no time closes.

use std::sync::Arc;

use super::AggregatePlan;
use crate::expression::Expression;
use crate::window::CountWindows;

/// A keyed window that no time closes. Its rows: the key fields, `window_start`, `window_end`, the aggregates.
#[derive(Debug)]
pub struct GlobalWindowPlan {
    /// The input slots of the key, in declared order.
    pub key: Vec<usize>,
    /// When it makes rows.
    pub trigger: TriggerPlan,
    /// In declared order.
    pub aggregates: Vec<AggregatePlan>,
    /// How long a key is remembered after the greatest event time of its rows; `None`: for ever.
    pub ttl_ms: Option<i64>,
}

impl GlobalWindowPlan {
    /// How many panes there are at most of a key.
    pub fn panes(&self) -> usize {
        match &self.trigger {
            TriggerPlan::Count(windows) => windows.panes() as usize,
            TriggerPlan::Global { .. } | TriggerPlan::Changelog => 1,
        }
    }

    /// How many fields at the end of the rows tell them apart.
    pub fn marks(&self) -> usize {
        usize::from(matches!(self.trigger, TriggerPlan::Changelog))
    }
}

/// When such a window makes rows.
#[derive(Clone, Debug)]
pub enum TriggerPlan {
    /// The windows are of so many rows of a key.
    Count(CountWindows),
    /// A key has one window of all its rows.
    Global {
        /// After which of them it makes a row.
        fires: FiresPlan,
        /// Whether it begins anew then.
        purge: bool,
    },
    /// The same, and its rows are a changelog: after each row one that takes back what was told, and one that takes its place. Their
    /// last field is [`OP_FIELD`](super::OP_FIELD).
    Changelog,
}

/// After which rows a window of all rows makes one.
#[derive(Clone, Debug)]
pub enum FiresPlan {
    /// After every so many.
    EveryRows(i64),
    /// After those of which an expression on the input's rows is true.
    When(Arc<Expression>),
    /// If an expression is true of the row that it would make.
    Having(Arc<Expression>),
}
