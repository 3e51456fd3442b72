//! What a request can make a model allocate. In a process of its own: the memory limit is the process's.

mod support;

use runtime::{Blueprint, LibraryError, RunError, Runtime, SessionOptions, Stop, Tensor};
use support::{cpu, cpu_library, model};

const LIMIT: u64 = 256 << 20;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn a_run_that_asks_for_more_than_the_limit_fails_and_the_session_lives_on() {
    let few = Runtime::load_within(&cpu_library(), Some(1 << 20)).expect_err("nothing would fit");
    assert_eq!(few, LibraryError::MemoryLimit(1 << 20));
    let library = Runtime::load_within(&cpu_library(), Some(LIMIT)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(library.memory_limit(), LIMIT);
    let mut hog = Blueprint::open(library, model("memory_hog")).expect("there").session(&cpu()).expect("loads");
    let square = |n: i64| Tensor::from_i64(&[1], &[n]);
    let before = resident();
    // 1.6 GB, 160 GB, and sizes whose product overflows.
    for n in [20_000, 200_000, 1 << 31, 1 << 32, i64::MAX] {
        match hog.run(&[("n", &square(n))], &[], &Stop::new()) {
            Err(RunError::OutOfMemory { limit: LIMIT, .. } | RunError::Refused(_)) => {}
            other => panic!("{n}: {other:?}"),
        }
        if n < 1 << 31 {
            let error = hog.run(&[("n", &square(n))], &[], &Stop::new()).expect_err("too much");
            assert!(matches!(error, RunError::OutOfMemory { .. }), "{n}: {error:?}");
        }
    }
    assert!(resident() < before + LIMIT, "{} bytes before, {} after", before, resident());
    // 16 MB fits, again and again.
    for _ in 0..40 {
        let answer = hog.run(&[("n", &square(2_000))], &[], &Stop::new()).expect("fits");
        assert_eq!(answer[0].1.byte_len(), 16_000_000);
    }
    // More than an answer may be is refused before it is copied; it does fit into the memory.
    let small = SessionOptions { max_output_bytes: 1_000_000, ..cpu() };
    let mut limited = Blueprint::open(library, model("memory_hog")).expect("there").session(&small).expect("loads");
    let error = limited.run(&[("n", &square(501))], &[], &Stop::new()).expect_err("1004004 bytes");
    assert_eq!(error, RunError::OutputTooLarge { bytes: 501 * 501 * 4, limit: 1_000_000 });
    assert!(limited.run(&[("n", &square(500))], &[], &Stop::new()).is_ok());
    // 144 MB once, then small runs: the memory goes back to the system without a restart.
    hog.run(&[("n", &square(6_000))], &[], &Stop::new()).expect("fits");
    for _ in 0..130 {
        hog.run(&[("n", &square(10))], &[], &Stop::new()).expect("fits");
    }
    assert!(resident() < before + (32 << 20), "{} bytes before, {} after", before, resident());
}
