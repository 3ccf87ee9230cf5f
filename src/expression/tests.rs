//! What each operator and function gives, for values, nulls and errors.

use super::*;
use crate::record::{Field, FieldForm, Records, TopicPartition};

/// A field of each type, and one of each that may be null.
pub(super) fn schema() -> Schema {
    let types = [
        ("s", Type::String),
        ("b", Type::Bool),
        ("i", Type::Int),
        ("d", Type::Double),
        ("t", Type::Timestamp),
        ("u", Type::Duration),
        ("y", Type::Bytes),
    ];
    let field = |name: String, ty, nullable| Field { name, ty, nullable, form: FieldForm::Plain };
    Schema {
        fields: types
            .iter()
            .map(|(name, ty)| field(name.to_string(), *ty, false))
            .chain(types.iter().map(|(name, ty)| field(format!("n{name}"), *ty, true)))
            .chain([field("status".into(), Type::String, false), field("amount".into(), Type::Double, false)])
            .collect(),
    }
}

const INSTANT_MS: i64 = 1_709_206_496_789; // 2024-02-29T11:34:56.789Z, a Thursday

fn row() -> Vec<Slot<'static>> {
    let values = [
        Slot::String("Grün"),
        Slot::Bool(true),
        Slot::Int(7),
        Slot::Double(2.5),
        Slot::Timestamp(INSTANT_MS),
        Slot::Duration(5_400_250),
        Slot::Bytes(b"\x00\xff"),
    ];
    values.into_iter().chain([Slot::Null; 7]).chain([Slot::String("paid"), Slot::Double(9.5)]).collect()
}

/// A batch of one record.
struct Batch {
    partition: TopicPartition,
    headers: Vec<(&'static str, Option<&'static [u8]>)>,
}

impl Records for Batch {
    fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }
    fn len(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        0
    }
    fn record(&self, index: usize) -> SourceRecord<'_> {
        SourceRecord {
            offset: 42,
            timestamp_ms: INSTANT_MS,
            key: Some(b"k1"),
            value: None,
            records: self,
            index,
        }
    }
    fn headers<'b>(&'b self, _: usize, visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {
        self.headers.iter().for_each(|(name, value)| visit(name, *value));
    }
}

pub(super) fn compile(source: &str) -> Result<Expression, Vec<ExpressionError>> {
    Expression::compile(source, &Scope { schema: &schema(), meta: true })
}

/// The value of an expression, as text; `error: ` and the message if it has none.
fn value(source: &str) -> String {
    let expression = match compile(source) {
        Ok(expression) => expression,
        Err(errors) => panic!("{source}: {errors:?}"),
    };
    let arena = Bump::new();
    let batch = Batch {
        partition: TopicPartition::new("orders", 3),
        headers: vec![("a", Some(b"1")), ("a", Some(b"2")), ("raw", Some(b"\xff")), ("none", None)],
    };
    let environment = Environment { row: &row(), source: Some(batch.record(0)), arena: &arena };
    match expression.eval(&environment) {
        Ok(slot) => {
            assert!(expression.nullable() || !slot.is_null(), "{source} is null and says that it never is");
            assert!(slot.is_null() || type_of(slot) == expression.ty(), "{source}: {slot:?}");
            match slot {
                Slot::Timestamp(ms) => format!("timestamp {ms}"),
                Slot::Duration(ms) => format!("duration {ms}"),
                Slot::Bytes(bytes) => format!("{bytes:?}"),
                slot => compile::show(slot),
            }
        }
        Err(error) => format!("error: {error}"),
    }
}

fn type_of(slot: Slot<'_>) -> Type {
    match slot {
        Slot::Null => unreachable!(),
        Slot::Bool(_) => Type::Bool,
        Slot::Int(_) => Type::Int,
        Slot::Double(_) => Type::Double,
        Slot::Timestamp(_) => Type::Timestamp,
        Slot::Duration(_) => Type::Duration,
        Slot::String(_) => Type::String,
        Slot::Bytes(_) => Type::Bytes,
    }
}

#[track_caller]
fn values(cases: &[(&str, &str)]) {
    for (source, expected) in cases {
        assert_eq!(value(source), *expected, "{source}");
    }
}

/// The errors of a text: the marked part of it and the message.
fn mistakes(source: &str) -> Vec<(String, String)> {
    let errors = match compile(source) {
        Ok(expression) => panic!("{source} compiles to {:?}", expression.ty()),
        Err(errors) => errors,
    };
    let marked = |error: &ExpressionError| {
        source.chars().skip(error.start).take(error.end - error.start).collect::<String>()
    };
    errors.iter().map(|error| (marked(error), error.message.clone())).collect()
}

/// Each text has one mistake, which is marked and whose message holds the words.
#[track_caller]
fn mistake(cases: &[(&str, &str, &str)]) {
    for (source, marked, words) in cases {
        let found = mistakes(source);
        assert_eq!(found.len(), 1, "{source}: {found:?}");
        assert_eq!(found[0].0, *marked, "{source}: {}", found[0].1);
        assert!(found[0].1.contains(words), "{source}: {}", found[0].1);
    }
}

#[test]
fn explore() {
    for source in [
        "",
        "(",
        "a b",
        "1 +",
        "\"abc",
        "s = \"x\"",
        "s & b",
        "#",
        "\"ü\" # 1",
        "s == \"ü\" and b",
        "package",
        "99999999999999999999",
        "1e999",
        "\"\\q\"",
        "has()",
        "foo(1,",
        "[1",
        "s ==\n \"ü\" +",
        "a ? b",
        "`x`",
        "s.?x",
        "{1: 2}",
        "a.b{c: 1}",
        "1u",
        "\"üü\" + 1 + nope",
        "\"é\".size(",
        "!",
        "'üü' + @ + s",
        "1.",
        "0x",
        "- ",
        "i in",
        "in",
        "true false",
    ] {
        match compile(source) {
            Ok(e) => println!("{source:?} OK {:?}", e.ty()),
            Err(_) => println!("{source:?} => {:?}", mistakes(source)),
        }
        if let Err(e) = cel::Env::default().parser().parse_with_source_info(source) {
            for e in e.errors {
                println!("      {:?} {}", e.pos, e.msg);
            }
        }
    }
    for n in [500, 1000, 2000, 4000, 8000] {
        let s = format!("1{}", "+1".repeat(n));
        println!("{n}");
        use std::io::Write;
        std::io::stdout().flush().unwrap();
        let _ = cel::Env::default().parser().max_recursion_depth(1000).parse_with_source_info(&s).map(|_| ());
    }
}
