use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::*;
use crate::Size;
use crate::logs::Requests;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    calls: usize,
    note: String,
    frame: Size,
    #[serde(with = "duration")]
    idle: Duration,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Some {
    listen: SocketAddr,
    models: Vec<String>,
    requests: Requests,
    limits: Limits,
}

/// As strict as the one that the programs use.
mod duration {
    use std::time::Duration;

    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}s", time.as_secs()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        let seconds = text.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
        seconds.map(Duration::from_secs).ok_or_else(|| D::Error::custom(format!("{text:?}, expected a duration")))
    }
}

impl Default for Some {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            models: vec!["models".into()],
            requests: Requests::All,
            limits: Limits { calls: 7, note: String::new(), frame: Size::mib(1), idle: Duration::from_secs(1) },
        }
    }
}

fn with(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Some, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("some.toml");
    std::fs::write(&path, file).expect("a temporary file");
    let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let sources = Sources { file: Option::Some(&path), prefix: "OUTBOARD_TEST", lists: &["models"], flags };
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    read_with(&sources, environment, None).map_err(|error| error.to_string())
}

#[test]
fn later_sources_win_and_the_rest_keeps_its_default() {
    assert_eq!(with("", &[], &[]), Ok(Some::default()));
    let file = "listen = '127.0.0.1:1'\nmodels = ['x']\n[limits]\ncalls = 3\nframe = '2 KiB'\nnote = 'file'";
    let environment = [("OUTBOARD_TEST__LIMITS__CALLS", "4"), ("OUTBOARD_TEST__LIMITS__NOTE", "variable")];
    let read = with(file, &environment, &[("limits.calls", "5"), ("models", "a, b,")]).expect("good settings");
    assert_eq!(read.listen.port(), 1);
    assert_eq!(read.models, ["a", "b"]);
    assert_eq!((read.limits.calls, read.limits.note.as_str()), (5, "variable"));
    assert_eq!((read.limits.frame, read.limits.idle), (Size::bytes(2048), Duration::from_secs(1)));
}

#[test]
fn one_table_is_read_alone_whatever_else_the_sources_say() {
    #[derive(Default, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Part {
        store: Store,
    }
    #[derive(Default, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Store {
        days: u32,
        name: String,
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("some.toml");
    let read = |text: &str, environment: &[(&str, &str)]| {
        std::fs::write(&path, text).expect("a temporary file");
        let flags = vec![("store.name".to_owned(), "flag".to_owned())];
        let sources = Sources { file: Option::Some(&path), prefix: "OUTBOARD_TEST", lists: &[], flags };
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        read_with::<Part>(&sources, environment, Option::Some("store")).map_err(|error| error.to_string())
    };
    let environment = [("OUTBOARD_TEST__LISTEN", "127.0.0.1:1"), ("OUTBOARD_TEST__STORE__NAME", "variable")];
    let part = read("listen = 'x'\n[limits]\nframe = 1\n[store]\ndays = 7\nname = 'file'", &environment);
    assert_eq!(part, Ok(Part { store: Store { days: 7, name: "flag".to_owned() } }));
    let error = read("[store]\nday = 7", &[]).expect_err("mistyped");
    assert!(error.contains("store.day") && error.contains("days, name"), "{error}");
}

#[test]
fn an_empty_text_is_an_empty_list() {
    assert_eq!(with("", &[("OUTBOARD_TEST__MODELS", "")], &[]).expect("good").models, [""; 0]);
    assert_eq!(with("", &[], &[("models", " , ")]).expect("good").models, [""; 0]);
}

#[test]
fn a_text_stays_as_it_is_where_a_text_belongs() {
    assert_eq!(with("", &[("OUTBOARD_TEST__LIMITS__NOTE", "007")], &[]).expect("good").limits.note, "007");
    assert_eq!(with("", &[], &[("models", "1,2")]).expect("good").models, ["1", "2"]);
}

#[test]
fn variables_of_others_are_left_alone() {
    let others = [("OUTBOARD_TEST_PORT", "tcp://10.0.0.1:9090"), ("OUTBOARD_TESTING__X", "1"), ("PATH", "/bin")];
    assert_eq!(with("", &others, &[]), Ok(Some::default()));
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_with_what_is_allowed() {
    let variable = |name: &'static str, value: &'static str| vec![(name, value)];
    let none = Vec::new;
    for (file, environment, flags, says) in [
        ("lisen = '127.0.0.1:1'", none(), none(), &["`lisen`", "some.toml", "listen, models"][..]),
        ("[limits]\ncals = 3", none(), none(), &["`limits.cals`", "some.toml", "calls, frame"]),
        ("", variable("OUTBOARD_TEST__LIMITS__CALS", "3"), none(), &["`limits.cals`", "OUTBOARD_TEST__LIMITS__CALS=3"]),
        ("", none(), variable("limits.cals", "3"), &["`limits.cals`", "on the command line: limits.cals=3"]),
        ("listen = 'nowhere'", none(), none(), &["`listen`", "address", "some.toml"]),
        ("[limits]\ncalls = 'many'", none(), none(), &["`limits.calls`", "\"many\"", "integer", "some.toml"]),
        ("[limits]\ncalls = 'many'", none(), variable("limits.calls", "lots"), &["\"lots\"", "command line"]),
        ("", none(), variable("limits.calls", "-1"), &["`limits.calls`", "-1", "command line"]),
        ("", none(), variable("limits.idle", "soon"), &["`limits.idle`", "soon", "such as 10s", "command line"]),
        ("", none(), variable("limits.frame", "much"), &["`limits.frame`", "much", "15 MiB", "command line"]),
        ("", none(), variable("limits.frame", "-5"), &["`limits.frame`", "-5", "15 MiB"]),
        (
            "",
            variable("OUTBOARD_TEST__REQUESTS", "some"),
            none(),
            &["`requests`", "some", "all, failures", "OUTBOARD_TEST__"],
        ),
        ("limits = 3", none(), none(), &["`limits` is a table", "calls", "some.toml"]),
        ("[listen]\nport = 3", none(), none(), &["`listen` is a value", "some.toml"]),
        ("models = [['x']]", none(), none(), &["`models[0]`", "some.toml"]),
        ("\n\nlisten = ", none(), none(), &["some.toml, line 3"]),
        ("", none(), variable("limits..calls", "3"), &["\"limits..calls\" is no key"]),
        ("", none(), variable("", "3"), &["\"\" is no key"]),
        ("", variable("OUTBOARD_TEST__", "3"), none(), &["is no key", "OUTBOARD_TEST__=3"]),
    ] {
        let error = with(file, &environment, &flags).expect_err(file);
        for part in says {
            assert!(error.contains(part), "{file:?} {environment:?} {flags:?} gives {error:?}, which lacks {part:?}");
        }
        assert!(!error.contains('\n'), "one line: {error}");
    }
    let named = [("listen", &std::option::Option::Some("a:1".to_owned())), ("admin", &None)];
    let flags = command_line(&named, &["limits.calls = 3".to_owned()]).expect("has a =");
    let expected = [("listen", "a:1"), ("limits.calls", "3")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(flags, expected, "what is set comes last and wins");
    assert!(assignment("novalue").expect_err("no =").to_string().contains("novalue"));
}

#[test]
fn a_wrong_key_is_refused_even_where_a_later_source_wins() {
    let error = with("[limits]\ncals = 1", &[], &[("limits.calls", "2")]).expect_err("a wrong key");
    assert!(error.contains("cals"), "{error}");
}

#[test]
fn what_is_printed_reads_back() {
    let printed = print(&Some::default()).expect("prints");
    assert_eq!(with(&printed, &[], &[]), Ok(Some::default()));
}

#[test]
fn a_range_names_key_value_and_both_ends() {
    assert!(within("k", 1, 1..=2).is_ok() && within("k", 2, 1..=2).is_ok());
    for value in [0, 3] {
        let error = within("k", value, 1..=2).expect_err("outside").to_string();
        assert_eq!(error, format!("settings: `k` is {value}, allowed is 1 to 2"));
    }
}

#[test]
fn the_variables_of_open_telemetry_stand_below_our_own() {
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Traced {
        traces: crate::traces::Settings,
    }
    let read = |environment: &[(&str, &str)], flags: &[(&str, &str)]| {
        let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let sources = Sources { file: Option::None, prefix: "OUTBOARD_TEST", lists: &[], flags };
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        let read = read_with::<Traced>(&sources, environment, None);
        read.map(|read| read.traces).map_err(|error| error.to_string())
    };
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
    let all = [
        base,
        ("OTEL_SERVICE_NAME", "shop"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", ""),
        ("OTEL_LOGS_EXPORTER", "none"),
    ];
    let traces = read(&all, &[]).expect("good settings");
    assert_eq!(traces.endpoint, "http://collector:4318/v1/traces");
    let sampler = crate::traces::Sampler::Ratio;
    assert_eq!((traces.service.as_str(), traces.sampler, traces.ratio, traces.queue), ("shop", sampler, 0.5, 2_048));
    let ours = [base, ("OUTBOARD_TEST__TRACES__ENDPOINT", "http://mine"), ("OTEL_SERVICE_NAME", "shop")];
    let traces = read(&ours, &[("traces.service", "flag")]).expect("good settings");
    assert_eq!((traces.endpoint.as_str(), traces.service.as_str()), ("http://mine", "flag"));
    let own_path = [base, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces/all")];
    assert_eq!(read(&own_path, &[]).map(|traces| traces.endpoint).as_deref(), Ok("http://traces/all"));
    let disabled = [base, ("OTEL_SDK_DISABLED", "true")];
    assert_eq!(read(&disabled, &[]).map(|traces| traces.endpoint).as_deref(), Ok(""));
    let wrong = read(&[("OTEL_TRACES_SAMPLER", "sometimes")], &[]).expect_err("no such sampler");
    assert!(wrong.contains("`traces.sampler`") && wrong.contains("OTEL_TRACES_SAMPLER=sometimes"), "{wrong}");
    // Other programs' settings have no traces, and do not care.
    assert_eq!(with("", &[("OTEL_TRACES_SAMPLER", "sometimes")], &[]), Ok(Some::default()));
}
