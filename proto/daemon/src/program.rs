//! [`Program`]: a program one of whose verbs is a daemon, and how the daemon's settings are read.
//!
//! A setting is a flag of the daemon's verb (or a global flag), a `CAIRN_*` variable, and a key of the
//! TOML file that `--config` names. The file's values become the defaults of the flags, so that the
//! parser itself lets variables win over the file and flags over both.

use std::{
    any::TypeId,
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{
    Arg, ArgAction, ArgMatches, Command, FromArgMatches,
    builder::{BoolishValueParser, Resettable},
    error::{ContextKind, ContextValue},
    value_parser,
};

use crate::{
    config_file::{self, ConfigError},
    print_config,
};

/// Exit code of a program that was called wrongly or has a wrong configuration.
const USAGE: u8 = 2;

const CONFIG: &str = "config";
const PRINT_CONFIG: &str = "print_config";
/// The heading of flags that say what to do once, and set nothing.
pub const ACTIONS: &str = "Actions";

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Program {
    command: Command,
    verb: &'static str,
}

/// Why a program ends before it has begun.
#[derive(Debug)]
pub enum Stop {
    /// The command line makes no sense, or asks for help.
    Usage(Box<clap::Error>),
    /// The configuration file does.
    Config(ConfigError),
    /// All that was wanted is this text.
    Print(String),
}

impl Stop {
    /// Says so, and answers with what the process `name` shall exit.
    pub fn report(self, name: &str) -> ExitCode {
        match self {
            Self::Usage(error) => {
                // Nothing can be done about a terminal that is gone.
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
            }
            Self::Config(error) => {
                let _ = writeln!(io::stderr(), "{name}: {error}");
                ExitCode::from(USAGE)
            }
            Self::Print(text) => match io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            },
        }
    }
}

impl From<clap::Error> for Stop {
    fn from(error: clap::Error) -> Self {
        Self::Usage(Box::new(error))
    }
}

impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// What parsing gave.
pub type Read = Result<ArgMatches, Stop>;

impl Program {
    /// `command`, whose verb `verb` is a daemon. The verb gets `--config` and `--print-config`, and its
    /// switches can be turned off too (`--read-only=false`).
    pub fn new(command: Command, verb: &'static str) -> Self {
        let command = command.mut_subcommand(verb, |daemon| {
            let config = Arg::new(CONFIG).long("config").value_name("FILE").env("CAIRN_CONFIG");
            let print = Arg::new(PRINT_CONFIG).long("print-config").action(ArgAction::SetTrue);
            daemon
                .mut_args(|arg| if is_switch(&arg) { two_way(arg) } else { arg })
                .arg(
                    config
                        .value_parser(value_parser!(PathBuf))
                        .help("TOML file with settings; variables and flags win over it"),
                )
                .arg(print.help("Print the settings in effect, each with its origin, and end"))
        });
        Self { command, verb }
    }

    /// The command line.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// The verb that is a daemon.
    pub fn verb(&self) -> &'static str {
        self.verb
    }

    /// What can be set: flags of the daemon's verb, then global ones that have a variable.
    pub fn settings(&self) -> impl Iterator<Item = &Arg> {
        let own = self.daemon().get_arguments();
        let global = self.command.get_arguments();
        let global = global.filter(|arg| arg.is_global_set() && arg.get_env().is_some());
        own.chain(global).filter(|arg| {
            let about_itself = [CONFIG, PRINT_CONFIG].contains(&arg.get_id().as_str());
            let action = arg.get_help_heading() == Some(ACTIONS);
            arg.get_long().is_some() && !arg.is_hide_set() && !about_itself && !action
        })
    }

    /// Reads `arguments` (the first is the program's name), variables and the file that they name.
    ///
    /// # Errors
    /// Why there is nothing to do, or how to do it is unclear.
    pub fn read(&self, arguments: &[OsString]) -> Read {
        let matches = self.loosely(arguments)?;
        let Some((verb, daemon)) = matches.subcommand() else { return Ok(matches) };
        if verb != self.verb {
            return Ok(matches);
        }
        let entries = match daemon.get_one::<PathBuf>(CONFIG) {
            Some(path) => config_file::read(self, path)?,
            None => BTreeMap::new(),
        };
        let layered = self.with_file(&entries).with_lists_of(self);
        if daemon.get_flag(PRINT_CONFIG) {
            let matches = layered.relaxed().try_get_matches_from(arguments)?;
            return Err(Stop::Print(print_config::render(self, &matches, &entries)?));
        }
        let matches = layered.command.clone().try_get_matches_from(arguments);
        Ok(matches.map_err(|error| self.name_variable(error, arguments))?)
    }

    /// As [`Program::read`], in the form that the program declared.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub fn read_as<T: FromArgMatches>(&self, arguments: &[OsString]) -> Result<T, Stop> {
        Ok(T::from_arg_matches(&self.read(arguments)?)?)
    }

    /// The daemon's verb as `arguments` have it, whatever is missing; none when it is another verb.
    ///
    /// # Errors
    /// When the command line makes no sense.
    pub fn glimpse(&self, arguments: &[OsString]) -> Result<Option<ArgMatches>, Stop> {
        let mut matches = self.loosely(arguments)?;
        Ok(matches.remove_subcommand().filter(|(verb, _)| verb == self.verb).map(|(_, m)| m))
    }

    /// Parses with nothing required of the daemon. Help and complaints are of the real command line.
    fn loosely(&self, arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
        self.relaxed().try_get_matches_from(arguments).map_err(|error| {
            let error = self.command.clone().try_get_matches_from(arguments).err().unwrap_or(error);
            self.name_variable(error, arguments)
        })
    }

    /// A bad value that is not on the command line came from a variable; the parser does not say so.
    fn name_variable(&self, error: clap::Error, arguments: &[OsString]) -> clap::Error {
        let (Some(ContextValue::String(flag)), Some(ContextValue::String(value))) =
            (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
        else {
            return error;
        };
        let typed = |word: &OsString| {
            let word = word.to_string_lossy();
            word == value.as_str() || word.ends_with(&format!("={value}"))
        };
        if arguments.iter().any(typed) {
            return error;
        }
        let verbs = self.command.get_subcommands().flat_map(Command::get_arguments);
        let variable = self.command.get_arguments().chain(verbs).find_map(|arg| {
            let named = flag.split([' ', '=']).next()?.strip_prefix("--")? == arg.get_long()?;
            let variable = arg.get_env().filter(|_| named)?;
            (std::env::var_os(variable)?.to_string_lossy() == value.as_str()).then_some(variable)
        });
        let Some(variable) = variable else { return error };
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let sentence = format!("{first} (from the variable {})", variable.to_string_lossy());
        self.command.clone().error(error.kind(), sentence)
    }

    fn daemon(&self) -> &Command {
        self.command.find_subcommand(self.verb).expect("the program has this verb")
    }

    /// The command line with nothing required of the daemon: what is missing may be in the file.
    fn relaxed(&self) -> Command {
        self.command
            .clone()
            .mut_subcommand(self.verb, |daemon| daemon.mut_args(|arg| arg.required(false)))
    }

    /// The file's values as defaults.
    fn with_file(&self, entries: &BTreeMap<String, config_file::Entry>) -> Self {
        self.settings().fold(self.clone(), |program, arg| match entries.get(&key(arg)) {
            Some(entry) => {
                program.with_default(arg, entry.values.iter().map(OsString::from).collect())
            }
            None => program,
        })
    }

    /// Lists in variables, which win over the file, are separated as those of PATH are; the parser
    /// knows no such separator. `original` still knows their variables.
    fn with_lists_of(self, original: &Self) -> Self {
        original.settings().filter(|arg| is_list(arg)).fold(
            self,
            |program, arg| match list_variable(arg) {
                Some(values) => program.with_default(arg, values),
                None => program,
            },
        )
    }

    fn with_default(self, arg: &Arg, values: Vec<OsString>) -> Self {
        // The parser keeps what lives as long as the process, as a command line does.
        let values: Vec<&'static OsStr> =
            values.into_iter().map(|v| &*Box::leak(v.into_boxed_os_str())).collect();
        let list = is_list(arg);
        let change = move |arg: Arg| {
            let arg = if list { arg.env(Resettable::Reset) } else { arg };
            arg.required(false).default_values(values)
        };
        let id = arg.get_id().as_str().to_owned();
        let command = if arg.is_global_set() {
            self.command.mut_arg(id, change)
        } else {
            self.command.mut_subcommand(self.verb, |daemon| daemon.mut_arg(id, change))
        };
        Self { command, ..self }
    }
}

/// The key of a setting in a file.
pub fn key(arg: &Arg) -> String {
    arg.get_long().unwrap_or_default().replace('-', "_")
}

/// Whether a setting is yes or no.
pub fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
        || (matches!(arg.get_action(), ArgAction::Set)
            && arg.get_value_parser().type_id() == TypeId::of::<bool>())
}

/// Whether a setting has any number of values.
pub fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// The values that the variable of the list `arg` has, if it is set.
pub(crate) fn list_variable(arg: &Arg) -> Option<Vec<OsString>> {
    let text = std::env::var_os(arg.get_env()?).filter(|text| !text.is_empty())?;
    Some(std::env::split_paths(&text).map(PathBuf::into_os_string).collect())
}

fn two_way(arg: Arg) -> Arg {
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .hide_possible_values(true)
        .value_name("true|false")
        .value_parser(BoolishValueParser::new())
}
