//! Every awkward corner of the models in `testdata`, by what a caller sees. `testdata/README.md` is the table.

mod support;

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use runtime::{
    Blueprint, CudaMissing, DType, Data, Device, DeviceWish, Dim, LoadError, RowsOut, RunError, Session,
    SessionOptions, Stop, Tensor,
};
use support::{cpu, load, model, open, session};

fn run(session: &mut Session, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, RunError> {
    session.run(inputs, &[], &Stop::new())
}

fn only(session: &mut Session, inputs: &[(&str, &Tensor)]) -> Tensor {
    let mut answers = run(session, inputs).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.remove(0).1
}

fn reason(result: Result<Session, LoadError>) -> String {
    match result {
        Err(LoadError::Model { reason, .. }) => reason,
        other => panic!("expected a model that cannot be loaded, got {other:?}"),
    }
}

#[test]
fn every_element_type_comes_back_bit_for_bit() {
    let cases: [(&str, DType, &[u8]); 8] = [
        ("f32", DType::F32, &[0, 0, 192, 127, 1, 0, 0, 0, 0, 0, 128, 255, 0, 0, 0, 128]),
        ("f64", DType::F64, &[1, 2, 3, 4, 5, 6, 7, 8]),
        ("f16", DType::F16, &[0, 60, 255, 127]),
        ("bf16", DType::BF16, &[128, 63, 192, 127]),
        ("i32", DType::I32, &[255, 255, 255, 127]),
        ("i64", DType::I64, &[0, 0, 0, 0, 0, 0, 0, 128]),
        ("u8", DType::U8, &[0, 255, 7]),
        ("bool", DType::Bool, &[1, 0, 1]),
    ];
    for (name, dtype, bytes) in cases {
        let mut session = session(&format!("echo_{name}"));
        let size = i64::try_from(bytes.len() / dtype.byte_size().expect("fixed")).expect("small");
        let x = Tensor::from_bytes(dtype, &[size], bytes.to_vec());
        assert_eq!(only(&mut session, &[("x", &x)]), x, "{name}");
        let empty = Tensor::from_bytes(dtype, &[0], vec![]);
        assert_eq!(only(&mut session, &[("x", &empty)]), empty, "{name} of no elements");
    }
}

#[test]
fn strings_come_back_with_their_accents_and_empty_ones_too() {
    let mut session = session("echo_string");
    let x = Tensor::from_strings(&[3], vec!["é".to_owned(), String::new(), "日本\n".to_owned()]);
    assert_eq!(only(&mut session, &[("x", &x)]), x);
    let none = Tensor::from_strings(&[0], vec![]);
    assert_eq!(only(&mut session, &[("x", &none)]), none);
}

#[test]
fn elements_that_lie_unaligned_are_read_right() {
    let mut session = session("echo_i64");
    let mut frame = vec![7_u8; 3];
    frame.extend([1_i64, -2].iter().flat_map(|value| value.to_le_bytes()));
    for skip in 0..8 {
        let mut padded = vec![0_u8; skip];
        padded.extend(&frame);
        let x = Tensor::from_bytes(DType::I64, &[2], bytes::Bytes::from(padded).slice(skip + 3..));
        assert_eq!(only(&mut session, &[("x", &x)]).to_i64(), Some(vec![1, -2]));
    }
}

#[test]
fn names_with_odd_characters_and_outputs_of_several_types_are_kept() {
    let mut session = session("multi_io");
    let names: Vec<&str> = session.inputs().iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "ids:0"]);
    let printed: Vec<String> = session.outputs().iter().map(|spec| format!("{} {spec}", spec.name)).collect();
    assert_eq!(printed, ["sum f32[N, 3]", "product/0 f32[N, 3]", "a_gt_b bool[N, 3]", "n ids i64[1]"]);
    let a = Tensor::from_f32(&[1, 3], &[1.0, 2.0, 3.0]);
    let b = Tensor::from_f32(&[1, 3], &[3.0, 2.0, 1.0]);
    let ids = Tensor::from_i64(&[4], &[9, 9, 9, 9]);
    let inputs = [("ids:0", &ids), ("a", &a), ("b", &b)];
    let answers = run(&mut session, &inputs).expect("all inputs, in any order");
    assert_eq!(answers[0].1.to_f32(), Some(vec![4.0, 4.0, 4.0]));
    assert_eq!(answers[2].1, Tensor::from_bytes(DType::Bool, &[1, 3], vec![0, 0, 1]));
    assert_eq!(answers[3].1.to_i64(), Some(vec![4]));
    // Chosen outputs come in the order of the wish.
    let chosen = session.run(&inputs, &["n ids", "product/0"], &Stop::new()).expect("both exist");
    assert_eq!(chosen[0].0, "n ids");
    assert_eq!(chosen[1].1.to_f32(), Some(vec![3.0, 4.0, 3.0]));
}

#[test]
fn an_input_that_is_missing_unknown_or_there_twice_is_named() {
    let mut session = session("multi_io");
    let a = Tensor::from_f32(&[1, 3], &[0.0; 3]);
    let ids = Tensor::from_i64(&[0], &[]);
    let mut error = |inputs: &[(&str, &Tensor)]| run(&mut session, inputs).expect_err("refused").to_string();
    assert_eq!(error(&[("a", &a), ("ids:0", &ids)]), "input b: is missing, the model takes f32[N, 3]");
    assert_eq!(error(&[("a", &a), ("c", &a)]), "input c: the model takes a, b, ids:0");
    assert_eq!(error(&[("a", &a), ("a", &a)]), "input a: is there twice");
    let long = error(&[(&"é".repeat(100_000), &a)]);
    assert_eq!(long, format!("input {}…: the model takes a, b, ids:0", "é".repeat(64)));
    let wrong = Tensor::from_f32(&[3], &[0.0; 3]);
    assert!(error(&[("a", &wrong), ("b", &a), ("ids:0", &ids)]).starts_with("input a: shape [3] has 1 dimensions"));
    let inputs = [("a", &a), ("b", &a), ("ids:0", &ids)];
    let output = session.run(&inputs, &["zzz"], &Stop::new()).expect_err("no such output").to_string();
    assert_eq!(output, "output zzz: the model gives sum, product/0, a_gt_b, n ids");
}

#[test]
fn an_input_with_a_value_of_its_own_may_be_left_out() {
    let mut session = session("overridable");
    let optional: Vec<(&str, bool)> = session.inputs().iter().map(|spec| (spec.name.as_str(), spec.optional)).collect();
    assert_eq!(optional, [("x", false), ("gain", true)]);
    let x = Tensor::from_f32(&[2], &[1.0, 2.0]);
    assert_eq!(only(&mut session, &[("x", &x)]).to_f32(), Some(vec![2.5, 4.5]));
    let gain = Tensor::from_f32(&[1], &[10.0]);
    assert_eq!(only(&mut session, &[("x", &x), ("gain", &gain)]).to_f32(), Some(vec![10.5, 20.5]));
}

#[test]
fn free_dimensions_take_any_size_zero_too() {
    let mut session = session("dynamic_all");
    let spec = &session.inputs()[0];
    assert_eq!(spec.shape.as_ref().map(Vec::len), Some(4));
    assert_eq!(spec.shape.as_ref().map(|dims| dims[1].clone()), Some(Dim::Free(Some("b".to_owned()))));
    for shape in [[1, 2, 1, 2], [0, 2, 3, 4], [1, 0, 0, 1]] {
        let count = usize::try_from(shape.iter().product::<i64>()).expect("small");
        let x = Tensor::from_f32(&shape, &vec![-1.0; count]);
        assert_eq!(only(&mut session, &[("x", &x)]), Tensor::from_f32(&shape, &vec![0.0; count]));
    }
}

#[test]
fn an_undeclared_shape_is_unknown_and_not_a_scalar() {
    let mut session = session("no_shape");
    assert_eq!(session.inputs()[0].shape, None);
    assert_eq!(session.outputs()[0].shape, None);
    for shape in [vec![], vec![2], vec![1, 2, 1]] {
        let count = usize::try_from(shape.iter().product::<i64>()).expect("small");
        let x = Tensor::from_f32(&shape, &vec![3.0; count]);
        assert_eq!(only(&mut session, &[("x", &x)]), Tensor::from_f32(&shape, &vec![-3.0; count]));
    }
}

#[test]
fn an_output_of_no_elements_keeps_its_shape() {
    let answer = only(&mut session("zero_size"), &[("x", &Tensor::from_f32(&[2, 4], &[1.0; 8]))]);
    assert_eq!((answer.shape, answer.data), (vec![2, 0], Data::Bytes(bytes::Bytes::new())));
}

#[test]
fn a_scalar_has_no_dimensions() {
    let mut session = session("scalar");
    assert_eq!(session.inputs()[0].shape, Some(vec![]));
    assert_eq!(only(&mut session, &[("x", &Tensor::from_f32(&[], &[9.0]))]), Tensor::from_f32(&[], &[3.0]));
    let one = run(&mut session, &[("x", &Tensor::from_f32(&[1], &[9.0]))]).expect_err("[1] is no scalar");
    assert_eq!(one.to_string(), "input x: shape [1] has 1 dimensions, the model takes 0: f32[]");
}

#[test]
fn a_fixed_batch_is_known_and_a_bigger_one_is_the_callers_error() {
    let mut fixed = session("batch_fixed");
    assert!(!fixed.inputs()[0].has_free_rows());
    assert!(session("batch_free").inputs()[0].has_free_rows());
    let two = Tensor::from_f32(&[2, 1, 28, 28], &[0.0; 1568]);
    let error = run(&mut fixed, &[("x", &two)]).expect_err("one at a time").to_string();
    assert_eq!(error, "input x: dimension 0 is 2, the model takes 1: f32[1, 1, 28, 28]");
}

fn picture(seed: u32) -> Vec<f32> {
    (0..784_u32).map(|at| f32::from(u16::try_from((at * 31 + seed * 77) % 256).expect("small")) / 255.0).collect()
}

fn copied(outputs: &[RowsOut<'_>]) -> Vec<(Vec<i64>, Vec<f32>)> {
    outputs.iter().map(|output| (output.shape.to_vec(), output.data.to_vec())).collect()
}

#[test]
fn rows_of_a_batch_are_bit_equal_to_rows_alone() {
    let mut session = session("batch_free");
    for rows in [1_usize, 2, 3, 8, 17] {
        let batch: Vec<f32> = (0..rows).flat_map(|row| picture(u32::try_from(row).expect("small"))).collect();
        let joined = session.run_rows("x", rows, &[1, 28, 28], &batch, &[], &Stop::new(), copied).expect("runs");
        assert_eq!(joined[0].0, [i64::try_from(rows).expect("small"), 2]);
        for (row, answer) in joined[0].1.chunks(2).enumerate() {
            let alone = &batch[row * 784..][..784];
            let alone = session.run_rows("x", 1, &[1, 28, 28], alone, &["y"], &Stop::new(), copied).expect("runs");
            assert_eq!(answer, alone[0].1, "row {row} of {rows}");
        }
    }
}

#[test]
fn rows_that_do_not_fit_are_refused_before_the_library_sees_them() {
    let mut session = session("batch_free");
    let mut error = |input: &str, rows, shape: &[usize], count, outputs: &[&str]| {
        let data = vec![0.0; count];
        session.run_rows(input, rows, shape, &data, outputs, &Stop::new(), |_| ()).expect_err("refused").to_string()
    };
    assert_eq!(error("x", 2, &[1, 28, 28], 784, &[]), "input x: has 784 elements, shape [2, 1, 28, 28] takes 1568");
    assert_eq!(
        error("x", 1, &[28, 28], 784, &[]),
        "input x: shape [1, 28, 28] has 3 dimensions, the model takes 4: f32[N, 1, 28, 28]"
    );
    assert_eq!(error("z", 1, &[1, 28, 28], 784, &[]), "input z: the model takes x");
    assert_eq!(error("x", 1, &[1, 28, 28], 784, &["q"]), "output q: the model gives y");
    assert!(error("x", usize::MAX, &[1, 28, 28], 784, &[]).contains("more elements than memory"));
    let mut echo = self::session("echo_i64");
    let wrong = echo.run_rows("x", 1, &[], &[0.0], &[], &Stop::new(), |_| ()).expect_err("not floats").to_string();
    assert_eq!(wrong, "input x: element type is f32, the model takes i64");
}

#[test]
fn a_model_that_mixes_rows_shows_it() {
    let mut session = session("batch_mixing");
    let one = session.run_rows("x", 1, &[2], &[5.0, 7.0], &[], &Stop::new(), copied).expect("runs");
    let two = session.run_rows("x", 2, &[2], &[5.0, 7.0, 1.0, 1.0], &[], &Stop::new(), copied).expect("runs");
    assert_eq!(one[0].1, [0.0, 0.0]);
    assert_eq!(two[0].1[..2], [2.0, 3.0]);
}

#[test]
fn the_number_of_rows_that_come_out_may_depend_on_the_values() {
    let mut session = session("data_dependent");
    let answer = only(&mut session, &[("x", &Tensor::from_f32(&[3], &[-1.0, 2.0, 3.0]))]);
    assert_eq!(answer, Tensor::from_f32(&[2], &[2.0, 3.0]));
    assert_eq!(only(&mut session, &[("x", &Tensor::from_f32(&[1], &[-1.0]))]), Tensor::from_f32(&[0], &[]));
}

#[test]
fn weights_in_a_file_beside_the_model_are_read() {
    let answer = only(&mut session("external"), &[("x", &Tensor::from_f32(&[1, 8], &[1.0; 8]))]);
    assert_eq!(answer.to_f32().expect("floats")[..2], [3.5, 3.625]);
}

#[test]
fn weights_outside_the_models_folder_are_refused_though_they_are_there() {
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("fashion-mnist-500.npz"), [0_u8; 256]).expect("written");
    let inside = outside.path().join("model");
    fs::create_dir(&inside).expect("made");
    fs::copy(model("external_escape"), inside.join("model.onnx")).expect("copied");
    let error = reason(Blueprint::open(load(), inside.join("model.onnx")).and_then(|model| model.session(&cpu())));
    assert!(error.contains("escapes") && error.contains("fashion-mnist-500.npz"), "{error}");
}

#[test]
fn missing_weights_are_named() {
    let error = reason(open("external_missing"));
    assert!(error.contains("not_there.weights"), "{error}");
}

type Ended = (Session, Result<(), RunError>);

/// Starts a run in a thread of its own, and returns once the thread has computed for 20 ms by the kernel's account: it is
/// then inside the library.
fn start(mut session: Session, rounds: Option<i64>, stop: Stop) -> thread::JoinHandle<Ended> {
    let (begun, when_begun) = mpsc::channel();
    let thread = thread::spawn(move || {
        let x = Tensor::from_f32(&[1], &[0.5]);
        let rounds = rounds.map(|rounds| Tensor::from_i64(&[], &[rounds]));
        let mut inputs = vec![("x", &x)];
        inputs.extend(rounds.as_ref().map(|rounds| ("rounds", rounds)));
        begun.send(fs::read_link("/proc/thread-self").expect("linux")).expect("the test waits");
        let result = session.run(&inputs, &[], &stop).map(|_| ());
        (session, result)
    });
    let stat = Path::new("/proc").join(when_begun.recv().expect("begun")).join("stat");
    let ticks = || {
        let stat = fs::read_to_string(&stat).expect("the run does not end by itself");
        let fields = stat.rsplit_once(')').expect("a name in brackets").1.split_whitespace();
        fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum::<u64>()
    };
    let at_start = ticks();
    while ticks() < at_start + 2 {
        thread::yield_now();
    }
    thread
}

#[test]
fn a_run_that_never_ends_is_stopped_from_another_thread_and_the_session_runs_again() {
    let mut endless = session("endless");
    // Twice, with one session: what the first stop left behind must not end the second run, nor keep it from ending.
    for _ in 0..2 {
        let stop = Stop::new();
        let thread = start(endless, None, stop.clone());
        stop.stop();
        let (session, result) = thread.join().expect("no panic");
        assert_eq!(result, Err(RunError::Stopped));
        endless = session;
    }
    let stop = Stop::new();
    let thread = start(session("slow_dial"), Some(1 << 40), stop.clone());
    stop.stop();
    let (mut dial, result) = thread.join().expect("no panic");
    assert_eq!(result, Err(RunError::Stopped));
    let (x, rounds) = (Tensor::from_f32(&[1], &[0.5]), Tensor::from_i64(&[], &[3]));
    let answer = only(&mut dial, &[("x", &x), ("rounds", &rounds)]).to_f32().expect("floats")[0];
    assert!((answer - 0.5).abs() < 1e-3, "{answer}");
}

#[test]
fn a_run_that_is_stopped_before_it_begins_never_begins() {
    let mut endless = session("endless");
    let stop = Stop::new();
    stop.stop();
    let x = Tensor::from_f32(&[1], &[0.5]);
    // Would hang if it began.
    assert_eq!(endless.run(&[("x", &x)], &[], &stop), Err(RunError::Stopped));
    let mut rows = session("batch_free");
    assert_eq!(rows.run_rows("x", 1, &[1, 28, 28], &[0.0; 784], &[], &stop, |_| ()), Err(RunError::Stopped));
    // The session is not spoilt by it.
    assert_eq!(rows.run_rows("x", 1, &[1, 28, 28], &[0.0; 784], &[], &Stop::new(), |_| ()), Ok(()));
}

#[test]
fn a_slow_model_ends_by_itself() {
    let answer = only(&mut session("slow"), &[("x", &Tensor::from_f32(&[1], &[0.25]))]).to_f32().expect("floats")[0];
    assert!((answer - 0.25).abs() < 1e-3, "600 products with a matrix of means keep the mean: {answer}");
}

#[test]
fn values_that_the_model_refuses_are_the_callers_error_and_the_session_lives_on() {
    let mut session = session("fails_at_run");
    let error = run(&mut session, &[("i", &Tensor::from_i64(&[1], &[99]))]).expect_err("there are four");
    let RunError::Refused(reason) = &error else { panic!("{error:?}") };
    assert!(reason.starts_with("Gather node:") && reason.contains("idx=99"), "{reason}");
    assert!(!reason.contains('/') && !reason.contains("::"), "no source places: {reason}");
    assert_eq!(only(&mut session, &[("i", &Tensor::from_i64(&[2], &[1, 3]))]).to_f32(), Some(vec![11.0, 13.0]));
}

#[test]
fn answers_that_are_no_numbers_pass() {
    let answers = run(&mut session("nan_inf"), &[("x", &Tensor::from_f32(&[3], &[-1.0, 0.0, 1.0]))]).expect("runs");
    let log = answers[0].1.to_f32().expect("floats");
    assert!(log[0].is_nan() && log[1] == f32::NEG_INFINITY && log[2] == 0.0, "{log:?}");
    assert_eq!(answers[1].1.to_f32(), Some(vec![-1.0, f32::INFINITY, 1.0]));
}

#[test]
fn two_runs_of_a_random_model_differ() {
    let mut session = session("random");
    let x = Tensor::from_f32(&[4], &[0.0; 4]);
    assert_ne!(only(&mut session, &[("x", &x)]), only(&mut session, &[("x", &x)]));
}

#[test]
fn strings_go_in_and_numbers_come_out() {
    let x = Tensor::from_strings(&[3], ["yes", "no", "perhaps"].map(str::to_owned).to_vec());
    assert_eq!(only(&mut session("yes_no"), &[("x", &x)]).to_f32(), Some(vec![1.0, 0.0, -1.0]));
}

#[test]
fn an_unknown_operator_and_a_future_opset_are_named() {
    let custom = reason(open("custom_op"));
    assert!(custom.contains("Unheard") && custom.contains("com.example.outboard"), "{custom}");
    let future = reason(open("future_opset"));
    assert!(future.contains("999"), "{future}");
}

#[test]
fn files_that_are_no_models_are_refused() {
    for name in ["corrupt_truncated", "corrupt_text", "corrupt_empty"] {
        let error = reason(open(name));
        assert!(!error.is_empty() && !error.contains(".cc:"), "{name}: {error}");
    }
    let gone = model("nowhere");
    assert_eq!(Blueprint::open(load(), &gone).map(|_| ()), Err(LoadError::NoFile(gone)));
}

#[test]
fn the_model_tells_its_producer_and_its_own_keys() {
    let session = session("slow_dial");
    assert_eq!(session.metadata().producer, "outboard-edge");
    assert_eq!(session.metadata().graph, "slow_dial");
    assert!(session.metadata().custom["note"].contains("rounds"));
}

#[test]
fn every_node_is_placed_and_told() {
    let session = session("multi_io");
    assert_eq!(session.placement(), [("CPUExecutionProvider".to_owned(), 4)]);
    let mut operators: Vec<&str> = session.nodes().iter().map(|(_, operator)| operator.as_str()).collect();
    operators.sort_unstable();
    assert_eq!(operators, ["Add", "Greater", "Mul", "Shape"]);
}

#[test]
fn cuda_on_a_library_without_it_is_an_error_that_says_so() {
    let model = Blueprint::open(load(), model("batch_free")).expect("there");
    let wish = SessionOptions { wish: DeviceWish::Cuda(0), ..SessionOptions::default() };
    let error = model.session(&wish).expect_err("never the CPU in silence");
    assert_eq!(error, LoadError::Device { wish: DeviceWish::Cuda(0), missing: CudaMissing::NotInLibrary });
    assert_eq!(
        error.to_string(),
        "cuda:0 is asked for, but this ONNX Runtime library was built without CUDA: run `scripts/onnxruntime cuda`"
    );
}

#[test]
fn auto_takes_the_cpu_and_tells_why() {
    let model = Blueprint::open(load(), model("batch_free")).expect("there");
    let session = model.session(&SessionOptions::default()).expect("auto always finds a device");
    assert_eq!(session.chosen().device, Device::Cpu);
    assert!(session.chosen().why.starts_with("no CUDA: this ONNX Runtime library was built without CUDA"));
}

#[test]
fn provider_options_are_refused_where_they_would_have_no_effect() {
    let mut options = cpu();
    options.provider_options.insert("use_tf32".to_owned(), "1".to_owned());
    let error = Blueprint::open(load(), model("echo_f32")).and_then(|model| model.session(&options)).expect_err("cpu");
    assert_eq!(error.to_string(), "provider options (use_tf32) are for cuda, the device is cpu");
}

#[test]
fn workers_share_a_graph_and_run_it_at_the_same_time() {
    let model = Blueprint::open(load(), model("batch_free")).expect("there");
    let mut first = model.session(&cpu()).expect("loads");
    let expected: Vec<_> = (0..8)
        .map(|seed| first.run_rows("x", 1, &[1, 28, 28], &picture(seed), &[], &Stop::new(), copied).expect("runs"))
        .collect();
    thread::scope(|scope| {
        for worker in 0..4_u32 {
            let mut session = model.session(&cpu()).expect("loads");
            let expected = &expected;
            scope.spawn(move || {
                for round in 0..3_000_u32 {
                    let seed = (round + worker) % 8;
                    let answer = session.run_rows("x", 1, &[1, 28, 28], &picture(seed), &[], &Stop::new(), copied);
                    assert_eq!(answer.as_ref(), Ok(&expected[seed as usize]), "worker {worker}, round {round}");
                }
            });
        }
    });
}
