//! Instants and spans of time, and their texts.

use std::fmt::Write;

use jiff::SignedDuration;
use jiff::civil::DateTime;

/// An event time or watermark before all others: nothing has been seen yet.
pub const MIN_TIME_MS: i64 = i64::MIN;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59.999Z: the instants that RFC 3339 can write.
const RFC3339_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// The UTC date and time of an instant in milliseconds since the Unix epoch; `None` outside the years
/// 0000 to 9999.
pub fn civil_from_ms(ms: i64) -> Option<DateTime> {
    if !RFC3339_MS.contains(&ms) {
        return None;
    }
    EPOCH.checked_add(SignedDuration::from_millis(ms)).ok()
}

/// The instant that an RFC 3339 text names, in milliseconds since the Unix epoch.
///
/// Exactly `YYYY-MM-DDTHH:MM:SS[.fraction](Z|±HH:MM)`; `T` may be a space, `T` and `Z` may be small. A
/// finer fraction is cut towards the past, a leap second counts as the second before it. `None` for any
/// other text and for an instant outside the years 0000 to 9999 in UTC.
pub fn parse_rfc3339_ms(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes[4] != b'-' || bytes[7] != b'-' || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..10])?);
    let (hour, minute) = (digits(&bytes[11..13])?, digits(&bytes[14..16])?);
    let second = match digits(&bytes[17..19])? {
        60 => 59,
        second => second,
    };
    // All are at most four digits, so the casts lose nothing; `new` refuses what no calendar has.
    let civil =
        DateTime::new(year as i16, month as i8, day as i8, hour as i8, minute as i8, second as i8, 0).ok()?;
    let (fraction_ms, zone) = split_fraction(&bytes[19..])?;
    let ms = civil.duration_since(EPOCH).as_secs() * 1000 + fraction_ms - zone_offset_ms(zone)?;
    RFC3339_MS.contains(&ms).then_some(ms)
}

/// The number that ASCII digits write; `None` if there is anything else among them. At most 18 digits.
fn digits(bytes: &[u8]) -> Option<i64> {
    bytes
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// The milliseconds of a leading `.123456`, if there is one, and the rest.
fn split_fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some(fraction) = bytes.strip_prefix(b".") else {
        return Some((0, bytes));
    };
    let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let kept = length.min(3);
    let ms = digits(&fraction[..kept])? * [100, 10, 1][kept - 1];
    Some((ms, &fraction[length..]))
}

/// What `Z` or `±HH:MM` is ahead of UTC.
fn zone_offset_ms(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let ms = (hours * 60 + minutes) * 60_000;
            Some(if *sign == b'-' { -ms } else { ms })
        }
        _ => None,
    }
}

/// Appends an instant, given in milliseconds since the Unix epoch, as RFC 3339 text in UTC; three digits
/// of fraction unless they are zero. False, and nothing appended, outside the years 0000 to 9999.
pub fn format_rfc3339_ms(ms: i64, out: &mut String) -> bool {
    let Some(civil) = civil_from_ms(ms) else {
        return false;
    };
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second()
    );
    if civil.millisecond() != 0 {
        let _ = write!(out, ".{:03}", civil.millisecond());
    }
    out.push('Z');
    true
}

const DURATION_UNITS_NS: [(&str, i128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The milliseconds of a text like `30s`, `1h30m`, `250ms`, `1d` or `1.5h`: numbers with a unit (d, h, m,
/// s, ms; us and ns if they add up to milliseconds), added up. Never negative. The error says what is
/// wrong with the text, which it quotes.
pub fn parse_duration_ms(text: &str) -> Result<i64, String> {
    if text.starts_with('-') {
        return Err(format!("`{text}` is negative; a duration here must not be"));
    }
    parse_signed_duration_ms(text)
}

/// As [`parse_duration_ms`], with an optional sign in front.
pub fn parse_signed_duration_ms(text: &str) -> Result<i64, String> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let invalid =
        |what: String| format!("`{text}` is not a duration: {what}; write it like 30s, 1h30m or 250ms");
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid("a number is missing".into()));
    }
    let mut total_ns: i128 = 0;
    while !rest.is_empty() {
        let (part_ns, after) = duration_part_ns(rest).map_err(invalid)?;
        // Each part fits 64 bits times a unit, and a text has too few parts to overflow 128 bits.
        total_ns += part_ns;
        rest = after;
    }
    if total_ns % 1_000_000 != 0 {
        return Err(format!("`{text}` is finer than a millisecond, the smallest unit of a duration"));
    }
    i64::try_from(sign * total_ns / 1_000_000).map_err(|_| format!("`{text}` is too long for a duration"))
}

/// The nanoseconds of a leading number with its unit, and the rest of the text.
fn duration_part_ns(text: &str) -> Result<(i128, &str), String> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(number_end);
    let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err(format!("a number is missing before `{unit}`"));
    }
    if unit.is_empty() {
        return Err(format!("`{number}` has no unit (d, h, m, s, ms)"));
    }
    let Some((_, unit_ns)) = DURATION_UNITS_NS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("the unit `{unit}` is not known (d, h, m, s, ms)"));
    };
    if whole.len() > 18 || fraction.len() > 18 || fraction.contains('.') {
        return Err(format!("`{number}` is not a number of at most 18 digits on either side of a point"));
    }
    let (Some(whole), Some(tenths)) = (digits(whole.as_bytes()), digits(fraction.as_bytes())) else {
        return Err(format!("`{number}` is not a number"));
    };
    let fraction_ns = i128::from(tenths) * unit_ns;
    let scale = 10i128.pow(fraction.len() as u32);
    if fraction_ns % scale != 0 {
        return Err(format!("`{number}{unit}` is finer than a nanosecond"));
    }
    Ok((i128::from(whole) * unit_ns + fraction_ns / scale, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc3339_texts_are_read() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01 00:00:00z", 0),
            ("1970-01-01t00:00:00.5Z", 500),
            ("2024-02-29T12:34:56.789+01:00", 1_709_206_496_789),
            ("2024-02-29T12:34:56.789-00:30", 1_709_211_896_789),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("1969-12-31T23:59:59.0001Z", -1000),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            ("9999-12-31T23:59:59.999999999999Z", 253_402_300_799_999),
        ] {
            assert_eq!(parse_rfc3339_ms(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+0100",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T00:00:00+01:60",
            "2024-01-01T00:00:00Z[UTC]",
            "2024-01-01T00:00Z     ",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:61Z",
            "+024-01-01T00:00:00Z",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "2024-01-01T00:00:00\u{661}",
        ] {
            assert_eq!(parse_rfc3339_ms(text), None, "{text}");
        }
    }

    #[test]
    fn instants_are_written() {
        let mut out = String::from("at ");
        assert!(format_rfc3339_ms(1_709_206_496_789, &mut out));
        assert_eq!(out, "at 2024-02-29T11:34:56.789Z");
        out.clear();
        assert!(format_rfc3339_ms(-1000, &mut out));
        assert_eq!(out, "1969-12-31T23:59:59Z");
        assert!(!format_rfc3339_ms(*RFC3339_MS.end() + 1, &mut out));
        assert!(!format_rfc3339_ms(*RFC3339_MS.start() - 1, &mut out));
        assert_eq!(out, "1969-12-31T23:59:59Z");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in RFC3339_MS) {
            let mut out = String::new();
            prop_assert!(format_rfc3339_ms(ms, &mut out));
            prop_assert_eq!(parse_rfc3339_ms(&out), Some(ms));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}") {
            let _ = parse_rfc3339_ms(&text);
            let _ = parse_duration_ms(&text);
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("0", 0),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1d", 86_400_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("1m0.001s", 60_001),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        assert_eq!(parse_duration_ms("2000us"), Ok(2));
        assert_eq!(parse_signed_duration_ms("-1h1ms"), Ok(-3_600_001));
        assert_eq!(parse_signed_duration_ms("+1s"), Ok(1000));
    }

    #[test]
    fn other_durations_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", "a number is missing"),
            ("-1s", "negative"),
            ("30", "`30` has no unit"),
            ("1h30", "`30` has no unit"),
            ("s", "a number is missing before `s`"),
            (".s", "a number is missing before `s`"),
            ("5 min", "the unit ` min` is not known"),
            ("5sec", "the unit `sec` is not known"),
            ("1.2.3s", "is not a number"),
            ("1ns", "finer than a millisecond"),
            ("0.0000000001s", "finer than a nanosecond"),
            ("999999999999999999d", "too long"),
            ("9999999999999999999s", "at most 18 digits"),
        ] {
            let error = parse_duration_ms(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
