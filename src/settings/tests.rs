use std::path::PathBuf;

use super::*;

/// Writes a settings file; the directory keeps it while it is held.
fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn load(environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::load(None, pairs(environment).into_iter(), &pairs(flags))
}

/// What is wrong with these flags; one problem each.
fn flag_problem(key: &str, value: &str) -> String {
    let problems = load(&[], &[(key, value)]).expect_err(key).problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

#[test]
fn without_anything_the_defaults_hold() {
    assert_eq!(load(&[], &[]).unwrap(), Settings::default());
    assert_eq!(load(&[("PATH", "/bin"), ("THALWEG_HOME", "x")], &[]).unwrap(), Settings::default());
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let yaml =
        "kafka: {bootstrap_servers: file}\nrun:\n  commit_interval: 200ms\n  workers: 2\nstate: {dir: /f}\n";
    let toml = "[kafka]\nbootstrap_servers = 'file'\n[run]\ncommit_interval = '200ms'\nworkers = 2\n[state]\ndir = '/f'\n";
    for (name, text) in [("s.yaml", yaml), ("s.toml", toml)] {
        let (_dir, path) = file(name, text);
        let environment =
            pairs(&[("THALWEG__RUN__COMMIT_INTERVAL", "300ms"), ("THALWEG__STATE__DIR", "/environment")]);
        let flags = pairs(&[("state.dir", "/flag"), ("http.listen", "off")]);
        let settings = Settings::load(Some(&path), environment.into_iter(), &flags).unwrap();
        assert_eq!(settings.kafka.bootstrap_servers, "file");
        assert_eq!(settings.run.workers, 2);
        assert_eq!(settings.run.commit_interval_ms, 300);
        assert_eq!(settings.state.dir, PathBuf::from("/flag"));
        assert_eq!(settings.http.listen, Listen::Off);
        assert_eq!(settings.run.batch_records_max, Settings::default().run.batch_records_max);
    }
}

#[test]
fn every_kind_of_value_is_read_from_text() {
    let settings = load(
        &[
            ("THALWEG__RUN__WORKERS", "3"),
            ("THALWEG__STATE__CACHE_BYTES_MAX", "1GiB"),
            ("THALWEG__STATE__FLUSH_BYTES", "512KiB"),
            ("THALWEG__LOG__FORMAT", "json"),
            ("THALWEG__KAFKA__REPLICATION", "3"),
            ("THALWEG__KAFKA__CLIENT_ID", "007"),
        ],
        &[("run.shutdown_limit", "1m30s"), ("http.listen", "[::1]:0")],
    )
    .unwrap();
    assert_eq!(settings.run.workers, 3);
    assert_eq!(settings.state.cache_bytes_max, 1 << 30);
    assert_eq!(settings.state.flush_bytes, 512 << 10);
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.kafka.replication, 3);
    assert_eq!(settings.kafka.client_id.as_deref(), Some("007"));
    assert_eq!(settings.run.shutdown_limit_ms, 90_000);
    assert_eq!(settings.http.listen, Listen::At("[::1]:0".to_string()));
}

#[test]
fn librdkafka_properties_keep_their_dots_and_their_text() {
    let (_dir, path) = file(
        "s.yml",
        "kafka:\n  librdkafka:\n    socket.timeout.ms: 100\n    sasl.password: '007'\n    fetch: {wait: {max.ms: 5}}\n",
    );
    let environment = pairs(&[
        ("THALWEG__KAFKA__LIBRDKAFKA__SASL_USERNAME", "1e3"),
        ("THALWEG__KAFKA__LIBRDKAFKA__SOCKET_TIMEOUT_MS", "200"),
    ]);
    let flags = pairs(&[("kafka.librdkafka.ssl.key.password", "true")]);
    let settings = Settings::load(Some(&path), environment.into_iter(), &flags).unwrap();
    let expected = pairs(&[
        ("fetch.wait.max.ms", "5"),
        ("sasl.password", "007"),
        ("sasl.username", "1e3"),
        ("socket.timeout.ms", "200"),
        ("ssl.key.password", "true"),
    ]);
    assert_eq!(settings.kafka.librdkafka, expected.into_iter().collect());
}

#[test]
fn a_secret_that_yaml_takes_for_a_number_is_refused() {
    let (_dir, path) = file("s.yaml", "kafka: {librdkafka: {sasl.password: 007}}\n");
    let error = Settings::load(Some(&path), std::iter::empty(), &[]).unwrap_err();
    assert!(
        error.to_string().contains("write the value of kafka.librdkafka.sasl.password in quotes"),
        "{error}"
    );
}

#[test]
fn secrets_are_not_shown() {
    let secrets = [
        "sasl.password",
        "sasl.username",
        "ssl.key.pem",
        "ssl.keystore.password",
        "ssl.key.location",
        "sasl.oauthbearer.client.secret",
        "my.token",
    ];
    let mut settings = Settings::default();
    for key in secrets {
        settings.kafka.librdkafka.insert(key.to_string(), "hunter2".to_string());
    }
    settings.kafka.librdkafka.insert("socket.timeout.ms".to_string(), "visible".to_string());
    for text in [settings.render(), format!("{settings:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(text.matches("\"********\"").count(), secrets.len(), "{text}");
        assert!(text.contains("socket.timeout.ms: \"visible\""), "{text}");
    }
}

#[test]
fn what_is_shown_can_be_loaded() {
    let mut settings = load(
        &[],
        &[
            ("run.commit_interval", "1500ms"),
            ("run.restore_stall", "2m"),
            ("state.flush_bytes", "1025B"),
            ("http.listen", "off"),
            ("log.filter", "info,\"odd\": # text"),
            ("kafka.librdkafka.debug", "broker"),
        ],
    )
    .unwrap();
    for client_id in [None, Some("null".to_string())] {
        settings.kafka.client_id = client_id;
        let (_dir, path) = file("s.yaml", &settings.render());
        assert_eq!(Settings::load(Some(&path), std::iter::empty(), &[]).unwrap(), settings);
    }
}

#[test]
fn unknown_settings_are_refused_with_their_origin_and_the_nearest_key() {
    let (_dir, path) = file("s.yaml", "run: {wokers: 2, workers: 1}\nkafak: {client_id: x}\nlog:\n");
    let environment = pairs(&[("THALWEG__STATE__CACHE_BYTES", "1MiB"), ("THALWEG__X", "1")]);
    let flags = pairs(&[("commit_interval", "1s"), ("run.commit_interval", "2s")]);
    let error = Settings::load(Some(&path), environment.into_iter(), &flags).unwrap_err();
    let shown = path.display();
    assert_eq!(
        error.problems,
        [
            format!("{shown}: unknown setting `kafak.client_id`; did you mean `kafka.client_id`?"),
            format!("{shown}: unknown setting `run.wokers`; did you mean `run.workers`?"),
            "environment variable THALWEG__STATE__CACHE_BYTES: unknown setting `state.cache_bytes`; did you mean \
             `state.cache_bytes_max`?"
                .to_string(),
            "environment variable THALWEG__X: unknown setting `x`; `thalweg settings` lists all".to_string(),
            "flag commit_interval: unknown setting `commit_interval`; did you mean `run.commit_interval`?"
                .to_string(),
        ]
    );
}

#[test]
fn wrong_values_are_refused_with_key_and_reason() {
    for (key, value, reason) in [
        ("run.commit_interval", "100", "run.commit_interval: `100` is not a duration: `100` has no unit"),
        ("run.commit_interval", "-1s", "`-1s` is negative"),
        ("run.workers", "2.5", "run.workers: `2.5` is not a whole number in range"),
        ("run.workers", "-1", "`-1` is not a whole number in range"),
        (
            "state.flush_bytes",
            "64MB",
            "state.flush_bytes: `64MB` is not a size: write a whole number with its unit",
        ),
        ("state.flush_bytes", "1024", "`1024` is not a size"),
        ("state.flush_bytes", "99999999999GiB", "is not a size"),
        (
            "http.listen",
            "8080",
            "http.listen: `8080` is no address: write HOST:PORT like 127.0.0.1:8080, or off",
        ),
        ("http.listen", "localhost:99999", "is no address"),
        ("log.format", "xml", "log.format: `xml` is no log format: write text or json"),
        ("run", "x", "`run` is a section"),
        ("kafka.librdkafka", "x", "`kafka.librdkafka` is a section"),
    ] {
        let problem = flag_problem(key, value);
        assert!(problem.starts_with(&format!("flag {key}: ")) && problem.contains(reason), "{problem}");
    }
    let (_dir, path) = file("s.yaml", "run: {workers: [1]}\n");
    let error = Settings::load(Some(&path), std::iter::empty(), &[]).unwrap_err();
    assert!(error.to_string().contains("run.workers: invalid type: sequence"), "{error}");
}

#[test]
fn an_overridden_value_must_be_right_as_well() {
    let error = load(&[("THALWEG__RUN__WORKERS", "x")], &[("run.workers", "1")]).unwrap_err();
    assert!(
        error.to_string().starts_with("environment variable THALWEG__RUN__WORKERS: run.workers: `x`"),
        "{error}"
    );
}

#[test]
fn values_out_of_bounds_are_refused() {
    for (key, value, reason) in [
        ("run.commit_interval", "0ms", "run.commit_interval must be at least 1ms"),
        ("run.commit_interval", "10s", "kafka.transaction_timeout must be longer than run.commit_interval"),
        ("run.restore_stall", "10s", "run.restore_stall must be longer than kafka.transaction_timeout"),
        ("kafka.session_timeout", "999ms", "kafka.session_timeout must be between"),
        ("kafka.transaction_timeout", "16m", "kafka.transaction_timeout must be between"),
        ("kafka.replication", "0", "kafka.replication must be at least 1"),
        ("kafka.bootstrap_servers", " ", "kafka.bootstrap_servers is empty"),
        ("kafka.client_id", "", "kafka.client_id is empty"),
        ("state.dir", "", "state.dir is empty"),
        ("state.cache_bytes_max", "0B", "state.cache_bytes_max must be above 0"),
        ("state.flush_interval", "0", "state.flush_interval must be at least 1ms"),
        ("state.changelog_growth_percent", "1001", "state.changelog_growth_percent must be at most 1000"),
        ("state.changelog_growth_floor", "2GiB", "state.changelog_growth_floor must be at most 1GiB"),
        ("run.batch_records_max", "0", "run.batch_records_max must be above 0"),
        ("run.checkpoint_records_max", "999", "run.checkpoint_records_max must be at least"),
        ("run.checkpoint_bytes_max", "1KiB", "run.checkpoint_bytes_max must be at least"),
        ("run.workers", "1025", "run.workers must be at most 1024"),
    ] {
        let error = load(&[], &[(key, value)]).expect_err(key);
        assert!(error.to_string().contains(reason), "{key}: {error}");
    }
    // That there is no rest between two sweeps is in order.
    load(&[], &[("state.changelog_growth_percent", "0"), ("state.changelog_growth_floor", "0B")]).unwrap();
}

#[test]
fn properties_that_the_engine_owns_are_refused_with_the_reason() {
    for (property, reason) in [
        ("group.id", "the topology's name is the consumer group"),
        ("group.instance.id", "fixed identities"),
        ("group.protocol", "fixed identities"),
        ("partition.assignment.strategy", "partitions of equal number"),
        ("transactional.id", "fences"),
        ("transaction.timeout.ms", "kafka.transaction_timeout"),
        ("session.timeout.ms", "kafka.session_timeout"),
        ("bootstrap.servers", "kafka.bootstrap_servers"),
        ("metadata.broker.list", "kafka.bootstrap_servers"),
        ("client.id", "kafka.client_id"),
        ("enable.idempotence", "transactions depend"),
        ("isolation.level", "aborted records"),
        ("enable.auto.commit", "in the transaction"),
        ("enable.auto.offset.store", "in the transaction"),
        ("auto.commit.interval.ms", "in the transaction"),
        ("auto.offset.reset", "`start`"),
        ("allow.auto.create.topics", "misspelt"),
        ("enable.partition.eof", "ends of partitions"),
        ("plugin.library.paths", "foreign code"),
        ("sasl.kerberos.kinit.cmd", "shell command"),
        ("rebalance_cb", "cannot be set as text"),
    ] {
        let problem = flag_problem(&format!("kafka.librdkafka.{property}"), "x");
        let start = format!("flag kafka.librdkafka.{property}: `{property}` of librdkafka cannot be set: ");
        assert!(problem.starts_with(&start) && problem.contains(reason), "{problem}");
    }
    let variable = "THALWEG__KAFKA__LIBRDKAFKA__GROUP_ID";
    let error = load(&[(variable, "x")], &[]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("environment variable {variable}: `group.id`")), "{error}");
}

#[test]
fn files_that_cannot_be_read_are_errors() {
    let load_file =
        |path: &Path| Settings::load(Some(path), std::iter::empty(), &[]).unwrap_err().to_string();
    assert!(load_file(Path::new("/no/such.yaml")).starts_with("cannot read /no/such.yaml: "));
    assert!(load_file(Path::new("/no/such.json")).contains("call the file .yaml, .yml or .toml"));
    let (_dir, path) = file("s.yaml", "run: {workers: 1\n");
    assert!(load_file(&path).starts_with(&format!("{}: ", path.display())));
    let (_dir, path) = file("s.toml", "run = \n");
    assert!(load_file(&path).starts_with(&format!("{}: ", path.display())));
}

#[test]
fn the_documentation_names_every_setting_with_its_default() {
    let documentation = include_str!("../../docs/settings.md");
    for (section, settings) in layers::tree(&Settings::default()) {
        for (name, value) in settings.as_object().unwrap() {
            let default = match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Object(_) | serde_json::Value::Null => "none".to_string(),
                other => other.to_string(),
            };
            let start = format!("| `{section}.{name}` | `{default}` |");
            assert!(documentation.contains(&start), "docs/settings.md lacks the line {start}");
        }
    }
    let documented = documentation.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(documented, layers::known_keys().len(), "docs/settings.md has settings that do not exist");
}
