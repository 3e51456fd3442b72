//! docs/models.md shows every key there is, with its default.

use std::collections::BTreeSet;

use model_store::{Batching, Limits, Settings};

/// The examples of the document, in order.
fn examples() -> Vec<&'static str> {
    let document = include_str!("../../../docs/models.md");
    document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// The keys that a table may have, as its error for an unknown one names them.
fn known(table: &str) -> BTreeSet<String> {
    let size = if table == "[input]\n" { "width = 1\nheight = 1\n" } else { "" };
    let error = Settings::parse(&format!("{table}{size}no_such_key = 1")).expect_err("there is no such key");
    let (_, list) = error.split_once("expected ").unwrap_or_else(|| panic!("{table}: {error}"));
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_is_shown_and_none_that_is_not_there() {
    let all: toml::Table = examples().last().expect("examples").parse().expect("TOML");
    let keys = |table: &toml::Table| table.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&all), known(""));
    for name in ["batching", "input", "output", "limits"] {
        let table = all[name].as_table().expect("a table");
        let known = known(&format!("[{name}]\n"));
        assert_eq!(keys(table), known, "[{name}]");
    }
}

#[test]
fn the_values_shown_are_the_defaults() {
    let examples = examples();
    let shown = Settings::parse(examples.last().expect("examples")).expect("reads");
    let default = Settings::default();
    assert_eq!(shown.batching, Some(Batching::default()));
    assert_eq!(Limits { pixels: None, edge: None, ..shown.limits }, Limits::default());
    let server = vision::Limits::default();
    assert_eq!((shown.limits.pixels, shown.limits.edge), (Some(server.pixels), Some(server.edge)));
    assert_eq!(
        (shown.device, shown.intra_threads, shown.warm_up),
        (default.device, default.intra_threads, default.warm_up)
    );
    assert_eq!(shown.output.activation, default.output.activation);
    // What the recipe makes of a table without any of the optional keys is what it makes of the one shown.
    let plain = Settings::parse("[input]\nwidth = 224\nheight = 224").expect("reads").input.expect("is there");
    let mut table = shown.input.expect("is there").table().clone();
    (table.name, table.trim_margin, table.resize, table.background) = (None, None, None, None);
    (table.mean, table.std, table.scale) = (Vec::new(), Vec::new(), None);
    // Where the comment names the default, because the keys below need another value.
    (table.color, table.invert, table.trim) = Default::default();
    assert_eq!(&table, plain.table());
}

#[test]
fn every_example_can_be_used_as_it_stands() {
    for example in examples() {
        let settings = Settings::parse(example).unwrap_or_else(|error| panic!("{error}\n{example}"));
        assert!(settings.input.is_some());
    }
    assert_eq!(examples().len(), 2);
}
