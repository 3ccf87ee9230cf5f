//! The texts of values. Every value is read from text, whatever its source took it for, so that one
//! means the same in a file, in the environment and in a flag.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::{Listen, LogFormat};

/// A whole number.
pub(super) mod count {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom(format!("`{text}` is not a whole number in range")))
    }

    pub fn serialize<T: Serialize + Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }
}

/// A text of limited choice.
pub(super) mod word {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn deserialize<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }

    pub fn serialize<T: Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }
}

/// Milliseconds, written with a unit: `100ms`.
pub(super) mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::time;

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let ms = time::parse_duration_ms(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        u64::try_from(ms).map_err(D::Error::custom)
    }

    pub fn serialize<S: Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&match ms {
            ms if *ms > 0 && ms % 60_000 == 0 => format!("{}m", ms / 60_000),
            ms if *ms > 0 && ms % 1000 == 0 => format!("{}s", ms / 1000),
            ms => format!("{ms}ms"),
        })
    }
}

/// Bytes, written with a unit: `64MiB`.
pub(super) mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }

    pub fn parse(text: &str) -> Result<u64, String> {
        let read = || {
            let (number, unit) =
                UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
            number.trim_end().parse::<u64>().ok()?.checked_mul(*unit)
        };
        read().ok_or_else(|| {
            format!(
                "`{text}` is not a size: write a whole number with its unit (B, KiB, MiB or GiB) like 64MiB"
            )
        })
    }

    pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        let fits = |unit: u64| *bytes > 0 && bytes.is_multiple_of(unit);
        let (name, unit) = UNITS.into_iter().find(|(_, unit)| fits(*unit)).unwrap_or(("B", 1));
        serializer.collect_str(&format!("{}{name}", bytes / unit))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Listen::Off);
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Listen::At(text.to_string()))
            }
            _ => Err(format!("`{text}` is no address: write HOST:PORT like 127.0.0.1:8080, or off")),
        }
    }
}

impl Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Listen::At(address) => address,
            Listen::Off => "off",
        })
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("`{text}` is no log format: write text or json")),
        }
    }
}

impl Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}
