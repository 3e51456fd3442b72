//! The example that checks a device on another host, run on the CPU so that it still works when it gets there.

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};

use runtime::LibraryChoice;

fn gpu_check(arguments: &[&str]) -> Output {
    let LibraryChoice::At(library) = support::cpu_library() else { unreachable!("the support names a folder") };
    let mut program = std::env::current_exe().expect("a path");
    program.pop();
    program.set_file_name("examples");
    program.push("gpu_check");
    Command::new(&program)
        .args(arguments)
        .arg("--library")
        .arg(library)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}: build it with cargo test without --test", program.display()))
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn model(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name).to_string_lossy().into_owned()
}

#[test]
fn the_cpu_agrees_with_itself_on_every_smoke_model() {
    let output = gpu_check(&["smoke", "--device", "cpu"]);
    let text = printed(&output);
    assert!(output.status.success(), "{text}");
    for name in ["matmul", "conv", "attention_f16"] {
        assert!(text.contains(&format!("| {name} | cpu | CPUExecutionProvider ")), "{text}");
    }
}

#[test]
fn a_model_that_differs_or_fails_is_found_among_others() {
    let models = ["random.onnx", "batch_free.onnx", "multi_io.onnx", "corrupt_text.onnx"].map(model);
    let mut arguments = vec!["compare", "--device", "cpu"];
    arguments.extend(models.iter().map(String::as_str));
    let output = gpu_check(&arguments);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("**FAILED** runtime/testdata/random.onnx differs by"), "{text}");
    assert!(text.contains("runtime/testdata/corrupt_text.onnx: /"), "{text}");
    assert!(text.contains("| runtime/testdata/batch_free.onnx | cpu | CPUExecutionProvider 2 | 0.0e0 |"), "{text}");
    assert!(text.contains("| not checked: has 3 inputs, only models of one are |"), "{text}");
}

#[test]
fn each_batch_is_measured_beside_the_bare_session() {
    let output =
        gpu_check(&["measure", "--device", "cpu", "--batches", "1,8", "--seconds", "0.01", &model("batch_free.onnx")]);
    let text = printed(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("| 1 | ") && text.contains("| 8 | ") && text.contains("the setting says cpu"), "{text}");
}

#[test]
fn a_language_model_goes_on_as_on_the_cpu() {
    let tiny = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../generate/testdata/tiny-llama/onnx/model.onnx");
    let tiny = tiny.to_string_lossy();
    let output = gpu_check(&["decode", "--device", "cpu", "--batches", "1,8", "--seconds", "0.01", &tiny]);
    let text = printed(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("| 640 | 1.0000 | 0.995 | 0.0e0 |") && text.contains("\n| 8 | "), "{text}");
    let echo = gpu_check(&["decode", "--device", "cpu", &model("echo_f32.onnx")]);
    assert_eq!(echo.status.code(), Some(1), "{}", printed(&echo));
}

#[test]
fn a_missing_gpu_is_refused_and_a_device_that_works_is_not() {
    let refused = gpu_check(&["refuse", "--device", "cuda:0"]);
    assert!(refused.status.success(), "{}", printed(&refused));
    assert!(
        printed(&refused)
            .contains("refused: cuda:0 is asked for, but this ONNX Runtime library was built without CUDA")
    );
    let taken = gpu_check(&["refuse", "--device", "cpu"]);
    assert_eq!(taken.status.code(), Some(1), "{}", printed(&taken));
}

#[test]
fn a_wrong_word_is_named() {
    for (arguments, expected) in
        [(&["smok"][..], "unknown command 'smok'"), (&["smoke", "--device", "gpu"], "unknown device 'gpu'")]
    {
        let output = gpu_check(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(printed(&output).contains(expected), "{}", printed(&output));
    }
}
