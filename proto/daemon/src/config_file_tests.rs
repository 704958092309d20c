//! Tests of [`super`]: every error, every precedence, and what is printed.

use std::{ffi::OsString, fs};

use clap::{Arg, ArgMatches, Command, value_parser};

use super::*;
use crate::program::Stop;

fn program() -> Program {
    let serve = Command::new("serve")
        .arg(
            Arg::new("data")
                .long("data")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(std::path::PathBuf)),
        )
        .arg(
            Arg::new("listen")
                .long("listen")
                .default_value("127.0.0.1:1")
                .value_parser(value_parser!(std::net::SocketAddr)),
        )
        .arg(
            Arg::new("down_after")
                .long("down-after")
                .default_value("30")
                .value_parser(value_parser!(u64).range(1..=100)),
        )
        .arg(
            Arg::new("cache").long("cache").default_value("1MiB").value_parser(value_parser!(Size)),
        )
        .arg(Arg::new("engine").long("engine").value_parser(["fjall", "memory"]))
        .arg(Arg::new("read_only").long("read-only").action(ArgAction::SetTrue));
    let command = Command::new("test")
        .arg(
            Arg::new("master")
                .long("master")
                .global(true)
                .env("CAIRN_NO_SUCH_VARIABLE")
                .default_value("here"),
        )
        .subcommand(serve)
        .subcommand(Command::new("other"));
    Program::new(command, "serve")
}

fn error(text: &str) -> String {
    parse(&program(), "f.toml", text).unwrap_err().to_string()
}

fn read(file: &str, arguments: &[&str]) -> Result<ArgMatches, Stop> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("f.toml");
    fs::write(&path, file).unwrap();
    let given = ["test", "serve", "--config", path.to_str().unwrap()];
    let arguments: Vec<OsString> = given.iter().chain(arguments).map(OsString::from).collect();
    program().read(&arguments)
}

fn daemon(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().unwrap().1
}

#[test]
fn errors_name_file_line_and_key() {
    for (text, wanted) in [
        ("# a\nlisen = \"x\"", "f.toml:2: unknown key `lisen`: did you mean `listen`?"),
        ("[table]\nx = 1", "f.toml:1: unknown key `table`: the keys are cache, data,"),
        (
            "\nlisten = 9000",
            "f.toml:2: key `listen`: this is a whole number, but it takes a string",
        ),
        ("listen = \"9000\"", "f.toml:1: key `listen`: the value \"9000\" is not allowed: invalid"),
        ("down_after = \"5\"", "this is a string, but it takes a whole number"),
        ("down_after = 101", "the value \"101\" is not allowed: 101 is not in 1..=100"),
        ("down_after = -1", "the value \"-1\" is not allowed"),
        ("down_after = 1.5", "this is a number with a fraction"),
        ("cache = \"lots\"", "not a number of bytes; write for example"),
        ("cache = true", "this is true or false, but it takes a number of bytes"),
        ("engine = \"x\"", "the value \"x\" is not allowed: it takes fjall or memory"),
        ("read_only = \"yes\"", "this is a string, but it takes true or false"),
        ("data = [\n1]", "f.toml:1: key `data`: this array holds a whole number, but it takes"),
        ("data = \"\"", "is not allowed: it must not be empty"),
        ("master = { a = 1 }", "f.toml:1: key `master`: this is a table"),
        ("config = \"x\"", "unknown key `config`"),
        ("a = 1\na = 2", "f.toml:2: duplicate key"),
        ("a = ", "f.toml:1: "),
    ] {
        let error = error(text);
        assert!(error.contains(wanted), "{text:?} gives {error:?}");
        assert!(error.starts_with("f.toml:") && !error.contains('\n'), "{error:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let arguments = ["test", "serve", "--config", "/nonexistent/f.toml"].map(OsString::from);
    let Err(Stop::Config(error)) = program().read(&arguments) else { panic!("it was read") };
    assert!(error.to_string().contains("/nonexistent/f.toml: No such file"), "{error}");
    let arguments = ["test", "serve", "--config", "/"].map(OsString::from);
    assert!(matches!(program().read(&arguments), Err(Stop::Config(_))));
    let arguments = ["test", "serve", "--config", "/dev/zero"].map(OsString::from);
    assert!(matches!(program().read(&arguments), Err(Stop::Config(_))));
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file = "data = [\"/a\", \"/b\"]\nmaster = \"there\"\ndown_after = 0x10\nread_only = true\n";
    let matches = read(file, &["--down-after", "7"]).unwrap();
    let daemon = daemon(&matches);
    let data: Vec<_> = daemon.get_many::<std::path::PathBuf>("data").unwrap().collect();
    assert_eq!(data, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(daemon.get_one::<String>("master").unwrap(), "there");
    assert_eq!(daemon.get_one::<u64>("down_after"), Some(&7));
    assert_eq!(daemon.get_one::<Size>("cache"), Some(&Size::mib(1)));
    assert!(daemon.get_flag("read_only"));
    let matches = read(file, &["--read-only=false", "--data", "/c", "--master", "m"]).unwrap();
    let daemon = self::daemon(&matches);
    assert!(!daemon.get_flag("read_only"));
    assert_eq!(daemon.get_many::<std::path::PathBuf>("data").unwrap().count(), 1);
    assert_eq!(daemon.get_one::<String>("master").unwrap(), "m");
}

#[test]
fn what_is_required_may_be_in_the_file_but_must_be_somewhere() {
    assert!(read("data = \"/a\"", &[]).is_ok());
    assert!(matches!(read("", &[]), Err(Stop::Usage(_))));
}

#[test]
fn what_is_printed_says_where_it_comes_from_and_can_be_read_again() {
    let file = "data = \"/a \\\"b\\\"\\n\"\ncache = \"3MiB\"\n";
    let print = |file: &str, flags: &[&str]| match read(file, flags) {
        Err(Stop::Print(text)) => text,
        other => panic!("{other:?}"),
    };
    let text = print(file, &["--print-config", "--read-only"]);
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("data").starts_with("data = [\"/a \\\"b\\\"\\u000A\"]"), "{text}");
    assert!(line("data").ends_with("f.toml:1"), "{text}");
    assert!(line("cache = \"3MiB\"").ends_with("f.toml:2"), "{text}");
    assert!(line("down_after = 30").ends_with("# default"), "{text}");
    assert!(line("read_only = true").ends_with("# flag"), "{text}");
    assert!(line("# engine =").ends_with("# not set"), "{text}");
    let again = print(&text, &["--print-config"]);
    let values = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(" # ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(values(&text), values(&again));
}

#[test]
fn other_verbs_know_no_configuration() {
    let arguments = ["test", "other"].map(OsString::from);
    assert_eq!(program().read(&arguments).unwrap().subcommand_name(), Some("other"));
    let arguments = ["test", "other", "--config", "x"].map(OsString::from);
    assert!(matches!(program().read(&arguments), Err(Stop::Usage(_))));
}
