//! Flat maps.

use super::*;

/// The elements of `lists` as `e0`, `e1` …, behind the customer and the time; its readers are those of its rows.
pub(in crate::operator) fn each_of(
    schema: &Schema,
    lists: &[&str],
    position: bool,
    outer: bool,
    readers: impl FnOnce(&Schema) -> Vec<Reader>,
) -> Reader {
    let each: Vec<Arc<Expression>> = lists.iter().map(|list| expression(schema, list)).collect();
    let kept = vec![0, 3];
    let mut rows = Schema { fields: kept.iter().map(|slot: &usize| schema.fields[*slot].clone()).collect() };
    let mut names = Vec::new();
    for (number, list) in each.iter().enumerate() {
        let Type::List(of) = list.ty() else { panic!("it is a list") };
        names.push(format!("e{number}"));
        rows.fields.push(field(&names[number], of.element.ty(), true));
    }
    rows.fields.extend(position.then(|| field("place", Type::Int, true)));
    let plan = FlatMapPlan { kept, each, position, outer };
    let function = RowFlatMap::new(plan, names, Arc::new(Encoder::new(schema)));
    let readers = Readers::new(readers(&rows));
    Box::new(FlatMap::<Dynamic, Dynamic, _>::new(function, rejected("each"), readers))
}

fn rows(lists: &[&str], position: bool, outer: bool, inputs: Vec<Input>) -> Staged {
    let reader = each_of(&orders(), lists, position, outer, |rows| vec![sink(rows, "out")]);
    run(source(0, vec![reader]), inputs).unwrap()
}

#[test]
fn a_row_is_made_of_each_element() {
    let inputs = vec![order("a b", "7", 5), order("", "1", 6)];
    let staged = rows(&["split(customer, \" \")", "[amount, amount + 1]"], true, false, inputs);
    let expected = [
        r#"{"customer":"a b","at":5,"e0":"a","e1":7,"place":0}"#,
        r#"{"customer":"a b","at":5,"e0":"b","e1":8,"place":1}"#,
    ];
    assert_eq!(written(&staged, "out"), expected);
    assert!(staged.outputs.iter().all(|record| record.timestamp_ms >= 5), "the event time stays");
    // The second one has one word and two amounts.
    let letter = staged.outputs.iter().find(|record| &*record.topic == "rejected").unwrap();
    let error = header(letter, "thalweg.error");
    assert_eq!(error.as_deref(), Some("the lists differ in length: `e0` 1, `e1` 2"));
    assert_eq!(header(letter, "thalweg.operator").as_deref(), Some("each"));
    assert_eq!(letter.value, order("", "1", 6).value, "it is the source's record");
}

#[test]
fn without_elements_there_is_no_row_or_one_of_nulls() {
    let list = "amount > 0 ? [amount].filter(x, x > 1) : null";
    let inputs = || vec![order("null", "0", 1), order("empty", "1", 2), order("one", "2", 3)];
    let staged = rows(&[list], true, false, inputs());
    assert_eq!(written(&staged, "out"), [r#"{"customer":"one","at":3,"e0":2,"place":0}"#]);
    let staged = rows(&[list], true, true, inputs());
    let expected = [
        r#"{"customer":"null","at":1,"e0":null,"place":null}"#,
        r#"{"customer":"empty","at":2,"e0":null,"place":null}"#,
        r#"{"customer":"one","at":3,"e0":2,"place":0}"#,
    ];
    assert_eq!(written(&staged, "out"), expected);
    assert!(staged.counters.failed.is_empty());
}

#[test]
fn a_row_makes_a_bounded_number_of_rows() {
    let words = |count: usize| order(&vec!["x"; count].join(" "), "1", 1);
    let errors = |staged: &Staged| -> Vec<String> {
        let letters = staged.outputs.iter().filter(|record| &*record.topic == "rejected");
        letters.map(|letter| header(letter, "thalweg.error").unwrap()).collect()
    };
    let list = ["split(customer, \" \")"];
    let reader = each_of(&orders(), &list, false, false, |_| Vec::new());
    let staged = run(source(0, vec![reader]), vec![words(10_001)]).unwrap();
    assert_eq!(errors(&staged), ["10001 elements, more than 10000"]);
    // What is kept, the customer, has twice as many bytes as there are elements.
    let reader = each_of(&orders(), &list, false, false, |_| Vec::new());
    let staged = run(source(0, vec![reader]), vec![words(6_000)]).unwrap();
    let error = "6000 rows that each keep 11999 bytes, more than 67108864 together";
    assert_eq!(errors(&staged), [error]);
    let reader = each_of(&orders(), &list, false, false, |_| Vec::new());
    assert!(errors(&run(source(0, vec![reader]), vec![words(5_000)]).unwrap()).is_empty());
}

#[test]
fn a_closure_makes_records_of_a_rust_type() {
    use crate::operator::typed::Json;
    use crate::record::Owned;
    let digits = |number: &i64| match number {
        0.. => Ok(number.to_string().chars().map(String::from).collect()),
        _ => Err("it has a sign".to_owned()),
    };
    let sink = Sink::new(Json::<String, _>::new(|_: &String| None), target("out"), rejected("out"));
    let sinks = Readers::new(vec![Box::new(sink) as Box<dyn Operator<Owned<String>>>]);
    let each = FlatMap::<Owned<i64>, Owned<String>, _>::new(digits, rejected("digits"), sinks);
    let timing = Timing { max_out_of_orderness_ms: 0, punctuated: false, max_ahead_ms: 1_000_000 };
    let json = Json::<i64, _>::new(|number: &i64| number % 1_000);
    let readers = Readers::new(vec![Box::new(each) as Box<dyn Operator<Owned<i64>>>]);
    let source = Box::new(Source::<Owned<i64>, _>::new(json, timing, rejected("numbers"), readers));
    let staged = run(source, [203, -1, 7].map(crate::operator::tests::number).to_vec()).unwrap();
    assert_eq!(written(&staged, "out"), [r#""2""#, r#""0""#, r#""3""#, r#""7""#]);
    assert_eq!(written(&staged, "rejected"), ["-1"]);
}

#[test]
fn an_expression_that_fails_is_an_error() {
    let staged = rows(&["[12 / amount]"], false, false, vec![order("a", "0", 1), order("b", "4", 2)]);
    assert_eq!(written(&staged, "out"), [r#"{"customer":"b","at":2,"e0":3}"#]);
    assert_eq!(staged.counters.failed, [("each".into(), 1)].into());
}

#[test]
fn flat_maps_in_a_chain_share_their_bounds() {
    let words = |count: usize| order(&vec!["x"; count].join(" "), "1", 1);
    let list = ["split(customer, \" \")"];
    let chain = || {
        each_of(&orders(), &list, true, false, |rows| {
            vec![each_of(rows, &list, false, false, |_| Vec::new())]
        })
    };
    // 99 rows, and 99 of each of them.
    let staged = run(source(0, vec![chain()]), vec![words(99); 3]).unwrap();
    assert!(staged.counters.failed.is_empty(), "{:?}", staged.counters);
    // The last of 100 rows has no room; the record behind it has its own.
    let staged = run(source(0, vec![chain()]), vec![words(100), words(99)]).unwrap();
    assert_eq!(staged.counters.failed, [("each".into(), 1)].into());
    let error = "100 elements behind flat maps that made 10000 rows of the record, more than 10000";
    assert_eq!(header(&staged.outputs[0], "thalweg.error").as_deref(), Some(error));
    // Two beside one another do not multiply.
    let staged = run(source(0, vec![chain(), chain()]), vec![words(99)]).unwrap();
    assert!(staged.counters.failed.is_empty(), "{:?}", staged.counters);
}

#[test]
fn flat_maps_in_a_chain_share_the_bytes_that_they_keep() {
    // Each row keeps so many bytes, also the one that the first flat map makes: 167 in all have room.
    let inputs = vec![order(&"x".repeat(400_000), "1", 1)];
    let list = |rows: usize| format!("[{}]", vec!["1"; rows].join(", "));
    let inner = |rows: usize| {
        move |schema: &Schema| vec![each_of(schema, &[&list(rows)], false, false, |_| Vec::new())]
    };
    let failed = |rows: usize| {
        let reader = each_of(&orders(), &["[1]"], true, false, inner(rows));
        run(source(0, vec![reader]), inputs.clone()).unwrap().counters.failed
    };
    assert!(failed(166).is_empty());
    assert_eq!(failed(167), [("each".into(), 1)].into());
}
