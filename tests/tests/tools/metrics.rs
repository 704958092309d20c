//! Metrics of a cluster under load: what Prometheus' own checker says of them, whether they agree with
//! what was done and with `cairn status`, and with docs/metrics.md.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use cairn_tests::{
    Cluster, Layout, Mount, binaries::checkout, command::sh, scrape, scrape::Scrape, wait_for,
    within,
};

/// A cluster whose servers serve metrics.
fn cluster() -> Cluster {
    let listen = ["--metrics-listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
    Cluster::with(Layout { master_args: listen.clone(), node_args: listen, ..Layout::default() })
}

/// The pages of the master, the nodes and the mount.
fn pages(cluster: &mut Cluster, mount: &Mount) -> (Scrape, [Scrape; 2], Scrape) {
    let master = Scrape::tcp(scrape::address(cluster.master()));
    let nodes = [0, 1].map(|n| Scrape::tcp(scrape::address(cluster.node(n))));
    (master, nodes, Scrape::mount(mount))
}

/// What must be 0 when nobody does anything.
fn busy(master: &Scrape, nodes: &[Scrape; 2], mount: &Scrape) -> f64 {
    let of_nodes = nodes.iter().map(|n| n.sum("cairn_storage_budget_used_bytes")).sum::<f64>();
    master.sum("cairn_master_queue_length")
        + master.sum("cairn_master_operations_in_flight")
        + of_nodes
        + mount.sum("cairn_mount_operations_in_flight")
        + mount.sum("cairn_mount_transfer_used_bytes")
        + mount.sum("cairn_mount_dirty_bytes")
        + mount.sum("cairn_mount_master_requests_in_flight")
}

fn assert_promtool_is_content(what: &str, page: &Scrape) {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let started = promtool.stdout(Stdio::piped()).spawn();
    let mut promtool = started.expect("promtool is there: apt-get install prometheus");
    promtool.stdin.take().unwrap().write_all(page.text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    assert!(said.status.success() && words.trim().is_empty(), "{what}: {words}\n{}", page.text);
}

#[test]
fn numbers_agree_with_what_was_done_and_with_status() {
    within(180, || {
        const MIB: f64 = 1_048_576.0;
        let mut cluster = cluster();
        let mut mount = cluster.mount();
        let script = "head -c 8M /dev/urandom > one; dd if=one of=two bs=1M status=none; mkdir d; \
             for i in $(seq 20); do echo $i > d/$i; done; cat one two > /dev/null; rm d/1; ! cat absent";
        sh(mount.path(), 60, script);
        // Memory forgets, so that the nodes are asked.
        mount.kill9();
        cairn_tests::mount::detach(mount.path());
        mount.start(&cluster.master_address(), &[]);
        sh(mount.path(), 60, "cat one two > /dev/null");
        let idle = wait_for(Duration::from_secs(20), || {
            let (master, nodes, mount) = pages(&mut cluster, &mount);
            busy(&master, &nodes, &mount) == 0.0
        });
        assert!(idle, "something is busy still: {:?}", pages(&mut cluster, &mount));

        let (master, nodes, page) = pages(&mut cluster, &mount);
        assert_promtool_is_content("master", &master);
        assert_promtool_is_content("mount", &page);
        let small: f64 = (1..=20).map(|i: u32| i.to_string().len() as f64 + 1.0).sum();
        for node in &nodes {
            assert_promtool_is_content("node", node);
            let chunks = |result| {
                node.value(&format!("cairn_storage_put_chunks_total{{result=\"{result}\"}}"))
            };
            let bytes = |result| {
                node.value(&format!("cairn_storage_put_bytes_total{{result=\"{result}\"}}"))
            };
            assert_eq!((chunks("stored"), bytes("stored")), (128.0 + 20.0, 8.0 * MIB + small));
            // The second file has the chunks of the first. A few are sent before the mount asks first.
            let known = chunks("known");
            assert!((1.0..=128.0).contains(&known), "{known} chunks were there already");
            assert_eq!(bytes("known"), known * MIB / 16.0);
            assert_eq!(chunks("failed"), 0.0);
            assert_eq!(node.sum("cairn_storage_disk_chunks"), chunks("stored"));
            assert_eq!(node.sum("cairn_storage_disk_chunk_bytes"), bytes("stored"));
            assert_eq!(node.value("cairn_storage_master_connected"), 1.0);
            assert!(node.sum("cairn_storage_disk_sync_duration_seconds_count") >= 1.0);
        }
        assert!(
            nodes.iter().map(|n| n.sum("cairn_storage_get_bytes_total")).sum::<f64>() >= 8.0 * MIB
        );
        assert_eq!(page.value("cairn_mount_read_bytes_total"), 16.0 * MIB);
        assert_eq!(page.value("cairn_mount_fetched_bytes_total"), 8.0 * MIB);
        assert_eq!(page.value("cairn_mount_master_connected"), 1.0);
        assert_eq!(master.value("cairn_master_inodes{type=\"file\"}"), 2.0 + 19.0);
        assert_eq!(master.value("cairn_master_inodes{type=\"directory\"}"), 2.0);
        assert_eq!(master.value("cairn_master_nodes{state=\"up\"}"), 2.0);
        assert_eq!(master.sum("cairn_master_groups"), 1024.0);
        assert!(master.value("cairn_master_logical_bytes") > 16.0 * MIB);
        let operations = |operation: &str, result| {
            let labels = format!("{{operation=\"{operation}\",result=\"{result}\"}}");
            master.value(&format!("cairn_master_operations_total{labels}"))
        };
        assert_eq!((operations("create", "ok"), operations("unlink", "ok")), (23.0, 1.0));
        assert!(operations("lookup", "error") >= 1.0, "absent is absent");
        assert_agrees_with_status(&cluster, &master, &nodes);
    });
}

fn assert_agrees_with_status(cluster: &Cluster, master: &Scrape, nodes: &[Scrape; 2]) {
    let ran = cluster.cairn(60, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let named = |list: &serde_json::Value, key: &str, name: &str| {
        let entry = list.as_array().unwrap().iter().find(|entry| entry[key] == name);
        entry.unwrap_or_else(|| panic!("no {name} in {status:#}")).clone()
    };
    assert_eq!(number(&status["files"]), master.value("cairn_master_inodes{type=\"file\"}"));
    assert_eq!(number(&status["logical_bytes"]), master.value("cairn_master_logical_bytes"));
    assert_eq!(number(&status["referenced_bytes"]), master.value("cairn_master_referenced_bytes"));
    let created = named(&status["operations"], "kind", "create");
    let labels = "{operation=\"create\",result=\"ok\"}";
    let shown = master.value(&format!("cairn_master_operations_total{labels}"));
    assert_eq!(number(&created["done"]) - number(&created["failed"]), shown);
    for (name, page) in ["node1", "node2"].iter().zip(nodes) {
        let node = named(&status["nodes"], "name", name);
        // Reports come twice a second, and nothing has happened since the last but one.
        let activity = &node["activity"];
        let stored = page.value("cairn_storage_put_bytes_total{result=\"stored\"}");
        assert_eq!(number(&activity["bytes_put"]), stored);
        assert_eq!(number(&activity["bytes_got"]), page.value("cairn_storage_get_bytes_total"));
        assert_eq!(number(&node["disks"][0]["chunks"]), page.sum("cairn_storage_disk_chunks"));
    }
}

#[test]
fn the_document_lists_every_metric() {
    within(60, || {
        let mut cluster = cluster();
        let mount = cluster.mount();
        let (master, [node, _], mount) = pages(&mut cluster, &mount);
        let path = checkout().join("docs/metrics.md");
        let document = fs::read_to_string(&path).unwrap();
        let (begin, end) = ("<!-- begin: written by a test -->\n", "<!-- end -->\n");
        let (head, rest) = document.split_once(begin).unwrap();
        let (old, tail) = rest.split_once(end).unwrap();
        let mut new = String::new();
        let common = |page: &Scrape| {
            rows(page, |name| !name.starts_with("cairn_m") && !name.starts_with("cairn_s"))
        };
        write!(new, "\n## All three\n\n{}", common(&master)).unwrap();
        assert_eq!(common(&master), common(&node));
        assert_eq!(common(&master), common(&mount));
        for (title, page, prefix) in [
            ("cairn-master", &master, "cairn_master_"),
            ("cairn-storage", &node, "cairn_storage_"),
            ("cairn mount", &mount, "cairn_mount_"),
        ] {
            let own = rows(page, |name| name.starts_with(prefix));
            write!(new, "\n## {title}\n\n{own}").unwrap();
        }
        new.push('\n');
        if std::env::var_os("CAIRN_UPDATE_DOCS").is_some() {
            fs::write(&path, format!("{head}{begin}{new}{end}{tail}")).unwrap();
            return;
        }
        assert!(
            old == new,
            "docs/metrics.md is not what is served: CAIRN_UPDATE_DOCS=1 cargo test -p cairn-tests \
             --test tools -- the_document_lists_every_metric"
        );
    });
}

/// A table of the metrics of `page` that are `wanted`.
fn rows(page: &Scrape, wanted: impl Fn(&str) -> bool) -> String {
    let mut labels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in page.text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        let known = labels.entry(name.to_owned()).or_default();
        for pair in rest.split("\",").filter_map(|pair| pair.split_once("=\"")) {
            let label = format!("`{}`", pair.0);
            if pair.0 != "le" && !known.contains(&label) {
                known.push(label);
            }
        }
    }
    let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    let mut help = BTreeMap::new();
    for line in page.text.lines() {
        if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            help.insert(name, text);
        }
        let described = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '));
        let Some((name, kind)) = described.filter(|(name, _)| wanted(name)) else { continue };
        let labels = labels.get(name).map(|l| l.join(", ")).unwrap_or_default();
        writeln!(table, "| `{name}` | {kind} | {labels} | {} |", help[name]).unwrap();
    }
    table
}
