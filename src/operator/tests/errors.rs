//! Filters, maps, sinks, sources, and what becomes of records that they fail on.

use super::*;

fn plain(readers: Vec<Reader>) -> Box<dyn Pipeline> {
    source(0, readers)
}

fn passed(predicate: &str, inputs: Vec<Input>) -> Vec<String> {
    let schema = orders();
    let reader = filter(&schema, predicate, rejected("large"), vec![sink(&schema, "out")]);
    written(&run(plain(vec![reader]), inputs).unwrap(), "out")
}

#[test]
fn a_filter_passes_what_is_true_and_drops_null() {
    let inputs = vec![order("a", "3", 1), order("b", "1", 2), order("c", "null", 3)];
    assert_eq!(passed("amount > 2", inputs), [r#"{"customer":"a","amount":3,"price":null,"at":1}"#]);
}

#[test]
fn a_map_replaces_a_field_and_keeps_the_time() {
    let schema = orders();
    let reader = map_amount(&schema, "amount * 2", vec![sink(&schema, "out")]);
    let staged = run(plain(vec![reader]), vec![order("a", "3", 7)]).unwrap();
    assert_eq!(written(&staged, "out"), [r#"{"customer":"a","amount":6,"price":null,"at":7}"#]);
    assert_eq!(staged.outputs[0].timestamp_ms, 7);
    assert_eq!(staged.outputs[0].key.as_deref(), Some(&b"a"[..]));
    assert_eq!(staged.counters.records_out, [("out".into(), 1)].into());
}

#[test]
fn a_dead_letter_is_the_source_record_and_says_why() {
    let schema = orders();
    let reader = map_amount(&schema, "10 / amount", vec![sink(&schema, "out")]);
    let failing = Input {
        offset: 42,
        timestamp_ms: 6,
        headers: vec![("trace".into(), Some(b"t1".to_vec())), ("empty".into(), None)],
        ..order("a", "0", 7)
    };
    let staged = run(plain(vec![reader, sink(&schema, "other")]), vec![failing.clone()]).unwrap();
    assert_eq!(written(&staged, "other").len(), 1, "other branches go on");
    let [letter] =
        &staged.outputs.iter().filter(|record| &*record.topic == "rejected").collect::<Vec<_>>()[..]
    else {
        panic!("one dead letter: {:?}", staged.outputs)
    };
    assert_eq!((&letter.key, &letter.value), (&failing.key, &failing.value), "byte for byte");
    assert_eq!(letter.timestamp_ms, 6);
    assert_eq!(letter.headers[..2], failing.headers[..]);
    let names: Vec<&str> = letter.headers[2..].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "thalweg.topic",
            "thalweg.partition",
            "thalweg.offset",
            "thalweg.timestamp",
            "thalweg.error",
            "thalweg.operator"
        ]
    );
    let of = |name| header(letter, name).unwrap();
    assert_eq!(
        [of("thalweg.topic"), of("thalweg.partition"), of("thalweg.offset"), of("thalweg.timestamp")],
        ["orders", "1", "42", "6"]
    );
    assert_eq!(of("thalweg.operator"), "doubled");
    assert!(of("thalweg.error").contains("zero"), "{}", of("thalweg.error"));
    assert_eq!(staged.counters.failed, [("doubled".into(), 1)].into());
    assert_eq!(staged.counters.dead_letters, [("rejected".into(), 1)].into());
}

#[test]
fn a_dead_letter_without_a_key_keeps_its_partition_number() {
    let keyless = Input { key: None, value: Some(b"no JSON".to_vec()), ..Input::default() };
    let staged = run(plain(vec![]), vec![keyless]).unwrap();
    assert_eq!(staged.outputs[0].partition, 1);
}

#[test]
fn a_row_that_no_record_stands_for_is_its_json_in_the_dead_letter() {
    let schema = orders();
    let window = Windowed::new("w");
    let rows = window.schema(&schema);
    let failing = filter(&rows, "10 / (rows - rows) > 0", rejected("after"), vec![]);
    let staged =
        run(plain(vec![window.reads(&schema, vec![failing])]), vec![order("a", "1", 5), order("a", "1", 10)]);
    let staged = staged.unwrap();
    assert_eq!(
        written(&staged, "rejected"),
        [r#"{"customer":"a","window_start":0,"window_end":10,"rows":1}"#]
    );
    assert_eq!(header(&staged.outputs[0], "thalweg.operator").as_deref(), Some("after"));
    assert_eq!(header(&staged.outputs[0], "thalweg.offset"), None);
}

#[test]
fn fail_stops_and_skip_counts() {
    let schema = orders();
    let run_with = |errors| {
        let reader = filter(&schema, "1 / amount > 0", errors, vec![sink(&schema, "out")]);
        run(plain(vec![reader]), vec![order("a", "0", 1), order("a", "1", 2)])
    };
    let staged = run_with(ErrorPolicy::skip("large")).unwrap();
    assert_eq!((written(&staged, "out").len(), staged.outputs.len()), (1, 1));
    assert_eq!(staged.counters.failed, [("large".into(), 1)].into());
    let error = run_with(ErrorPolicy::fail("large")).unwrap_err().to_string();
    for part in ["large", "orders[1] at offset 0", "zero", "on_error"] {
        assert!(error.contains(part), "{part} in: {error}");
    }
}

#[test]
fn a_record_too_large_for_its_topic_goes_where_the_sink_says() {
    let schema = orders();
    let small = || Arc::new(OutputTarget { topic: "out".into(), partitions: 3, record_bytes_max: 60 });
    let inputs = || vec![order(&"x".repeat(40), "1", 1), order("b", "1", 2)];
    let run_with = |errors| run(plain(vec![sink_to(&schema, small(), errors)]), inputs());
    let staged = run_with(rejected("written")).unwrap();
    assert_eq!((written(&staged, "out").len(), written(&staged, "rejected").len()), (1, 1));
    assert_eq!(staged.outputs[0].value, inputs()[0].value);
    assert!(header(&staged.outputs[0], "thalweg.error").unwrap().contains("larger than the 60 bytes"));
    assert!(matches!(run_with(ErrorPolicy::fail("written")), Err(OperatorError::Fail(_))));
    let too_small = Arc::new(OutputTarget { topic: "rejected".into(), partitions: 1, record_bytes_max: 60 });
    let error = run_with(ErrorPolicy::dead_letter("written", too_small)).unwrap_err().to_string();
    assert!(error.contains("raise max.message.bytes"), "{error}");
}

/// The watermark after each input, and the errors of those that failed.
fn dated(max_out_of_orderness_ms: i64, inputs: Vec<Input>) -> (Vec<Option<i64>>, Vec<String>) {
    let mut pipeline = source(max_out_of_orderness_ms, vec![]);
    let mut staged = Staged::new(usize::MAX, usize::MAX);
    let batch = Batch::new(inputs);
    let marks = (0..batch.len()).map(|index| {
        assert_eq!(pipeline.process(batch.record(index), &Bump::new(), &mut staged).unwrap(), Progress::Done);
        pipeline.watermark_ms()
    });
    let marks = marks.collect();
    (marks, staged.outputs.iter().map(|letter| header(letter, "thalweg.error").unwrap()).collect())
}

#[test]
fn the_watermark_follows_the_greatest_event_time() {
    let inputs = [10, 5, 12, 12, 11, 30].map(|at| order("a", "1", at)).to_vec();
    let (marks, errors) = dated(4, inputs);
    assert_eq!(marks, [6, 6, 8, 8, 8, 26].map(Some));
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn only_punctuations_advance_a_punctuated_watermark() {
    let schema = source_schema();
    let rows = schema.schema();
    let condition =
        Expression::compile("customer == \"tick\"", &Scope { schema: &rows, meta: true }).unwrap();
    let condition = Arc::new(condition);
    let timing = Timing { max_out_of_orderness_ms: 2, punctuated: true, max_ahead_ms: 1_000 };
    let punctuated = || {
        let rows = JsonRows::new(&schema, EventTime::Field(3), Some(condition.clone()));
        Source::<Dynamic, _>::new(rows, timing, rejected("in"), Readers::new(vec![]))
    };
    let mut source = punctuated();
    let batch = Batch::new(vec![
        order("a", "1", 30),
        order("tick", "1", 12),
        order("b", "1", 40),
        order("tick", "1", 11),
        order("tick", "1", 20),
    ]);
    let mut staged = Staged::new(usize::MAX, usize::MAX);
    let marks = (0..5).map(|index| {
        let progress = source.process(batch.record(index), &Bump::new(), &mut staged).unwrap();
        assert_eq!(progress, Progress::Done);
        source.watermark_ms()
    });
    assert_eq!(marks.collect::<Vec<_>>(), [None, Some(10), Some(10), Some(10), Some(18)]);
    assert_eq!(source.time().max_event_time_ms, Some(40));
    let mut restored = punctuated();
    restored.restore_time(source.time());
    assert_eq!(restored.watermark_ms(), Some(18), "the greatest event time says nothing");
}

/// Where a source is that has seen 10, with this watermark.
fn time(watermark_ms: i64) -> StageTime {
    StageTime { max_event_time_ms: Some(10), watermark_ms: Some(watermark_ms), upstreams: Vec::new() }
}

#[test]
fn a_restored_watermark_never_falls() {
    let mut pipeline = source(4, vec![]);
    pipeline.restore_time(time(9));
    assert_eq!(pipeline.time(), time(9));
    let mut staged = Staged::new(usize::MAX, usize::MAX);
    let batch = Batch::new(vec![order("a", "1", 12), order("a", "1", 14)]);
    let mut process = |index| {
        assert_eq!(pipeline.process(batch.record(index), &Bump::new(), &mut staged).unwrap(), Progress::Done);
        pipeline.watermark_ms()
    };
    assert_eq!([process(0), process(1)], [Some(9), Some(10)]);
    let mut pipeline = source(4, vec![]);
    pipeline.restore_time(time(2));
    assert_eq!(pipeline.watermark_ms(), Some(6));
}

#[test]
fn what_has_no_usable_event_time_does_not_move_the_watermark() {
    let at = |at_ms, timestamp_ms| Input { timestamp_ms, ..order("a", "1", at_ms) };
    let tombstone = Input { value: None, ..order("a", "1", 1) };
    let malformed = Input { value: Some(b"{".to_vec()), ..order("a", "1", 1) };
    let inputs = vec![
        at(1_000, 0),
        at(1_001, 0),
        tombstone,
        malformed,
        at(253_402_300_800_000, -1),
        at(-62_167_219_200_001, 5),
        at(-62_167_219_200_000, i64::MAX),
        at(253_402_300_799_999, -1),
    ];
    let (marks, errors) = dated(0, inputs);
    let mut expected = [Some(1_000); 8];
    expected[7] = Some(253_402_300_799_999);
    assert_eq!(marks, expected);
    let parts = ["max_ahead", "tombstone", "invalid JSON", "years 0 to 9999", "years 0 to 9999"];
    assert_eq!(errors.len(), parts.len(), "{errors:?}");
    for (error, part) in errors.iter().zip(parts) {
        assert!(error.contains(part), "{part} in: {error}");
    }
}

#[test]
fn the_records_timestamp_dates_what_has_no_field_for_it() {
    let rows = || JsonRows::new(&source_schema(), EventTime::Record, None);
    let dated = |timestamp_ms| {
        let batch = Batch::new(vec![Input { timestamp_ms, ..order("a", "1", 7) }]);
        let arena = Bump::new();
        rows().decode(&batch.record(0), &arena).map(|decoded| decoded.time_ms)
    };
    assert_eq!(dated(99), Ok(99));
    assert!(dated(-1).unwrap_err().contains("no Kafka timestamp"));
}

/// Also where what is behind a union is made for each of its inputs.
#[test]
fn a_record_has_one_dead_letter_of_an_operator() {
    let behind = |rows: &Schema| {
        let sinks = || vec![sink(rows, "out")];
        vec![
            filter(rows, "12 / e0 > 1", rejected("large"), sinks()),
            filter(rows, "12 / e0 > 8", rejected("large"), sinks()),
            filter(rows, "12 / e0 > 9", rejected("largest"), sinks()),
        ]
    };
    let reader = flat_map::each_of(&orders(), &["[0, amount, 0]"], false, false, behind);
    let inputs = || vec![order("a", "2", 1), order("b", "0", 2)];
    let staged = run(plain(vec![reader]), inputs()).unwrap();
    assert_eq!(written(&staged, "out"), [r#"{"customer":"a","at":1,"e0":2}"#], "the other rows go on");
    let letters = staged.outputs.iter().filter(|record| &*record.topic == "rejected");
    let seen: Vec<_> =
        letters.map(|letter| (letter.value.clone(), header(letter, "thalweg.operator").unwrap())).collect();
    let [a, b] = [0, 1].map(|input| inputs()[input].value.clone());
    let of = |value: &Option<Vec<u8>>, operator: &str| (value.clone(), operator.to_owned());
    assert_eq!(seen, [of(&a, "large"), of(&a, "largest"), of(&b, "large"), of(&b, "largest")]);
    assert_eq!(staged.counters.failed, [("large".into(), 10), ("largest".into(), 5)].into());
    assert_eq!(staged.counters.dead_letters, [("rejected".into(), 4)].into());
}
