use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::super::header::{OperatorState, SourcePosition, Sweep, THIS_CHECKPOINT};
use super::super::key::{window_key, window_prefix};
use super::*;

type Ranges = Vec<(Vec<u8>, Vec<u8>)>;
type Points = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// All that a record's body says.
fn content(record: &Record) -> (Ranges, Points) {
    let ranges = record.ranges().map(|(from, to)| (from.to_vec(), to.to_vec())).collect();
    let mut points = Vec::new();
    let mut iterator = record.points();
    while let Some((key, value)) = iterator.next() {
        points.push((key.to_vec(), value.map(<[u8]>::to_vec)));
    }
    let bytes = points
        .iter()
        .map(|(key, value): &(Vec<u8>, Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len));
    assert_eq!(record.size(), Size { points: points.len(), bytes: bytes.sum() });
    (ranges, points)
}

fn header() -> Header {
    Header {
        checkpoint: 7,
        sources: vec![SourcePosition {
            topic: "orders".into(),
            partition: 3,
            next_offset: 1_000_000,
            max_event_time_ms: Some(-5),
            end_offset: None,
            upstreams: vec![],
            key: String::new(),
        }],
        watermark_ms: Some(1_700_000_000_000),
        operators: vec![OperatorState {
            id: "per_minute".into(),
            fingerprint: "tumbling 60000".into(),
            firing_cursor: vec![1, 2],
            fired_end_ms: None,
            fired_on_time: false,
            fired_watermark_ms: None,
        }],
        sweep: Some(Sweep { cursor: b"\x01c".to_vec(), first_offset: THIS_CHECKPOINT }),
        restore_point: 40,
        ..Header::default()
    }
}

fn entries() -> impl Strategy<Value = Points> {
    let key = vec(prop_oneof![Just(7u8), any::<u8>()], 1..30);
    let value = option::weighted(0.8, vec(any::<u8>(), 0..60));
    btree_map(key, value, 0..80).prop_map(|entries| entries.into_iter().collect())
}

fn ranges() -> impl Strategy<Value = Ranges> {
    let bound = || vec(any::<u8>(), 1..6);
    vec((bound(), bound()), 0..5)
        .prop_map(|ranges| ranges.into_iter().filter(|(from, to)| from < to).collect())
}

proptest! {
    #[test]
    fn a_delta_comes_back(ranges in ranges(), points in entries(), part_bytes_max in 0usize..500) {
        let mut writer = DeltaWriter::new(part_bytes_max);
        // Twice, since a writer is reused.
        for checkpoint in [7, 8] {
            ranges.iter().for_each(|(from, to)| writer.delete_range(from, to));
            for (key, value) in &points {
                match value {
                    Some(value) => writer.put(key, value),
                    None => writer.delete(key),
                }
            }
            let records = writer.finish(&Header { checkpoint, ..header() });
            let parts = records.len() as u32;
            let mut found = (Vec::new(), Vec::new());
            for (part, bytes) in records.iter().enumerate() {
                let record = read_record(bytes).unwrap();
                let rest = if part == 0 { header() } else { Header::default() };
                let (format_version, part) = (FORMAT_VERSION, part as u32);
                let expected = Header { format_version, checkpoint, part, parts, ..rest };
                prop_assert_eq!(&record.header, &RecordHeader::Delta(expected));
                prop_assert_eq!(&read_header(bytes).unwrap(), &record.header);
                let (ranges, points) = content(&record);
                prop_assert!(part == 0 || (ranges.is_empty() && !points.is_empty()));
                if points.len() > 1 && ranges.is_empty() {
                    prop_assert!(record.body.len() <= part_bytes_max, "a part beyond its limit");
                }
                found.0.extend(ranges);
                found.1.extend(points);
            }
            prop_assert_eq!(found, (ranges.clone(), points.clone()));
        }
    }

    #[test]
    fn a_chunk_comes_back(points in entries(), part_bytes_max in 0usize..500) {
        let mut writer = ChunkWriter::new(part_bytes_max);
        let points: Points = points.into_iter().filter(|(_, value)| value.is_some()).collect();
        for (key, value) in &points {
            writer.put(key, value.as_deref().unwrap_or_default());
        }
        let (from, to) = (vec![0], vec![0xff; 31]);
        let records = writer.finish(3, &from, &to);
        let parts = records.len() as u32;
        let mut found = Vec::new();
        for (part, bytes) in (0..).zip(&records) {
            let record = read_record(bytes).unwrap();
            let (format_version, from, to) = (FORMAT_VERSION, from.clone(), to.clone());
            let expected = ChunkHeader { format_version, checkpoint: 3, part, parts, from, to };
            prop_assert_eq!(&record.header, &RecordHeader::Chunk(expected));
            found.extend(content(&record).1);
        }
        prop_assert_eq!(found, points);
    }

    #[test]
    fn damage_is_an_error_or_other_content_but_never_a_panic(
        points in entries(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let mut writer = DeltaWriter::new(1 << 20);
        writer.delete_range(b"a", b"b");
        points.iter().for_each(|(key, value)| writer.put(key, value.as_deref().unwrap_or_default()));
        let mut record = writer.finish(&header()).remove(0);
        for (index, byte) in damage {
            let index = index.index(record.len());
            record[index] = byte;
        }
        if let Some(cut) = cut {
            record.truncate(cut.index(record.len()));
        }
        if let Ok(record) = read_record(&record) {
            let _ = content(&record);
        }
    }

    #[test]
    fn numbers_come_back(value in any::<usize>()) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        let mut rest = &bytes[..];
        prop_assert_eq!(take_varint(&mut rest), Ok(value));
        prop_assert!(rest.is_empty());
        prop_assert!(take_varint(&mut &bytes[..bytes.len() - 1]).is_err());
    }
}

/// The delta and the chunk of the fixtures.
fn samples() -> [(&'static str, Vec<u8>); 2] {
    let prefix = window_prefix("per_minute");
    let mut delta = DeltaWriter::new(1 << 20);
    delta.delete_range(&window_key(&prefix, 60_000, b""), &window_key(&prefix, 120_000, b""));
    delta.put(&window_key(&prefix, 120_000, b"anna"), b"\x08\x01");
    delta.delete(&window_key(&prefix, 120_000, b"bert"));
    delta.put(&window_key(&prefix, 120_000, b"berta"), b"");
    let mut chunk = ChunkWriter::new(1 << 20);
    for user in [b"anna", b"nora", b"otto"] {
        chunk.put(&window_key(&prefix, 120_000, user), b"accumulator");
    }
    [("delta", delta.finish(&header()).remove(0)), ("chunk", chunk.finish(7, &prefix, b"\x02").remove(0))]
}

#[test]
fn the_bytes_in_the_log_are_known() {
    let lines = samples().map(|(name, record)| {
        let hex: Vec<String> = record
            .chunks(16)
            .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
            .collect();
        format!("{name}:\n{}\n", hex.join("\n"))
    });
    insta::assert_snapshot!(lines.concat());
}

/// Records that each version wrote. They stay; what cannot read them any more breaks every changelog.
#[test]
fn what_earlier_versions_wrote_is_read() {
    let fixtures: [(u32, [&[u8]; 2]); 2] = [
        (1, [include_bytes!("../fixtures/delta_v1.bin"), include_bytes!("../fixtures/chunk_v1.bin")]),
        (2, [include_bytes!("../fixtures/delta_v2.bin"), include_bytes!("../fixtures/chunk_v2.bin")]),
    ];
    assert_eq!(fixtures.last().unwrap().0, FORMAT_VERSION, "the latest version has its fixtures");
    for (version, fixtures) in fixtures {
        for ((name, sample), fixture) in samples().iter().zip(fixtures) {
            let (mut record, sample) = (read_record(fixture).unwrap(), read_record(sample).unwrap());
            assert_eq!(record.header.format_version(), version);
            assert_eq!(content(&record), content(&sample), "{name} of version {version}");
            match &mut record.header {
                RecordHeader::Delta(header) => header.format_version = FORMAT_VERSION,
                RecordHeader::Chunk(header) => header.format_version = FORMAT_VERSION,
            }
            assert_eq!(record.header, sample.header, "{name} of version {version}");
        }
    }
}

#[test]
fn foreign_and_later_records_are_refused_by_name() {
    let [(_, delta), _] = samples();
    assert_eq!(read_header(b"").unwrap_err(), CodecError::Unknown(vec![]));
    assert_eq!(read_header(b"{\"a\":1}").unwrap_err(), CodecError::Unknown(b"{\"".to_vec()));
    let mut other_kind = delta.clone();
    other_kind[1] = 9;
    assert_eq!(read_header(&other_kind).unwrap_err(), CodecError::Unknown(vec![MAGIC, 9]));

    let mut message = Vec::new();
    let format_version = FORMAT_VERSION + 1;
    encode_message(&Header { format_version, checkpoint: 1, parts: 1, ..Header::default() }, &mut message);
    let later = write_record(RecordKind::Delta, &message, &[]);
    assert_eq!(read_header(&later).unwrap_err(), CodecError::Newer { found: format_version });
}

#[test]
fn a_body_of_another_length_or_version_is_refused() {
    for (format_version, other) in [(1, 2), (2, 1)] {
        let (mut header, mut other_header) = (Vec::new(), Vec::new());
        let delta = |format_version| Header { format_version, checkpoint: 1, parts: 1, ..Header::default() };
        encode_message(&delta(format_version), &mut header);
        encode_message(&delta(other), &mut other_header);
        let body = [0, 0, 1, b'a', 2, b'v'];
        let frame = match format_version {
            // An lz4 block of literals alone.
            1 => [&[(body.len() as u8) << 4], &body[..]].concat(),
            _ => Zstd::new().compress(&body).to_vec(),
        };
        let read = |header: &[u8], body_bytes: usize| {
            let mut record = vec![MAGIC, RecordKind::Delta as u8];
            put_bytes(&mut record, header);
            put_varint(&mut record, body_bytes);
            record.extend_from_slice(&frame);
            read_record(&record)
        };
        assert_eq!(content(&read(&header, body.len()).unwrap()).1.len(), 1);
        for damaged in [
            read(&other_header, body.len()),
            read(&header, body.len() - 1),
            read(&header, body.len() + 1),
            // Refused before there is memory for it.
            read(&header, u32::MAX as usize),
            read(&header, usize::MAX),
        ] {
            assert!(matches!(damaged, Err(CodecError::Damaged(_))), "version {format_version}: {damaged:?}");
        }
    }
}

#[test]
fn points_that_are_not_as_they_must_be_are_refused_when_the_record_is_read() {
    let mut header = Vec::new();
    encode_message(
        &Header { format_version: FORMAT_VERSION, checkpoint: 1, parts: 1, ..Header::default() },
        &mut header,
    );
    let delta = header.clone();
    let read = |body: &[u8]| read_record(&write_record(RecordKind::Delta, &delta, body));
    let points = [0, 0, 1, b'a', 2, b'v', 1, 1, b'b', 0];
    assert_eq!(content(&read(&points).unwrap()).1.len(), 2);
    let cut: [&[u8]; 4] = [&points[..9], &points[..5], &[0, 1, 1, b'a', 0], &[0, 0, 1, b'a', 3, b'v']];
    let descending: [&[u8]; 2] = [&[0, 0, 1, b'b', 0, 0, 1, b'a', 0], &[0, 0, 1, b'a', 0, 1, 0, 0]];
    for body in cut.into_iter().chain(descending) {
        assert!(matches!(read(body), Err(CodecError::Damaged(_))), "{body:?}");
    }
    encode_message(
        &ChunkHeader { format_version: FORMAT_VERSION, checkpoint: 1, parts: 1, ..ChunkHeader::default() },
        &mut header,
    );
    let chunk = write_record(RecordKind::Chunk, &header, &[0, 0, 1, b'a', 0]);
    assert!(matches!(read_record(&chunk), Err(CodecError::Damaged("a chunk deletes a key"))));
}

#[test]
fn a_delta_without_changes_is_a_header() {
    let records = DeltaWriter::new(100).finish(&header());
    assert_eq!(records.len(), 1);
    assert_eq!(content(&read_record(&records[0]).unwrap()), (vec![], vec![]));
}

#[test]
fn a_header_names_the_offset_of_its_own_checkpoint_once_that_is_known() {
    let mut header = Header { restore_point: THIS_CHECKPOINT, ..header() };
    header.resolve(90);
    assert_eq!((header.restore_point, header.sweep.as_ref().unwrap().first_offset), (90, 90));
    header.resolve(95);
    assert_eq!((header.restore_point, header.sweep.as_ref().unwrap().first_offset), (90, 90));
}
