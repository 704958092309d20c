//! The settings in effect as a TOML file: each line says where its value comes from, and the whole can
//! be used as a configuration file.

use std::{collections::BTreeMap, fmt::Write};

use clap::{Arg, ArgMatches, parser::ValueSource};

use crate::{
    config_file::{ConfigError, Entry, Kind},
    program::{Program, is_list, key, list_variable},
};

/// Column at which the origin begins, where the value is short enough.
const COLUMN: usize = 40;

/// The file's text. `matches` are of the whole command line.
///
/// # Errors
/// When a value is no text.
pub fn render(
    program: &Program,
    matches: &ArgMatches,
    entries: &BTreeMap<String, Entry>,
) -> Result<String, ConfigError> {
    let daemon = matches.subcommand().map_or(matches, |(_, daemon)| daemon);
    let mut text = format!("# {} {}\n", program.command().get_name(), program.verb());
    for arg in program.settings() {
        let key = key(arg);
        let line = match value(arg, daemon)? {
            Some(value) => {
                let origin = origin(arg, daemon, entries.get(&key));
                format!("{:<COLUMN$} # {origin}", format!("{key} = {value}"))
            }
            None => format!("{:<COLUMN$} # not set", format!("# {key} =")),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    Ok(text)
}

fn value(arg: &Arg, matches: &ArgMatches) -> Result<Option<String>, ConfigError> {
    let Ok(Some(raw)) = matches.try_get_raw(arg.get_id().as_str()) else { return Ok(None) };
    let texts: Vec<&str> = raw
        .map(|value| value.to_str().ok_or_else(|| ConfigError::Unprintable { key: key(arg) }))
        .collect::<Result<_, _>>()?;
    Ok(match (Kind::of(arg), &texts[..]) {
        (Kind::List, _) => {
            Some(format!("[{}]", texts.iter().map(|t| quoted(t)).collect::<Vec<_>>().join(", ")))
        }
        (_, []) => None,
        (Kind::Switch, _) => matches.get_one::<bool>(arg.get_id().as_str()).map(bool::to_string),
        (Kind::Number, [text, ..]) => Some((*text).to_owned()),
        (Kind::Bytes, [text, ..]) if text.parse::<i64>().is_ok() => Some((*text).to_owned()),
        (Kind::Bytes | Kind::Text, [text, ..]) => Some(quoted(text)),
    })
}

fn origin(arg: &Arg, matches: &ArgMatches, entry: Option<&Entry>) -> String {
    let variable = || format!("variable {}", arg.get_env().unwrap_or_default().display());
    match matches.value_source(arg.get_id().as_str()) {
        Some(ValueSource::CommandLine) => "flag".to_owned(),
        Some(ValueSource::EnvVariable) => variable(),
        _ if is_list(arg) && list_variable(arg).is_some() => variable(),
        _ => entry.map_or_else(|| "default".to_owned(), |entry| entry.place.clone()),
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}
