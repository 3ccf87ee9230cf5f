//! The functions of the language: their names, their types, what they do.

use bumpalo::collections::Vec as ArenaVec;
use jiff::civil::DateTime;

use super::compile::{Evaluated, Truth, failure, null_or_fail, show};
use super::{ELEMENT_BYTES, Environment};
use crate::record::{Element, ListType, Slot, Type};
use crate::time;

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `name(x)`
    Global,
    /// `x.name(y)`
    Receiver,
    /// Either way.
    Both,
}

/// What a function does; null for a null argument.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// The value itself.
    Identity,
    /// Of one argument.
    Unary(for<'x, 'b> fn(Slot<'x>, &Environment<'_, 'b>) -> Evaluated<'b>),
    /// Of two arguments, a test.
    Test(for<'x> fn(Slot<'x>, Slot<'x>) -> Truth),
    /// Of two arguments.
    Binary(for<'x, 'b> fn(Slot<'x>, Slot<'x>, &Environment<'_, 'b>) -> Evaluated<'b>),
    /// `matches`, whose pattern is compiled with the expression.
    Matches,
}

/// A function for certain types of arguments; the receiver is the first of them.
pub(super) struct Function {
    pub name: &'static str,
    pub style: Style,
    pub parameters: &'static [Type],
    pub result: Type,
    pub body: Body,
}

const fn function(
    name: &'static str,
    style: Style,
    parameters: &'static [Type],
    result: Type,
    body: Body,
) -> Function {
    Function { name, style, parameters, result, body }
}

/// A list of texts.
const TEXTS: Type = Type::List(ListType { element: Element::String, nullable: false });

impl Function {
    /// Whether it takes arguments of these types. Whether elements of a list may be null does not matter.
    pub fn takes<'a>(&self, arguments: impl ExactSizeIterator<Item = &'a Type>) -> bool {
        arguments.len() == self.parameters.len()
            && self.parameters.iter().zip(arguments).all(|(parameter, ty)| parameter.common(*ty).is_some())
    }
}

/// All functions.
pub(super) static FUNCTIONS: &[Function] = {
    use Body::{Binary, Identity, Matches, Test, Unary};
    use Style::{Both, Global, Receiver};
    use Type::{Bool, Bytes, Double, Duration, Int, String, Timestamp};
    &[
        function("int", Global, &[Int], Int, Identity),
        function("int", Global, &[Double], Int, Unary(int)),
        function("int", Global, &[String], Int, Unary(int)),
        function("int", Global, &[Timestamp], Int, Unary(int)),
        function("int", Global, &[Duration], Int, Unary(int)),
        function("double", Global, &[Double], Double, Identity),
        function("double", Global, &[Int], Double, Unary(double)),
        function("double", Global, &[String], Double, Unary(double)),
        function("string", Global, &[String], String, Identity),
        function("string", Global, &[Bool], String, Unary(string)),
        function("string", Global, &[Int], String, Unary(string)),
        function("string", Global, &[Double], String, Unary(string)),
        function("string", Global, &[Timestamp], String, Unary(string)),
        function("string", Global, &[Duration], String, Unary(string)),
        function("string", Global, &[Bytes], String, Unary(string)),
        function("bool", Global, &[Bool], Bool, Identity),
        function("bool", Global, &[String], Bool, Unary(bool)),
        function("bytes", Global, &[Bytes], Bytes, Identity),
        function("bytes", Global, &[String], Bytes, Unary(bytes)),
        function("timestamp", Global, &[Timestamp], Timestamp, Identity),
        function("timestamp", Global, &[String], Timestamp, Unary(timestamp)),
        function("timestamp", Global, &[Int], Timestamp, Unary(timestamp)),
        function("duration", Global, &[Duration], Duration, Identity),
        function("duration", Global, &[String], Duration, Unary(duration)),
        function("duration", Global, &[Int], Duration, Unary(duration)),
        function("size", Both, &[String], Int, Unary(size)),
        function("size", Both, &[Bytes], Int, Unary(size)),
        function("split", Both, &[String, String], TEXTS, Binary(split)),
        function("join", Both, &[TEXTS, String], String, Binary(join)),
        function("contains", Receiver, &[String, String], Bool, Test(contains)),
        function("startsWith", Receiver, &[String, String], Bool, Test(starts_with)),
        function("endsWith", Receiver, &[String, String], Bool, Test(ends_with)),
        function("matches", Both, &[String, String], Bool, Matches),
        function("lowerAscii", Receiver, &[String], String, Unary(lower_ascii)),
        function("upperAscii", Receiver, &[String], String, Unary(upper_ascii)),
        function("getFullYear", Receiver, &[Timestamp], Int, Unary(full_year)),
        function("getMonth", Receiver, &[Timestamp], Int, Unary(month)),
        function("getDate", Receiver, &[Timestamp], Int, Unary(date)),
        function("getDayOfMonth", Receiver, &[Timestamp], Int, Unary(day_of_month)),
        function("getDayOfWeek", Receiver, &[Timestamp], Int, Unary(day_of_week)),
        function("getDayOfYear", Receiver, &[Timestamp], Int, Unary(day_of_year)),
        function("getHours", Receiver, &[Timestamp], Int, Unary(hours)),
        function("getHours", Receiver, &[Duration], Int, Unary(duration_hours)),
        function("getMinutes", Receiver, &[Timestamp], Int, Unary(minutes)),
        function("getMinutes", Receiver, &[Duration], Int, Unary(duration_minutes)),
        function("getSeconds", Receiver, &[Timestamp], Int, Unary(seconds)),
        function("getSeconds", Receiver, &[Duration], Int, Unary(duration_seconds)),
        function("getMilliseconds", Receiver, &[Timestamp], Int, Unary(milliseconds)),
        function("getMilliseconds", Receiver, &[Duration], Int, Unary(duration_milliseconds)),
    ]
};

#[cold]
fn failed<'b>(function: &str, argument: Slot<'_>, why: &str) -> Evaluated<'b> {
    Err(failure(format!("{function}({}): {why}", show(argument))))
}

fn int<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    // The doubles -2^63 and 2^63 are exact; of these bounds only the lower one is an int.
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    match argument {
        Slot::Double(value) if (-BOUND..BOUND).contains(&value) => Ok(Slot::Int(value as i64)),
        Slot::Double(_) => failed("int", argument, "out of the range of an int"),
        Slot::Timestamp(ms) | Slot::Duration(ms) => Ok(Slot::Int(ms)),
        Slot::String(text) => match text.parse() {
            Ok(value) => Ok(Slot::Int(value)),
            Err(_) => failed("int", argument, "not an integer of 64 bits"),
        },
        other => null_or_fail(&[other]),
    }
}

fn double<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    match argument {
        Slot::Int(value) => Ok(Slot::Double(value as f64)),
        Slot::String(text) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Slot::Double(value)),
            _ => failed("double", argument, "not a finite number"),
        },
        other => null_or_fail(&[other]),
    }
}

fn string<'b>(argument: Slot<'_>, environment: &Environment<'_, 'b>) -> Evaluated<'b> {
    let text = match argument {
        Slot::Bool(value) => return Ok(Slot::String(if value { "true" } else { "false" })),
        Slot::Int(value) => value.to_string(),
        Slot::Double(value) => double_text(value),
        Slot::Timestamp(ms) => {
            let mut text = String::new();
            if !time::format_rfc3339_ms(ms, &mut text) {
                return failed("string", argument, "outside the years 0000 to 9999");
            }
            text
        }
        Slot::Duration(ms) => duration_text(ms),
        Slot::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => return Ok(Slot::String(environment.text(text)?)),
            Err(_) => return failed("string", argument, "not UTF-8"),
        },
        other => return null_or_fail(&[other]),
    };
    Ok(Slot::String(environment.text(&text)?))
}

/// The shortest text that is read back as this double, with an exponent where it would be long.
fn double_text(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        format!("{value:e}")
    } else {
        format!("{value}")
    }
}

/// A duration in seconds, as CEL writes it: `90s`, `-0.25s`.
fn duration_text(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let (seconds, rest) = (ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000);
    match rest {
        0 => format!("{sign}{seconds}s"),
        rest => format!("{sign}{seconds}.{}s", format!("{rest:03}").trim_end_matches('0')),
    }
}

fn bool<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    match argument {
        Slot::String("true" | "TRUE" | "True" | "t" | "T" | "1") => Ok(Slot::Bool(true)),
        Slot::String("false" | "FALSE" | "False" | "f" | "F" | "0") => Ok(Slot::Bool(false)),
        Slot::String(_) => failed("bool", argument, "neither true nor false"),
        other => null_or_fail(&[other]),
    }
}

fn bytes<'b>(argument: Slot<'_>, environment: &Environment<'_, 'b>) -> Evaluated<'b> {
    match argument {
        Slot::String(text) => Ok(Slot::Bytes(environment.bytes(text.as_bytes())?)),
        other => null_or_fail(&[other]),
    }
}

fn timestamp<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    match argument {
        Slot::Int(ms) => Ok(Slot::Timestamp(ms)),
        Slot::String(text) => match time::parse_rfc3339_ms(text) {
            Some(ms) => Ok(Slot::Timestamp(ms)),
            None => failed("timestamp", argument, "not RFC 3339 like 2026-01-31T12:00:00Z"),
        },
        other => null_or_fail(&[other]),
    }
}

/// Whether RFC 3339 text has digits other than 0 after its milliseconds, which [`timestamp`] cuts off.
pub(super) fn finer_than_ms(text: &str) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    fraction.bytes().take_while(u8::is_ascii_digit).skip(3).any(|digit| digit != b'0')
}

fn duration<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    match argument {
        Slot::Int(ms) => Ok(Slot::Duration(ms)),
        Slot::String(text) => match time::parse_signed_duration_ms(text) {
            Ok(ms) => Ok(Slot::Duration(ms)),
            Err(why) => failed("duration", argument, &why),
        },
        other => null_or_fail(&[other]),
    }
}

/// The parts of a text between separators; of an empty separator its characters.
fn split<'b>(text: Slot<'_>, separator: Slot<'_>, environment: &Environment<'_, 'b>) -> Evaluated<'b> {
    match (text, separator) {
        (Slot::String(text), Slot::String(separator)) => {
            let text: &'b str = environment.text(text)?;
            let mut parts = ArenaVec::new_in(environment.arena);
            let mut add = |part| environment.spend(ELEMENT_BYTES).map(|()| parts.push(Slot::String(part)));
            match separator {
                "" => text.split_inclusive(|_| true).try_for_each(&mut add)?,
                separator => text.split(separator).try_for_each(&mut add)?,
            }
            Ok(Slot::List(parts.into_bump_slice()))
        }
        (text, separator) => null_or_fail(&[text, separator]),
    }
}

/// The texts of a list with separators between them; nulls are left out.
fn join<'b>(list: Slot<'_>, separator: Slot<'_>, environment: &Environment<'_, 'b>) -> Evaluated<'b> {
    let (elements, separator) = match (list, separator) {
        (Slot::List(elements), Slot::String(separator)) => (elements, separator),
        (list, separator) => return null_or_fail(&[list, separator]),
    };
    environment.spend(elements.len())?;
    let mut joined = bumpalo::collections::String::new_in(environment.arena);
    let mut is_first = true;
    for element in elements {
        let Slot::String(text) = element else { continue };
        let between = if is_first { "" } else { separator };
        environment.spend(between.len() + text.len())?;
        joined.push_str(between);
        joined.push_str(text);
        is_first = false;
    }
    Ok(Slot::String(joined.into_bump_str()))
}

/// Of a text, bytes or a list.
pub(super) fn size<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    match argument {
        Slot::List(elements) => Ok(Slot::Int(elements.len() as i64)),
        Slot::String(text) => Ok(Slot::Int(text.chars().count() as i64)),
        Slot::Bytes(bytes) => Ok(Slot::Int(bytes.len() as i64)),
        other => null_or_fail(&[other]),
    }
}

fn contains(text: Slot<'_>, part: Slot<'_>) -> Truth {
    text_test(text, part, |text, part| text.contains(part))
}

fn starts_with(text: Slot<'_>, part: Slot<'_>) -> Truth {
    text_test(text, part, |text, part| text.starts_with(part))
}

fn ends_with(text: Slot<'_>, part: Slot<'_>) -> Truth {
    text_test(text, part, |text, part| text.ends_with(part))
}

fn text_test(text: Slot<'_>, part: Slot<'_>, test: impl Fn(&str, &str) -> bool) -> Truth {
    match (text, part) {
        (Slot::String(text), Slot::String(part)) => Ok(Some(test(text, part))),
        (text, part) => null_or_fail(&[text, part]),
    }
}

fn lower_ascii<'b>(argument: Slot<'_>, environment: &Environment<'_, 'b>) -> Evaluated<'b> {
    match argument {
        Slot::String(text) => {
            let lower = environment.text(text)?;
            lower.make_ascii_lowercase();
            Ok(Slot::String(lower))
        }
        other => null_or_fail(&[other]),
    }
}

fn upper_ascii<'b>(argument: Slot<'_>, environment: &Environment<'_, 'b>) -> Evaluated<'b> {
    match argument {
        Slot::String(text) => {
            let upper = environment.text(text)?;
            upper.make_ascii_uppercase();
            Ok(Slot::String(upper))
        }
        other => null_or_fail(&[other]),
    }
}

/// A part of a timestamp's UTC date and time.
fn civil<'b>(function: &str, argument: Slot<'_>, part: impl Fn(DateTime) -> i64) -> Evaluated<'b> {
    match argument {
        Slot::Timestamp(ms) => match time::civil_from_ms(ms) {
            Some(civil) => Ok(Slot::Int(part(civil))),
            None => failed(function, argument, "outside the years 0000 to 9999"),
        },
        other => null_or_fail(&[other]),
    }
}

fn full_year<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    civil("getFullYear", argument, |civil| civil.year().into())
}

/// From 0.
fn month<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    civil("getMonth", argument, |civil| i64::from(civil.month()) - 1)
}

/// From 1.
fn date<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    civil("getDate", argument, |civil| civil.day().into())
}

/// From 0.
fn day_of_month<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    civil("getDayOfMonth", argument, |civil| i64::from(civil.day()) - 1)
}

/// From 0, a Sunday.
fn day_of_week<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    civil("getDayOfWeek", argument, |civil| civil.weekday().to_sunday_zero_offset().into())
}

/// From 0.
fn day_of_year<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    civil("getDayOfYear", argument, |civil| i64::from(civil.day_of_year()) - 1)
}

fn hours<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    civil("getHours", argument, |civil| civil.hour().into())
}

fn minutes<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    civil("getMinutes", argument, |civil| civil.minute().into())
}

fn seconds<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    civil("getSeconds", argument, |civil| civil.second().into())
}

fn milliseconds<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    civil("getMilliseconds", argument, |civil| civil.millisecond().into())
}

fn duration_part<'b>(argument: Slot<'_>, part: impl Fn(i64) -> i64) -> Evaluated<'b> {
    match argument {
        Slot::Duration(ms) => Ok(Slot::Int(part(ms))),
        other => null_or_fail(&[other]),
    }
}

/// All of them, as minutes and seconds below.
fn duration_hours<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    duration_part(argument, |ms| ms / 3_600_000)
}

fn duration_minutes<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    duration_part(argument, |ms| ms / 60_000)
}

fn duration_seconds<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    duration_part(argument, |ms| ms / 1000)
}

/// Those after the last whole second, as the CEL specification has it.
fn duration_milliseconds<'b>(argument: Slot<'_>, _: &Environment<'_, 'b>) -> Evaluated<'b> {
    duration_part(argument, |ms| ms % 1000)
}
