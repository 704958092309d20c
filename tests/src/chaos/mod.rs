//! Chaos: clients work while parts are killed, stopped, cut off, slowed down, filled up and damaged, by
//! the schedule of a seed; afterwards everything is healed and compared with what the clients have
//! written down.
//!
//! [`fault`] is the schedule, [`site`] carries it out, [`client`] is a client's process, which does
//! [`action`]s and writes a [`journal`]; [`model`] says what must be there after a journal, [`check`]
//! whether it is, [`bounds`] what daemons may take. [`rot`] and [`clock`] are faults that need more
//! than a signal.

pub mod action;
pub mod bounds;
pub mod check;
pub mod client;
pub mod clock;
pub mod fault;
mod garbage;
pub mod journal;
pub mod model;
pub mod rot;
pub mod site;

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use self::{
    fault::{Episode, Schedule},
    site::Site,
};
use crate::wait_for;

/// How long everything may take to be whole again.
const HEALED: Duration = Duration::from_secs(180);

/// One run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Decides schedule and clients.
    pub seed: u64,
    /// How long things happen.
    pub length: Duration,
    /// The program `cairn-test-client`.
    pub client: String,
}

impl Run {
    /// Runs and checks.
    ///
    /// # Panics
    /// When anything is not as it must be. Journals and logs are kept then.
    pub fn go(&self) {
        let seed = self.seed;
        eprintln!(
            "chaos: seed {seed}, {:?}; again with: scripts/chaos.sh --seed {seed}",
            self.length
        );
        let mut site = Site::new(&self.client, seed);
        let mut wrong = Vec::new();
        let began = Instant::now();
        for episode in Schedule::new(seed, Site::targets()) {
            if began.elapsed() >= self.length {
                break;
            }
            happen(&mut site, &episode, began);
            for (name, id) in site.daemons() {
                let complaint = bounds::taken(id).and_then(|taken| bounds::complaint(&name, taken));
                wrong.extend(complaint);
            }
        }
        site.stop_clients();
        wrong.extend(checked(&mut site));
        if !wrong.is_empty() {
            let kept = keep(&site, seed);
            panic!("seed {seed} (kept in {}):\n{}", kept.display(), wrong.join("\n"));
        }
    }
}

fn happen(site: &mut Site, episode: &Episode, began: Instant) {
    let Episode { fault, second, hold, rest } = episode;
    let with = second.map_or_else(String::new, |second| format!(" and {second}"));
    eprintln!("{:7.1} s: {fault}{with} for {hold:?}", began.elapsed().as_secs_f32());
    site.begin(*fault);
    if let Some(second) = second {
        site.begin(*second);
    }
    thread::sleep(*hold);
    // What others need to start comes first.
    let of_nodes = |fault: &fault::Fault| format!("{fault}").contains("Node");
    let mut faults: Vec<_> = [Some(*fault), *second].into_iter().flatten().collect();
    faults.sort_by_key(of_nodes);
    faults.into_iter().for_each(|fault| site.end(fault));
    thread::sleep(*rest);
}

/// Everything that is wrong after the end.
fn checked(site: &mut Site) -> Vec<String> {
    let mut wrong = Vec::new();
    site.cluster.wait_healthy();
    let mount = site.cluster.mount();
    for client in &site.clients {
        let name = &client.directory;
        match check::client(&client.journal, &mount.join(name)) {
            Ok(seen) => {
                eprintln!(
                    "{name}: {} acknowledged, {} in doubt, {} names compared, longest action {:?}",
                    seen.acknowledged, seen.doubts, seen.names, seen.longest
                );
                if seen.acknowledged == 0 {
                    wrong.push(format!("{name} has done nothing"));
                }
                wrong.extend(seen.wrong.into_iter().map(|what| format!("{name}: {what}")));
            }
            Err(e) => wrong.push(format!("{name} cannot be checked: {e}")),
        }
    }
    match crate::inspect::fsck(&site.cluster) {
        Ok(findings) => wrong.extend(findings.into_iter().map(|f| format!("fsck: {f}"))),
        Err(e) => wrong.push(format!("fsck: {e}")),
    }
    wrong.extend(verified(site));
    wrong.extend(garbage::collected(&site.cluster));
    wrong.extend(verified(site));
    for (name, id) in site.daemons() {
        let Some(taken) = bounds::taken(id) else { continue };
        eprintln!("{name}: {} MiB at most, {} descriptors", taken.memory >> 20, taken.descriptors);
        wrong.extend(bounds::complaint(&name, taken));
    }
    wrong
}

/// `cairn verify`: repair makes every copy whole again, also of what has rotted.
fn verified(site: &Site) -> Vec<String> {
    eprintln!("{} chunks have rotted", site.rotten.len());
    let (mut wrong, began) = (Vec::new(), Instant::now());
    wait_for(HEALED, || {
        wrong.clear();
        let ran = site.cluster.cairn(120, &["verify", "--json"]);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        if report["ok"] != Value::Bool(true) {
            wrong.push(format!("verify: {ran}"));
        }
        wrong.is_empty()
    });
    eprintln!("looked at until every copy was right: {:?}", began.elapsed());
    wrong
}

/// Journals and logs, for whoever looks for the reason.
fn keep(site: &Site, seed: u64) -> PathBuf {
    let kept = std::env::temp_dir().join(format!("chaos-{seed}"));
    drop(fs::create_dir_all(&kept));
    let mut sources: Vec<PathBuf> =
        site.mounts.iter().map(|m| m.path().with_extension("log")).collect();
    sources.extend(
        fs::read_dir(site.cluster.place()).into_iter().flatten().flatten().map(|e| e.path()),
    );
    for (n, source) in sources.iter().enumerate() {
        let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if source.is_file() {
            drop(fs::copy(source, kept.join(format!("{n:02}-{name}"))));
        }
    }
    kept
}
