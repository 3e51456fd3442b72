//! Classifying pictures, with the real library.

mod support;

use std::path::Path;
use std::sync::Arc;

use engine::{ClassifyOptions, Phase, Settings, State};
use fault::Kind;
use futures_util::future::join_all;
use support::{BOTH, CLASSIFIER, House, Seen, assert_shade, patient, shade, within};

#[tokio::test]
async fn strangers_share_a_run_and_each_gets_its_own_answer() {
    let toml = format!("{CLASSIFIER}[batching]\nmax_rows = 8\nmax_wait_ms = 500\n");
    let (mut house, model) = House::of("batch_free", &toml).await;
    let calls = (1..=32_u8).map(|level| {
        let model = Arc::clone(&model);
        async move { (level, model.classify(vec![shade(28, level)], BOTH, patient()).await) }
    });
    let mut shared = 0;
    for (level, answer) in join_all(calls).await {
        let answer = answer.unwrap_or_else(|fault| panic!("{fault}"));
        assert_shade(&answer.results[0], level);
        assert!(answer.timing.batch_rows <= 8);
        shared += usize::from(answer.timing.batch_rows > 1);
    }
    assert!(shared > 0, "nobody shared a run");
    assert!(house.rest().contains(&Seen::Phase(Phase::Decode)));
}

#[tokio::test]
async fn a_model_of_one_row_takes_a_call_of_many_pictures_in_order() {
    let (_house, model) = House::of("batch_fixed", CLASSIFIER).await;
    assert_eq!(model.describe().max_rows, 1);
    let levels = [200, 3, 77, 0, 255];
    let pictures = levels.iter().map(|level| shade(28, *level)).collect();
    let answer = model.classify(pictures, BOTH, patient()).await.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(answer.results.len(), levels.len());
    // Black has two equal scores, told by index.
    answer.results.iter().zip(levels).for_each(|(result, level)| assert_shade(result, level));
    assert_eq!(answer.timing.batch_rows, 1);
}

#[tokio::test]
async fn a_large_picture_goes_another_way_to_the_same_answer() {
    let (_house, model) = House::of("batch_free", CLASSIFIER).await;
    let options = ClassifyOptions { top_k: 2, preview_px: 64 };
    let pictures = vec![shade(900, 40), shade(28, 41)];
    let answer = model.classify(pictures, options, patient()).await.unwrap_or_else(|fault| panic!("{fault}"));
    for (result, (level, edge)) in answer.results.iter().zip([(40, 900), (41, 28)]) {
        assert_shade(result, level);
        assert_eq!((result.width, result.height), (edge, edge));
        let preview = result.preview.as_ref().expect("asked for");
        let header = vision::inspect(preview, &vision::Limits::default()).expect("a picture");
        assert_eq!((header.format, header.width), (vision::Format::Jpeg, edge.min(64)));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_named() {
    let (_house, model) = House::of("batch_free", CLASSIFIER).await;
    let good = || shade(28, 1);
    for (pictures, top_k, preview_px, kind, says) in [
        (vec![], 1, 0, Kind::InvalidInput, "no picture"),
        (vec![good(); 17], 1, 0, Kind::TooLarge, "17 pictures in one call, the limit is 16"),
        (vec![good()], 0, 0, Kind::InvalidInput, "top_k is 0, allowed is 1 to 100"),
        (vec![good()], 101, 0, Kind::InvalidInput, "top_k is 101"),
        (vec![good()], 1, 5000, Kind::InvalidInput, "preview_px is 5000, allowed is 0 to 1024"),
        (vec![good(), "hello".into()], 1, 0, Kind::UnsupportedMedia, "picture 2 of the call: image has no known"),
        (vec![good().slice(..60)], 1, 0, Kind::InvalidInput, "PNG"),
    ] {
        let options = ClassifyOptions { top_k, preview_px };
        let fault = model.classify(pictures, options, patient()).await.expect_err(says);
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains(says), "{fault} lacks {says:?}");
    }
}

#[tokio::test]
async fn a_model_may_take_smaller_pictures_than_the_server() {
    let (_house, model) = House::of("batch_free", &format!("{CLASSIFIER}[limits]\nedge = 100\n")).await;
    let fault = model.classify(vec![shade(101, 1)], BOTH, patient()).await.expect_err("over the limit");
    assert_eq!(fault.kind, Kind::TooLarge);
    assert!(fault.message.contains("101x101 px, limit is 100 px an edge"), "{fault}");
}

#[tokio::test]
async fn a_picture_over_the_budget_is_refused_before_it_is_decoded() {
    let house = House::start(&[("m", "batch_free", CLASSIFIER)], |settings| settings.decoded_bytes = 4 << 20);
    let model = house.ready("m").await;
    let fault = model.classify(vec![shade(4000, 1)], BOTH, patient()).await.expect_err("16 MB of pixels");
    assert_eq!(fault.kind, Kind::TooLarge, "{fault}");
    assert!(fault.message.contains("the limit is 3145728"), "{fault}");
    model.classify(vec![shade(900, 1)], BOTH, patient()).await.expect("a smaller one fits");
}

#[tokio::test]
async fn more_calls_than_the_budget_holds_wait_for_each_other_and_all_are_answered() {
    // Two pictures' worth: decoding one needs some 1.6 MB.
    let house = House::start(&[("m", "batch_free", CLASSIFIER)], |settings| settings.decoded_bytes = 5 << 20);
    let model = house.ready("m").await;
    let calls = (0..24_u8).map(|level| {
        let model = Arc::clone(&model);
        async move { (level, model.classify(vec![shade(900, level), shade(900, level)], BOTH, patient()).await) }
    });
    for (level, answer) in join_all(calls).await {
        let answer = answer.unwrap_or_else(|fault| panic!("{fault}"));
        answer.results.iter().for_each(|result| assert_shade(result, level));
    }
}

#[tokio::test]
async fn a_deadline_that_is_over_is_told_before_any_work() {
    let (mut house, model) = House::of("batch_free", CLASSIFIER).await;
    let fault = model.classify(vec![shade(28, 1)], BOTH, within(0)).await.expect_err("over");
    assert_eq!(fault.kind, Kind::DeadlineExceeded);
    assert!(!house.rest().iter().any(|seen| matches!(seen, Seen::Phase(_) | Seen::Rows(_))));
}

#[tokio::test]
async fn scores_that_are_no_numbers_are_our_fault_and_name_the_model() {
    let toml = CLASSIFIER.replace("color = \"gray\"", "color = \"gray\"\nstd = [1e-44]");
    let (_house, model) = House::of("batch_free", &toml).await;
    let fault = model.classify(vec![shade(28, 9)], BOTH, patient()).await.expect_err("infinite");
    assert_eq!(fault.kind, Kind::Internal);
    assert!(fault.message.contains("`m`"), "{fault}");
    model.classify(vec![shade(28, 0)], BOTH, patient()).await.expect("the next one is not hurt");
}

#[tokio::test]
async fn labels_that_do_not_match_the_model_keep_it_from_serving() {
    let three = CLASSIFIER.replace("labels.txt", "model.toml");
    let unmeasured = format!("warm_up = false\n{three}");
    let wrong_shape = CLASSIFIER.replace("width = 28", "width = 32");
    let wrong_output = format!("{CLASSIFIER}scores = \"nope\"\n");
    let models = [
        ("labels", "batch_free", &*three),
        ("labels-unmeasured", "batch_free", &*unmeasured),
        ("shape", "batch_free", &*wrong_shape),
        ("out", "batch_free", &*wrong_output),
    ];
    let house = House::start(&models, |_| {});
    for (name, says) in [
        ("labels", "2 scores, there are"),
        ("labels-unmeasured", "2 scores"),
        ("shape", "[1, 28, 32]"),
        ("out", "output.scores"),
    ] {
        let state = house.engine.model(name, None).expect("is known").settled().await;
        let State::Failed(reason) = state else { panic!("{name} is {state}") };
        assert!(reason.contains(says), "{reason}");
    }
}

#[tokio::test]
async fn options_for_cuda_do_not_keep_a_model_from_the_cpu_that_is_forced() {
    let toml = format!("{CLASSIFIER}[provider]\ncudnn_conv_algo_search = \"HEURISTIC\"\n");
    let cpu = Some(runtime::DeviceWish::Cpu);
    let house = House::start(&[("m", "batch_free", &*toml)], |settings| settings.device = cpu);
    let model = house.ready("m").await;
    assert_eq!(model.describe().chosen.expect("is loaded").device, runtime::Device::Cpu);
}

#[tokio::test]
async fn every_model_in_the_tree_gets_ready_and_has_a_label_for_each_score() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let settings = Settings { folders: vec![root], device: Some(runtime::DeviceWish::Cpu), ..Settings::default() };
    let house = House::with(settings, tempfile::tempdir().expect("a temporary folder"));
    let names: Vec<String> = house.engine.models().iter().map(|model| model.name().to_string()).collect();
    assert!(names.iter().any(|name| name == "mnist") && names.iter().any(|name| name == "fashion-mnist"), "{names:?}");
    for name in &names {
        let model = house.ready(name).await;
        let what = model.describe();
        assert_eq!(what.classes, Some(model.labels().len()), "{name}");
    }
    for name in ["mnist", "fashion-mnist"] {
        let model = house.ready(name).await;
        assert_eq!((model.describe().classes, model.labels().len()), (Some(10), 10));
        let answer =
            model.classify(vec![shade(28, 0)], BOTH, patient()).await.unwrap_or_else(|fault| panic!("{fault}"));
        let [(_, first), (_, second)] = answer.results[0].labels[..] else { panic!("two labels were asked for") };
        assert!(first >= second && first + second <= 1.0 + 1e-6, "{answer:?}");
    }
}
