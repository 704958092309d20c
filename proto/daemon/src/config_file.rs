//! The TOML file of a daemon: one key for each setting, checked before anything begins. Every error
//! names file, line and key.

use std::{
    any::TypeId,
    collections::BTreeMap,
    error::Error as _,
    fs::File,
    io::{self, Read},
    path::Path,
};

use clap::{
    Arg, ArgAction, Command,
    error::{ContextKind, ContextValue},
};
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use crate::{
    program::{Program, is_list, is_switch, key},
    size::Size,
};

/// A file with more bytes than this is no configuration.
const LARGEST: u64 = 1 << 20;

/// What a file says about one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `FILE:LINE`.
    pub place: String,
    /// The values, as the flag would take them. All but lists have one.
    pub values: Vec<String>,
}

/// What is wrong with a configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// There is no such file, or it is not readable.
    #[error("cannot read the configuration file {path}: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        why: io::Error,
    },
    /// Not TOML.
    #[error("{place}: {why}")]
    Syntax {
        /// `FILE:LINE`.
        place: String,
        /// What the parser says.
        why: String,
    },
    /// No setting has this key.
    #[error("{place}: unknown key `{key}`: {hint}")]
    UnknownKey {
        /// `FILE:LINE`.
        place: String,
        /// The key.
        key: String,
        /// The nearest key, or all of them.
        hint: String,
    },
    /// A value of another TOML type.
    #[error("{place}: key `{key}`: {found}, but it takes {wanted}")]
    WrongType {
        /// `FILE:LINE`.
        place: String,
        /// The key.
        key: String,
        /// What is there.
        found: &'static str,
        /// What may be there.
        wanted: &'static str,
    },
    /// A value that is not allowed.
    #[error("{place}: key `{key}`: the value {value} is not allowed: {why}")]
    BadValue {
        /// `FILE:LINE`.
        place: String,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Why not, or what is allowed.
        why: String,
    },
    /// A setting that no TOML file can hold.
    #[error("the value of `{key}` is not UTF-8: it can only be given as a flag")]
    Unprintable {
        /// The key.
        key: String,
    },
}

/// Reads the file at `path` for `program`: entries by key.
///
/// # Errors
/// The first thing that is wrong.
pub fn read(program: &Program, path: &Path) -> Result<BTreeMap<String, Entry>, ConfigError> {
    let name = path.display().to_string();
    let text = contents(path).map_err(|why| ConfigError::Unreadable { path: name.clone(), why })?;
    parse(program, &name, &text)
}

fn contents(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than a configuration can be (1 MiB)"));
    }
    Ok(text)
}

fn parse(
    program: &Program,
    name: &str,
    text: &str,
) -> Result<BTreeMap<String, Entry>, ConfigError> {
    let place = |at: usize| {
        let before = text.as_bytes().iter().take(at);
        format!("{name}:{}", 1 + before.filter(|byte| **byte == b'\n').count())
    };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        place: place(error.span().map_or(0, |span| span.start)),
        why: error.message().replace('\n', ", "),
    })?;
    // In the order of the file, so that its first error is the one reported.
    let mut found: Vec<_> = table.into_inner().into_iter().collect();
    found.sort_by_key(|(key, _)| key.span().start);
    let mut entries = BTreeMap::new();
    for (word, value) in found {
        let (at, word) = (place(word.span().start), word.get_ref().to_string());
        let Some(arg) = program.settings().find(|arg| key(arg) == word) else {
            let hint = hint(program, &word);
            return Err(ConfigError::UnknownKey { place: at, key: word, hint });
        };
        let at = if value.get_ref().is_array() { at } else { place(value.span().start) };
        let values = values(arg, value.get_ref()).map_err(|(found, wanted)| {
            ConfigError::WrongType { place: at.clone(), key: word.clone(), found, wanted }
        })?;
        for value in &values {
            check(arg, value).map_err(|why| {
                let (place, key) = (at.clone(), word.clone());
                ConfigError::BadValue { place, key, value: format!("{value:?}"), why }
            })?;
        }
        entries.insert(word, Entry { place: at, values });
    }
    Ok(entries)
}

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Switch,
    Number,
    Bytes,
    Text,
    List,
}

impl Kind {
    pub(crate) fn of(arg: &Arg) -> Self {
        let holds = arg.get_value_parser().type_id();
        let numbers =
            [TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()];
        if is_list(arg) {
            Self::List
        } else if is_switch(arg) {
            Self::Switch
        } else if holds == TypeId::of::<Size>() {
            Self::Bytes
        } else if numbers.into_iter().any(|number| holds == number) {
            Self::Number
        } else {
            Self::Text
        }
    }

    const fn wanted(self) -> &'static str {
        match self {
            Self::Switch => "true or false",
            Self::Number => "a whole number",
            Self::Bytes => "a number of bytes, or a string such as \"64MiB\"",
            Self::Text => "a string",
            Self::List => "a string or an array of strings",
        }
    }
}

/// The value as the flag takes it; otherwise what it is and what it should be.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, (&'static str, &'static str)> {
    let kind = Kind::of(arg);
    let wrong = |value: &DeValue<'_>| (article(value), kind.wanted());
    let one = match (kind, value) {
        (Kind::Switch, DeValue::Boolean(yes)) => yes.to_string(),
        (Kind::Number | Kind::Bytes, DeValue::Integer(number)) => {
            i128::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| wrong(value))?
                .to_string()
        }
        (Kind::Bytes | Kind::Text | Kind::List, DeValue::String(text)) => text.to_string(),
        (Kind::List, DeValue::Array(items)) => {
            let text = |item: &DeValue<'_>| {
                item.as_str().map(str::to_owned).ok_or_else(|| (in_array(item), kind.wanted()))
            };
            return items.iter().map(|item| text(item.get_ref())).collect();
        }
        (
            Kind::Switch | Kind::Number | Kind::Bytes | Kind::Text | Kind::List,
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_),
        ) => return Err(wrong(value)),
    };
    Ok(vec![one])
}

const fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "this is a string",
        DeValue::Integer(_) => "this is a whole number",
        DeValue::Float(_) => "this is a number with a fraction",
        DeValue::Boolean(_) => "this is true or false",
        DeValue::Datetime(_) => "this is a date or a time",
        DeValue::Array(_) => "this is an array",
        DeValue::Table(_) => "this is a table",
    }
}

const fn in_array(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "this array holds a string",
        DeValue::Integer(_) => "this array holds a whole number",
        DeValue::Float(_) => "this array holds a number with a fraction",
        DeValue::Boolean(_) => "this array holds true or false",
        DeValue::Datetime(_) => "this array holds a date or a time",
        DeValue::Array(_) => "this array holds an array",
        DeValue::Table(_) => "this array holds a table",
    }
}

/// Lets the flag's own parser judge `value`.
fn check(arg: &Arg, value: &str) -> Result<(), String> {
    let alone = Arg::new("value")
        .long("value")
        .action(ArgAction::Set)
        .value_parser(arg.get_value_parser().clone());
    let command = Command::new("check").no_binary_name(true).arg(alone);
    match command.try_get_matches_from([format!("--value={value}")]) {
        Ok(_) => Ok(()),
        Err(error) => Err(reason(&error)),
    }
}

/// Why the parser refuses a value, without the words for a terminal around it.
fn reason(error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(allowed)) if !allowed.is_empty() => {
            format!("it takes {}", allowed.join(" or "))
        }
        _ => "it must not be empty".to_owned(),
    }
}

/// The key that was probably meant; all of them when none is near.
fn hint(program: &Program, word: &str) -> String {
    let mut keys: Vec<String> = program.settings().map(key).collect();
    keys.sort();
    let nearest = keys.iter().min_by_key(|key| distance(key, word));
    match nearest.filter(|key| distance(key, word) <= key.len().div_ceil(3)) {
        Some(key) => format!("did you mean `{key}`?"),
        None => format!("the keys are {}", keys.join(", ")),
    }
}

/// How many letters have to be put in, taken out or changed to make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
#[path = "config_file_tests.rs"]
mod tests;
