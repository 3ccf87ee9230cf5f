//! The second of two steps: windows of what rows came to elsewhere.

use super::*;
use crate::record::Slot;

fn totals() -> Vec<AggregatePlan> {
    let schema = orders();
    vec![
        aggregate(&schema, "rows", AggregateFunction::Count, None, Type::Int),
        aggregate(&schema, "total", AggregateFunction::Sum, Some("amount"), Type::Int),
    ]
}

/// What the first step sends: a key, and accumulators.
pub(super) fn between() -> Schema {
    Schema {
        fields: vec![field("customer", Type::String, false), field("<accumulators>", Type::Bytes, false)],
    }
}

/// Takes what is sent.
#[derive(Clone, Default)]
struct Taken(std::rc::Rc<std::cell::RefCell<Vec<Part>>>);

/// Event time, key and accumulators.
type Part = (i64, Vec<u8>, Vec<u8>);

impl Operator<Dynamic> for Taken {
    fn process<'b>(
        &mut self,
        event: Event<'b, Dynamic>,
        _: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        if let [Slot::String(customer), Slot::Bytes(bytes)] = event.record {
            self.0.borrow_mut().push((event.time_ms, customer.as_bytes().to_vec(), bytes.to_vec()));
        }
        Ok(())
    }

    fn advance<'b>(&mut self, _: i64, _: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }

    fn finish<'b>(&mut self, _: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }

    fn hand_on<'b>(&mut self, _: &mut Context<'_, 'b>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn visit(&mut self, _: &mut dyn FnMut(&mut dyn Stateful)) {}
}

/// The first step, of windows of an operator called `totals`.
pub(super) fn local(windows: &Windows, aggregates: &[AggregatePlan], reader: Reader) -> Reader {
    let aggregates = || RowAggregates::new(aggregates.to_vec()).counting_rows();
    let results = PartialRows::new(&between(), aggregates());
    let readers = Readers::new(vec![reader]);
    local_row_windows(windows, first_field(&orders()), aggregates(), results, rejected("totals"), readers)
        .unwrap()
}

/// The rows that a task of the first step makes of these orders.
fn put_together(inputs: Vec<Input>) -> Vec<Part> {
    let taken = Taken::default();
    let local = local(&tumbling(10), &totals(), Box::new(taken.clone()));
    let mut pipeline = source(1_000, vec![local]);
    let mut staged = go_on(&mut *pipeline, inputs).unwrap();
    assert!(staged.outputs.is_empty() && staged.holds_back() && taken.0.borrow().is_empty());
    pipeline.hand_on(&Bump::new(), &mut staged).unwrap();
    taken.0.take()
}

/// A window over such rows, which it is given by hand with the watermark that follows each.
fn results(rows: &[Part], watermarks_ms: &[i64]) -> Staged {
    let window = Windowed { aggregates: totals(), merges: true, ..Windowed::new("totals") };
    let mut operator = window.reads(&between(), vec![sink(&window.schema(&between()), "out")]);
    let store = MemoryStores::new().open("task").unwrap();
    operator.visit(&mut |operator| operator.restore(store.clone(), None, 0).unwrap());
    let (arena, mut staged) = (Bump::new(), Staged::new(usize::MAX, usize::MAX));
    for ((time_ms, customer, bytes), watermark_ms) in rows.iter().zip(watermarks_ms) {
        let mut context = Context::new(&arena, &mut staged);
        let customer: &str = arena.alloc_str(std::str::from_utf8(customer).unwrap());
        let row = [Slot::String(customer), Slot::Bytes(arena.alloc_slice_copy(bytes))];
        let event = Event { record: &*arena.alloc_slice_copy(&row), time_ms: *time_ms, source: None };
        operator.process(event, &mut context).unwrap();
        let _ = operator.advance(*watermark_ms, &mut context).unwrap();
    }
    let _ = operator.finish(&mut Context::new(&arena, &mut staged)).unwrap();
    staged
}

#[test]
fn what_rows_came_to_is_merged() {
    let one =
        put_together(vec![order("a", "1", 1), order("b", "2", 2), order("a", "3", 12), order("a", "4", 3)]);
    let keys: Vec<(i64, &[u8])> = one.iter().map(|(time_ms, key, _)| (*time_ms, &key[..])).collect();
    assert_eq!(keys, [(9, &b"a"[..]), (9, b"b"), (19, b"a")], "a row for each key and pane, in their order");
    let two = put_together(vec![order("a", "10", 9), order("b", "null", 8)]);
    let rows = [one, two].concat();
    assert_eq!(
        written(&results(&rows, &[0; 5]), "out"),
        [
            r#"{"customer":"a","window_start":0,"window_end":10,"rows":3,"total":15}"#,
            r#"{"customer":"b","window_start":0,"window_end":10,"rows":2,"total":2}"#,
            r#"{"customer":"a","window_start":10,"window_end":20,"rows":1,"total":3}"#
        ]
    );
}

#[test]
fn what_comes_late_counts_as_many_rows_as_it_stands_for() {
    let rows =
        put_together(vec![order("a", "1", 1), order("b", "1", 2), order("b", "1", 2), order("b", "1", 3)]);
    let staged = results(&rows, &[10, 10]);
    assert_eq!(staged.counters.late.values().sum::<u64>(), 3, "those of b");
    assert_eq!(written(&staged, "out").len(), 1);
}

#[test]
fn what_overflows_only_when_it_is_merged_is_an_error_and_the_rest_counts() {
    let most = i64::MAX.to_string();
    let one = put_together(vec![order("a", &most, 1)]);
    let two = put_together(vec![order("a", "1", 2), order("a", "2", 3)]);
    let staged = results(&[one, two].concat(), &[0; 2]);
    assert_eq!(staged.counters.failed.values().sum::<u64>(), 2, "the rows, not their part");
    let expected = format!(r#"{{"customer":"a","window_start":0,"window_end":10,"rows":1,"total":{most}}}"#);
    assert_eq!(written(&staged, "out"), [expected]);
    let letters: Vec<&OutputRecord> =
        staged.outputs.iter().filter(|record| &*record.topic == "rejected").collect();
    assert_eq!(header(letters[0], "thalweg.error").unwrap(), "aggregate `total`: the sum overflows an int");
}

#[test]
fn accumulators_that_are_damaged_are_an_error() {
    let staged = results(&[(5, b"a".to_vec(), vec![0xff])], &[0]);
    assert_eq!(staged.counters.failed.values().sum::<u64>(), 1);
}
