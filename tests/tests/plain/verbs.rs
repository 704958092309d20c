//! The verbs of `cairn`, with their exit codes.

use std::fs;

use cairn_tests::{Cluster, Rng, within};

#[test]
fn a_file_goes_in_is_listed_printed_and_comes_out_again() {
    within(120, || {
        let cluster = Cluster::new();
        let place = cluster.place();
        let bytes = Rng::new(1).bytes(1_000_000);
        fs::write(place.join("local file"), &bytes).unwrap();
        let ok = |arguments: &[&str]| {
            let ran = cluster.cairn(60, arguments);
            assert!(ran.ok(), "{ran}");
            ran.stdout
        };
        ok(&["mkdir", "/dir"]);
        ok(&["upload", "local file", "/dir/there"]);
        assert!(ok(&["list", "-r"]).contains("dir/there"));
        assert!(ok(&["list", "-l", "/dir"]).contains("1000000"));
        ok(&["download", "/dir/there", "back"]);
        assert!(fs::read(place.join("back")).unwrap() == bytes);
        fs::write(place.join("text"), "some text\n").unwrap();
        ok(&["upload", "text", "/dir/text"]);
        assert_eq!(ok(&["cat", "/dir/text"]), "some text\n");
        ok(&["verify"]);
        let status = ok(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["files"], 2);
        assert_eq!(status["nodes"].as_array().unwrap().len(), 2);
        assert_eq!(status["logical_bytes"], 1_000_010);
        assert_eq!(status["nodes"][0]["state"], "up");
        ok(&["rm", "/dir/there"]);
        let gone = cluster.cairn(60, &["cat", "/dir/there"]);
        assert_eq!(gone.code(), Some(1), "{gone}");
        assert!(gone.stderr.contains("dir/there"), "the error does not name the file: {gone}");
        cluster.assert_sound();
    });
}

#[test]
fn without_a_master_every_verb_fails_with_a_sentence() {
    within(120, || {
        let mut cluster = Cluster::new();
        cluster.kill_master();
        for verb in [&["list"][..], &["status"], &["verify"], &["cat", "/x"], &["mkdir", "/d"]] {
            let ran = cluster.cairn(50, &[&["--deadline", "3"], verb].concat());
            assert_eq!(ran.code(), Some(1), "{ran}");
            assert!(ran.stderr.contains(&cluster.master_address()), "{ran}");
            assert!(!ran.stderr.contains("panicked"), "{ran}");
        }
    });
}
