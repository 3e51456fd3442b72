//! What fuzzing has found, and what is known to be odd, given to every target again.

use std::fs;
use std::path::{Path, PathBuf};

use hostile::{TARGETS, attack};

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    paths.map(|path| (path.clone(), fs::read(path).expect("a file can be read"))).collect()
}

#[test]
fn every_target_keeps_its_word_on_its_corpus() {
    for (target, _) in TARGETS {
        let corpus = corpus(target);
        assert!(corpus.len() >= 10, "{target} has {} files", corpus.len());
        for (path, bytes) in corpus {
            // Printed by a failing test only: the file that broke it stands last.
            println!("{}", path.display());
            attack(target, &bytes);
        }
    }
}

#[test]
fn every_target_keeps_its_word_on_a_damaged_corpus() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for (target, _) in TARGETS {
        for (path, mut bytes) in corpus(target) {
            println!("{}", path.display());
            for _ in 0..20 {
                if let Some(byte) = random.choice(&mut bytes) {
                    *byte = random.u8(..);
                }
                attack(target, &bytes);
            }
            for _ in 0..5 {
                bytes.truncate(random.usize(..=bytes.len()));
                attack(target, &bytes);
            }
        }
    }
}

#[test]
fn every_folder_of_the_corpus_and_every_fuzz_target_is_one_of_ours() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut known: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    known.sort();
    for folder in ["corpus", "fuzz_targets"] {
        let entries = fs::read_dir(root.join(folder)).expect("it is in the tree");
        let mut found: Vec<String> = entries
            .map(|entry| entry.expect("a folder can be listed").path())
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        found.sort();
        assert_eq!(found, known, "{folder}");
    }
}
