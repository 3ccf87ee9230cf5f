//! Branches.

use super::*;

/// A branch by these conditions, perhaps with one more, each with a topic of its number.
pub(in crate::operator) fn branches(schema: &Schema, conditions: &[&str], otherwise: bool) -> Reader {
    let outputs = 0..conditions.len() + usize::from(otherwise);
    let outputs = outputs.map(|number| Readers::new(vec![sink(schema, &format!("out{number}"))])).collect();
    let choice = RowChoice {
        conditions: conditions.iter().map(|text| expression(schema, text)).collect(),
        otherwise,
        encoder: Arc::new(Encoder::new(schema)),
    };
    Box::new(Branch::<Dynamic, _>::new(choice, rejected("route"), outputs))
}

fn topics(otherwise: bool, amounts: &[&str]) -> (Vec<String>, Staged) {
    let reader = branches(&orders(), &["amount > 100", "12 / amount > 2", "amount > 50"], otherwise);
    let inputs = amounts.iter().map(|amount| order("a", amount, 5)).collect();
    let staged = run(source(0, vec![reader]), inputs).unwrap();
    (staged.outputs.iter().map(|record| record.topic.to_string()).collect(), staged)
}

#[test]
fn the_first_branch_whose_condition_is_true_takes_a_record() {
    assert_eq!(topics(true, &["200", "3", "50"]).0, ["out0", "out1", "out3"]);
    let (rows, staged) = topics(false, &["200", "50"]);
    assert_eq!(rows, ["out0"], "without an otherwise the rest is left out");
    assert_eq!(written(&staged, "out0"), [r#"{"customer":"a","amount":200,"price":null,"at":5}"#]);
    assert!(staged.counters.failed.is_empty());
}

#[test]
fn a_condition_that_is_null_is_not_true() {
    assert_eq!(topics(true, &["null"]).0, ["out3"]);
}

#[test]
fn a_condition_that_fails_is_an_error_unless_a_branch_before_it_has_the_record() {
    let (rows, staged) = topics(true, &["0", "200"]);
    assert_eq!(rows, ["rejected", "out0"]);
    assert_eq!(header(&staged.outputs[0], "thalweg.operator").as_deref(), Some("route"));
    assert_eq!(staged.counters.failed, [("route".into(), 1)].into());
}
