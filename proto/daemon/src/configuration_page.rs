//! `docs/configuration.md`: every setting of every daemon, as the programs themselves know them.

use std::fmt::Write;

use clap::Arg;

use crate::{
    config_file::Kind,
    program::{Program, key},
};

/// The page for `programs`.
pub fn render(programs: &[Program]) -> String {
    let mut page = HEAD.to_owned();
    for program in programs {
        let name = program.command().get_name();
        // Writing to a String cannot fail.
        let _ = write!(page, "\n## {name} {}\n\n{COLUMNS}", program.verb());
        for arg in program.settings() {
            page.push_str(&row(arg));
        }
    }
    page
}

const COLUMNS: &str =
    "| key | flag | variable | takes | default | meaning |\n|---|---|---|---|---|---|\n";

fn row(arg: &Arg) -> String {
    let flag = arg.get_long().unwrap_or_default();
    let variable = arg.get_env().map(|name| format!("`{}`", name.display())).unwrap_or_default();
    let default: Vec<String> = arg
        .get_default_values()
        .iter()
        .filter(|value| !value.is_empty())
        .map(|value| format!("`{}`", value.display()))
        .collect();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    format!(
        "| `{}` | `--{flag}` | {variable} | {} | {} | {} |\n",
        key(arg),
        takes(arg),
        default.join(" "),
        help.trim_end_matches('.').replace('|', "\\|"),
    )
}

fn takes(arg: &Arg) -> String {
    let unit = arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    let allowed = arg.get_possible_values();
    match Kind::of(arg) {
        Kind::Switch => "true or false".to_owned(),
        Kind::Bytes => "bytes (`\"64MiB\"`)".to_owned(),
        Kind::Number => match unit {
            Some("MS") => "milliseconds".to_owned(),
            Some("SECONDS") => "seconds".to_owned(),
            _ => "number".to_owned(),
        },
        Kind::List => "strings".to_owned(),
        Kind::Text if !allowed.is_empty() => {
            let names: Vec<_> =
                allowed.iter().map(|value| format!("`\"{}\"`", value.get_name())).collect();
            names.join(" or ")
        }
        Kind::Text => "string".to_owned(),
    }
}

const HEAD: &str = "\
<!-- Made from the programs' own definitions: CAIRN_UPDATE_DOCS=1 cargo test -p cairn-tests --test tidy -->
# Configuration

Each daemon reads its settings from four places. Later ones win:

1. the default,
2. a TOML file: `--config FILE` or `CAIRN_CONFIG`,
3. a variable `CAIRN_...`,
4. a flag.

A key of the file is the long flag with `_` for `-`. Keys stand at the top level; there are no tables. Relative paths
start at the directory that the process is started in. A list in a variable is separated by colons, as in `PATH`.
Switches are flags without a value; `--read-only=false` turns one off that a file or a variable turns on.

```toml
# /etc/cairn/node1.toml
data = [\"/disk1/cairn\", \"/disk2/cairn\"]
listen = \"192.0.2.11:9001\"
master = \"192.0.2.1:9000\"
reserve = \"10GiB\"
```

A mistake ends the program with exit code 2 and one sentence that names file, line and key. `--print-config` prints the
settings in effect, each with the place it comes from; the output is a file for `--config`. The token itself is never a
setting, only the path of the file that holds it.

The programs that are no daemons (`cairn upload`, ...) take flags and variables only. Every program logs what
`RUST_LOG` says (default `info`) and writes colours only to a terminal and never when `NO_COLOR` is set.
";
