//! The classic text format of Prometheus (version 0.0.4), made of the OpenMetrics text.
//!
//! They differ in two things that our metrics have: OpenMetrics describes a counter by its name without
//! `_total`, the classic format by the name that its samples have; and it has no `# EOF`.

use std::collections::HashSet;

/// `Content-Type` of the classic format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The same metrics in the classic format.
pub fn from_open_metrics(text: &str) -> String {
    let counter =
        |line: &str| line.strip_prefix("# TYPE ")?.strip_suffix(" counter").map(str::to_owned);
    let counters: HashSet<String> = text.lines().filter_map(counter).collect();
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        match described(line) {
            Some((what, name, rest)) if counters.contains(name) => {
                for part in [what, name, "_total ", rest] {
                    out.push_str(part);
                }
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// What a line of description begins with, the metric that it describes, and the rest.
fn described(line: &str) -> Option<(&str, &str, &str)> {
    let what = ["# HELP ", "# TYPE "].into_iter().find(|what| line.starts_with(what))?;
    let (name, rest) = line[what.len()..].split_once(' ')?;
    Some((what, name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_their_samples_names() {
        let open = "# HELP a_bytes Bytes.\n# TYPE a_bytes counter\na_bytes_total 1\n\
            # HELP a_bytes_now a_bytes now.\n# TYPE a_bytes_now gauge\na_bytes_now 2\n\
            # HELP t_seconds Time.\n# TYPE t_seconds histogram\nt_seconds_sum 0.5\n\
            t_seconds_count 1\nt_seconds_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let classic = "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\na_bytes_total 1\n\
            # HELP a_bytes_now a_bytes now.\n# TYPE a_bytes_now gauge\na_bytes_now 2\n\
            # HELP t_seconds Time.\n# TYPE t_seconds histogram\nt_seconds_sum 0.5\n\
            t_seconds_count 1\nt_seconds_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(from_open_metrics(open), classic);
    }

    #[test]
    fn label_values_that_look_like_descriptions_stay() {
        let open = "# TYPE x gauge\nx{disk=\"# TYPE x counter\"} 1\n# EOF\n";
        assert_eq!(from_open_metrics(open), "# TYPE x gauge\nx{disk=\"# TYPE x counter\"} 1\n");
    }
}
