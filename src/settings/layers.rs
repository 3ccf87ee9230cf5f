//! Where settings come from, and their way into one [`Settings`].

use std::collections::BTreeMap;
use std::path::Path;

use config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};

use super::{Settings, SettingsError, librdkafka};

const ENVIRONMENT_PREFIX: &str = "THALWEG";
const LIBRDKAFKA: &str = "kafka.librdkafka.";
/// How alike a known key must be to be suggested, from 0 to 1.
const LIKENESS_MIN: f64 = 0.6;

/// A value that somebody gave a setting.
struct Given {
    /// The setting's dotted key.
    key: String,
    value: Value,
    /// Where it was given, for messages.
    origin: String,
}

/// The sections of `settings`, and their settings with all values as text, numbers or null.
pub(super) fn tree(settings: &Settings) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(settings) {
        Ok(serde_json::Value::Object(sections)) => sections,
        // A structure of structures is an object, and nothing in it can fail to be written.
        _ => serde_json::Map::new(),
    }
}

/// The keys of all settings, librdkafka's properties apart.
pub(super) fn known_keys() -> Vec<String> {
    let mut keys = Vec::new();
    for (section, settings) in tree(&Settings::default()) {
        for name in settings.as_object().into_iter().flat_map(|settings| settings.keys()) {
            keys.push(format!("{section}.{name}"));
        }
    }
    keys
}

pub(super) fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<Settings, SettingsError> {
    let mut given = match file {
        Some(path) => from_file(path).map_err(|problem| SettingsError { problems: vec![problem] })?,
        None => Vec::new(),
    };
    given.extend(from_environment(environment));
    given.extend(flags.iter().map(|(key, value)| Given {
        key: key.clone(),
        value: Value::new(None, value.as_str()),
        origin: format!("flag {key}"),
    }));

    let known = known_keys();
    let mut problems: Vec<String> = Vec::new();
    // The last one given wins, but what it overrides must be right as well.
    for given in &given {
        if let Some(problem) = problem(given, &known) {
            problems.push(format!("{}: {problem}", given.origin));
        }
    }
    let merged: BTreeMap<&str, &Value> =
        given.iter().map(|given| (given.key.as_str(), &given.value)).collect();
    let settings = deserialize(merged.into_iter());
    match settings {
        Ok(settings) if problems.is_empty() => Ok(settings),
        Err(problem) if problems.is_empty() => Err(SettingsError { problems: vec![problem] }),
        _ => Err(SettingsError { problems }),
    }
}

/// What is wrong with a given value on its own.
fn problem(given: &Given, known: &[String]) -> Option<String> {
    let key = given.key.as_str();
    if let Some(property) = key.strip_prefix(LIBRDKAFKA) {
        if let Some(reason) = librdkafka::refusal(property) {
            return Some(format!("`{property}` of librdkafka cannot be set: {reason}"));
        }
        if librdkafka::is_secret(property) && !matches!(given.value.kind, ValueKind::String(_)) {
            return Some(format!(
                "write the value of {key} in quotes: without them it is read as another type and may change"
            ));
        }
    } else if is_section(key) {
        return Some(format!("`{key}` is a section: give values to the settings in it"));
    } else if !known.iter().any(|known| known == key) {
        return Some(match nearest(key, known) {
            Some(nearest) => format!("unknown setting `{key}`; did you mean `{nearest}`?"),
            None => format!("unknown setting `{key}`; `thalweg settings` lists all"),
        });
    }
    deserialize(std::iter::once((key, &given.value))).err().map(|problem| format!("{key}: {problem}"))
}

/// The known key most like `key`, which may lack its section or have another one.
fn nearest<'k>(key: &str, known: &'k [String]) -> Option<&'k str> {
    let name = |key: &str| key.rsplit('.').next().unwrap_or(key).to_string();
    let likeness = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(key, known);
        whole.max(strsim::normalized_damerau_levenshtein(&name(key), &name(known)))
    };
    let rated = known.iter().map(|known| (likeness(known), known.as_str()));
    let (likeness, nearest) = rated.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= LIKENESS_MIN).then_some(nearest)
}

/// Settings from dotted keys and values; the defaults for all others.
fn deserialize<'g>(given: impl Iterator<Item = (&'g str, &'g Value)>) -> Result<Settings, String> {
    let mut sections: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut properties: Map<String, Value> = Map::new();
    for (key, value) in given {
        match (key.strip_prefix(LIBRDKAFKA), key.split_once('.')) {
            (Some(property), _) => drop(properties.insert(property.to_string(), value.clone())),
            (None, Some((section, name))) => {
                sections.entry(section).or_default().insert(name.to_string(), value.clone());
            }
            // Such a key is unknown, which has been said.
            (None, None) => {}
        }
    }
    if !properties.is_empty() {
        sections.entry("kafka").or_default().insert("librdkafka".to_string(), properties.into());
    }
    let root: Map<String, Value> =
        sections.into_iter().map(|(section, settings)| (section.to_string(), settings.into())).collect();
    Value::from(root).try_deserialize().map_err(|error: config::ConfigError| match error {
        config::ConfigError::At { error, .. } => error.to_string(),
        error => error.to_string(),
    })
}

fn from_file(path: &Path) -> Result<Vec<Given>, String> {
    let shown = path.display();
    let format = match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => FileFormat::Yaml,
        Some("toml") => FileFormat::Toml,
        _ => return Err(format!("{shown}: settings are YAML or TOML: call the file .yaml, .yml or .toml")),
    };
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let table = File::from_str(&text, format).collect().map_err(|error| format!("{shown}: {error}"))?;
    let mut given = Vec::new();
    for (key, value) in table {
        flatten(key, value, &mut given, &shown.to_string());
    }
    given.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(given)
}

/// Adds the values of a file's tables under dotted keys. A section without content says nothing.
fn flatten(key: String, value: Value, given: &mut Vec<Given>, origin: &str) {
    match value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                flatten(format!("{key}.{name}"), value, given, origin);
            }
        }
        ValueKind::Nil if is_section(&key) => {}
        _ => given.push(Given { key, value, origin: origin.to_string() }),
    }
}

fn is_section(key: &str) -> bool {
    format!("{key}.") == LIBRDKAFKA || tree(&Settings::default()).contains_key(key)
}

fn from_environment(environment: impl Iterator<Item = (String, String)>) -> Vec<Given> {
    let source = Environment::with_prefix(ENVIRONMENT_PREFIX)
        .prefix_separator("__")
        .separator("__")
        .source(Some(environment.collect()));
    // It fails only on text that is no Unicode, which strings are.
    let values = source.collect().unwrap_or_default();
    let mut given: Vec<Given> = values
        .into_iter()
        .map(|(key, value)| {
            let variable = format!("{ENVIRONMENT_PREFIX}.{key}").to_uppercase().replace('.', "__");
            // librdkafka's names have dots where a variable's name cannot have any.
            let key = match key.strip_prefix(LIBRDKAFKA) {
                Some(property) => format!("{LIBRDKAFKA}{}", property.replace('_', ".")),
                None => key,
            };
            Given { key, value, origin: format!("environment variable {variable}") }
        })
        .collect();
    given.sort_by(|a, b| a.key.cmp(&b.key));
    given
}
