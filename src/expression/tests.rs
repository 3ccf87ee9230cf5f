//! What each operator and function gives, for values, nulls and errors.

mod lists;

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
            .chain([
                field("li".into(), list(Type::Int, false), false),
                field("ls".into(), list(Type::String, true), false),
                field("nl".into(), list(Type::Double, false), true),
            ])
            .collect(),
    }
}

pub(super) fn list(element: Type, nullable: bool) -> Type {
    element.list(nullable).unwrap()
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
    let lists = [
        Slot::List(&[Slot::Int(3), Slot::Int(-1), Slot::Int(7)]),
        Slot::List(&[Slot::String("a"), Slot::Null, Slot::String("ü")]),
        Slot::Null,
    ];
    let named = [Slot::String("paid"), Slot::Double(9.5)];
    values.into_iter().chain([Slot::Null; 7]).chain(named).chain(lists).collect()
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
    let row = row();
    let environment = Environment::new(&row, Some(batch.record(0)), &arena);
    match expression.eval(&environment) {
        Ok(slot) => {
            assert!(expression.nullable() || !slot.is_null(), "{source} is null and says that it never is");
            match slot {
                Slot::List(elements) => {
                    let Type::List(of) = expression.ty() else { panic!("{source}: {slot:?}") };
                    let nulls = elements.iter().filter(|element| element.is_null()).count();
                    assert!(of.nullable || nulls == 0, "{source} has nulls and says that it never has");
                    let is_such =
                        |element: &&Slot<'_>| !element.is_null() && type_of(**element) == of.element.ty();
                    assert_eq!(elements.iter().filter(is_such).count() + nulls, elements.len(), "{source}");
                    let elements: Vec<String> =
                        elements.iter().map(|element| compile::show(*element)).collect();
                    format!("[{}]", elements.join(", "))
                }
                slot if !slot.is_null() && type_of(slot) != expression.ty() => panic!("{source}: {slot:?}"),
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
        Slot::List(_) => unreachable!("compared by its elements"),
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
fn constants_and_fields() {
    values(&[
        ("s", "\"Grün\""),
        ("ns", "null"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0xff", "255"),
        ("1.5e3", "1500.0"),
    ]);
    values(&[
        ("\"a\\u00fc\\n\"", "\"aü\\n\""),
        ("r'\\d'", "\"\\\\d\""),
        ("b'\\xff' == b'\\377'", "true"),
        ("true", "true"),
    ]);
}

#[test]
fn arithmetic_of_ints() {
    values(&[
        ("i + 1", "8"),
        ("1 - i", "-6"),
        ("i * -3", "-21"),
        ("i / 2", "3"),
        ("-i / 2", "-3"),
        ("i % 4", "3"),
        ("-i % 4", "-3"),
        ("i * i + i", "56"),
        ("i + 9223372036854775807", "error: overflow: 7 + 9223372036854775807"),
        ("-i - 9223372036854775807", "error: overflow: -7 - 9223372036854775807"),
        ("i * 9223372036854775807", "error: overflow: 7 * 9223372036854775807"),
        ("i / 0", "error: division by zero: 7 / 0"),
        ("i % 0", "error: division by zero: 7 % 0"),
        ("(-9223372036854775807 - 1 + i - 7) / -1", "error: overflow: -9223372036854775808 / -1"),
        ("-(i - 9223372036854775807 - 8)", "error: overflow: -(-9223372036854775808)"),
        ("ni + 1", "null"),
        ("1 + ni", "null"),
        ("ni / 0", "null"),
        ("-ni", "null"),
        ("ni + i / 0", "error: division by zero: 7 / 0"),
    ]);
}

#[test]
fn arithmetic_of_doubles() {
    values(&[
        ("d + 1.0", "3.5"),
        ("d + 1", "3.5"),
        ("1 + d", "3.5"),
        ("i - d", "4.5"),
        ("d * i", "17.5"),
        ("d / 2", "1.25"),
        ("i / 2.0", "3.5"),
        ("-d", "-2.5"),
        ("d / 0.0", "error: division by zero: 2.5 / 0.0"),
        ("d / -0.0", "error: division by zero: 2.5 / -0.0"),
        ("d / 0", "error: division by zero: 2.5 / 0"),
        ("d * 1e308", "error: overflow: 2.5 * 1e308"),
        ("d + nd", "null"),
        ("nd * 2", "null"),
        ("-nd", "null"),
    ]);
}

#[test]
fn texts_and_bytes_are_joined() {
    values(&[
        ("s + \"!\"", "\"Grün!\""),
        ("\"<\" + s + \">\"", "\"<Grün>\""),
        ("s + ns", "null"),
        ("y + b'a'", "[0, 255, 97]"),
        ("ny + y", "null"),
    ]);
}

#[test]
fn comparisons() {
    values(&[
        ("s == \"Grün\"", "true"),
        ("s != \"Grün\"", "false"),
        ("\"Grün\" == s", "true"),
        ("s == s", "true"),
        ("s < \"Gz\"", "true"),
        ("\"a\" <= s", "false"),
        ("i == 7", "true"),
        ("i >= 8", "false"),
        ("i == 7.0", "true"),
        ("i > 6.5", "true"),
        ("7 == i", "true"),
        ("d < 3", "true"),
        ("d <= i", "true"),
        ("d != d", "false"),
        ("b == true", "true"),
        ("false < b", "true"),
        ("y == b'\\x00\\xff'", "true"),
        ("y > b'a'", "false"),
        ("t > timestamp(\"2024-02-29T11:34:56.788Z\")", "true"),
        ("t == timestamp(1709206496789)", "true"),
        ("u < duration(\"1h30m1s\")", "true"),
        ("ns == \"x\"", "null"),
        ("\"x\" != ns", "null"),
        ("ni < 3", "null"),
        ("3 >= nd", "null"),
        ("nb == nb", "null"),
        ("ny == y", "null"),
        ("nt < t", "null"),
        ("i + 0 == 7", "true"),
        ("i / 0 == 7", "error: division by zero: 7 / 0"),
    ]);
}

#[test]
fn logic_is_three_valued_and_the_decisive_value_wins() {
    values(&[
        ("b && i == 7", "true"),
        ("b && false", "false"),
        ("nb && b", "null"),
        ("b && nb", "null"),
        ("nb && i == 8", "false"),
        ("i == 8 && nb", "false"),
        ("nb && nb", "null"),
        ("nb || b", "true"),
        ("b || nb", "true"),
        ("nb || i == 8", "null"),
        ("i == 8 || nb", "null"),
        ("!b", "false"),
        ("!nb", "null"),
        ("!(i == 7)", "false"),
        ("i == 8 && i / 0 == 1", "false"),
        ("i / 0 == 1 && i == 8", "false"),
        ("i / 0 == 1 && nb", "error: division by zero: 7 / 0"),
        ("nb && i / 0 == 1", "error: division by zero: 7 / 0"),
        ("i == 7 && i / 0 == 1", "error: division by zero: 7 / 0"),
        ("i / 0 == 1 || b", "true"),
        ("b || i / 0 == 1", "true"),
        ("i / 0 == 1 || i % 0 == 1", "error: division by zero: 7 / 0"),
    ]);
}

#[test]
fn conditionals_evaluate_one_branch() {
    values(&[
        ("b ? 1 : 2", "1"),
        ("!b ? 1 : 2", "2"),
        ("nb ? 1 : 2", "null"),
        ("b ? i : i / 0", "7"),
        ("b ? i : d", "7.0"),
        ("b ? 1 : 2.5", "1.0"),
        ("!b ? s : null", "null"),
        ("b ? null : s", "null"),
        ("b ? s + \"x\" : null", "\"Grünx\""),
        ("true ? \"yes\" : s", "\"yes\""),
        ("i > 5 ? \"much\" : i > 2 ? \"some\" : \"few\"", "\"much\""),
        ("has(ni) ? ni : -1", "-1"),
    ]);
}

#[test]
fn membership() {
    values(&[
        ("s in [\"Rot\", \"Grün\"]", "true"),
        ("s in [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]", "false"),
        ("s in [\"a\", \"b\", \"c\", \"d\", \"e\", \"Grün\"]", "true"),
        ("ns in [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]", "null"),
        ("i in [1, 2, 3, 4, 5, 6, 7]", "true"),
        ("i in [1, 2, 3, 4, 5, 6]", "false"),
        ("i in [1.5, 7.0]", "true"),
        ("d in [1, 2, 2.5]", "true"),
        ("i in [1, 2, 3, 4, 5, 6, 7.0]", "true"),
        ("d in [1, 2, 3, 4, 5, 6]", "false"),
        ("i in [i + 1, i]", "true"),
        ("i in [1, ni]", "null"),
        ("i in [7, ni]", "true"),
        ("i in [ni, 7]", "true"),
        ("i in []", "false"),
        ("ni in [1]", "null"),
        ("ni in [i]", "null"),
        ("i in [7, 1 / (i - 7)]", "true"),
        ("i in [1 / (i - 7), 7]", "error: division by zero: 1 / 0"),
        ("t in [timestamp(0), t]", "true"),
        ("y in [b'a']", "false"),
        ("!(s in [\"a\"])", "true"),
        ("3 in [1, 2, 3]", "true"),
    ]);
}

#[test]
fn null_tests() {
    values(&[
        ("has(s)", "true"),
        ("has(ns)", "false"),
        ("ns == null", "true"),
        ("null == ns", "true"),
        ("ns != null", "false"),
        ("s == null", "false"),
        ("null != s", "true"),
        ("null == null", "true"),
        ("ni + 1 == null", "true"),
        ("(i + 1) != null", "true"),
        ("i / 0 == null", "error: division by zero: 7 / 0"),
        ("has(meta.key)", "true"),
        ("has(meta.headers[\"b\"])", "false"),
    ]);
    for source in ["has(ns)", "has(s)", "ns == null", "s != null", "ni + 1 == null"] {
        assert!(!compile(source).unwrap().nullable(), "{source}");
    }
}

#[test]
fn conversions() {
    values(&[
        ("int(d)", "2"),
        ("int(-2.9)", "-2"),
        ("int(\"-12\")", "-12"),
        ("int(t)", "1709206496789"),
        ("int(u)", "5400250"),
        ("int(i)", "7"),
        ("int(d * 1e30)", "error: int(2.5e30): out of the range of an int"),
        ("int(d - 9223372036854775810.5)", "-9223372036854775808"),
        ("int(d + 9223372036854775807.0)", "error: int(9.223372036854776e18): out of the range of an int"),
        ("int(s)", "error: int(\"Grün\"): not an integer of 64 bits"),
        ("int(ns)", "null"),
        ("double(i)", "7.0"),
        ("double(\"1e3\")", "1000.0"),
        ("double(s)", "error: double(\"Grün\"): not a finite number"),
        ("double(\"Na\" + s.lowerAscii())", "error: double(\"Nagrün\"): not a finite number"),
        ("double(\"inf\" + (b ? \"\" : s))", "error: double(\"inf\"): not a finite number"),
        ("double(ni)", "null"),
        ("string(i)", "\"7\""),
        ("string(d)", "\"2.5\""),
        ("string(1.0)", "\"1\""),
        ("string(d * 1e30)", "\"2.5e30\""),
        ("string(d / 1e30)", "\"2.5e-30\""),
        ("string(b)", "\"true\""),
        ("string(t)", "\"2024-02-29T11:34:56.789Z\""),
        ("string(u)", "\"5400.25s\""),
        ("string(-1 * 0 == 0 ? duration(\"-1500ms\") : u)", "\"-1.5s\""),
        ("string(duration(\"1h\"))", "\"3600s\""),
        ("string(bytes(s))", "\"Grün\""),
        ("string(y)", "error: string(2 bytes): not UTF-8"),
        (
            "string(timestamp(i * 1000000000000000))",
            "error: string(timestamp(7000000000000000)): outside the years 0000 to 9999",
        ),
        ("string(nt)", "null"),
        ("bool(\"true\")", "true"),
        ("bool(\"0\")", "false"),
        ("bool(b)", "true"),
        ("bool(s)", "error: bool(\"Grün\"): neither true nor false"),
        ("bool(ns)", "null"),
        ("bytes(\"ü\")", "[195, 188]"),
        ("bytes(y)", "[0, 255]"),
        ("bytes(ns)", "null"),
    ]);
}

#[test]
fn timestamps_and_durations() {
    values(&[
        ("timestamp(\"1970-01-01T00:00:01.5+00:00\")", "timestamp 1500"),
        ("timestamp(i)", "timestamp 7"),
        ("timestamp(t)", "timestamp 1709206496789"),
        ("timestamp(s)", "error: timestamp(\"Grün\"): not RFC 3339 like 2026-01-31T12:00:00Z"),
        ("timestamp(\"1970-01-01T00:00:00.00\" + string(i) + \"9Z\")", "timestamp 7"),
        ("timestamp(ns)", "null"),
        ("duration(\"1h30m\")", "duration 5400000"),
        ("duration(\"-1.5s\")", "duration -1500"),
        ("duration(i)", "duration 7"),
        (
            "duration(string(i) + \"us\")",
            "error: duration(\"7us\"): `7us` is finer than a millisecond, the smallest unit of a duration",
        ),
        ("duration(ns)", "null"),
        ("t + duration(\"1s\")", "timestamp 1709206497789"),
        ("duration(\"1s\") + t", "timestamp 1709206497789"),
        ("t - u", "timestamp 1709201096539"),
        ("t - timestamp(0)", "duration 1709206496789"),
        ("u + u", "duration 10800500"),
        ("u - duration(\"1h30m\")", "duration 250"),
        (
            "t - timestamp(-9223372036854775807)",
            "error: overflow: timestamp(\"2024-02-29T11:34:56.789Z\") - timestamp(-9223372036854775807)",
        ),
        ("nt + u", "null"),
        ("t - nt", "null"),
        ("t.getFullYear()", "2024"),
        ("t.getMonth()", "1"),
        ("t.getDate()", "29"),
        ("t.getDayOfMonth()", "28"),
        ("t.getDayOfWeek()", "4"),
        ("t.getDayOfYear()", "59"),
        ("t.getHours()", "11"),
        ("t.getMinutes()", "34"),
        ("t.getSeconds()", "56"),
        ("t.getMilliseconds()", "789"),
        ("timestamp(-1).getMilliseconds()", "999"),
        ("timestamp(-1).getFullYear()", "1969"),
        ("nt.getMonth()", "null"),
        (
            "timestamp(i * 1000000000000000).getHours()",
            "error: getHours(timestamp(7000000000000000)): outside the years 0000 to 9999",
        ),
        ("u.getHours()", "1"),
        ("u.getMinutes()", "90"),
        ("u.getSeconds()", "5400"),
        ("u.getMilliseconds()", "250"),
        ("nu.getHours()", "null"),
    ]);
}

#[test]
fn functions_of_texts() {
    values(&[
        ("s.contains(\"rü\")", "true"),
        ("s.contains(ns)", "null"),
        ("ns.contains(s)", "null"),
        ("s.startsWith(\"Gr\")", "true"),
        ("s.endsWith(\"Gr\")", "false"),
        ("s.endsWith(s)", "true"),
        ("s.size()", "4"),
        ("size(s)", "4"),
        ("size(y)", "2"),
        ("ns.size()", "null"),
        ("s.lowerAscii()", "\"grün\""),
        ("(s + \"ü\").upperAscii()", "\"GRüNü\""),
        ("ns.upperAscii()", "null"),
        ("s.matches(\"r.n$\")", "true"),
        ("matches(s, \"^r\")", "false"),
        ("s.matches(\"r\" + \".n\")", "true"),
        ("ns.matches(\"x\")", "null"),
        ("\"abc\".contains(\"b\")", "true"),
    ]);
}

#[test]
fn metadata() {
    values(&[
        ("meta.key", "\"k1\""),
        ("meta.timestamp", "timestamp 1709206496789"),
        ("meta.topic", "\"orders\""),
        ("meta.partition", "3"),
        ("meta.offset + 1", "43"),
        ("meta.headers[\"a\"]", "\"2\""),
        ("meta.headers.a", "\"2\""),
        ("meta.headers[\"x\" + s]", "null"),
        ("meta.headers[ns]", "null"),
        ("meta.headers[\"raw\"]", "null"),
        ("meta.headers[\"none\"]", "null"),
    ]);
    let schema = schema();
    let behind_window = Scope { schema: &schema, meta: false };
    for source in ["meta.key == \"x\"", "has(meta.headers[\"a\"])"] {
        let errors = Expression::compile(source, &behind_window).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].message.contains("these rows come from no single record"), "{errors:?}");
    }
    let arena = Bump::new();
    let error = compile("meta.offset").unwrap().eval(&Environment::new(&row(), None, &arena));
    assert!(error.unwrap_err().message.contains("no single record"));
}

#[test]
fn a_record_without_key_and_timestamp_has_null_for_them() {
    let batch = Batch { partition: TopicPartition::new("orders", 3), headers: vec![] };
    let arena = Bump::new();
    let source = SourceRecord { timestamp_ms: -1, key: None, ..batch.record(0) };
    let eval = |text: &str, source| {
        compile(text).unwrap().eval(&Environment::new(&row(), Some(source), &arena)).unwrap()
    };
    assert_eq!(eval("meta.key", source), Slot::Null);
    assert_eq!(eval("meta.timestamp", source), Slot::Null);
    assert_eq!(eval("meta.key", SourceRecord { key: Some(b"\xff"), ..source }), Slot::Null);
}

#[test]
fn types_and_nullability() {
    for (source, ty, nullable) in [
        ("s", Type::String, false),
        ("ns", Type::String, true),
        ("i + 1", Type::Int, false),
        ("i + nd", Type::Double, true),
        ("b ? 1 : 2.0", Type::Double, false),
        ("b ? 1 : null", Type::Int, true),
        ("nb ? 1 : 2", Type::Int, true),
        ("b && nb", Type::Bool, true),
        ("i in [1, ni]", Type::Bool, true),
        ("t - t", Type::Duration, false),
        ("meta.key", Type::String, true),
        ("meta.timestamp", Type::Timestamp, true),
        ("meta.topic", Type::String, false),
        ("int(ns)", Type::Int, true),
    ] {
        let expression = compile(source).unwrap();
        assert_eq!((expression.ty(), expression.nullable()), (ty, nullable), "{source}");
        assert_eq!(expression.source(), source);
        assert_eq!(format!("{expression:?}"), format!("Expression({source:?})"));
    }
}

#[test]
fn the_fields_of_an_expression() {
    let expression = compile("amount > 1.0 && has(ns) && s == \"x\" && s != status").unwrap();
    assert_eq!(expression.fields(), [0, 7, 14, 15]);
    assert_eq!(expression.as_field(), None);
    assert_eq!(compile("(ns)").unwrap().as_field(), Some(7));
    for no_copy in ["string(s)", "true ? ns : ns", "has(s) ? s : s"] {
        assert_eq!(compile(no_copy).unwrap().as_field(), None, "{no_copy}");
    }
    assert!(compile("1 + 2").unwrap().fields().is_empty());
}

#[test]
fn a_filter_takes_null_for_false() {
    let arena = Bump::new();
    let row = row();
    let environment = Environment::new(&row, None, &arena);
    let test = |source: &str| compile(source).unwrap().test(&environment);
    assert_eq!(test("b"), Ok(true));
    assert_eq!(test("!b"), Ok(false));
    assert_eq!(test("nb"), Ok(false));
    assert!(test("i / 0 == 1").is_err());
    assert!(test("i").is_err());
    assert!(test("s == status").is_ok());
}

#[test]
fn a_row_of_another_schema_is_an_error_and_no_wrong_result() {
    let arena = Bump::new();
    let eval = |source: &str, row: &[Slot<'_>]| {
        compile(source).unwrap().eval(&Environment::new(row, None, &arena)).map(|_| ())
    };
    assert!(eval("s", &[]).unwrap_err().message.contains("0 slots"));
    for source in ["s == \"x\"", "s.size()", "s + s", "s in [\"a\"]", "s.matches(\"a\")"] {
        let error = eval(source, &[Slot::Int(1)]).unwrap_err();
        assert!(error.message.contains("not laid out"), "{source}");
    }
}

#[test]
fn mistakes_of_types_are_marked() {
    mistake(&[
        ("s == 1", "==", "`==` cannot compare a string with an int"),
        ("\"ü\" + \"ß\" != 1.0", "!=", "a string with a double"),
        ("t > \"2024-01-01T00:00:00Z\"", ">", "timestamp(x)"),
        ("b == 1", "==", "a bool with an int"),
        ("\"größer\" + i", "+", "string(x)"),
        ("d % 2", "%", "it is for ints"),
        ("s * 2", "*", "not defined for a string and an int"),
        ("t + t", "+", "a timestamp and a timestamp"),
        ("u * 2", "*", "a duration and an int"),
        ("i && b", "i", "`&&` takes a bool, found an int"),
        ("b || s + \"ü\"", "s + \"ü\"", "`||` takes a bool, found a string"),
        ("!s", "s", "`!` takes a bool"),
        ("-s", "s", "`-` takes an int or a double"),
        ("i ? 1 : 2", "i", "`?` takes a bool"),
        ("b ? \"ü\" : 2", "?", "differ in type: string and int"),
        ("b ? null : null", "?", "both branches are null"),
        ("null", "null", "null has no type here"),
        ("ni + null", "null", "null has no type here"),
        ("s in [\"a\", 1]", "1", "`in` cannot compare a string with an int"),
        ("s in s", "s", "takes a list on its right"),
        ("[]", "[", "an empty list has no type"),
        ("[1, s]", "s", "differ in type: int and string"),
        ("[li]", "li", "no lists of lists"),
        ("li.map(x, [x])", "[x]", "no lists of lists"),
        ("li == ls", "==", "`==` cannot compare a list [int] with a list [string?]"),
        ("li < li", "<", "`<` cannot compare"),
        ("li + li", "+", "not defined"),
        ("li[s]", "s", "the place in a list is an int, found a string"),
        ("s in li", "in", "`in` cannot compare a string with an int"),
        ("size(li, li)", "size", "takes 1 argument here, found 2"),
        ("join(li, \"\")", "li", "`join` takes a list [string] here, found a list [int]"),
        ("li.exists(s, true)", "s", "`s` is known already"),
        ("li.exists(1, true)", "1", "is a name for the elements"),
        ("li.exists(x)", "exists", "is called as list.exists(x, expression of x)"),
        ("li.filter(x, x)", "x", "`filter` takes a condition, found an int"),
        ("li.map(x, v)", "v", "unknown field `v`"),
        ("size(i)", "i", "`size` takes a string or bytes here, found an int"),
        ("s.contains(1)", "1", "`contains` takes a string here, found an int"),
        ("i.contains(s)", "i", "`contains` takes a string here"),
        ("int(b)", "b", "`int` takes an int or a double or a string or a timestamp or a duration"),
        ("s.contains()", "contains", "takes 1 argument here, found 0"),
        ("size(s, s)", "size", "takes 1 argument here, found 2"),
        ("t.getHours(\"Europe/Berlin\")", "getHours", "always in UTC"),
        ("contains(s, s)", "contains", "called as x.contains(y)"),
        ("lowerAscii(s)", "lowerAscii", "called as x.lowerAscii()"),
        ("s.int()", "int", "called as int(x)"),
        ("has(i + 1)", "i + 1", "takes a field"),
        ("has(li[0])", "li[0]", "takes a field"),
        ("li.exists_one(x, x > 1)", "exists_one", "size(list.filter(x, condition)) == 1"),
        ("li.map(x, x > 1, x)", "map", "is called as list.map(x, expression of x)"),
        ("1u", "1u", "unsigned"),
        ("s[0]", "[", "a string has no elements; only lists"),
        ("s.temp", "temp", "needs a field of its own in the schema"),
        ("meta", "meta", "meta.key"),
        ("meta.headers", "meta.headers", "meta.headers[\"name\"]"),
        ("meta.headers[1]", "1", "a header's name is a string"),
        ("s.map(x, x)", "s", "`map` takes a list, found a string"),
    ]);
}

#[test]
fn constants_without_a_value_are_mistakes() {
    mistake(&[
        ("\"ü\" == s && 1 / 0 == i", "1 / 0", "division by zero: 1 / 0"),
        ("9223372036854775807 + 1", "9223372036854775807 + 1", "overflow"),
        ("timestamp(\"ü\")", "timestamp(\"ü\")", "not RFC 3339"),
        ("t > timestamp(\"2024-01-01T00:00:00.0001Z\")", "\"2024-01-01T00:00:00.0001Z\"", "milliseconds"),
        ("u > duration(\"1500us\")", "duration(\"1500us\")", "finer than a millisecond"),
        ("duration(\"5 min\")", "duration(\"5 min\")", "the unit ` min` is not known"),
        ("int(\"x\") + i", "int(\"x\")", "not an integer"),
        ("\"ü\" == s || s.matches(\"(ä\")", "\"(ä\"", "not a regular expression: unclosed group"),
        ("s.matches(ns)", "ns", "must be a constant"),
    ]);
    values(&[("timestamp(\"1970-01-01T00:00:00.001000Z\")", "timestamp 1")]);
}

#[test]
fn mistakes_of_grammar_are_marked_in_characters() {
    mistake(&[
        ("", "", "empty"),
        (" \n", " ", "empty"),
        ("\"ü\" = s", "=", "write `==`"),
        ("\"ü\" == s & b", "&", "write `&&`"),
        ("\"ü\" == s and b", "and", "write `&&`"),
        ("s ==\n \"üü\" or b", "or", "write `||`"),
        ("\"ü\" == s § b", "§", "means nothing"),
        ("s == \"ü", "\"", "not closed"),
        ("(s == \"ü\"", "", "ends too early"),
        ("s == \"ü\")", ")", "unexpected"),
        ("package == 1", "package", "reserved"),
        ("\"ü\" == s || i > 99999999999999999999", "99999999999999999999", "range of an int"),
        ("`s`", "`", "backticks"),
    ]);
    let errors = compile("\"üü\" ==").unwrap_err();
    assert_eq!((errors[0].start, errors[0].end), (7, 7));
}

#[test]
fn unknown_names_carry_the_nearest_one() {
    let suggestion = |source: &str| compile(source).unwrap_err()[0].suggestion.clone();
    assert_eq!(suggestion("statsu == \"paid\"").as_deref(), Some("status"));
    assert_eq!(suggestion("Amount > 1.0").as_deref(), Some("amount"));
    assert_eq!(suggestion("has(amout)").as_deref(), Some("amount"));
    assert_eq!(suggestion("s.startswith(\"a\")").as_deref(), Some("startsWith"));
    assert_eq!(suggestion("s.endWith(\"a\")").as_deref(), Some("endsWith"));
    assert_eq!(suggestion("meta.ofset").as_deref(), Some("offset"));
    assert_eq!(suggestion("customer"), None);
    mistake(&[
        ("\"ü\" == statuz", "statuz", "unknown field `statuz`"),
        ("customer", "customer", "there are s, b, i"),
        ("\"ü\".lenght ()", "lenght", "unknown function `lenght`"),
        ("1 < strlen(s)", "strlen", "there are int, double"),
        ("meta.kye", "meta.kye", "unknown metadata `kye`"),
        ("customer.name", "customer", "unknown field `customer`"),
    ]);
}

#[test]
fn all_mistakes_are_reported_in_order() {
    let found = mistakes("\"ü\" == nope && (i + \"a\" > 2 || !s) ? foo(1 / 0, bar) : s.matches(\"[\")");
    let marked: Vec<&str> = found.iter().map(|(marked, _)| marked.as_str()).collect();
    assert_eq!(marked, ["nope", "+", "s", "foo", "1 / 0", "bar", "\"[\""]);
    let found = mistakes("x in [1, z, \"a\" + 1]");
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn an_expression_of_any_shape_within_the_limits_compiles_on_a_small_stack() {
    let nested = |depth: usize, chain: usize| {
        format!("{}i{}{}", "(".repeat(depth), "+1".repeat(chain), ")".repeat(depth))
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let work = move || {
        let deepest = compile(&nested(60, 500)).unwrap();
        let arena = Bump::new();
        let row = row();
        let environment = Environment::new(&row, None, &arena);
        assert_eq!(deepest.eval(&environment), Ok(Slot::Int(507)));
        compile(&format!("{}1{}", "b ? (".repeat(32), ") : 2".repeat(32))).unwrap();
        compile(&format!("i in [{}]", vec!["-1"; 499].join(","))).unwrap();
        compile(&format!("s in [{}]", vec!["\"a+(b.c\""; 9999].join(","))).unwrap();
        for (source, words) in [
            (nested(65, 1), "nested deeper than 64"),
            (nested(1, 501), "more than 500 operators"),
            ("!".repeat(10_000) + "b", "more than 500 operators"),
            ("b ? 1 : ".repeat(65) + "1", "nested deeper than 64"),
            ("(".repeat(10_000), "nested deeper than 64"),
        ] {
            let errors = compile(&source).unwrap_err();
            assert!(errors[0].message.contains(words), "{errors:?}");
        }
    };
    thread.spawn(work).unwrap().join().unwrap();
}

#[test]
fn the_reference_is_true() {
    let reference = include_str!("../../docs/expressions.md");
    let field = |name: &str, ty, nullable| Field { name: name.into(), ty, nullable, form: FieldForm::Plain };
    let schema = Schema {
        fields: vec![
            field("status", Type::String, false),
            field("amount", Type::Double, false),
            field("discount", Type::Double, true),
            field("coupon", Type::String, true),
            field("country", Type::String, false),
            field("email", Type::String, false),
            field("created_at", Type::Timestamp, false),
            field("tags", list(Type::String, false), false),
            field("prices", list(Type::Double, false), false),
        ],
    };
    let blocks = reference.split("```cel\n").skip(1).map(|block| block.split("```").next().unwrap());
    let examples: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert!(examples.len() > 5);
    for example in examples {
        let compiled = Expression::compile(example, &Scope { schema: &schema, meta: true });
        assert!(compiled.is_ok(), "{example}: {compiled:?}");
    }
    for function in functions::FUNCTIONS {
        let call = format!("{}(", function.name);
        assert!(reference.contains(&call), "the reference does not name {call})");
    }
}

#[test]
fn an_expression_is_shared_by_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&compile("s.matches(\"x\") && i in [1, ni]").unwrap());
}
