use bumpalo::Bump;
use proptest::prelude::*;
use serde_json::json;

use super::{Decoder, Encoder};
use crate::record::{EACH, Field, FieldForm, Schema, Slot, SourceField, SourceSchema, Type};
use crate::time;

/// `name: type` or `name?: type`, where a path stands for the name; its last key is the name.
fn schema(fields: &[(&str, Type, FieldForm)]) -> SourceSchema {
    let field = |(path, ty, form): &(&str, Type, FieldForm)| {
        let nullable = path.ends_with('?');
        let path: Vec<String> = path.trim_end_matches('?').split('.').map(String::from).collect();
        let field = Field { name: path.join("_"), ty: *ty, nullable, form: *form };
        SourceField { field, path }
    };
    SourceSchema { fields: fields.iter().map(field).collect() }
}

/// Fields of the types' plain forms.
fn plain(fields: &[(&str, Type)]) -> SourceSchema {
    schema(&fields.iter().map(|(path, ty)| (*path, *ty, FieldForm::Plain)).collect::<Vec<_>>())
}

/// Decodes one record with both tiers and with the second one alone, and compares.
fn check<'b>(schema: &SourceSchema, value: &'b [u8], arena: &'b Bump) -> Result<Vec<Slot<'b>>, String> {
    let decode = |mut decoder: Decoder| {
        let mut slots = vec![Slot::Int(99); schema.fields.len()];
        decoder.decode(value, arena, &mut slots).map(|()| slots).map_err(|error| error.message)
    };
    let result = decode(Decoder::new(schema));
    assert_eq!(result, decode(Decoder::without_guesses(schema)));
    result
}

fn decode<'b>(schema: &SourceSchema, text: &'b str, arena: &'b Bump) -> Vec<Slot<'b>> {
    check(schema, text.as_bytes(), arena).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refuse(schema: &SourceSchema, text: &str) -> String {
    check(schema, text.as_bytes(), &Bump::new()).expect_err(text)
}

#[test]
fn every_type_is_read() {
    let schema = schema(&[
        ("s", Type::String, FieldForm::Plain),
        ("b", Type::Bool, FieldForm::Plain),
        ("i", Type::Int, FieldForm::Plain),
        ("d", Type::Double, FieldForm::Plain),
        ("ms", Type::Timestamp, FieldForm::Plain),
        ("text", Type::Timestamp, FieldForm::Rfc3339),
        ("span", Type::Duration, FieldForm::Plain),
        ("null?", Type::Int, FieldForm::Plain),
        ("absent?", Type::String, FieldForm::Plain),
    ]);
    let text = r#" {"s":"ä\"b","b":true,"i":-5,"d":2,"ms":1700000000000,
        "text":"1970-01-01T00:00:01.5Z","span":250,"null":null} "#;
    let arena = Bump::new();
    let expected = [
        Slot::String("ä\"b"),
        Slot::Bool(true),
        Slot::Int(-5),
        Slot::Double(2.0),
        Slot::Timestamp(1_700_000_000_000),
        Slot::Timestamp(1500),
        Slot::Duration(250),
        Slot::Null,
        Slot::Null,
    ];
    assert_eq!(decode(&schema, text, &arena), expected);
}

#[test]
fn text_without_escapes_is_borrowed_from_the_record() {
    let schema = plain(&[("s", Type::String)]);
    let (arena, text) = (Bump::new(), r#"{"s":"as it is"}"#);
    let [Slot::String(read)] = decode(&schema, text, &arena)[..] else { panic!("not a string") };
    assert!(text.as_bytes().as_ptr_range().contains(&read.as_ptr()));
}

#[test]
fn ints_in_range_are_read_in_any_form() {
    let schema = plain(&[("i", Type::Int)]);
    let arena = Bump::new();
    for (text, int) in [
        ("0", 0),
        ("-0", 0),
        ("3.0", 3),
        ("-3.00", -3),
        ("1e3", 1000),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
        ("123456789012345678", 123_456_789_012_345_678),
    ] {
        let record = arena.alloc_str(&format!(r#"{{"i":{text}}}"#));
        assert_eq!(decode(&schema, record, &arena), [Slot::Int(int)], "{text}");
    }
    for text in ["3.5", "9223372036854775808", "-9223372036854775809", "9007199254740993.0", "1e30", "true"] {
        let error = refuse(&schema, &format!(r#"{{"i":{text}}}"#));
        assert!(error.starts_with("field i: expected an int, found "), "{text}: {error}");
    }
}

#[test]
fn errors_name_field_expected_and_found() {
    let schema = schema(&[
        ("id", Type::Int, FieldForm::Plain),
        ("body.temp", Type::Double, FieldForm::Plain),
        ("body.at?", Type::Timestamp, FieldForm::Rfc3339),
        ("name?", Type::String, FieldForm::Plain),
        ("ok?", Type::Bool, FieldForm::Plain),
    ]);
    let long = "x".repeat(100);
    for (text, message) in [
        (
            r#"{"id":1,"body":{"temp":"abc"}}"#,
            r#"field body.temp: expected a double, found the string "abc""#,
        ),
        (r#"{"id":1,"body":{"temp":[1]}}"#, "field body.temp: expected a double, found an array"),
        (r#"{"id":1,"body":{"temp":{"a":1}}}"#, "field body.temp: expected a double, found an object"),
        (r#"{"id":1,"body":{"temp":null}}"#, "field body.temp: missing, expected a double"),
        (r#"{"id":1,"body":{}}"#, "field body.temp: missing, expected a double"),
        (r#"{"id":1,"body":null}"#, "field body.temp: missing, expected a double"),
        (r#"{"id":1}"#, "field body.temp: missing, expected a double"),
        (r#"{"id":1,"body":7}"#, "field body.temp: expected an object at body, found the number 7"),
        (r#"{"id":1.5,"body":{"temp":1}}"#, "field id: expected an int, found the number 1.5"),
        (r#"{"id":1,"body":{"temp":1},"name":false}"#, "field name: expected a string, found false"),
        (
            r#"{"id":1,"body":{"temp":1},"ok":"true"}"#,
            r#"field ok: expected a bool, found the string "true""#,
        ),
        (
            r#"{"id":1,"body":{"temp":1,"at":"noon"}}"#,
            r#"field body.at: expected a timestamp as RFC 3339 text, found the string "noon""#,
        ),
        (
            &format!(r#"{{"id":"{long}","body":{{"temp":1}}}}"#),
            &format!(r#"field id: expected an int, found the string "{}"..."#, &long[..40]),
        ),
        ("3", "expected an object, found the number 3"),
        ("null", "expected an object, found null"),
        ("[{}]", "expected an object, found an array"),
    ] {
        assert_eq!(refuse(&schema, text), message, "{text}");
    }
}

#[test]
fn malformed_records_are_refused_with_the_position() {
    let schema = plain(&[("i?", Type::Int)]);
    for text in [
        "",
        " ",
        "{",
        "{}x",
        "{} {}",
        r#"{"i":1,}"#,
        r#"{"i":1 "j":2}"#,
        r#"{"i":01}"#,
        r#"{"i":1.}"#,
        r#"{"i":.5}"#,
        r#"{"i":-}"#,
        r#"{"i":+1}"#,
        r#"{"i":nul}"#,
        r#"{"i"}"#,
        r#"{i:1}"#,
        r#"{"j":[1,]}"#,
        r#"{"j":[1}"#,
        r#"{"j":"\x"}"#,
        r#"{"j":"\u12"}"#,
        r#"{"j":"\u12","k":1}"#,
        r#"{"i":1,"\u12","k":1}"#,
        r#"{"j":"\ud83d\u12"#,
        "{\"j\":\"a\nb\"}",
        "{\"j\":\"a\nb and more than eight bytes\"}",
        r#"{"j":{"k":1}"#,
        r#"{"j":00}"#,
        r#"{"j":1e}"#,
        r#"{"i":1}}"#,
    ] {
        let error = refuse(&schema, text);
        assert!(error.starts_with("invalid JSON at byte "), "{text}: {error}");
    }
    assert_eq!(
        refuse(&schema, "{} x"),
        "invalid JSON at byte 3: JSON has non-whitespace trailing characters after the value"
    );
    let error = check(&schema, b"{\"j\":\"\xff\"}", &Bump::new()).expect_err("not UTF-8");
    assert_eq!(error, "invalid UTF-8 after byte 6 of the record");
}

#[test]
fn of_a_duplicate_key_the_last_one_counts() {
    let schema = plain(&[("a?", Type::Int), ("o.x?", Type::Int), ("o.y?", Type::Int)]);
    let arena = Bump::new();
    for (text, slots) in [
        (r#"{"a":1,"a":2}"#, [Slot::Int(2), Slot::Null, Slot::Null]),
        (r#"{"a":1,"a":null}"#, [Slot::Null, Slot::Null, Slot::Null]),
        (r#"{"a":"no","a":2}"#, [Slot::Int(2), Slot::Null, Slot::Null]),
        (r#"{"o":{"x":1},"o":{"y":2}}"#, [Slot::Null, Slot::Null, Slot::Int(2)]),
        (r#"{"o":{"x":1},"o":null}"#, [Slot::Null, Slot::Null, Slot::Null]),
        (r#"{"o":5,"o":{"x":1}}"#, [Slot::Null, Slot::Int(1), Slot::Null]),
        (r#"{"o":{"x":"no"},"o":{}}"#, [Slot::Null, Slot::Null, Slot::Null]),
    ] {
        assert_eq!(decode(&schema, text, &arena), slots, "{text}");
    }
    assert_eq!(refuse(&schema, r#"{"a":1,"a":"no"}"#), r#"field a: expected an int, found the string "no""#);
    assert_eq!(
        refuse(&schema, r#"{"o":{"x":1},"o":5}"#),
        "field o.x: expected an object at o, found the number 5"
    );
}

#[test]
fn fields_may_share_a_path() {
    let schema = plain(&[("v", Type::Int), ("v", Type::Double), ("o?", Type::String), ("o.x?", Type::Int)]);
    let arena = Bump::new();
    let slots = decode(&schema, r#"{"v":1,"o":null}"#, &arena);
    assert_eq!(slots, [Slot::Int(1), Slot::Double(1.0), Slot::Null, Slot::Null]);
    assert_eq!(refuse(&schema, r#"{"v":1,"o":{"x":1}}"#), "field o: expected a string, found an object");
    assert_eq!(
        refuse(&schema, r#"{"v":1,"o":"text"}"#),
        r#"field o.x: expected an object at o, found the string "text""#
    );
}

/// An array as objects hold it: records whose arrays are of values, or of objects.
#[test]
fn lists_are_read_from_arrays() {
    let schema = plain(&[
        ("tags", list(Type::String, false)),
        ("temps?", list(Type::Double, true)),
        ("items.[].sku", list(Type::String, false)),
        ("items.[].price.amount", list(Type::Int, true)),
    ]);
    let arena = Bump::new();
    let text = r#"{"tags":["a","\u00e4"], "temps":[1, null,-2.5],
        "items":[{"sku":"x","price":{"amount":3}}, {"more":[{}],"sku":"y"} ,{"price":null,"sku":"z"}]}"#;
    let (a, x) = (Slot::String("a"), Slot::String("ä"));
    let slots = decode(&schema, text, &arena);
    assert_eq!(slots[0], Slot::List(&[a, x]));
    assert_eq!(slots[1], Slot::List(&[Slot::Double(1.0), Slot::Null, Slot::Double(-2.5)]));
    assert_eq!(slots[2], Slot::List(&[Slot::String("x"), Slot::String("y"), Slot::String("z")]));
    assert_eq!(slots[3], Slot::List(&[Slot::Int(3), Slot::Null, Slot::Null]));
    let empty = decode(&schema, r#"{"tags":[],"items":[ ],"temps":null}"#, &arena);
    assert_eq!(empty, [Slot::List(&[]), Slot::Null, Slot::List(&[]), Slot::List(&[])]);
    let nulled = decode(&schema, r#"{"tags":[],"items":[],"temps":[1],"temps":null}"#, &arena);
    assert_eq!(nulled[1], Slot::Null);
    // The last one of a key counts, also within an element.
    let twice = r#"{"tags":7,"tags":["a","b"],"tags":["c"],"items":[{"sku":1,"sku":"q"}]}"#;
    assert_eq!(decode(&schema, twice, &arena)[..1], [Slot::List(&[Slot::String("c")])]);
}

#[test]
fn what_is_wrong_in_a_list_is_told_with_its_place() {
    let schema = plain(&[
        ("tags", list(Type::String, false)),
        ("o.items.[].sku?", list(Type::String, false)),
        ("o.items.[].at.n?", list(Type::Int, true)),
    ]);
    for (text, message) in [
        (r#"{"tags":"a"}"#, r#"field tags: expected an array, found the string "a""#),
        (r#"{"tags":{}}"#, "field tags: expected an array, found an object"),
        (r#"{"tags":null}"#, "field tags: missing, expected an array"),
        (r#"{"tags":["a",7]}"#, "field tags: element 1: expected a string, found the number 7"),
        (r#"{"tags":["a",null]}"#, "field tags: element 1: missing, expected a string"),
        (r#"{"tags":[["a"]]}"#, "field tags: element 0: expected a string, found an array"),
        (
            r#"{"tags":[],"o":{"items":[{"sku":"a"},{}]}}"#,
            "field o.items[].sku: element 1: missing, expected a string",
        ),
        (
            r#"{"tags":[],"o":{"items":[{"sku":"a"},null]}}"#,
            "field o.items[].sku: element 1: expected an object, found null",
        ),
        (
            r#"{"tags":[],"o":{"items":{"sku":"a"}}}"#,
            "field o.items[].sku: expected an array of objects, found an object",
        ),
        (
            r#"{"tags":[],"o":{"items":[{"sku":"a","at":[1]}]}}"#,
            "field o.items[].at.n: element 0: expected an object at at, found an array",
        ),
        (r#"{"tags":[],"o":[]}"#, "field o.items[].sku: expected an object at o, found an array"),
    ] {
        assert_eq!(refuse(&schema, text), message, "{text}");
    }
    assert_eq!(decode(&schema, r#"{"tags":[],"o":{"items":null}}"#, &Bump::new())[1..], [Slot::Null; 2]);
}

#[test]
fn the_lists_of_a_record_hold_a_bounded_number_of_values() {
    let most = super::layout::LIST_VALUES_MAX;
    let paths: Vec<String> = (0..64).map(|place| format!("q.[].f{place}?")).collect();
    let mut fields: Vec<(&str, Type)> =
        paths.iter().map(|path| (path.as_str(), list(Type::Int, true))).collect();
    fields.push(("l?", list(Type::Int, true)));
    let schema = plain(&fields);
    let text = |values: usize, objects: usize| {
        let (values, objects) = (vec!["1"; values].join(","), vec!["{}"; objects].join(","));
        format!(r#"{{"l":[{values}],"q":[{objects}]}}"#)
    };
    // 64 values, and 64 of each object.
    let (fits, beyond) = (text(64, most / 64 - 1), text(65, most / 64 - 1));
    let arena = Bump::new();
    let slots = decode(&schema, &fits, &arena);
    assert_eq!(slots[0], Slot::List(&vec![Slot::Null; most / 64 - 1]));
    let error = format!("field q[].f0: the record's lists hold more than {most} values");
    assert_eq!(refuse(&schema, &beyond), error);
    // For the record behind it there is room again.
    for mut decoder in [Decoder::new(&schema), Decoder::without_guesses(&schema)] {
        let (arena, mut slots) = (Bump::new(), vec![Slot::Null; schema.fields.len()]);
        assert!(decoder.decode(beyond.as_bytes(), &arena, &mut slots).is_err());
        decoder.decode(text(64, 2).leak().as_bytes(), &arena, &mut slots).unwrap();
        assert_eq!(slots[63], Slot::List(&[Slot::Null; 2]));
    }
}

#[test]
fn a_schema_without_fields_still_wants_an_object() {
    let schema = plain(&[]);
    assert_eq!(decode(&schema, r#"{"a":[1,{"b":"c"}]}"#, &Bump::new()), []);
    assert_eq!(refuse(&schema, "1"), "expected an object, found the number 1");
}

#[test]
fn keys_that_need_escapes_are_found() {
    let schema = plain(&[("a\"b", Type::Int), ("ä\n", Type::Int)]);
    let arena = Bump::new();
    for text in [r#"{"a\"b":1,"ä\n":2}"#, r#"{"\u0061\u0022b":1,"\u00e4\n":2}"#] {
        assert_eq!(decode(&schema, text, &arena), [Slot::Int(1), Slot::Int(2)], "{text}");
    }
    assert!(refuse(&schema, r#"{"a"b":1,"ä\n":2}"#).starts_with("invalid JSON"));
}

#[test]
fn deep_nesting_is_an_error_and_not_the_end_of_the_process() {
    let schema = plain(&[("i?", Type::Int)]);
    let nested = |depth: usize| {
        format!(r#"{{"j":{}1{},"k":"[[[[[[{{{{"}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1))
    };
    decode(&schema, &nested(17), &Bump::new());
    decode(&schema, &nested(128), &Bump::new());
    assert_eq!(refuse(&schema, &nested(129)), "nested deeper than 128 levels");
    assert_eq!(refuse(&schema, &"[".repeat(1_000_000)), "nested deeper than 128 levels");
    assert_eq!(refuse(&schema, &r#"{"i":"#.repeat(1_000_000)), "nested deeper than 128 levels");
}

#[test]
fn records_in_changing_orders_are_read_by_one_decoder() {
    let schema = plain(&[("a", Type::Int), ("b?", Type::Int), ("c", Type::Int)]);
    let mut decoder = Decoder::new(&schema);
    let arena = Bump::new();
    let mut slots = [Slot::Null; 3];
    for (text, b) in [
        (r#"{"a":1,"b":2,"c":3}"#, Slot::Int(2)),
        (r#"{"c":3,"b":2,"a":1}"#, Slot::Int(2)),
        (r#"{"c":3,"a":1}"#, Slot::Null),
        (r#"{"x":0,"c":3,"y":"","a":1,"z":[]}"#, Slot::Null),
        (r#"{"z":[],"a":1,"c":3,"b":2,"x":{"a":7}}"#, Slot::Int(2)),
        (r#"{"a":1,"b":2,"c":3}"#, Slot::Int(2)),
    ] {
        decoder.decode(text.as_bytes(), &arena, &mut slots).unwrap();
        assert_eq!(slots, [Slot::Int(1), b, Slot::Int(3)], "{text}");
    }
    // A record with ever new keys costs no memory.
    for i in 0..1000 {
        let text = arena.alloc_str(&format!(r#"{{"new{i}":0,"a":1,"c":3}}"#));
        decoder.decode(text.as_bytes(), &arena, &mut slots).unwrap();
        assert_eq!(slots, [Slot::Int(1), Slot::Null, Slot::Int(3)]);
    }
    assert!(decoder.layout.keys() < 50);
}

#[test]
fn the_first_tier_reads_plain_records() {
    let schema = plain(&[
        ("a", Type::String),
        ("o.d", Type::Double),
        ("i?", Type::Int),
        ("l?", list(Type::Int, true)),
        ("q.[].s?", list(Type::String, false)),
    ]);
    for text in [
        r#"{"a":"text","o":{"d":1.25},"i":3}"#,
        r#"{"l":[1, null],"q":[{"s":"x","t":[]},{"s":"\u00e4"}],"a":"text","o":{"d":1.25}}"#,
        r#"{"l":[],"q":null,"a":"text","o":{"d":1.25}}"#,
        r#"{ "i": null, "x": [1, {"y": true}], "o": {"e": "", "d": -1e3}, "a": "" }"#,
        r#"{"o":{"d":0.12345678901234567},"a":"längerer Text"}"#,
        r#"{"x":"\u00e4\\","a":"\"\u00e4\"","o":{"d":0}}"#,
    ] {
        let mut slots = [Slot::Null; 5];
        let mut layout = super::layout::Layout::new(&schema);
        let arena = Bump::new();
        assert_eq!(super::guess::read(&mut layout, text, &arena, &mut slots), Some(()), "{text}");
    }
}

#[test]
fn rows_are_written_in_schema_order() {
    let field = |name: &str, ty, form| Field { name: name.into(), ty, nullable: true, form };
    let schema = Schema {
        fields: vec![
            field("s\"", Type::String, FieldForm::Plain),
            field("n", Type::Int, FieldForm::Plain),
            field("t", Type::Bool, FieldForm::Plain),
            field("i", Type::Int, FieldForm::Plain),
            field("d", Type::Double, FieldForm::Plain),
            field("ms", Type::Timestamp, FieldForm::Plain),
            field("at", Type::Timestamp, FieldForm::Rfc3339),
            field("far", Type::Timestamp, FieldForm::Rfc3339),
            field("span", Type::Duration, FieldForm::Plain),
            field("raw", Type::Bytes, FieldForm::Plain),
            field("days", list(Type::Timestamp, true), FieldForm::Rfc3339),
            field("none", list(Type::Int, false), FieldForm::Plain),
        ],
    };
    let row = [
        Slot::String("ä\"\\\n\u{1}"),
        Slot::Null,
        Slot::Bool(true),
        Slot::Int(i64::MIN),
        Slot::Double(2.0),
        Slot::Timestamp(1500),
        Slot::Timestamp(1500),
        Slot::Timestamp(i64::MAX),
        Slot::Duration(60_000),
        Slot::Bytes(b"light w"),
        Slot::List(&[Slot::Timestamp(0), Slot::Null]),
        Slot::List(&[]),
    ];
    let mut out = b"before ".to_vec();
    Encoder::new(&schema).encode(&row, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        concat!(
            r#"before {"s\"":"ä\"\\\n\u0001","n":null,"t":true,"i":-9223372036854775808,"d":2.0,"ms":1500,"#,
            r#""at":"1970-01-01T00:00:01.500Z","far":9223372036854775807,"span":60000,"raw":"bGlnaHQgdw==","#,
            r#""days":["1970-01-01T00:00:00Z",null],"none":[]}"#
        )
    );
    out = Vec::new();
    Encoder::new(&Schema::default()).encode(&[], &mut out);
    assert_eq!(out, b"{}");
}

#[test]
fn bytes_are_written_as_base64() {
    // The test vectors of RFC 4648.
    for (bytes, text) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ] {
        let mut out = Vec::new();
        super::write_value(&Slot::Bytes(bytes.as_bytes()), FieldForm::Plain, &mut out);
        assert_eq!(out, format!("\"{text}\"").into_bytes());
    }
}

/// The schema of the generated documents.
fn generated_schema() -> SourceSchema {
    schema(&[
        ("a", Type::String, FieldForm::Plain),
        ("b?", Type::Int, FieldForm::Plain),
        ("c?", Type::Double, FieldForm::Plain),
        ("d?", Type::Bool, FieldForm::Plain),
        ("o.a?", Type::Int, FieldForm::Plain),
        ("o.p.a?", Type::String, FieldForm::Plain),
        ("e?", Type::Timestamp, FieldForm::Rfc3339),
        ("f?", Type::Timestamp, FieldForm::Plain),
        ("l?", list(Type::Int, false), FieldForm::Plain),
        ("m?", list(Type::String, true), FieldForm::Plain),
        ("q.[].a?", list(Type::Int, true), FieldForm::Plain),
        ("q.[].o.b?", list(Type::String, false), FieldForm::Plain),
    ])
}

fn list(element: Type, nullable: bool) -> Type {
    element.list(nullable).unwrap()
}

/// What a field must hold according to serde_json: `None` if it must be refused.
fn reference<'a>(field: &SourceField, document: &'a serde_json::Value, arena: &'a Bump) -> Option<Slot<'a>> {
    let mut value = document;
    for (depth, key) in field.path.iter().enumerate() {
        if key == EACH {
            return list_reference(field, &field.path[depth + 1..], value, arena);
        }
        match value {
            serde_json::Value::Object(members) => {
                value = members.get(key).unwrap_or(&serde_json::Value::Null)
            }
            serde_json::Value::Null => {}
            _ => return None,
        }
    }
    if value.is_null() {
        return field.field.nullable.then_some(Slot::Null);
    }
    let int = value.as_i64().or_else(|| {
        let double = value.as_f64().filter(|_| value.is_f64())?;
        (double.fract() == 0.0 && double.abs() < 9_007_199_254_740_992.0).then_some(double as i64)
    });
    match (field.field.ty, field.field.form) {
        (Type::String, _) => value.as_str().map(Slot::String),
        (Type::Bool, _) => value.as_bool().map(Slot::Bool),
        (Type::Int, _) => int.map(Slot::Int),
        (Type::Double, _) => value.as_f64().map(Slot::Double),
        (Type::List(_), _) => list_reference(field, &[], value, arena),
        (_, FieldForm::Rfc3339) => value.as_str().and_then(time::parse_rfc3339_ms).map(Slot::Timestamp),
        _ => int.map(Slot::Timestamp),
    }
}

/// What a list must hold of what `path` leads to in each element of `value`.
fn list_reference<'a>(
    field: &SourceField,
    path: &[String],
    value: &'a serde_json::Value,
    arena: &'a Bump,
) -> Option<Slot<'a>> {
    let Type::List(of) = field.field.ty else { return None };
    if value.is_null() {
        return field.field.nullable.then_some(Slot::Null);
    }
    let of_element = Field { ty: of.element.ty(), nullable: of.nullable, ..field.field.clone() };
    let of_element = SourceField { field: of_element, path: path.to_vec() };
    let elements = value.as_array()?.iter().map(|element| {
        let fits = path.is_empty() || element.is_object();
        fits.then(|| reference(&of_element, element, arena)).flatten()
    });
    Some(Slot::List(arena.alloc_slice_copy(&elements.collect::<Option<Vec<_>>>()?)))
}

/// JSON text of a value, in many spellings. serde_json rounds long doubles loosely, so that these are
/// short; `numbers_are_read_exactly` has the others.
fn json_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_string()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        (-1000_i64..1000).prop_map(|value| value.to_string()),
        any::<u64>().prop_map(|value| value.to_string()),
        "-?(0|[1-9][0-9]{0,8})(\\.[0-9]{1,6})?([eE][+-]?[0-9])?",
        "\\PC{0,12}".prop_map(|text| json!(text).to_string()),
        any::<String>().prop_map(|text| json!(text).to_string()),
        "\"(a|\\\\u00e4|\\\\ud83d\\\\ude00|\\\\/|\\\\\\\\){0,5}\"",
        Just("\"2024-02-29T11:34:56.789Z\"".to_string()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            members(inner),
        ]
    })
}

fn members(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let key = prop_oneof![8 => "[a-flmopq]", 1 => "\\PC{0,3}"];
    prop::collection::vec((key, value, " ?", "[ \n\t\r]?"), 0..9).prop_map(|members| {
        let text = |(key, value, a, b): &(String, String, String, String)| {
            format!("{}{a}:{b}{value}{a}", json!(key))
        };
        format!("{{{}}}", members.iter().map(text).collect::<Vec<_>>().join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A document that serde_json reads is read to the same values, by one decoder over many records,
    /// and refused if and only if a field is of the wrong kind.
    #[test]
    fn documents_are_read_as_serde_json_reads_them(texts in prop::collection::vec(members(json_value()), 1..4)) {
        let schema = generated_schema();
        let mut decoder = Decoder::new(&schema);
        for text in &texts {
            let document: serde_json::Value = serde_json::from_str(text).unwrap();
            let arena = Bump::new();
            let expected: Option<Vec<Slot>> =
                schema.fields.iter().map(|field| reference(field, &document, &arena)).collect();
            prop_assert_eq!(check(&schema, text.as_bytes(), &arena).ok(), expected.clone(), "{}", text);
            let mut slots = vec![Slot::Null; schema.fields.len()];
            let read = decoder.decode(text.as_bytes(), &arena, &mut slots).is_ok();
            prop_assert_eq!(read.then_some(slots), expected, "{}", text);
        }
    }

    /// A document with a byte changed, removed or added is accepted by all or by none.
    #[test]
    fn damaged_documents_are_judged_as_serde_json_judges_them(
        text in members(json_value()),
        place in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\ 019-+.eEntfu".to_vec())],
        edit in 0..3,
    ) {
        let mut bytes = text.into_bytes();
        let place = place.index(bytes.len());
        match edit {
            0 => bytes[place] = byte,
            1 => bytes.insert(place, byte),
            _ => drop(bytes.remove(place)),
        }
        let schema = plain(&[]);
        let arena = Bump::new();
        let well_formed = std::str::from_utf8(&bytes).is_ok()
            && serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok()
            && bytes.trim_ascii_start().first() == Some(&b'{');
        prop_assert_eq!(check(&schema, &bytes, &arena).is_ok(), well_formed);
        // With fields more may be refused, but both tiers agree.
        let read = check(&generated_schema(), &bytes, &arena).is_ok();
        prop_assert!(well_formed || !read);
    }

    /// Doubles are the nearest ones to what is written.
    #[test]
    fn numbers_are_read_exactly(
        text in prop_oneof![
            any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| format!("{value:?}")),
            "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?",
            "-?[1-9][0-9]{0,3}\\.[0-9]{0,16}[1-9]",
        ],
    ) {
        let record = format!(r#"{{"d":{text}}}"#);
        let arena = Bump::new();
        let read = check(&plain(&[("d", Type::Double)]), record.as_bytes(), &arena).unwrap();
        let expected: f64 = text.parse().unwrap();
        prop_assert_eq!(&read, &[Slot::Double(expected)]);
    }

    /// What is written is read back, by serde_json as well.
    #[test]
    fn rows_are_read_back(
        text in prop::option::of(any::<String>()),
        flag in any::<bool>(),
        int in any::<i64>(),
        double in any::<f64>().prop_filter("finite", |value| value.is_finite()),
        at in -62_167_219_200_000_i64..=253_402_300_799_999,
        ms in any::<i64>(),
    ) {
        let schema = schema(&[
            ("text?", Type::String, FieldForm::Plain),
            ("flag", Type::Bool, FieldForm::Plain),
            ("int", Type::Int, FieldForm::Plain),
            ("double", Type::Double, FieldForm::Plain),
            ("at", Type::Timestamp, FieldForm::Rfc3339),
            ("ms", Type::Timestamp, FieldForm::Plain),
            ("texts", list(Type::String, true), FieldForm::Plain),
            ("times", list(Type::Timestamp, false), FieldForm::Rfc3339),
        ]);
        let (texts, times) = ([text.as_deref().map_or(Slot::Null, Slot::String); 2], [Slot::Timestamp(at)]);
        let row = [
            text.as_deref().map_or(Slot::Null, Slot::String),
            Slot::Bool(flag),
            Slot::Int(int),
            Slot::Double(double),
            Slot::Timestamp(at),
            Slot::Timestamp(ms),
            Slot::List(&texts),
            Slot::List(&times),
        ];
        let (mut out, arena) = (Vec::new(), Bump::new());
        Encoder::new(&schema.schema()).encode(&row, &mut out);
        prop_assert_eq!(check(&schema, &out, &arena).unwrap(), row);
        let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
        prop_assert!(document["double"].is_f64());
        prop_assert_eq!(document.get("text"), Some(&json!(text)));
        prop_assert_eq!(document.get("int"), Some(&json!(int)));
    }
}
