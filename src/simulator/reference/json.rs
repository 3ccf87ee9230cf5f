//! JSON as the reference reads and writes it: plain, and with nothing of the engine's formats.

use std::borrow::Cow;

/// A value of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'t> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as it is written.
    Number(&'t str),
    /// Text.
    Text(Cow<'t, str>),
    /// A list.
    List(Vec<Json<'t>>),
    /// An object, with all its members in order.
    Object(Vec<(Cow<'t, str>, Json<'t>)>),
}

impl<'t> Json<'t> {
    /// Reads a value that takes up all of `bytes`; `None` if it is no JSON.
    pub fn parse(bytes: &'t [u8]) -> Option<Json<'t>> {
        let mut parser = Parser { text: std::str::from_utf8(bytes).ok()?, at: 0 };
        let value = parser.value(0)?;
        parser.blanks();
        (parser.at == bytes.len()).then_some(value)
    }

    /// The last member of a name.
    pub fn member(&self, name: &str) -> Option<&Json<'t>> {
        match self {
            Json::Object(members) => members.iter().rev().find(|(of, _)| of == name).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// How deep records may be nested.
const DEPTH_MAX: usize = 128;

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Passes over `text` if it comes next.
    fn take(&mut self, text: &str) -> Option<()> {
        self.text[self.at..].starts_with(text).then(|| self.at += text.len())
    }

    fn value(&mut self, depth: usize) -> Option<Json<'t>> {
        self.blanks();
        match self.peek()? {
            b'n' => self.take("null").map(|()| Json::Null),
            b't' => self.take("true").map(|()| Json::Bool(true)),
            b'f' => self.take("false").map(|()| Json::Bool(false)),
            b'"' => self.string().map(Json::Text),
            b'{' | b'[' if depth == DEPTH_MAX => None,
            b'[' => {
                let mut values = Vec::new();
                self.elements(b']', |parser| parser.value(depth + 1).map(|value| values.push(value)))?;
                Some(Json::List(values))
            }
            b'{' => {
                let mut members = Vec::new();
                self.elements(b'}', |parser| {
                    parser.blanks();
                    let name = parser.string()?;
                    parser.blanks();
                    parser.take(":")?;
                    members.push((name, parser.value(depth + 1)?));
                    Some(())
                })?;
                Some(Json::Object(members))
            }
            _ => self.number(),
        }
    }

    /// What stands between brackets, with commas between.
    fn elements(&mut self, end: u8, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.blanks();
        if self.peek()? == end {
            self.at += 1;
            return Some(());
        }
        loop {
            element(self)?;
            self.blanks();
            let next = self.peek()?;
            self.at += 1;
            match next {
                b',' => {}
                next if next == end => return Some(()),
                _ => return None,
            }
        }
    }

    fn digits(&mut self) -> Option<usize> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > from).then_some(self.at - from)
    }

    fn number(&mut self) -> Option<Json<'t>> {
        let from = self.at;
        let _ = self.take("-");
        let leads_with_zero = self.peek()? == b'0';
        let digits = self.digits()?;
        if leads_with_zero && digits > 1 {
            return None;
        }
        if self.take(".").is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(Json::Number(&self.text[from..self.at]))
    }

    fn string(&mut self) -> Option<Cow<'t, str>> {
        self.take("\"")?;
        let mut text = Cow::Borrowed("");
        loop {
            let rest = &self.text[self.at..];
            let length = rest.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
            let piece = &rest[..length];
            match text.is_empty() {
                true => text = Cow::Borrowed(piece),
                false => text.to_mut().push_str(piece),
            }
            self.at += length + 1;
            match rest.as_bytes()[length] {
                b'"' => return Some(text),
                b'\\' => text.to_mut().push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let escape = self.peek()?;
        self.at += 1;
        Some(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex()?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high);
                }
                self.take("\\u")?;
                let low = self.hex()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                return char::from_u32(0x10000 + ((high - 0xd800) << 10) + low);
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    }
}

/// Appends a whole number.
pub fn push_int(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends text as JSON.
pub fn push_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(length) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        out.extend_from_slice(&rest[..length]);
        match rest[length] {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            control @ 0..0x20 => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
            quoted => out.extend_from_slice(&[b'\\', quoted]),
        }
        rest = &rest[length + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// The instants that RFC 3339 can write: the years 0000 to 9999.
pub const RFC3339_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;
const DAY_MS: i64 = 86_400_000;

/// Appends an instant as JSON text in RFC 3339, UTC, with milliseconds unless they are zero. (Howard
/// Hinnant's civil_from_days.)
pub fn push_rfc3339(ms: i64, out: &mut Vec<u8>) {
    let (days, of_day) = (ms.div_euclid(DAY_MS) + 719_468, ms.rem_euclid(DAY_MS));
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    out.push(b'"');
    push_padded(year, 1_000, out);
    for (separator, number) in [
        (b'-', month),
        (b'-', day_of_year - (153 * shifted + 2) / 5 + 1),
        (b'T', of_day / 3_600_000),
        (b':', of_day / 60_000 % 60),
        (b':', of_day / 1_000 % 60),
    ] {
        out.push(separator);
        push_padded(number, 10, out);
    }
    if of_day % 1_000 != 0 {
        out.push(b'.');
        push_padded(of_day % 1_000, 100, out);
    }
    out.extend_from_slice(b"Z\"");
}

/// Appends digits, the first of which counts `unit`.
fn push_padded(number: i64, mut unit: i64, out: &mut Vec<u8>) {
    while unit > 0 {
        out.push(b'0' + (number / unit % 10) as u8);
        unit /= 10;
    }
}

/// The instant that a text of the form which [`push_rfc3339`] writes names; `None` for any other text.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (text, fraction_ms) = match text.split_once('.') {
        Some((text, digits)) if digits.len() == 3 => (text, number(digits)?),
        Some(_) => return None,
        None => (text, 0),
    };
    let part = |from: usize, to: usize| text.get(from..to).and_then(number);
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if text.len() != 19 || separators.iter().any(|(at, separator)| text.as_bytes()[*at] != *separator) {
        return None;
    }
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    // Howard Hinnant's days_from_civil.
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468;
    Some(((days * 24 + part(11, 13)?) * 60 + part(14, 16)?) * 60_000 + part(17, 19)? * 1_000 + fraction_ms)
}

fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_and_read_as_rfc_3339() {
        let step = DAY_MS * 11 + 3_723_004;
        for ms in (-62_167_219_200_000..253_402_300_799_999).step_by(step as usize) {
            let mut ours = Vec::new();
            push_rfc3339(ms, &mut ours);
            let mut theirs = String::new();
            assert!(crate::time::format_rfc3339_ms(ms, &mut theirs));
            assert_eq!(String::from_utf8(ours).unwrap(), format!("\"{theirs}\""));
            assert_eq!(parse_rfc3339(&theirs), Some(ms));
        }
    }

    #[test]
    fn texts_are_written_as_serde_does_and_read_back() {
        let text: String = (0..0x2ff).filter_map(char::from_u32).chain(['\u{1f3c1}']).collect();
        let mut ours = Vec::new();
        push_text(&text, &mut ours);
        assert_eq!(ours, serde_json::to_vec(&text).unwrap());
        assert_eq!(Json::parse(&ours), Some(Json::Text(text.into())));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in
            ["", "{", "{}x", "[1,]", "{\"a\" 1}", "01", "1.", "\"\\u12\"", "\"\\ud800\"", "nul", "{a:1}"]
        {
            assert_eq!(Json::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Json::parse(b"{\"a\":\"\xff\"}"), None);
        let twice = Json::parse(br#" {"a":1,"a":-2.5e3} "#).unwrap();
        assert_eq!(twice.member("a"), Some(&Json::Number("-2.5e3")));
    }
}
