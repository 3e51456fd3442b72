//! Texts to vectors, through real runs of the tiny models of `testdata` and of the bundled one.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{EmbedOptions, Embedded, Model, State, Texts};
use fault::Kind;
use serde_json::Value;
use tempfile::TempDir;

use support::{House, Seen, patient, within};

/// Golden vectors are written with seven digits and come from other kernels than those of a run with filling.
const NEAR: f32 = 1e-5;

const TINY: &str = "task = \"embed\"\n[embed]\nmax_tokens = 40\n";

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn put(house: &Path, name: &str, tiny: &str, toml: &str) {
    let place = house.join(name);
    fs::create_dir_all(place.join("1")).expect("a folder");
    fs::copy(testdata().join(tiny).join("model.onnx"), place.join("1/model.onnx")).expect("a copy");
    fs::copy(testdata().join(tiny).join("tokenizer.json"), place.join("tokenizer.json")).expect("a copy");
    fs::write(place.join("model.toml"), toml).expect("a file");
}

async fn tiny(name: &str, toml: &str) -> (House, Arc<Model>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "m", name, toml);
    let house = House::in_folder(folder, |_| {});
    let model = house.ready("m").await;
    (house, model)
}

/// Text, tokens, and the vector before it is normalised.
fn golden(name: &str) -> Vec<(String, Vec<i32>, Vec<f32>)> {
    let text = fs::read_to_string(testdata().join(name).join("golden.json")).expect("a file");
    let entries: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let entry = |entry: Value| {
        let text = entry["text"].as_str().expect("a text").to_owned();
        let tokens = entry["tokens"].as_array().expect("tokens").iter().map(|id| id.as_i64().expect("an id") as i32);
        let vector =
            entry["vector"].as_array().expect("numbers").iter().map(|value| value.as_f64().expect("one") as f32);
        (text, tokens.collect(), vector.collect())
    };
    entries.into_iter().map(entry).collect()
}

fn vectors(embedded: &Embedded) -> Vec<Vec<f32>> {
    let floats: Vec<f32> = embedded.vectors.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    floats.chunks_exact(embedded.dimensions).map(<[f32]>::to_vec).collect()
}

fn words(texts: &[&str]) -> Texts {
    Texts::Words(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn assert_near(one: &[f32], other: &[f32], tolerance: f32, what: &str) {
    assert_eq!(one.len(), other.len(), "{what}");
    let apart = one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart <= tolerance, "{what}: {apart} apart");
}

fn cosine(one: &[f32], other: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

const RAW: EmbedOptions =
    EmbedOptions { normalise: Some(false), dimensions: None, truncate: false, owner: String::new() };

#[tokio::test]
async fn vectors_are_those_of_the_reference_together_and_alone() {
    for (name, toml, joins) in
        [("tiny-bert", TINY.to_owned(), true), ("tiny-maskless", format!("{TINY}pooling = \"cls\"\n"), false)]
    {
        let (mut house, model) = tiny(name, &toml).await;
        let golden = golden(name);
        house.rest();
        let all = Texts::Words(golden.iter().map(|(text, ..)| text.clone()).collect());
        let together = model.embed(all, RAW, patient()).await.expect("vectors");
        let rows: Vec<usize> = house
            .rest()
            .into_iter()
            .filter_map(|seen| if let Seen::Rows(rows) = seen { Some(rows) } else { None })
            .collect();
        assert_eq!(rows.iter().sum::<usize>(), golden.len(), "runs count texts");
        assert_eq!(rows.iter().any(|rows| *rows > 1), joins, "{name}: {rows:?}");
        let counts: Vec<usize> = golden.iter().map(|(_, tokens, _)| tokens.len()).collect();
        assert_eq!((together.dimensions, &together.token_counts), (24, &counts));
        for ((text, tokens, vector), came) in golden.iter().zip(vectors(&together)) {
            assert_near(&came, vector, NEAR, text);
            let alone = model.embed(words(&[text]), RAW, patient()).await.expect("a vector");
            assert_near(&vectors(&alone)[0], vector, NEAR, text);
            // Tokens come without what the tokenizer puts around them.
            if tokens.len() > 2 {
                let inner = Texts::Tokens(vec![tokens[1..tokens.len() - 1].to_vec()]);
                let of_tokens = model.embed(inner, RAW, patient()).await.expect("a vector");
                assert_near(&vectors(&of_tokens)[0], vector, NEAR, text);
            }
        }
    }
}

#[tokio::test]
async fn callers_at_the_same_time_have_the_answers_they_have_alone() {
    let (_house, model) = tiny("tiny-bert", TINY).await;
    let golden = golden("tiny-bert");
    let calls = (0..60).map(|number| {
        let (model, (text, _, vector)) = (Arc::clone(&model), golden[number % golden.len()].clone());
        tokio::spawn(async move {
            let came = model.embed(words(&[&text]), RAW, patient()).await.expect("a vector");
            assert_near(&vectors(&came)[0], &vector, NEAR, &text);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("no panic");
    }
}

#[tokio::test]
async fn vectors_are_normalised_and_cut_as_asked_and_as_the_model_says() {
    let raw = format!("{TINY}normalise = false\n");
    let vector = golden("tiny-bert").swap_remove(0).2;
    let length = |vector: &[f32]| vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    let scaled = |vector: &[f32]| vector.iter().map(|value| value / length(vector)).collect::<Vec<_>>();
    for (toml, normalises) in [(TINY, true), (raw.as_str(), false)] {
        let (_house, model) = tiny("tiny-bert", toml).await;
        for (normalise, dimensions) in [(None, None), (Some(true), Some(5)), (Some(false), Some(5)), (None, Some(24))] {
            let options = EmbedOptions { normalise, dimensions, ..RAW };
            let came = model.embed(words(&["The ship moves."]), options.clone(), patient()).await.expect("a vector");
            let cut = &vector[..dimensions.unwrap_or(24)];
            let expected = if normalise.unwrap_or(normalises) { scaled(cut) } else { cut.to_vec() };
            assert_near(&vectors(&came)[0], &expected, NEAR, &format!("{options:?}"));
        }
    }
}

#[tokio::test]
async fn a_text_that_is_too_long_is_refused_with_both_numbers_or_cut() {
    let (_house, model) = tiny("tiny-bert", TINY).await;
    let long = "ship ".repeat(50);
    let refused = |texts: Texts| async { model.embed(texts, RAW, patient()).await.expect_err("is refused") };
    let fault = refused(words(&["x", &long])).await;
    assert_eq!((fault.kind, fault.param.as_deref()), (Kind::TooLarge, Some("texts")));
    assert_eq!(fault.message, "text 2 of the call has 52 tokens, the model takes 40");
    let fault = refused(Texts::Tokens(vec![vec![4; 39]])).await;
    assert_eq!(
        (fault.message.as_ref(), fault.param.as_deref()),
        ("the text has 41 tokens, the model takes 40", Some("tokens"))
    );
    let fault = refused(words(&[&"ship ".repeat(1000)])).await;
    assert!(fault.message.contains("5000 bytes") && fault.message.contains("40 tokens"), "{fault}");
    let cut = EmbedOptions { truncate: true, ..RAW };
    let shortened = model.embed(words(&[&long]), cut.clone(), patient()).await.expect("is cut");
    let whole = model.embed(words(&["ship ".repeat(38).trim()]), RAW, patient()).await.expect("fits exactly");
    assert_eq!((shortened.token_counts[0], whole.token_counts[0]), (40, 40));
    assert_near(&vectors(&shortened)[0], &vectors(&whole)[0], NEAR, "what was cut does not count");
    let huge = model.embed(words(&[&"ship ".repeat(100_000)]), cut, patient()).await.expect("is cut");
    assert_eq!(huge.token_counts, [40]);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let (_house, model) = tiny("tiny-bert", TINY).await;
    let wide = |dimensions| EmbedOptions { dimensions: Some(dimensions), ..RAW };
    for (texts, options, kind, param, says) in [
        (words(&[]), RAW, Kind::InvalidInput, "texts", "no text"),
        (words(&["x", ""]), RAW, Kind::InvalidInput, "texts", "text 2 of the call is empty"),
        // Before any work is done: the first text is too long.
        (words(&["x ".repeat(2000).as_str(), ""]), RAW, Kind::InvalidInput, "texts", "text 2 of the call is empty"),
        (Texts::Tokens(vec![vec![]]), RAW, Kind::InvalidInput, "tokens", "the text is empty"),
        (
            Texts::Tokens(vec![vec![4, 101]]),
            RAW,
            Kind::InvalidInput,
            "tokens",
            "the token 101, the model knows 0 to 100",
        ),
        (Texts::Tokens(vec![vec![-1]]), RAW, Kind::InvalidInput, "tokens", "the token -1"),
        (words(&["x"; 2049]), RAW, Kind::TooLarge, "texts", "2049 texts in one call, the limit is 2048"),
        (words(&["x"]), wide(0), Kind::InvalidInput, "dimensions", "dimensions is 0, model `m` gives 1 to 24"),
        (words(&["x"]), wide(25), Kind::InvalidInput, "dimensions", "dimensions is 25"),
    ] {
        let fault = model.embed(texts, options, patient()).await.expect_err(says);
        assert_eq!((fault.kind, fault.param.as_deref()), (kind, Some(param)), "{fault}");
        assert!(fault.message.contains(says), "{fault}");
    }
    let most = model.embed(words(&["x"; 2048]), RAW, patient()).await.expect("as many as may be");
    assert_eq!(most.token_counts.len(), 2048);
    let (_house, classifier) = House::of("batch_free", support::CLASSIFIER).await;
    let fault = classifier.embed(words(&["x"]), RAW, patient()).await.expect_err("does not embed");
    assert_eq!((fault.kind, fault.message.as_ref()), (Kind::InvalidInput, "model `m` does not embed texts"));
}

#[tokio::test]
async fn answers_larger_than_a_frame_are_refused_before_they_are_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "m", "tiny-bert", TINY);
    let house = House::in_folder(folder, |settings| settings.output_bytes = 24 * 40 * 4);
    let model = house.ready("m").await;
    let fault = model.embed(words(&["x"; 41]), RAW, patient()).await.expect_err("too many");
    assert_eq!((fault.kind, fault.param.as_deref()), (Kind::TooLarge, Some("texts")));
    assert!(fault.message.contains("3936 bytes, the limit is 3840"), "{fault}");
    assert!(model.embed(words(&["x"; 40]), RAW, patient()).await.is_ok());
}

/// A call filled the queue: others were refused, and those that were not came after all of it.
#[tokio::test]
async fn a_caller_with_thousands_of_texts_keeps_no_other_waiting() {
    let (_house, model) =
        tiny("tiny-bert", "task = \"embed\"\n[embed]\nmax_tokens = 40\n[limits]\nqueue_rows = 64\n").await;
    let of = |owner: &str| EmbedOptions { owner: owner.to_owned(), ..RAW };
    let many = {
        let (model, options) = (Arc::clone(&model), of("many"));
        let text = "ship ".repeat(38);
        tokio::spawn(async move { model.embed(words(&vec![text.trim(); 2048]), options, patient()).await })
    };
    while model.load().0 + model.load().1 == 0 {
        assert!(!many.is_finished(), "it was not taken");
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        model.embed(words(&["The ship moves."]), of("one"), patient()).await.expect("there is room");
    }
    assert!(!many.is_finished(), "it was served first");
    let all = many.await.expect("it does not panic").expect("vectors");
    assert_eq!(all.token_counts.len(), 2048);
}

#[tokio::test]
async fn a_deadline_that_has_passed_reaches_no_run() {
    let (mut house, model) = tiny("tiny-bert", TINY).await;
    house.rest();
    let fault = model.embed(words(&["x"]), RAW, within(0)).await.expect_err("it has passed");
    assert_eq!(fault.kind, Kind::DeadlineExceeded);
    assert!(!house.rest().iter().any(|seen| matches!(seen, Seen::Rows(_))));
}

#[tokio::test]
async fn a_model_that_cannot_serve_says_why() {
    for (tiny, toml, remove, says) in [
        ("tiny-bert", "task = \"embed\"\n", None, "a text of 512 tokens (`embed.max_tokens`)"),
        ("tiny-bert", TINY, Some("tokenizer.json"), "tokenizer.json"),
        ("tiny-bert", "task = \"embed\"\n[embed]\nmax_tokens = 40\noutput = \"pooled\"\n", None, "last_hidden_state"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        put(folder.path(), "m", tiny, toml);
        if let Some(file) = remove {
            fs::remove_file(folder.path().join("m").join(file)).expect("was there");
        }
        let house = House::in_folder(folder, |_| {});
        let model = house.engine.model("m", None).expect("is known");
        let State::Failed(reason) = model.settled().await else { panic!("{toml} is served") };
        assert!(reason.contains(says), "{reason}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "m", "tiny-bert", TINY);
    fs::copy(support::testdata("batch_free"), folder.path().join("m/1/model.onnx")).expect("a copy");
    let house = House::in_folder(folder, |_| {});
    let State::Failed(reason) = house.engine.model("m", None).expect("is known").settled().await else {
        panic!("a graph of pictures makes vectors of texts")
    };
    assert!(reason.contains("an embedding model is given input_ids"), "{reason}");
}

#[tokio::test]
async fn an_export_of_sentence_transformers_is_served_by_its_own_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().join("m");
    fs::create_dir_all(place.join("onnx")).expect("a folder");
    fs::create_dir_all(place.join("1_Pooling")).expect("a folder");
    fs::copy(testdata().join("tiny-bert/model.onnx"), place.join("onnx/model.onnx")).expect("a copy");
    fs::copy(testdata().join("tiny-bert/tokenizer.json"), place.join("tokenizer.json")).expect("a copy");
    fs::write(place.join("config.json"), r#"{"architectures": ["BertModel"]}"#).expect("a file");
    fs::write(place.join("sentence_bert_config.json"), r#"{"max_seq_length": 30}"#).expect("a file");
    let steps = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
    fs::write(place.join("modules.json"), steps).expect("a file");
    fs::write(place.join("1_Pooling/config.json"), r#"{"pooling_mode_mean_tokens": true}"#).expect("a file");
    let house = House::in_folder(folder, |_| {});
    let model = house.ready("m").await;
    let (text, _, vector) = golden("tiny-bert").swap_remove(2);
    let came = model.embed(words(&[&text]), EmbedOptions::default(), patient()).await.expect("a vector");
    assert_near(&vectors(&came)[0], &vector, NEAR, "not normalised, as its files say");
    let fault = model.embed(words(&[&"x ".repeat(29)]), RAW, patient()).await.expect_err("too long");
    assert!(fault.message.contains("31 tokens, the model takes 30"), "{fault}");
}

/// The folder of the models that `models/import/run` makes.
fn bundled() -> PathBuf {
    let folder = runtime::cache_folder().expect("HOME is set").join("models");
    assert!(folder.join("all-minilm-l6-v2").is_dir(), "{} lacks it: run models/import/run", folder.display());
    folder
}

#[tokio::test]
async fn the_bundled_model_gives_the_vectors_of_the_reference_and_knows_what_is_alike() {
    let only = vec![units::ModelName::parse("all-minilm-l6-v2").expect("a name")];
    let settings = engine::Settings { folders: vec![bundled()], only, ..engine::Settings::default() };
    let house = House::with(settings, TempDir::new().expect("a temporary folder"));
    let model = house.ready("all-minilm-l6-v2").await;
    let text = include_str!("../../../models/all-minilm-l6-v2/golden.json");
    let golden: Value = serde_json::from_str(text).expect("JSON");
    let entries = golden["texts"].as_array().expect("a list");
    let texts: Vec<&str> = entries.iter().map(|entry| entry["text"].as_str().expect("a text")).collect();
    let came = model.embed(words(&texts), EmbedOptions::default(), patient()).await.expect("vectors");
    let made = vectors(&came);
    assert_eq!(came.dimensions, 384);
    for ((entry, vector), count) in entries.iter().zip(&made).zip(&came.token_counts) {
        let expected: Vec<f32> = entry["vector"]
            .as_array()
            .expect("numbers")
            .iter()
            .map(|value| value.as_f64().expect("one") as f32)
            .collect();
        // Other kernels, four digits in the file.
        assert_near(vector, &expected, 2e-4, entry["text"].as_str().expect("a text"));
        assert_eq!(entry["tokens"].as_u64(), Some(*count as u64));
    }
    for triple in golden["alike"].as_array().expect("a list") {
        let at = |place: usize| &made[triple[place].as_u64().expect("a place") as usize];
        let (near, far) = (cosine(at(0), at(1)), cosine(at(0), at(2)));
        assert!(near > far + 0.2, "{triple}: {near} and {far}");
    }
}
