//! The scripts that bring the library here and to a GPU host, as far as that needs no network and no GPU.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, str};

use runtime::LibraryChoice;

fn script(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name);
    let mut command = Command::new(&path);
    command.args(arguments).envs(variables.iter().copied());
    command.output().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn out(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("text")
}

fn errors(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("text")
}

/// An index that nothing answers at, asked once.
const NO_NETWORK: [(&str, &str); 3] =
    [("PIP_INDEX_URL", "http://127.0.0.1:9/simple"), ("PIP_RETRIES", "0"), ("PIP_NO_INDEX", "")];

#[test]
fn a_library_that_is_in_place_is_told_without_network() {
    let LibraryChoice::At(folder) = support::cpu_library() else { unreachable!("the support names a folder") };
    support::load();
    let output = script("onnxruntime", &["cpu"], &NO_NETWORK);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(Path::new(out(&output).trim_end()), folder);
    assert_eq!(errors(&output), "");
}

#[test]
fn without_network_it_says_so_in_one_sentence_and_leaves_no_half_library() {
    let cache = tempfile::tempdir().expect("a folder");
    let mut variables = NO_NETWORK.to_vec();
    variables.push(("OUTBOARD_CACHE", cache.path().to_str().expect("text")));
    // Wheels that lie about for pip would be found.
    variables.push(("PIP_FIND_LINKS", ""));
    let output = script("onnxruntime", &["cpu"], &variables);
    assert_eq!(output.status.code(), Some(1));
    let last = errors(&output).trim_end().lines().last().expect("a sentence");
    assert!(last.starts_with("scripts/onnxruntime: cannot fetch onnxruntime=="), "{last}");
    assert!(!fs::exists(cache.path().join(format!("onnxruntime/{}-cpu", runtime::VERSION))).expect("readable"));
}

#[test]
fn a_half_unpacked_folder_does_not_pass_for_a_library() {
    let cache = tempfile::tempdir().expect("a folder");
    let folder = cache.path().join(format!("onnxruntime/{}-cpu", runtime::VERSION));
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join(format!("libonnxruntime.so.{}", runtime::VERSION)), "half").expect("written");
    let mut variables = NO_NETWORK.to_vec();
    variables.push(("OUTBOARD_CACHE", cache.path().to_str().expect("text")));
    variables.push(("PIP_FIND_LINKS", ""));
    assert_eq!(script("onnxruntime", &["cpu"], &variables).status.code(), Some(1));
}

#[test]
fn wrong_words_are_named() {
    for (arguments, expected) in [
        (&["gpu"][..], "unknown argument 'gpu'"),
        (&[], "say which library"),
        (&["cpu", "--with-cuda-libs"], "--with-cuda-libs goes with cuda"),
    ] {
        let output = script("onnxruntime", arguments, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(errors(&output).contains(expected), "{}", errors(&output));
    }
    let output = script("gpu-check", &["--device", "gpu"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("unknown device 'gpu'"), "{}", errors(&output));
}

// ---- cut-cuda-provider, on a library made here ---------------------------------------------------------------------

const PTX: u16 = 1;
const CODE: u16 = 2;

/// One fat binary: each entry has a kind, a generation, and a payload of one repeated byte.
fn fat_binary(entries: &[(u16, u32, u8)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, arch, byte) in entries {
        let mut header = vec![0_u8; 64];
        header[..2].copy_from_slice(&kind.to_le_bytes());
        header[4..8].copy_from_slice(&64_u32.to_le_bytes());
        header[8..16].copy_from_slice(&16_u64.to_le_bytes());
        header[28..32].copy_from_slice(&arch.to_le_bytes());
        body.extend(header);
        body.extend([*byte; 16]);
    }
    let mut whole = 0xBA55_ED50_u32.to_le_bytes().to_vec();
    whole.extend(1_u16.to_le_bytes());
    whole.extend(16_u16.to_le_bytes());
    whole.extend((body.len() as u64).to_le_bytes());
    whole.extend(body);
    whole
}

/// An ELF file that has nothing but the section of fat binaries and its name.
fn library(section: &[u8]) -> Vec<u8> {
    let names = b"\0.nv_fatbin\0";
    let (at_names, at_table) = (64 + section.len(), (64 + section.len() + names.len()).next_multiple_of(8));
    let mut file = vec![0_u8; at_table + 3 * 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[40..48].copy_from_slice(&(at_table as u64).to_le_bytes());
    file[58..60].copy_from_slice(&64_u16.to_le_bytes());
    file[60..62].copy_from_slice(&3_u16.to_le_bytes());
    file[62..64].copy_from_slice(&2_u16.to_le_bytes());
    file[64..64 + section.len()].copy_from_slice(section);
    file[at_names..at_names + names.len()].copy_from_slice(names);
    for (row, name, start, length) in [(1, 1_u32, 64, section.len()), (2, 0, at_names, names.len())] {
        let header = &mut file[at_table + row * 64..][..64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[24..32].copy_from_slice(&(start as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(length as u64).to_le_bytes());
    }
    file
}

fn cut(folder: &Path, file: &[u8], arch: &str) -> (Output, PathBuf) {
    let (source, target) = (folder.join("in.so"), folder.join("out.so"));
    fs::write(&source, file).expect("written");
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    (script("cut-cuda-provider", &[&text(&source), &text(&target), "--arch", arch], &[]), target)
}

#[test]
fn only_the_payloads_of_other_cards_are_blanked() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut section = fat_binary(&[(CODE, 80, b'a'), (CODE, 90, b'b'), (CODE, 120, b'c')]);
    section.extend([0; 8]);
    // Without code for the card, the newest PTX up to it stays.
    section.extend(fat_binary(&[(PTX, 75, b'd'), (PTX, 80, b'e'), (PTX, 120, b'f'), (CODE, 86, b'g')]));
    let before = library(&section);
    let (output, target) = cut(folder.path(), &before, "90");
    assert!(output.status.success(), "{}", errors(&output));
    assert!(out(&output).starts_with("2 fat binaries"), "{}", out(&output));
    let after = fs::read(target).expect("made");
    let end = 64 + section.len();
    let blanked = |byte: &u8| if b"acdfg".contains(byte) { 0 } else { *byte };
    let expected: Vec<u8> = before[64..end].iter().map(blanked).collect();
    assert_eq!(after[64..end], expected);
    assert_eq!((&after[..64], &after[end..]), (&before[..64], &before[end..]));
}

#[test]
fn a_library_without_code_for_the_card_or_of_another_kind_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = library(&fat_binary(&[(CODE, 80, b'a')]));
    let (output, _) = cut(folder.path(), &file, "90");
    assert_eq!(
        (output.status.code(), errors(&output).trim_end()),
        (Some(1), "cut-cuda-provider: the file has no code for 90")
    );
    let (output, _) = cut(folder.path(), b"text, and not a library", "90");
    assert!(errors(&output).contains("not a 64-bit little-endian ELF file"), "{}", errors(&output));
    let mut broken = fat_binary(&[(CODE, 90, b'a')]);
    broken[16 + 8..16 + 16].copy_from_slice(&1000_u64.to_le_bytes());
    let (output, _) = cut(folder.path(), &library(&broken), "90");
    assert!(errors(&output).contains("of a form that is not known here"), "{}", errors(&output));
}
