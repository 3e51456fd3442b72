//! docs/models.md shows every key there is, with its default.

use std::collections::BTreeSet;

use model_store::{Batching, Embed, Limits, Settings, Task};
use vision::{Channels, Picture, Recipe, Scratch};

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
    for name in ["batching", "input", "output", "chat", "embed", "limits"] {
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
        (&shown.device, shown.intra_threads, shown.warm_up),
        (&default.device, Some(default.intra_threads()), default.warm_up)
    );
    assert_eq!((shown.output.activation, &shown.chat), (default.output.activation, &default.chat));
    let embed = Embed { output: None, ..shown.embed.clone() };
    assert_eq!((embed, shown.embed.output.as_deref()), (default.embed, Some("last_hidden_state")));
    // The optional keys of [input] are not there when left out, so what counts is the row that comes of it.
    let plain = "width = 224\nheight = 224\ncolor = \"gray\"\ninvert = \"auto\"\ntrim = \"auto\"";
    let plain = Settings::parse(&format!("[input]\n{plain}")).expect("reads").input.expect("is there");
    let shown = shown.input.expect("is there");
    let named = |recipe: &Recipe| {
        let table = recipe.table();
        (table.layout, table.dtype, table.fit, table.filter)
    };
    assert_eq!(named(&shown), named(&plain));
    assert_eq!((shown.background(), row(&shown)), (plain.background(), row(&plain)));
}

/// What a recipe makes of a picture that is wider than high, with something dark on light in it.
fn row(recipe: &Recipe) -> Vec<f32> {
    let (width, height) = (300, 240);
    let is_dark = |x: u32, y: u32| (70..190).contains(&x) && (90..160).contains(&y);
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| if is_dark(x, y) { (x % 50) as u8 } else { 230 }));
    let picture = Picture::new(width, height, Channels::Gray, pixels.collect()).expect("a picture");
    let mut row = vec![0.0; recipe.row_elements()];
    recipe.write_row(&picture, &mut Scratch::new(), &mut row).expect("a row");
    row
}

/// `FROM to TO` in a comment, whole numbers.
fn range(comment: &str) -> Option<(i64, i64)> {
    let words: Vec<&str> = comment.split([' ', ',', ';']).collect();
    words.windows(3).find_map(|three| (three[1] == "to").then_some((three[0].parse().ok()?, three[2].parse().ok()?)))
}

#[test]
fn the_ranges_shown_are_those_that_are_allowed() {
    let (mut table, mut ranges) = (String::new(), 0);
    let all: toml::Table = examples().last().expect("examples").parse().expect("TOML");
    for line in examples().last().expect("examples").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            name.clone_into(&mut table);
        }
        let Some((key, comment)) = line.split_once(" = ").and_then(|(key, rest)| Some((key, rest.split_once('#')?.1)))
        else {
            continue;
        };
        let Some((from, to)) = range(comment) else { continue };
        ranges += 1;
        for (value, allowed) in [(from - 1, false), (from, true), (to, true), (to + 1, false)] {
            let mut changed = all.clone();
            // It must not be less than the edges, which are tried by themselves.
            if key == "width" || key == "height" {
                changed["input"].as_table_mut().expect("a table").remove("resize");
            }
            let place = if table.is_empty() { &mut changed } else { changed[&table].as_table_mut().expect("a table") };
            let number = if place[key].is_float() { (value as f64).into() } else { value.into() };
            place.insert(key.to_owned(), number);
            let read = Settings::parse(&changed.to_string());
            assert_eq!(read.is_ok(), allowed, "{key} = {value}, shown is {comment}: {read:?}");
        }
    }
    assert_eq!(ranges, 20);
}

#[test]
fn every_example_can_be_used_as_it_stands() {
    for example in examples() {
        let settings = Settings::parse(example).unwrap_or_else(|error| panic!("{error}\n{example}"));
        assert_eq!(settings.input.is_some(), !matches!(settings.task, Task::Chat | Task::Embed));
    }
    assert_eq!(examples().len(), 4);
}
