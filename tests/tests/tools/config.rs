//! Configuration: a file, variables and flags of real daemons, and what they say about mistakes.

use std::{fs, path::Path, process::Command, time::Duration};

use cairn_tests::{
    Cluster, binaries,
    command::{Ran, run},
    daemon::Daemon,
    within,
};

const LIMIT: Duration = Duration::from_secs(20);

fn serve(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().copied());
    run(command, LIMIT)
}

#[test]
fn a_file_alone_is_enough_to_serve() {
    within(60, || {
        let cluster = Cluster::new();
        let (data, file) = (cluster.place().join("other"), cluster.place().join("master.toml"));
        let mut format = Command::new(binaries::master());
        format.args(["format", "--data"]).arg(&data);
        assert!(run(format, LIMIT).ok());
        let text = format!("data = {data:?}\nlisten = \"127.0.0.1:0\"\nsession_expiry = 7\n");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(binaries::master());
        command.arg("serve").env("CAIRN_CONFIG", &file);
        let mut master = Daemon::start("master", command, &cluster.log_path("other"));
        master.listening(LIMIT).unwrap();
        assert!(master.terminate(LIMIT).is_some_and(|status| status.success()));
    });
}

#[test]
fn variables_win_over_the_file_and_flags_over_both() {
    within(60, || {
        let place = cairn_tests::scratch("config");
        let file = place.path().join("node.toml");
        fs::write(&file, "data = [\"/a\", \"/b\"]\nzone = \"z\"\nreserve = \"1GiB\"\n").unwrap();
        let path = file.to_str().unwrap();
        let ran = serve(
            &binaries::storage(),
            &["serve", "--config", path, "--print-config", "--reserve", "2G"],
            &[("CAIRN_NODE_DATA", "/c:/d"), ("CAIRN_NODE_NAME", "n")],
        );
        assert!(ran.ok(), "{ran}");
        let line = |start: &str| {
            ran.stdout.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned()
        };
        assert!(line("data = [\"/c\", \"/d\"]").ends_with("# variable CAIRN_NODE_DATA"), "{ran}");
        assert!(line("name = \"n\"").ends_with("# variable CAIRN_NODE_NAME"), "{ran}");
        assert!(line("zone = \"z\"").ends_with(&format!("# {path}:2")), "{ran}");
        assert!(line("reserve = \"2G\"").ends_with("# flag"), "{ran}");
        assert!(line("listen = ").ends_with("# default"), "{ran}");
        // What is printed is a configuration with the same effect.
        let again = place.path().join("again.toml");
        fs::write(&again, &ran.stdout).unwrap();
        let path = again.to_str().unwrap();
        let second =
            serve(&binaries::storage(), &["serve", "--config", path, "--print-config"], &[]);
        let values = |text: &str| {
            text.lines().map(|l| l.split(" # ").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(values(&ran.stdout), values(&second.stdout));
    });
}

#[test]
fn a_mistake_is_one_sentence_with_file_line_and_key() {
    within(60, || {
        let place = cairn_tests::scratch("config");
        let file = place.path().join("f.toml");
        let path = file.to_str().unwrap();
        let cases: [(&Path, &str, &str, &str); 5] = [
            (&binaries::master(), "serve", "\n\nlisten = 1", ":3: key `listen`: this is a whole"),
            (&binaries::master(), "serve", "lissen = \"x\"", "did you mean `listen`?"),
            (
                &binaries::storage(),
                "serve",
                "reserve = \"much\"",
                "key `reserve`: the value \"much\"",
            ),
            (&binaries::cairn(), "mount", "umask = \"999\"", "octal number up to 777"),
            (&binaries::cairn(), "mount", "x", ":1: "),
        ];
        for (program, verb, text, wanted) in cases {
            fs::write(&file, text).unwrap();
            let ran = serve(program, &[verb, "--config", path], &[]);
            assert_eq!(ran.code(), Some(2), "{ran}");
            assert!(ran.stderr.contains(wanted) && ran.stderr.contains(path), "{ran}");
            assert_eq!(ran.stderr.lines().count(), 1, "{ran}");
        }
        let missing = place.path().join("missing.toml");
        let ran = serve(
            &binaries::cairn(),
            &["mount", "--config", missing.to_str().unwrap(), "/mnt"],
            &[],
        );
        assert_eq!(ran.code(), Some(2), "{ran}");
        assert!(ran.stderr.contains("missing.toml: No such file"), "{ran}");
    });
}

#[test]
fn a_bad_variable_is_named() {
    for (program, arguments, variable, value) in [
        (binaries::cairn(), vec!["status"], "CAIRN_DEADLINE", "soon"),
        (binaries::storage(), vec!["serve", "--data", "/nowhere"], "CAIRN_NODE_LISTEN", "here"),
    ] {
        let ran = serve(&program, &arguments, &[(variable, value)]);
        assert_eq!(ran.code(), Some(2), "{ran}");
        assert!(ran.stderr.contains(variable) && ran.stderr.contains(value), "{ran}");
    }
}
