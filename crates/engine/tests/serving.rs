//! Cancellation, deadlines, full queues, broken models and health, with the real library.

mod support;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use engine::{CallScope, Event, Phase, State, Status};
use fault::Kind;
use futures_util::FutureExt;
use futures_util::future::join_all;
use runtime::Tensor;
use support::{FOR_EVER, House, Seen, dial, patient, within};
use units::TraceParent;

const ONE_WORKER: &str = "instances = 1\n";
const TAKEN: Seen = Seen::Phase(Phase::Queue);

/// Starts a call and waits until a worker has it.
async fn occupy(
    house: &mut House,
    call: impl Future<Output = Result<engine::Inferred, fault::Fault>> + Send + 'static,
) -> tokio::task::JoinHandle<Result<engine::Inferred, fault::Fault>> {
    let task = tokio::spawn(call);
    house.see(TAKEN).await;
    task
}

#[tokio::test]
async fn a_caller_that_leaves_the_queue_costs_nothing_and_one_that_leaves_a_run_ends_it() {
    let (mut house, model) = House::of("slow_dial", ONE_WORKER).await;
    let running = occupy(&mut house, dial(Arc::clone(&model), FOR_EVER, patient())).await;
    let mut waiting = Box::pin(dial(Arc::clone(&model), 1, patient()));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!((model.load().0, model.load().1), (1, 1));
    drop(waiting);
    assert_eq!(model.load().0, 0);
    house.see(Seen::Event(Event::Cancelled)).await;
    running.abort();
    house.see(Seen::Event(Event::Stopped)).await;
    house.see(Seen::Phase(Phase::Run)).await;
    assert_eq!(model.load().1, 0);
    dial(model, 1, patient()).await.expect("the worker lives on");
    assert_eq!(house.rest().iter().filter(|seen| **seen == TAKEN).count(), 1, "the one that left was run");
}

#[tokio::test]
async fn a_deadline_ends_a_run_that_would_not_end() {
    let (mut house, model) = House::of("slow_dial", ONE_WORKER).await;
    let running = occupy(&mut house, dial(Arc::clone(&model), FOR_EVER, within(1000))).await;
    let fault = running.await.expect("no panic").expect_err("it never ends");
    assert_eq!(fault.kind, Kind::DeadlineExceeded, "{fault}");
    house.see(Seen::Event(Event::Expired)).await;
    house.see(Seen::Event(Event::Stopped)).await;
    dial(model, 1, patient()).await.expect("the worker lives on");
}

#[tokio::test]
async fn what_expires_in_the_queue_never_reaches_the_device() {
    let (mut house, model) = House::of("slow_dial", ONE_WORKER).await;
    let running = occupy(&mut house, dial(Arc::clone(&model), FOR_EVER, patient())).await;
    let fault = dial(Arc::clone(&model), 1, within(30)).await.expect_err("the worker is taken");
    assert_eq!(fault.kind, Kind::DeadlineExceeded, "{fault}");
    running.abort();
    house.see(Seen::Event(Event::Stopped)).await;
    dial(model, 1, patient()).await.expect("the next is served");
    assert_eq!(house.rest().iter().filter(|seen| **seen == TAKEN).count(), 1, "only the next was run");
}

#[tokio::test]
async fn an_endless_model_does_not_get_ready_and_does_not_keep_others_from_it() {
    let hasty = "[limits]\nwarm_up_ms = 200\n";
    let unmeasured = "instances = 1\nwarm_up = false\n";
    let models = [("a-endless", "endless", hasty), ("b-endless", "endless", unmeasured), ("c-good", "echo_f32", "")];
    let house = House::start(&models, |_| {});
    house.ready("c-good").await;
    let State::Failed(reason) = house.engine.model("a-endless", None).expect("is known").settled().await else {
        panic!("it is ready")
    };
    assert!(reason.contains("200 ms") && reason.contains("limits.warm_up_ms"), "{reason}");
    // One that its owner vouches for is ended by the deadline of its caller, again and again.
    let model = house.ready("b-endless").await;
    for _ in 0..2 {
        let x = vec![("x".to_owned(), Tensor::from_f32(&[1], &[1.0]))];
        let fault = model.infer(x, Vec::new(), within(30)).await.expect_err("it never ends");
        assert_eq!(fault.kind, Kind::DeadlineExceeded, "{fault}");
    }
    assert_eq!(model.trouble(), None);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_so() {
    let (mut house, model) = House::of("slow_dial", "instances = 1\n[limits]\nqueue_rows = 2\n").await;
    let running = occupy(&mut house, dial(Arc::clone(&model), FOR_EVER, patient())).await;
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(dial(Arc::clone(&model), 1, patient()))).collect();
    for call in &mut waiting {
        assert!(call.now_or_never().is_none());
    }
    let fault = dial(Arc::clone(&model), 1, patient()).await.expect_err("two wait");
    assert_eq!(fault.kind, Kind::Overloaded);
    assert!(fault.message.contains("2 rows wait already, the limit is 2"), "{fault}");
    assert!(fault.retry_after.is_some());
    running.abort();
    for answer in join_all(waiting).await {
        answer.expect("those who waited are served");
    }
}

#[tokio::test]
async fn a_broken_model_says_why_and_the_others_serve() {
    let models = [("bad", "corrupt_text", ""), ("good", "echo_f32", ""), ("odd", "custom_op", "")];
    let house = House::start(&models, |_| {});
    let good = house.ready("good").await;
    let bad = house.engine.model("bad", None).expect("is known");
    assert!(matches!(bad.settled().await, State::Failed(_)));
    let State::Failed(odd) = house.engine.model("odd", None).expect("is known").settled().await else {
        panic!("an unknown operator was loaded")
    };
    assert!(odd.contains("Unheard"), "{odd}");
    let fault = bad.infer(Vec::new(), Vec::new(), patient()).await.expect_err("it has failed");
    assert_eq!(fault.kind, Kind::Unavailable);
    assert!(fault.message.contains("`bad` failed to load"), "{fault}");
    let x = Tensor::from_f32(&[2], &[1.0, -2.0]);
    let answer = good.infer(vec![("x".to_owned(), x.clone())], Vec::new(), patient()).await.expect("is served");
    assert_eq!(answer.outputs[0].1, x);
    let all = house.engine.health(None).expect("of all");
    assert_eq!((all.status, all.live), (Status::NotServing, true));
    assert!(all.reason.is_some_and(|reason| reason.contains("`bad`")));
    assert_eq!(house.engine.health(Some("good")).expect("is known").status, Status::Serving);
    assert_eq!(house.engine.health(Some("nobody")).expect_err("unknown").code(), "model_not_found");
}

#[tokio::test]
async fn a_wrong_tensor_is_named_and_a_failed_run_hurts_nobody_else() {
    let (_house, model) = House::of("fails_at_run", ONE_WORKER).await;
    let index = |at: i64| vec![("i".to_owned(), Tensor::from_i64(&[1], &[at]))];
    let infer = |inputs| model.infer(inputs, Vec::new(), patient());
    let wrong_type = vec![("i".to_owned(), Tensor::from_f32(&[1], &[1.0]))];
    let unknown = vec![("j".to_owned(), Tensor::from_i64(&[1], &[1]))];
    for (inputs, param) in [(wrong_type, Some("i")), (unknown, Some("j")), (Vec::new(), Some("i")), (index(99), None)] {
        let fault = infer(inputs).await.expect_err("is wrong");
        assert_eq!((fault.kind, fault.param.as_deref()), (Kind::InvalidInput, param), "{fault}");
    }
    let output = model.infer(index(1), vec!["nope".to_owned()], patient()).await.expect_err("no such output");
    assert_eq!((output.kind, output.param.as_deref()), (Kind::InvalidInput, Some("outputs")));
    assert_eq!(infer(index(2)).await.expect("is right").outputs[0].1.to_f32(), Some(vec![12.0]));
}

#[tokio::test]
async fn tensors_share_runs_only_where_rows_are_independent_and_that_is_stated() {
    let joined = "instances = 1\n[batching]\nmax_rows = 4\nmax_wait_ms = 500\n";
    let models = [("free", "batch_free", joined), ("mixing", "batch_mixing", joined), ("unstated", "batch_free", "")];
    let house = House::start(&models, |_| {});
    let picture = |level: f32| Tensor::from_f32(&[1, 1, 28, 28], &[level; 784]);
    for (name, shares) in [("free", true), ("unstated", false)] {
        let model = house.ready(name).await;
        let calls = (1..=4_u8).map(|level| {
            let inputs = vec![("x".to_owned(), picture(f32::from(level)))];
            model.infer(inputs, Vec::new(), patient())
        });
        let mut most = 0;
        for (level, answer) in (1..=4_u8).zip(join_all(calls).await) {
            let answer = answer.unwrap_or_else(|fault| panic!("{fault}"));
            let values = answer.outputs[0].1.to_f32().expect("floats");
            assert_eq!(answer.outputs[0].1.shape, [1, 2]);
            assert!((values[0] - f32::from(level)).abs() < 1e-3, "{level}: {values:?}");
            most = most.max(answer.timing.batch_rows);
        }
        assert_eq!(most > 1, shares, "{name}: {most} rows");
    }
    let mixing = house.ready("mixing").await;
    assert_eq!(mixing.describe().max_rows, 1);
    let calls = [1.0, 5.0].map(|value| {
        let inputs = vec![("x".to_owned(), Tensor::from_f32(&[1, 2], &[value; 2]))];
        mixing.infer(inputs, Vec::new(), patient())
    });
    for answer in join_all(calls).await {
        let answer = answer.expect("is served");
        assert_eq!(answer.outputs[0].1.to_f32(), Some(vec![0.0, 0.0]), "a neighbour changed the answer");
    }
}

#[tokio::test]
async fn a_run_names_the_traced_calls_in_it_and_each_of_these_its_run() {
    let joined = "instances = 1\n[batching]\nmax_rows = 8\nmax_wait_ms = 500\n";
    let (mut house, model) = House::of("batch_free", joined).await;
    let calls = (0..8).map(|number| {
        let inputs = vec![("x".to_owned(), Tensor::from_f32(&[1, 1, 28, 28], &[1.0; 784]))];
        // Of three no span is told.
        let trace = (number >= 3).then(TraceParent::begin);
        let call = CallScope { trace, ..patient() };
        let model = &model;
        async move { (trace, model.infer(inputs, Vec::new(), call).await.expect("is served").timing) }
    });
    let answers = join_all(calls).await;
    let ran: Vec<Seen> = house.rest().into_iter().filter(|seen| matches!(seen, Seen::Ran(..))).collect();
    assert_eq!(ran.len(), 5, "each traced call is in one run: {ran:?}");
    for (trace, timing) in answers {
        assert!(timing.began.is_some() && timing.batch_rows > 1, "{timing:?}");
        let Some(trace) = trace else { continue };
        let batch = timing.batch.expect("a run with a traced call has a span");
        assert!(ran.contains(&Seen::Ran(batch, trace)), "{batch} and {trace} are not in {ran:?}");
    }
}

#[tokio::test]
async fn a_model_whose_rows_depend_on_the_values_gives_nobody_the_rows_of_others() {
    let (_house, model) = House::of("data_dependent", "instances = 1\n[batching]\nmax_rows = 4\n").await;
    let infer =
        |values: [f32; 2]| model.infer(vec![("x".to_owned(), Tensor::from_f32(&[2], &values))], Vec::new(), patient());
    assert_eq!(infer([1.0, 2.0]).await.expect("as many rows as came").outputs[0].1.to_f32(), Some(vec![1.0, 2.0]));
    let fault = infer([1.0, -2.0]).await.expect_err("one row is missing, nobody knows which");
    assert_eq!(fault.kind, Kind::Internal);
    assert!(fault.message.contains("1 rows for 2 rows") && fault.message.contains("[batching]"), "{fault}");
}

#[tokio::test]
async fn an_answer_that_clients_could_not_read_is_refused_with_both_numbers() {
    for toml in ["", "[batching]\nmax_rows = 8\n"] {
        let house = House::start(&[("m", "batch_free", toml)], |settings| settings.output_bytes = 8);
        let model = house.ready("m").await;
        let pictures = |count: usize| {
            let picture = Tensor::from_f32(&[count as i64, 1, 28, 28], &vec![1.0; 784 * count]);
            model.infer(vec![("x".to_owned(), picture)], Vec::new(), patient())
        };
        pictures(1).await.expect("eight bytes");
        let fault = pictures(2).await.expect_err("sixteen bytes");
        assert_eq!(fault.kind, Kind::TooLarge);
        assert!(fault.message.contains("16 bytes") && fault.message.contains("8 bytes"), "{fault}");
    }
}

#[tokio::test]
async fn an_output_is_asked_for_once() {
    let (_house, model) = House::of("batch_free", "[batching]\nmax_rows = 4\n").await;
    let name = model.describe().outputs[0].name.clone();
    let inputs = || vec![("x".to_owned(), Tensor::from_f32(&[1, 1, 28, 28], &[1.0; 784]))];
    model.infer(inputs(), vec![name.clone()], patient()).await.expect("once");
    let fault = model.infer(inputs(), vec![name; 2], patient()).await.expect_err("twice");
    assert_eq!((fault.kind, fault.param.as_deref()), (Kind::InvalidInput, Some("outputs")));
    assert!(fault.message.contains("asked for twice"), "{fault}");
}

#[tokio::test]
async fn a_broken_folder_counts_only_where_its_model_is_wanted_and_not_served() {
    let broken = tempfile::tempdir().expect("a temporary folder");
    for name in ["good", "other"] {
        std::fs::create_dir_all(broken.path().join(name).join("1")).expect("a folder");
        std::fs::write(broken.path().join(name).join("1/model.onnx"), "").expect("a file");
        std::fs::write(broken.path().join(name).join("model.toml"), "tusk = 1").expect("a file");
    }
    for (only, status) in [(vec!["good"], Status::Serving), (vec![], Status::NotServing)] {
        let house = House::start(&[("good", "echo_f32", "")], |settings| {
            settings.folders.push(broken.path().to_owned());
            settings.only = only.iter().map(|name| units::ModelName::parse(name).expect("a name")).collect();
        });
        house.ready("good").await;
        let health = house.engine.health(None).expect("of all");
        assert_eq!(health.status, status, "{:?}", health.reason);
        assert!(health.reason.is_none_or(|reason| reason.contains("other") && !reason.contains("good")));
    }
}

#[tokio::test]
async fn health_says_since_when() {
    let (house, model) = House::of("echo_f32", "").await;
    let since = |of: Option<&str>| house.engine.health(of).expect("is known").since;
    let (ready, wait) = (model.held_since(), Duration::from_millis(20));
    tokio::time::sleep(wait).await;
    for of in [None, Some("m")] {
        let told = since(of);
        assert!((wait..=ready.elapsed()).contains(&told), "{of:?}: it has served since it was ready");
    }
    let before = std::time::Instant::now();
    house.engine.drain();
    for of in [None, Some("m")] {
        assert!(since(of) <= before.elapsed(), "{of:?}: it has just begun to drain");
    }
}

#[tokio::test]
async fn closing_finishes_what_was_taken_and_refuses_the_rest() {
    let (mut house, model) = House::of("slow_dial", ONE_WORKER).await;
    let running = occupy(&mut house, dial(Arc::clone(&model), 200, patient())).await;
    let waiting = tokio::spawn(dial(Arc::clone(&model), 1, patient()));
    while model.load().0 < 1 && !waiting.is_finished() {
        tokio::task::yield_now().await;
    }
    house.engine.drain();
    assert_eq!(house.engine.health(None).expect("of all").status, Status::Draining);
    house.engine.close();
    let fault = dial(Arc::clone(&model), 1, patient()).await.expect_err("it is over");
    assert_eq!(fault.kind, Kind::Unavailable);
    running.await.expect("no panic").expect("finished");
    waiting.await.expect("no panic").expect("finished");
    assert_eq!(model.state(), State::Draining);
}

#[tokio::test]
async fn models_are_found_by_name_and_version() {
    let (house, model) = House::of("echo_f32", "description = \"as it came\"").await;
    assert_eq!((model.version(), model.summary()), ("1", Some("as it came")));
    assert!(house.engine.model("m", Some("1")).is_ok() && house.engine.model("m", Some("")).is_ok());
    let version = house.engine.model("m", Some("7")).err().expect("not served");
    assert_eq!((version.kind, version.param.as_deref()), (Kind::NotFound, Some("version")));
    let name = house.engine.model("n", None).err().expect("not served");
    assert_eq!(name.code(), "model_not_found");
    let long = house.engine.model(&"x".repeat(100_000), None).err().expect("not served");
    assert!(long.message.len() < 300, "a name of any length came back");
    let what = model.describe();
    assert_eq!((what.inputs.len(), what.outputs.len()), (1, 1));
    assert_eq!(what.chosen.expect("a device").device, runtime::Device::Cpu);
}
