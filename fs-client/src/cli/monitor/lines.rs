//! One line a look, for logs and pipes.

use cairn_proto::Timestamp;
use tokio::sync::mpsc;

use super::{
    model::{ClusterMoment, Model, Moment},
    poll::Look,
};
use crate::cli::{failure::Failure, list, units};

/// Prints `count` lines, or lines for ever.
///
/// # Errors
/// Not at all: what does not work is in the lines.
pub(super) async fn print(
    address: String,
    mut looks: mpsc::Receiver<Look>,
    json: bool,
    count: Option<u64>,
) -> Result<(), Failure> {
    let mut model = Model::new(address);
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(look) = looks.recv().await else { break };
        let moment = model.take(look);
        if json {
            println!("{}", serde_json::to_string(moment).expect("plain data"));
        } else {
            println!("{}", text(moment));
        }
        left -= 1;
    }
    Ok(())
}

fn text(moment: &Moment) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds of a clock")]
    let time = list::time_text(Timestamp { seconds: moment.time as i64, nanos: 0 });
    match (&moment.cluster, &moment.error) {
        (Some(cluster), _) => format!("{time}  {}", cluster_text(cluster)),
        (None, why) => format!("{time}  no answer: {}", why.as_deref().unwrap_or_default()),
    }
}

fn cluster_text(c: &ClusterMoment) -> String {
    let up = c.nodes.iter().filter(|n| n.state == "up").count();
    let cpu = |percent: Option<f64>| percent.map_or_else(|| "-".to_owned(), |p| format!("{p:.0}%"));
    let nodes_cpu = c.nodes.iter().filter_map(|n| n.process.cpu_percent).reduce(|a, b| a + b);
    format!(
        "in {}/s  out {}/s  {} op/s  nodes {up}/{} up  degraded {}{}  sessions {}  stored {}  free {}  \
         cpu master {} nodes {}",
        rate(c.bytes_in_per_second),
        rate(c.bytes_out_per_second),
        c.operations_per_second.map_or_else(|| "-".to_owned(), operations),
        c.nodes.len(),
        c.degraded_groups,
        repair(c),
        c.sessions,
        units::bytes(c.stored_bytes),
        units::bytes(c.free_bytes),
        cpu(c.master_process.cpu_percent),
        cpu(nodes_cpu),
    )
}

/// What repair does; nothing while it has nothing to do.
fn repair(c: &ClusterMoment) -> String {
    if c.groups_not_whole == 0 {
        return String::new();
    }
    format!(
        "  repair {} groups, {} at {}/s",
        c.groups_not_whole,
        units::bytes(c.bytes_to_move),
        units::bytes(c.repair_bytes_per_second)
    )
}

/// Bytes in a second, `-` when they are not known.
pub(super) fn rate(bytes: Option<f64>) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates at 0")]
    bytes.map_or_else(|| "-".to_owned(), |b| units::bytes(b.round() as u64))
}

/// Operations in a second.
pub(super) fn operations(n: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates at 0")]
    if n < 9.95 && n.fract() != 0.0 { format!("{n:.1}") } else { units::count(n.round() as u64) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::cli::monitor::model::tests::{look, status};

    #[test]
    fn a_line_says_what_matters() {
        let mut model = Model::new("m:1".to_owned());
        let start = Instant::now();
        let first = text(model.take(look(start, Ok(status(0, 0, 1)))));
        assert!(first.contains("in -/s"), "{first}");
        let later = look(start + Duration::from_secs(1), Ok(status(1 << 20, 5, 1)));
        let line = text(model.take(later));
        assert_eq!(
            line,
            "2026-11-22 14:46:40  in 2.0 MiB/s  out 0 B/s  5 op/s  nodes 1/2 up  degraded 2  \
             sessions 1  stored 40.0 GiB  free 150.0 GiB  cpu master 0% nodes 210%"
        );
        let away = text(model.take(look(start, Err("nobody listens".to_owned()))));
        assert!(away.ends_with("no answer: nobody listens"), "{away}");
    }
}
