//! The reports that verbs print with `--json`, described: as JSON Schema (`cairn schema VERB`) and as the
//! page `docs/json.md`, both made from the same types that are printed.

use std::fmt::Write;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::{
    analyze::report::AnalyzeReport, cluster::CopiesReport, df::DfReport, du::DuReport,
    failure::Failure, fsck::FsckReport, gc::GcReport, info::report::InfoReport, list::ListReport,
    meta::DumpReport, monitor::model::Moment, node::list::NodeListReport, output,
    profile::ProfileReport, quota::QuotasReport, rebalance::RebalanceReport, scrub::ScrubsReport,
    status::report::StatusReport, upload::UploadReport, verify::VerifyReport,
};

/// Print the JSON Schema of what a verb prints with --json
#[derive(Args, Debug)]
pub struct Schema {
    /// The verb
    verb: Report,
}

/// The verbs with `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Report {
    Status,
    Analyze,
    Monitor,
    Profile,
    Info,
    Df,
    Du,
    List,
    Verify,
    Fsck,
    Scrub,
    Gc,
    Upload,
    Node,
    Rebalance,
    Cluster,
    MetaDump,
    QuotaList,
}

impl Schema {
    /// # Errors
    /// When standard output takes nothing.
    pub fn run(self) -> Result<(), Failure> {
        output::json(&self.verb.schema())
    }
}

impl Report {
    fn schema(self) -> Value {
        let schema = match self {
            Self::Status => schemars::schema_for!(StatusReport),
            Self::Analyze => schemars::schema_for!(AnalyzeReport),
            Self::Monitor => schemars::schema_for!(Moment),
            Self::Profile => schemars::schema_for!(ProfileReport),
            Self::Info => schemars::schema_for!(InfoReport),
            Self::Df => schemars::schema_for!(DfReport),
            Self::Du => schemars::schema_for!(DuReport),
            Self::List => schemars::schema_for!(ListReport),
            Self::Verify => schemars::schema_for!(VerifyReport),
            Self::Fsck => schemars::schema_for!(FsckReport),
            Self::Scrub => schemars::schema_for!(ScrubsReport),
            Self::Gc => schemars::schema_for!(GcReport),
            Self::Upload => schemars::schema_for!(UploadReport),
            Self::Node => schemars::schema_for!(NodeListReport),
            Self::Rebalance => schemars::schema_for!(RebalanceReport),
            Self::Cluster => schemars::schema_for!(CopiesReport),
            Self::QuotaList => schemars::schema_for!(QuotasReport),
            Self::MetaDump => schemars::schema_for!(DumpReport),
        };
        schema.to_value()
    }

    fn verb(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }
}

const HEAD: &str = "# JSON reports

These verbs print JSON with `--json`. `version` grows only when a field changes its meaning or goes away; new
fields may appear at any time, so readers skip what they do not know. Numbers are integers unless \"number\"
is said; all sizes are bytes. What goes wrong is on standard error, and the exit code says so.
`cairn schema VERB` prints the same as JSON Schema.

This page is made from the programs: `CAIRN_UPDATE_DOCS=1 cargo test -p cairn-tests --test tidy` writes it.
";

/// The text of `docs/json.md`.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for report in Report::value_variants() {
        let verb = report.verb();
        let schema = report.schema();
        let called = verb.replace('-', " ");
        section(&mut page, &format!("## cairn {called} --json"), &schema);
        let definitions = schema.get("$defs").and_then(Value::as_object);
        for (name, definition) in definitions.into_iter().flatten() {
            section(&mut page, &format!("### {verb}: {name}"), definition);
        }
    }
    page
}

/// A heading, what the type is, and a table of its fields or a list of its words.
fn section(page: &mut String, heading: &str, schema: &Value) {
    let text = describe(schema);
    let _infallible = write!(page, "\n{heading}\n\n{}\n", sentence(&text));
    let rows = fields(schema);
    if !rows.is_empty() {
        let _infallible =
            write!(page, "\n| field | type | meaning |\n|---|---|---|\n{}\n", rows.join("\n"));
    }
    for word in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        if let Some(constant) = word.get("const").and_then(Value::as_str) {
            let _infallible = write!(page, "\n- `{constant}`: {}", describe(word));
        }
    }
    if schema.get("oneOf").is_some() {
        page.push('\n');
    }
}

fn fields(schema: &Value) -> Vec<String> {
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let row = |(name, field): (&String, &Value)| {
        format!("| `{name}` | {} | {} |", type_of(field), describe(field).replace('|', "\\|"))
    };
    properties.iter().map(row).collect()
}

/// The doc comment, in one line.
fn describe(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Without the command at its end, which the heading has.
fn sentence(text: &str) -> String {
    text.split(" `cairn ").next().unwrap_or(text).to_owned()
}

fn type_of(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return name;
    }
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
        return any.iter().map(type_of).collect::<Vec<_>>().join(" or ");
    }
    match schema.get("type") {
        Some(Value::Array(types)) => {
            let words = types.iter().filter_map(Value::as_str);
            words.map(|word| one_type(word, schema)).collect::<Vec<_>>().join(" or ")
        }
        Some(Value::String(word)) => one_type(word, schema),
        _ => "any".to_owned(),
    }
}

fn one_type(word: &str, schema: &Value) -> String {
    match word {
        "array" => schema
            .get("items")
            .map_or_else(|| "list".to_owned(), |items| format!("list of {}", type_of(items))),
        "object" => schema.get("additionalProperties").map_or_else(
            || "object".to_owned(),
            |values| format!("object, each value {}", type_of(values)),
        ),
        other => other.to_owned(),
    }
}

fn reference(schema: &Value) -> Option<String> {
    let path = schema.get("$ref")?.as_str()?;
    path.rsplit('/').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_every_report_has_a_meaning() {
        for report in Report::value_variants() {
            let schema = report.schema();
            let definitions = schema.get("$defs").and_then(Value::as_object);
            let all = definitions.into_iter().flatten().map(|(_, definition)| definition);
            for part in all.chain([&schema]) {
                for row in fields(part) {
                    assert!(!row.ends_with("|  |"), "{report:?} says nothing about {row}");
                }
            }
            assert!(schema.pointer("/properties/version").is_some(), "{report:?} has no version");
        }
    }
}
