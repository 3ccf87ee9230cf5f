//! Input by seed for a generated topology: keys from a small set, each always in the same partition, times
//! that advance out of order, late records, records that cannot be read.

use super::Input;
use super::generate::formula::HEADER;
use super::generate::{Generated, Source};
use super::reference::json::{push_int, push_rfc3339};
use crate::random::Random;
use crate::record::{EACH, FieldForm, TopicPartition, Type};

/// Where time begins: 20 seconds before the year 2024 does in Berlin, on a Monday, which ends windows of all calendar
/// units.
const BEGIN_MS: i64 = 1_704_063_580_000;
/// What a large text holds at most, in bytes. Larger ones than that meet limits of keys and topics.
const LARGE_BYTES_MAX: u64 = 8_000;

/// Texts as JSON, with what they mean.
const TEXTS: [(&str, &str); 12] = [
    ("\"a\"", "a"),
    ("\"\\u0061\"", "a"),
    ("\"b\"", "b"),
    ("\"12\"", "12"),
    ("\"-7\"", "-7"),
    ("\"\"", ""),
    ("\"q\\\"uo'te\\\\\"", "q\"uo'te\\"),
    ("\"\u{e9}\u{1f3c1}\"", "\u{e9}\u{1f3c1}"),
    ("\"\\u00e9\\ud83c\\udfc1\"", "\u{e9}\u{1f3c1}"),
    ("\"Ab c\"", "Ab c"),
    ("\"x\\ny\\u0000\\/\"", "x\ny\0/"),
    ("\"9223372036854775808\"", "9223372036854775808"),
];

/// A key: for each field of `partitioned_by` (or the first text, if there is none) its value as JSON; empty
/// for null.
struct Key {
    values: Vec<(usize, String)>,
    partition: i32,
    /// The key of the record.
    record: Vec<u8>,
}

/// What is written of a record's root, in order.
enum Member {
    Field(usize),
    Object(String, Vec<usize>),
}

struct Maker<'g> {
    source: &'g Source,
    partitions: Vec<TopicPartition>,
    keys: Vec<Key>,
    members: Vec<Member>,
    now_ms: i64,
    /// The watermark of each partition.
    watermarks_ms: Vec<i64>,
}

/// `count` records for the sources of `generated`, in the order in which they are to be appended.
pub fn inputs(generated: &Generated, random: &mut Random, count: usize) -> Vec<Input> {
    let mut makers: Vec<Maker> =
        generated.sources.iter().map(|source| Maker::new(source, generated, random)).collect();
    let mut inputs = Vec::with_capacity(count);
    while inputs.len() < count && !makers.is_empty() {
        let place = random.below(makers.len() as u64) as usize;
        inputs.push(makers[place].input(random));
    }
    inputs
}

impl<'g> Maker<'g> {
    fn new(source: &'g Source, generated: &Generated, random: &mut Random) -> Maker<'g> {
        let count = generated.partitions(&source.topic);
        let partitions: Vec<_> =
            (0..count).map(|number| TopicPartition::new(&source.topic, number)).collect();
        let keys = (0..2 + random.below(5)).map(|_| Key::new(source, count, random)).collect();
        let mut members: Vec<Member> = Vec::new();
        for (slot, (_, path)) in source.fields.iter().enumerate() {
            let object = members.iter_mut().find_map(|member| match member {
                Member::Object(name, slots) if path.len() > 1 && *name == path[0] => Some(slots),
                _ => None,
            });
            match object {
                Some(slots) => slots.push(slot),
                None if path.len() > 1 && path[1] != EACH => {
                    members.push(Member::Object(path[0].clone(), vec![slot]))
                }
                None => members.push(Member::Field(slot)),
            }
        }
        let watermarks_ms = vec![i64::MIN; partitions.len()];
        let now_ms = BEGIN_MS + random.below(5_000) as i64;
        Maker { source, partitions, keys, members, now_ms, watermarks_ms }
    }

    fn input(&mut self, random: &mut Random) -> Input {
        self.now_ms += match random.below(40) {
            0 => random.below(30_000) as i64,
            _ => random.below(500) as i64,
        };
        let mut time_ms = self.now_ms;
        match random.below(30) {
            0 => time_ms -= 10_000 + random.below(60_000) as i64,
            // For a window that has just closed, or is about to.
            1..3 => time_ms -= self.source.max_out_of_orderness_ms + random.below(12) as i64 * 500,
            _ => time_ms -= random.below(self.source.max_out_of_orderness_ms as u64 * 5 / 4 + 1) as i64,
        }
        if random.one_in(3) {
            // Where windows begin and watermarks close them.
            time_ms -= time_ms.rem_euclid(500);
        }
        let key = random.below(self.keys.len() as u64) as usize;
        let key = &self.keys[key];
        let watermark_ms = &mut self.watermarks_ms[key.partition as usize];
        if self.source.calm {
            time_ms = time_ms.max(*watermark_ms);
        }
        *watermark_ms = (*watermark_ms).max(time_ms - self.source.max_out_of_orderness_ms);
        let mut value = Some(Vec::with_capacity(160));
        if let Some(out) = &mut value {
            self.object(key, time_ms, random, out);
        }
        if random.one_in(25) {
            self.poison(key, time_ms, &mut value, random);
        }
        Input {
            partition: self.partitions[key.partition as usize].clone(),
            key: match random.below(60) {
                0..3 => None,
                3 => Some(vec![b'k', 0xff]),
                _ => Some(key.record.clone()),
            },
            value,
            headers: if random.one_in(8) { headers(random) } else { Vec::new() },
            timestamp_ms: if self.source.time.is_some() { self.now_ms } else { time_ms },
        }
    }

    /// A record that can be read.
    fn object(&self, key: &Key, time_ms: i64, random: &mut Random, out: &mut Vec<u8>) {
        out.push(b'{');
        if random.one_in(20) {
            // What is ignored, and what a later value replaces.
            out.extend_from_slice(b"\"other\":[{\"k\":1},\"]\"], \"at\":\"never\" ,");
        }
        // Members come in any order.
        let first = if random.one_in(4) { random.below(self.members.len() as u64) as usize } else { 0 };
        for number in 0..self.members.len() {
            match &self.members[(first + number) % self.members.len()] {
                Member::Field(slot) => self.member(*slot, key, time_ms, random, out),
                Member::Object(name, slots) => {
                    push_name(name, out);
                    out.push(b'{');
                    slots.iter().for_each(|slot| self.member(*slot, key, time_ms, random, out));
                    close(out);
                    out.push(b',');
                }
            }
        }
        close(out);
    }

    /// A field and a comma; nothing if it is absent.
    fn member(&self, slot: usize, key: &Key, time_ms: i64, random: &mut Random, out: &mut Vec<u8>) {
        let (field, path) = &self.source.fields[slot];
        if path.iter().any(|key| key == EACH) {
            return self.array(slot, random, out);
        }
        let name = path.last().map_or(field.name.as_str(), String::as_str);
        let given = key.values.iter().find(|(of, _)| *of == slot);
        let is_null = match given {
            Some((_, value)) => value.is_empty(),
            None => field.nullable && random.one_in(6),
        };
        if is_null && random.one_in(2) {
            return;
        }
        push_name(name, out);
        match given {
            _ if is_null => out.extend_from_slice(b"null"),
            Some((_, value)) => out.extend_from_slice(value.as_bytes()),
            None => push_value(field.ty, field.form, time_ms, random, out),
        }
        out.push(b',');
    }

    /// The array that the list with this slot is read from, with its first one.
    fn array(&self, slot: usize, random: &mut Random, out: &mut Vec<u8>) {
        let array = |path: &Vec<String>| path.iter().take_while(|key| *key != EACH).cloned().collect();
        let name: Vec<String> = array(&self.source.fields[slot].1);
        let lists = self.source.fields.iter().enumerate();
        let lists = lists.filter(|(_, (_, path))| path.contains(&EACH.to_owned()) && array(path) == name);
        let lists: Vec<usize> = lists.map(|(slot, _)| slot).collect();
        if lists.first() != Some(&slot) {
            return;
        }
        let may_be_null = lists.iter().all(|list| self.source.fields[*list].0.nullable);
        if random.one_in(if may_be_null { 6 } else { 80 }) {
            if random.one_in(2) {
                push_name(name.last().map_or("", String::as_str), out);
                out.extend_from_slice(b"null,");
            }
            return;
        }
        push_name(name.last().map_or("", String::as_str), out);
        out.push(b'[');
        for place in 0..random.below(4) {
            out.extend_from_slice(if place > 0 { b", {" } else { b"{" });
            for list in &lists {
                let (field, path) = &self.source.fields[*list];
                let Type::List(of) = field.ty else { continue };
                let is_null = random.one_in(if of.nullable { 4 } else { 120 });
                if is_null && random.one_in(2) {
                    continue;
                }
                let inner = &path[name.len() + 1..];
                for (depth, key) in inner.iter().enumerate() {
                    out.extend_from_slice(if depth > 0 { b"{" } else { b"" });
                    push_name(key, out);
                }
                match is_null {
                    true => out.extend_from_slice(b"null"),
                    false => push_value(of.element.ty(), field.form, 0, random, out),
                }
                out.resize(out.len() + inner.len() - 1, b'}');
                out.push(b',');
            }
            close(out);
        }
        out.extend_from_slice(b"],");
    }

    /// Makes it a record that cannot be read, in one of many ways. (Some leave it readable.)
    fn poison(&self, key: &Key, time_ms: i64, value: &mut Option<Vec<u8>>, random: &mut Random) {
        let Some(text) = value else { return };
        match random.below(9) {
            0 => *value = None,
            1 => text.truncate(random.below(text.len() as u64) as usize),
            2 => text.extend_from_slice(b" x"),
            3 => text.insert(0, b'['),
            4 => text.insert(3, 0xff),
            5 if self.source.time.is_some() => {
                text.clear();
                self.object(key, time_ms + 2 * self.source.max_ahead_ms, random, text);
            }
            _ => {
                // A field of a wrong type, behind the right one: the last one counts.
                let slot = random.below(self.source.fields.len() as u64) as usize;
                if self.source.calm && self.source.fields[slot].0.ty == Type::Timestamp {
                    return;
                }
                let path = &self.source.fields[slot].1;
                let values =
                    ["null", "true", "7", "1.5", "\"x\"", "[1]", "{}", "9223372036854775808", "1e400"];
                text.pop();
                text.push(b',');
                push_name(&path[0], text);
                text.extend_from_slice(random.pick(&values).as_bytes());
                text.push(b'}');
            }
        }
    }
}

impl Key {
    fn new(source: &Source, partitions: i32, random: &mut Random) -> Key {
        let mut values = Vec::new();
        let mut record = Vec::new();
        let mut hash = 0_u64;
        for slot in &source.partitioned_by {
            let field = &source.fields[*slot].0;
            let (json, meaning) = match field.ty {
                _ if field.nullable && random.one_in(6) => (String::new(), "null".to_owned()),
                Type::String => {
                    let (json, meaning) = random.pick(&TEXTS);
                    ((*json).to_owned(), (*meaning).to_owned())
                }
                _ => {
                    let number = random.below(4) as i64 - 1;
                    let json = if random.one_in(4) { format!("{number}.0") } else { number.to_string() };
                    (json, number.to_string())
                }
            };
            // One value, one partition, however it is written.
            hash = meaning.bytes().fold(hash, |hash, byte| hash.wrapping_mul(31) + u64::from(byte) + 1);
            record.extend_from_slice(meaning.as_bytes());
            values.push((*slot, json));
        }
        if values.is_empty() {
            hash = random.bits();
            record.push(b'a' + random.below(3) as u8);
        }
        Key { values, partition: (hash % partitions.max(1) as u64) as i32, record }
    }
}

fn headers(random: &mut Random) -> Vec<(String, Option<Vec<u8>>)> {
    let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
    match random.below(5) {
        0 => vec![header(HEADER, Some(b"a"))],
        1 => vec![header("trace", Some(b"\x00\xff")), header(HEADER, Some("12".as_bytes()))],
        2 => vec![header(HEADER, Some(b"a")), header(HEADER, Some("\u{e9}".as_bytes()))],
        3 => vec![header(HEADER, None), header("", Some(b""))],
        _ => vec![header(HEADER, Some(b"\xff"))],
    }
}

fn push_name(name: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Ends an object, in place of the last comma.
fn close(out: &mut Vec<u8>) {
    match out.last_mut() {
        Some(last) if *last == b',' => *last = b'}',
        _ => out.push(b'}'),
    }
}

/// Appends a value of a type. No double is -0.0: whether that is less than 0.0 is nowhere said.
fn push_value(ty: Type, form: FieldForm, time_ms: i64, random: &mut Random, out: &mut Vec<u8>) {
    match ty {
        Type::List(of) => {
            out.push(b'[');
            for place in 0..random.below(4) {
                out.extend_from_slice(if place > 0 { b" ," } else { b"" });
                match random.one_in(if of.nullable { 4 } else { 120 }) {
                    true => out.extend_from_slice(b"null"),
                    false => push_value(of.element.ty(), form, time_ms, random, out),
                }
            }
            out.push(b']');
        }
        Type::Bool => out.extend_from_slice(if random.one_in(2) { b"true" } else { b"false" }),
        Type::String | Type::Bytes if random.one_in(300) => {
            out.push(b'"');
            out.resize(out.len() + random.below(LARGE_BYTES_MAX) as usize, b'z');
            out.push(b'"');
        }
        Type::String | Type::Bytes => out.extend_from_slice(random.pick(&TEXTS).0.as_bytes()),
        Type::Timestamp if form == FieldForm::Rfc3339 => push_rfc3339(time_ms, out),
        Type::Timestamp | Type::Duration => push_int(time_ms, out),
        Type::Int => match random.below(30) {
            0 => push_int(i64::MAX - random.below(3) as i64, out),
            1 => push_int(i64::MIN + random.below(3) as i64, out),
            2 => out.extend_from_slice(b"3.0"),
            3 => push_int(4_611_686_018_427_387_904, out),
            _ => push_int(random.below(12) as i64 - 3, out),
        },
        Type::Double => match random.below(30) {
            0 => out.extend_from_slice(b"1.7e308"),
            1 => out.extend_from_slice(b"9007199254740993"),
            2 => out.extend_from_slice(b"-1.5E-7"),
            3..12 => push_int(random.below(100) as i64, out),
            _ => {
                push_int(random.below(200) as i64 - 100, out);
                out.push(b'.');
                push_int(random.below(1_000) as i64 + 1, out);
            }
        },
    }
}
