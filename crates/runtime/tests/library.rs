//! Finding and loading the library. In a process of its own: a process loads one library, and these tests load wrong ones.

mod support;

use std::fs;

use runtime::{LibraryChoice, LibraryError, Runtime};
use support::cpu_library;

/// One test, because the order matters: the good library comes last.
#[test]
fn each_wrong_library_is_one_sentence_and_a_good_one_loads_afterwards() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| LibraryChoice::At(folder.path().join(name));
    let sentence = |choice: &LibraryChoice| Runtime::load(choice).expect_err("refused").to_string();

    let missing = sentence(&at("nothing.so"));
    assert!(missing.starts_with("there is no ONNX Runtime library at /"), "{missing}");
    assert!(missing.ends_with("nothing.so: run `scripts/onnxruntime cpu` or correct the setting"), "{missing}");

    fs::write(folder.path().join("text.so"), "not a library").expect("written");
    let text = sentence(&at("text.so"));
    assert!(text.contains("text.so cannot be loaded as the ONNX Runtime library (file too short)"), "{text}");

    let foreign = [
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/lib/aarch64-linux-gnu/libm.so.6",
        "/lib64/libm.so.6",
        "/usr/lib/libm.so.6",
    ];
    let foreign = foreign.iter().find(|path| fs::exists(path).is_ok_and(|there| there)).expect("a C library");
    assert_eq!(
        Runtime::load(&LibraryChoice::At(foreign.into())).map(|_| ()),
        Err(LibraryError::Foreign(foreign.into()))
    );

    let library = Runtime::load(&cpu_library()).unwrap_or_else(|error| panic!("{error}"));
    assert!(library.path().ends_with(format!("libonnxruntime.so.{}", runtime::VERSION)), "{:?}", library.path());
    assert_eq!(library.version(), runtime::VERSION);
    assert!(library.build_info().contains("ORT Build Info"), "{}", library.build_info());

    // Whoever asks later gets the same one, unless they insist on another.
    assert!(std::ptr::eq(Runtime::load(&LibraryChoice::Search).expect("loaded"), library));
    assert!(std::ptr::eq(Runtime::load(&cpu_library()).expect("loaded"), library));
    assert!(matches!(Runtime::load(&at("text.so")), Err(LibraryError::AnotherLoaded { .. })));
}
