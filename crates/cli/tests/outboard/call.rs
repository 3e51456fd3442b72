//! `outboard call`.

use fault::Kind;
use idl::inference::DataType;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::Fake;
use crate::{outboard, refused, silent};

/// Files that hold their own number; the fake gives it back as the label.
fn files(count: usize) -> (TempDir, Vec<String>) {
    let folder = TempDir::new().unwrap();
    let write = |number: usize| {
        let path = folder.path().join(format!("{number}.png"));
        std::fs::write(&path, format!("picture {number}")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let paths = (0..count).map(write).collect();
    (folder, paths)
}

fn with<'a>(first: &[&'a str], then: &'a [String], last: &[&'a str]) -> Vec<&'a str> {
    first.iter().copied().chain(then.iter().map(String::as_str)).chain(last.iter().copied()).collect()
}

#[test]
fn every_kind_of_fault_ends_with_its_own_status_and_name() {
    let fake = Fake::serving();
    let (_folder, files) = files(1);
    for kind in Kind::ALL {
        let row = kind.row();
        let model = format!("fault-{}", row.thrift);
        let arguments = ["call", "classify", &files[0], "--server", &fake.address, "--model", &model];
        let ended = outboard(&arguments).with(10 + row.thrift);
        let expected = format!("{}: as the test wants it (request id request-of-the-fake)\n", row.name);
        assert_eq!(ended.err, expected);
        assert!(ended.out.is_empty(), "{}", ended.out);
    }
    assert_eq!(
        fake.seen.lock().unwrap().classified.len(),
        Kind::ALL.len(),
        "a fault is an answer, not a reason to repeat"
    );
}

#[test]
fn a_fault_of_the_future_is_internal() {
    let fake = Fake::serving();
    let (_folder, files) = files(1);
    outboard(&["call", "classify", &files[0], "--server", &fake.address, "--model", "fault-99"]).with(21);
}

#[test]
fn nobody_there_is_3_and_a_silent_peer_is_18() {
    for command in [&["call", "models"][..], &["call", "infer", "--model", "m", "--input", "x=f32:[1]:[1]"]] {
        let there = refused();
        outboard(&[command, &["--server", &there, "--timeout", "10min"]].concat()).with(3);
        let (_listener, there) = silent();
        outboard(&[command, &["--server", &there, "--timeout", "50ms"]].concat()).with(18);
    }
}

#[test]
fn models_are_listed_from_either_way_of_naming_the_server() {
    let fake = Fake::serving();
    for arguments in [&["call", "models", &fake.address][..], &["call", "models", "--server", &fake.address]] {
        let out = outboard(arguments).with(0).out;
        assert_eq!(out.lines().count(), 5, "{out}");
        assert!(out.contains("numbers") && out.contains("loading"), "{out}");
    }
    let out = outboard(&["call", "models", &fake.address, "--model", "numbers", "--json"]).with(0).out;
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json.as_array().map(Vec::len), Some(1));
    assert_eq!(json[0]["inputs"][0]["shape"], json!([-1, 3]));
    assert_eq!(json[0]["inputs"][1]["type"], "string");
    let err = outboard(&["call", "models", &fake.address, "--model", "absent"]).with(14).err;
    assert!(err.starts_with("NotFound: no model absent"), "{err}");
}

#[test]
fn many_pictures_go_in_groups_that_a_server_takes_and_come_back_in_order() {
    let fake = Fake::serving();
    let (_folder, files) = files(35);
    let end = ["--model", "pictures", "--top-k", "2", "--json", "--server", &fake.address];
    let out = outboard(&with(&["call", "classify"], &files, &end)).with(0).out;
    let json: Value = serde_json::from_str(&out).unwrap();
    let labels: Vec<_> =
        json.as_array().unwrap().iter().map(|one| one["results"][0]["label"].as_str().unwrap()).collect();
    assert_eq!(labels, (0..35).map(|number| format!("picture {number}")).collect::<Vec<_>>());
    let seen = fake.seen.lock().unwrap();
    let sizes: Vec<_> = seen.classified.iter().map(|call| call.images.as_ref().unwrap().len()).collect();
    assert_eq!(sizes, [16, 16, 3]);
    assert!(seen.classified.iter().all(|call| call.top_k == Some(2)));
}

#[test]
fn a_group_ends_before_it_is_larger_than_a_message() {
    let fake = Fake::serving();
    let (_folder, files) = files(4);
    for (file, megabytes) in files.iter().zip([9, 9, 6, 2]) {
        std::fs::write(file, vec![b' '; megabytes * 1_000_000]).unwrap();
    }
    let end = ["--model", "pictures", "--json", "--server", &fake.address];
    let out = outboard(&with(&["call", "classify"], &files, &end)).with(0).out;
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json.as_array().map(Vec::len), Some(4));
    let seen = fake.seen.lock().unwrap();
    let sizes: Vec<_> = seen.classified.iter().map(|call| call.images.as_ref().unwrap().len()).collect();
    assert_eq!(sizes, [1, 2, 1], "9; 9 and 6; 2");
}

#[test]
fn what_was_answered_before_a_group_failed_is_printed() {
    let fake = Fake::serving();
    let (_folder, files) = files(20);
    std::fs::write(&files[18], "broken").unwrap();
    let end = ["--model", "pictures", "--json", "--server", &fake.address];
    let ended = outboard(&with(&["call", "classify"], &files, &end)).with(22);
    let json: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(json.as_array().map(Vec::len), Some(16));
    assert!(ended.err.contains("a picture is broken"), "{}", ended.err);
    // Nothing was answered: nothing is printed that could be taken for an answer.
    let ended = outboard(&with(&["call", "classify"], &files[16..], &end)).with(22);
    assert!(ended.out.is_empty(), "{}", ended.out);
}

#[test]
fn a_table_names_scores_and_labels() {
    let fake = Fake::serving();
    let (_folder, files) = files(2);
    let end = ["--model", "pictures", "--server", &fake.address];
    let out = outboard(&with(&["call", "classify"], &files, &end)).with(0).out;
    for expected in [files[1].as_str(), "picture 0", "picture 1", "75.0", "25.0"] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
}

#[test]
fn tensors_go_as_typed_and_are_printed_back() {
    let fake = Fake::serving();
    let folder = TempDir::new().unwrap();
    let raw = folder.path().join("raw.bin");
    std::fs::write(&raw, 258_u16.to_le_bytes()).unwrap();
    let from_file = format!("z=u16:[1]:@{}", raw.display());
    let out = outboard(&[
        "call",
        "infer",
        "--model",
        "numbers",
        "--server",
        &fake.address,
        "--json",
        "--output",
        "a",
        "--output",
        "b",
        "--input",
        "x=f32:[2]:[1.0, -2.5]",
        "--input",
        "y=string:[1]:[\"é\"]",
        "--input",
        &from_file,
        "--input",
        "h=f16:[2]:[1.5, -65504]",
    ])
    .with(0)
    .out;
    let json: Value = serde_json::from_str(&out).unwrap();
    let values: Vec<_> = json["outputs"].as_array().unwrap().iter().map(|one| one["values"].clone()).collect();
    assert_eq!(values, [json!([1.0, -2.5]), json!(["é"]), json!([258]), json!([1.5, -65504.0])]);
    let seen = fake.seen.lock().unwrap();
    let request = &seen.inferred[0];
    assert_eq!(request.outputs, Some(vec!["a".to_owned(), "b".to_owned()]));
    let inputs = request.inputs.as_ref().unwrap();
    assert_eq!(inputs[0].data_type, Some(DataType::F32));
    assert_eq!(inputs[0].data.as_deref(), Some(&[0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0][..]));
    assert_eq!(inputs[3].data.as_deref(), Some(&[0x00, 0x3e, 0xff, 0xfb][..]));
}

#[test]
fn a_fault_of_infer_and_an_outsized_timeout_are_told_apart_from_usage() {
    let fake = Fake::serving();
    let base = ["call", "infer", "--input", "x=f32:[1]:[1]", "--server", &fake.address, "--model"];
    outboard(&[&base[..], &["fault-5"]].concat()).with(15);
    // The longest time that can be typed must not overflow a clock.
    outboard(&[&base[..], &["numbers", "--timeout", "1000years"]].concat()).with(0);
}

#[test]
fn texts_are_told_with_how_alike_they_are_to_the_first() {
    let fake = Fake::serving();
    let base = ["call", "embed", "--server", &fake.address, "ab", "c", "bbb"];
    let ended = outboard(&base).with(0);
    let lines: Vec<Vec<&str>> = ended.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..3], ["cosine", "tokens", "text"]);
    assert_eq!(lines[1..], [["1.0000", "2", "ab"], ["0.0000", "1", "c"], ["1.0000", "3", "bbb"]]);
    let out: Value =
        serde_json::from_str(&outboard(&[&base[..], &["--json", "--truncate"]].concat()).with(0).out).unwrap();
    assert_eq!(out["results"][1], json!({"text": "c", "tokens": 1, "vector": [0.0, 1.0]}));
    let seen = fake.seen.lock().unwrap();
    let asked: Vec<_> = seen.embedded.iter().map(|one| (one.model.as_deref(), one.truncate)).collect();
    assert_eq!(asked, [(Some("all-minilm-l6-v2"), None), (Some("all-minilm-l6-v2"), Some(true))]);
}
