//! Blocks of rows.

mod carried;

use proptest::prelude::*;

use super::*;
use crate::record::{Field, FieldForm};

fn field(name: &str, ty: Type, nullable: bool) -> Field {
    Field { name: name.to_owned(), ty, nullable, form: FieldForm::Plain }
}

fn schema() -> Schema {
    Schema {
        fields: vec![
            field("s", Type::String, false),
            field("b", Type::Bool, false),
            field("i", Type::Int, true),
            field("d", Type::Double, false),
            field("t", Type::Timestamp, false),
            field("u", Type::Duration, false),
            field("y", Type::Bytes, true),
        ],
    }
}

fn list(element: Type, nullable: bool) -> Type {
    element.list(nullable).unwrap()
}

fn block(rows: &[(i64, Vec<Slot<'_>>)]) -> Vec<u8> {
    let encoder = RowEncoder::new(&schema());
    let mut block = BlockRows::default();
    for (time_ms, row) in rows {
        block.push(*time_ms, None, |out| encoder.put(row, *time_ms, out));
    }
    let layout = encoder.layout().to_vec();
    let bytes = block.take(BlockHeader { stream: "s".into(), partition: 3, layout, ..Default::default() });
    assert!(block.is_empty() && block.bytes() == 0);
    bytes
}

fn rows<'b>(bytes: &'b [u8], schema: &Schema, arena: &'b Bump) -> Result<Vec<(i64, Row<'b>)>, DecodeError> {
    let mut decoder = RowDecoder::new(schema);
    let mut block = Block::read(bytes)?;
    decoder.expect(&block.header.layout)?;
    let mut rows = Vec::new();
    while let Some(BlockRow { time_ms, bytes: rest, .. }) = block.next_row(&[])? {
        rows.push((time_ms, decoder.get(time_ms, rest, arena)?));
    }
    Ok(rows)
}

fn row(text: &str, number: i64) -> Vec<Slot<'_>> {
    let int = if number % 3 == 0 { Slot::Null } else { Slot::Int(number) };
    vec![
        Slot::String(text),
        Slot::Bool(number % 2 == 0),
        int,
        Slot::Double(number as f64 / 3.0),
        Slot::Timestamp(number),
        Slot::Duration(number.wrapping_mul(7)),
        if text.is_empty() { Slot::Null } else { Slot::Bytes(text.as_bytes()) },
    ]
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were(given in prop::collection::vec((".{0,9}", any::<i64>(), any::<i64>()), 0..20)) {
        let given: Vec<_> = given.iter().map(|(text, number, time)| (*time, row(text, *number))).collect();
        let (bytes, arena) = (block(&given), Bump::new());
        let read = rows(&bytes, &schema(), &arena).unwrap();
        prop_assert_eq!(read.len(), given.len());
        for ((time, row), (read_time, read_row)) in given.iter().zip(read) {
            prop_assert_eq!(*time, read_time);
            prop_assert_eq!(&row[..], read_row);
        }
    }

    #[test]
    fn damaged_bytes_are_an_error_or_other_rows(at in 0..200_usize, with in any::<u8>(), cut in 0..200_usize) {
        let mut bytes = block(&[(5, row("abc", 1)), (9, row("", 3)), (2, row("xyz", i64::MIN))]);
        let place = at % bytes.len();
        bytes[place] = with;
        bytes.truncate(bytes.len() - cut % bytes.len());
        let _ = rows(&bytes, &schema(), &Bump::new());
    }
}

/// Rows of a list that may be null, of one with nulls in it, and of one of instants.
fn lists() -> (Schema, Vec<u8>) {
    let schema = Schema {
        fields: vec![
            field("n", list(Type::Int, false), true),
            field("s", list(Type::String, true), false),
            field("t", list(Type::Timestamp, false), false),
        ],
    };
    let encoder = RowEncoder::new(&schema);
    let mut block = BlockRows::default();
    let (texts, times) = ([Slot::String("a"), Slot::Null], [Slot::Timestamp(7), Slot::Timestamp(-1)]);
    for numbers in [Slot::Null, Slot::List(&[]), Slot::List(&[Slot::Int(-3), Slot::Int(9)])] {
        let row = [numbers, Slot::List(&texts), Slot::List(&times)];
        block.push(5, None, |out| encoder.put(&row, 5, out));
    }
    let layout = encoder.layout().to_vec();
    (schema, block.take(BlockHeader { layout, ..Default::default() }))
}

#[test]
fn lists_come_back_as_they_were() {
    let ((schema, bytes), arena) = (lists(), Bump::new());
    let read = rows(&bytes, &schema, &arena).unwrap();
    let numbers: Vec<Slot<'_>> = read.iter().map(|(_, row)| row[0]).collect();
    assert_eq!(numbers, [Slot::Null, Slot::List(&[]), Slot::List(&[Slot::Int(-3), Slot::Int(9)])]);
    assert_eq!(read[2].1[1], Slot::List(&[Slot::String("a"), Slot::Null]));
    assert_eq!(read[1].1[2], Slot::List(&[Slot::Timestamp(7), Slot::Timestamp(-1)]));
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    insta::assert_snapshot!(text);
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] = 0xff;
        let _ = rows(&damaged, &schema, &Bump::new());
    }
    let of = |ty| Schema { fields: vec![field("n", ty, true)] };
    let wider = rows(&bytes, &of(list(Type::Int, true)), &arena).unwrap();
    assert_eq!(wider[2].1, [Slot::List(&[Slot::Int(-3), Slot::Int(9)])]);
    let other = rows(&bytes, &of(list(Type::Double, false)), &arena).unwrap_err();
    assert_eq!(other.message, "the rows' field `n` is of type [int]?, not [double]?");
}

/// What was written once must be read for ever.
#[test]
fn the_bytes_never_change() {
    let bytes = block(&[(1_000, row("ab", 1)), (900, row("", 3))]);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn rows_of_another_layout_are_read_if_they_can_be() {
    let bytes = block(&[(1_000, row("ab", 1))]);
    let arena = Bump::new();
    let changed = Schema {
        fields: vec![
            field("new", Type::Int, true),
            field("i", Type::Int, true),
            field("s", Type::String, true),
        ],
    };
    let read = rows(&bytes, &changed, &arena).unwrap();
    assert_eq!(read, [(1_000, &[Slot::Null, Slot::Int(1), Slot::String("ab")][..])]);

    let refused = |fields: Vec<Field>| rows(&bytes, &Schema { fields }, &Bump::new()).unwrap_err().message;
    assert_eq!(refused(vec![field("new", Type::Int, false)]), "the rows have no field `new`");
    assert_eq!(refused(vec![field("i", Type::Int, false)]), "the rows' field `i` is of type int?, not int");
    assert_eq!(refused(vec![field("s", Type::Int, false)]), "the rows' field `s` is of type string, not int");
}

#[test]
fn what_the_engine_put_into_rows_is_not_left_out() {
    let sent = Schema { fields: vec![field("i", Type::Int, true), field("<sums>", Type::Bytes, false)] };
    let layout = RowEncoder::new(&sent).layout().clone();
    let expect =
        |fields: Vec<Field>| RowDecoder::new(&Schema { fields }).expect(&layout).map_err(|e| e.message);
    assert_eq!(expect(sent.fields.clone()), Ok(()));
    let without = expect(vec![field("i", Type::Int, true)]);
    assert_eq!(without, Err("the rows have a field `<sums>`".to_owned()));
}

#[test]
fn a_block_of_a_later_version_is_refused() {
    let later = BlockHeader { version: BLOCK_VERSION + 1, ..Default::default() };
    let refused = Block::read(&later.encode_length_delimited_to_vec()).err().map(|error| error.message);
    assert_eq!(
        refused.as_deref(),
        Some("the block has version 3, this program reads up to 2: a newer one wrote it")
    );
}

#[test]
fn bytes_behind_the_last_row_are_an_error() {
    let mut bytes = block(&[(5, row("abc", 1))]);
    bytes.push(0);
    let refused = rows(&bytes, &schema(), &Bump::new()).unwrap_err();
    assert_eq!(refused.message, "1 bytes follow the block's last row");
}
