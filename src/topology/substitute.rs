//! `${VAR}`, `${VAR:-default}` and `${file:path}` in scalars.

/// Where values come from.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    /// An environment variable's value.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file, named as in the topology; or why it cannot be read.
    pub read_file: &'a dyn Fn(&str) -> Result<String, String>,
}

/// What a scalar becomes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Substituted {
    /// The text.
    pub text: String,
    /// Whether anything was replaced, `$${` included.
    pub changed: bool,
    /// Whether the scalar was one `${…}` and nothing else: its value is typed like a plain scalar.
    pub alone: bool,
}

/// A `${…}` without a value: where it stands in the scalar's text, in characters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub start: usize,
    pub end: usize,
    pub message: String,
    pub help: String,
}

/// Replaces each `${…}` of `text`; `$${` stands for `${`. Values are not looked into again.
pub(super) fn substitute(text: &str, values: Values) -> Result<Substituted, Vec<Missing>> {
    let mut out = String::new();
    let mut missing = Vec::new();
    let mut changed = false;
    let mut alone = false;
    let mut rest = text;
    while let Some(dollar) = rest.find("${") {
        changed = true;
        let (before, from) = rest.split_at(dollar);
        if let Some(kept) = before.strip_suffix('$') {
            out.push_str(kept);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let end = from.find('}').map_or(from.len(), |brace| brace + 1);
        let (reference, behind) = from.split_at(end);
        alone = reference.len() == text.len();
        match resolve(reference, values) {
            Ok(value) => out.push_str(&value),
            Err((message, help)) => {
                let start = text[..text.len() - from.len()].chars().count();
                missing.push(Missing { start, end: start + reference.chars().count(), message, help });
            }
        }
        rest = behind;
    }
    out.push_str(rest);
    if missing.is_empty() { Ok(Substituted { text: out, changed, alone }) } else { Err(missing) }
}

/// The value of one `${…}`, or what is wrong with it and what to do.
fn resolve(reference: &str, values: Values) -> Result<String, (String, String)> {
    let Some(inner) = reference.strip_prefix("${").and_then(|inner| inner.strip_suffix('}')) else {
        return Err((
            "`${` without its `}`".to_owned(),
            "write `$${` for a `${` that is meant as text".to_owned(),
        ));
    };
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if default.is_none()
        && let Some(path) = inner.strip_prefix("file:")
    {
        return match (values.read_file)(path) {
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => Err((
                format!("the file `{path}` cannot be read: {error}"),
                "a relative path starts at the folder of the topology file".to_owned(),
            )),
        };
    }
    if !is_variable(name) {
        return Err((
            format!("`{reference}` is none of `${{VAR}}`, `${{VAR:-default}}` and `${{file:path}}`"),
            "a variable's name has letters, digits and `_`; write `$${` for a `${` that is meant as text"
                .to_owned(),
        ));
    }
    match ((values.environment)(name), default) {
        (Some(value), _) if !value.is_empty() || default.is_none() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        _ => Err((
            format!("the environment variable `{name}` is not set"),
            format!("set it, or give a default: `${{{name}:-value}}`"),
        )),
    }
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values<'static> {
        Values {
            environment: &|name| match name {
                "TOPIC" => Some("orders".to_owned()),
                "EMPTY" => Some(String::new()),
                "SNEAKY" => Some("${TOPIC}".to_owned()),
                _ => None,
            },
            read_file: &|path| match path {
                "secret" => Ok("hush\n".to_owned()),
                _ => Err("no such file".to_owned()),
            },
        }
    }

    fn text(scalar: &str) -> String {
        substitute(scalar, values()).expect("all values are there").text
    }

    #[test]
    fn replaces_variables_defaults_and_files() {
        assert_eq!(text("a-${TOPIC}-b"), "a-orders-b");
        assert_eq!(text("${NONE:-x y}"), "x y");
        assert_eq!(text("${EMPTY:-x}"), "x");
        assert_eq!(text("${EMPTY}"), "");
        assert_eq!(text("${file:secret}"), "hush");
        assert_eq!(text("${file:-d}"), "d");
        assert_eq!(text("${SNEAKY}"), "${TOPIC}");
        assert_eq!(text("$${TOPIC} costs $5 {x} ${TOPIC}"), "${TOPIC} costs $5 {x} orders");
        assert_eq!(text("größe ${NONE:-é}!"), "größe é!");
    }

    #[test]
    fn knows_a_reference_that_stands_alone() {
        for (scalar, alone, changed) in [
            ("${TOPIC}", true, true),
            (" ${TOPIC}", false, true),
            ("x", false, false),
            ("$${TOPIC}", false, true),
        ] {
            let substituted = substitute(scalar, values()).expect("all values are there");
            assert_eq!((substituted.alone, substituted.changed), (alone, changed), "{scalar}");
        }
    }

    #[test]
    fn reports_every_missing_value_at_its_character() {
        let missing = substitute("é${A}, ${file:gone} ${b c} ${", values()).expect_err("none is there");
        let places: Vec<_> = missing.iter().map(|m| (m.start, m.end)).collect();
        assert_eq!(places, [(1, 5), (7, 19), (20, 26), (27, 29)]);
        assert_eq!(missing[0].message, "the environment variable `A` is not set");
        assert_eq!(missing[1].message, "the file `gone` cannot be read: no such file");
    }
}
