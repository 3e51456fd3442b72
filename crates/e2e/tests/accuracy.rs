//! The bundled models give through the whole way what a reference in Python gives.

use e2e::{Parts, Stand, model_cache, png_of_tile, repository, tile_sheet};
use serde_json::Value;

/// Scores may differ by this from the reference, which ran another build of the same runtime on its own rows.
const TOLERANCE: f64 = 1e-3;

fn golden(name: &str) -> Vec<Vec<f64>> {
    let path = repository().join(format!("models/testdata/{name}-500.golden.json"));
    let value: Value =
        serde_json::from_slice(&std::fs::read(path).expect("the reference is in the tree")).expect("JSON");
    let rows = value["scores"].as_array().expect("a list of rows");
    rows.iter().map(|row| row.as_array().expect("a row").iter().filter_map(Value::as_f64).collect()).collect()
}

fn best(scores: &[f64]) -> usize {
    (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).expect("ten classes")
}

#[test]
fn five_hundred_test_pictures_of_each_set_agree_with_the_reference() {
    let stand = Stand::start(Parts::default());
    let http = stand.http();
    for model in ["fashion-mnist", "mnist"] {
        let (tiles, golden) = (tile_sheet(model), golden(model));
        assert_eq!(golden.len(), 500);
        let (mut same, mut right, mut worst) = (0, 0, 0.0_f64);
        for (index, reference) in golden.iter().enumerate() {
            let path = format!("/v1/classify?model={model}&top_k=10");
            let answer = http.post(&path, &[("content-type", "image/png")], &png_of_tile(&tiles, index));
            assert_eq!(answer.status, 200, "{model} {index}: {}", answer.text());
            let body = answer.json();
            let results = body["results"].as_array().expect("results");
            assert_eq!(results.len(), 10);
            let top = results[0]["index"].as_u64().expect("an index") as usize;
            same += usize::from(top == best(reference));
            right += usize::from(top == tiles.classes[index]);
            for result in results {
                let class = result["index"].as_u64().expect("an index") as usize;
                worst = worst.max((result["score"].as_f64().expect("a score") - reference[class]).abs());
            }
        }
        println!("{model}: {same} of 500 labels as the reference, {right} right, scores differ by at most {worst:.2e}");
        assert!(same >= 498, "{model}: {same} of 500 labels as the reference");
        assert!(worst <= TOLERANCE, "{model}: a score differs by {worst}");
        assert!(right >= 450, "{model}: {right} of 500 right");
    }
}

#[test]
fn photographs_of_clothes_are_recognised() {
    let stand = Stand::start(Parts { only: vec!["fashion-mnist".into()], ..Parts::default() });
    let http = stand.http();
    let folder = repository().join("models/testdata/photos-of-fashion");
    let labels: Value =
        serde_json::from_slice(&std::fs::read(folder.join("labels.json")).expect("labels")).expect("JSON");
    let labels = labels.as_object().expect("file name to class");
    assert_eq!(labels.len(), 100);
    let mut right = 0;
    for (file, class) in labels {
        let picture = std::fs::read(folder.join(file)).expect("the picture is in the tree");
        let answer = http.post("/v1/classify?model=fashion-mnist", &[("content-type", "image/jpeg")], &picture);
        assert_eq!(answer.status, 200, "{file}: {}", answer.text());
        right += usize::from(answer.json()["results"][0]["index"] == *class);
    }
    println!("{right} of 100 right");
    assert!(right >= 85, "{right} of 100 right");
}

#[test]
fn a_photograph_of_a_cat_says_cat() {
    let parts = Parts { models: vec![model_cache()], only: vec!["efficientnet-lite0".into()], ..Parts::default() };
    let stand = Stand::start(parts);
    for (file, word) in [("cat.jpg", "cat"), ("coffee.jpg", "espresso")] {
        let picture = std::fs::read(repository().join("models/testdata").join(file)).expect("in the tree");
        let answer =
            stand.http().post("/v1/classify?model=efficientnet-lite0", &[("content-type", "image/jpeg")], &picture);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let label = answer.json()["results"][0]["label"].to_string();
        assert!(label.contains(word), "{file}: {label}");
    }
}
