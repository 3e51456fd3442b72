use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use tempfile::TempDir;

use super::*;
use crate::record::{Record, RecordId, Source};
use crate::testing::record;

const ROOM: Limits = Limits { queue_bytes: 64 << 20, disk_bytes: 1 << 30, pictures: true };

fn open(folder: &TempDir) -> Spool {
    Spool::open(folder.path(), ROOM, Counts::new()).expect("opens")
}

fn entry(picture: &[u8]) -> Entry {
    let record = Record {
        source: Source::Page,
        file_name: "\u{9774}.png".to_owned(),
        bytes: picture.len() as u64,
        ..record("m")
    };
    Entry { record, picture: Some(bytes::Bytes::copy_from_slice(picture)), preview: None }
}

fn keep(spool: &Spool, entry: &Entry) {
    assert_eq!(spool.keep(entry.clone()).blocking_recv(), Ok(true));
}

fn rest(spool: &Spool) -> Vec<Entry> {
    let mut found = Vec::new();
    while let Some(batch) = spool.batch(7, 1 << 20).expect("is read") {
        found.extend(batch.entries.iter().cloned());
        spool.stored(&batch);
    }
    found
}

/// Everything is read, and the files have left the disk.
fn end(spool: &Spool) {
    spool.seal();
    while !spool.shared.segments.lock().is_empty() {
        assert_eq!(rest(spool), []);
    }
}

fn ids(entries: &[Entry]) -> Vec<RecordId> {
    entries.iter().map(|entry| entry.record.id).collect()
}

fn files(folder: &TempDir, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path().join("0")).expect("there");
    let paths = entries.map(|entry| entry.expect("read").path());
    paths.filter(|path| path.extension().is_some_and(|have| have == ending)).collect()
}

#[test]
fn what_was_kept_comes_in_order_and_completed() {
    let folder = TempDir::new().expect("a folder");
    let spool = open(&folder);
    let made: Vec<Entry> = (0..20).map(|number| entry(&vec![number; 1_000])).collect();
    made.iter().for_each(|entry| keep(&spool, entry));
    let found = rest(&spool);
    assert_eq!(ids(&found), ids(&made));
    assert_eq!(found[3].picture, made[3].picture);
    assert_eq!(found[3].record.kept_bytes, 1_000);
    assert_eq!(found[3].record.sha256.len(), 64);
    assert_eq!(rest(&spool), [], "and once");
    assert_eq!(files(&folder, "damaged"), Vec::<PathBuf>::new(), "the end of an open file is no damage");
}

#[test]
fn what_was_not_stored_is_there_after_a_restart_and_marked_as_perhaps_known() {
    let folder = TempDir::new().expect("a folder");
    let made: Vec<Entry> = (0..10).map(|number| entry(&[number])).collect();
    let spool = open(&folder);
    made.iter().for_each(|entry| keep(&spool, entry));
    let batch = spool.batch(4, 1 << 20).expect("is read").expect("there are some");
    assert!(!batch.maybe_again);
    spool.stored(&batch);
    spool.close();
    drop(spool);
    let spool = open(&folder);
    let batch = spool.batch(100, 1 << 20).expect("is read").expect("there are some");
    assert!(batch.maybe_again);
    assert_eq!(ids(&batch.entries), ids(&made), "from the beginning of the file");
    // Handed out again until it is said to be stored.
    assert_eq!(spool.batch(100, 1 << 20).expect("is read").map(|again| again.entries), Some(batch.entries.clone()));
    spool.stored(&batch);
    assert_eq!(rest(&spool), []);
    assert_eq!(files(&folder, "spool"), Vec::<PathBuf>::new(), "what is stored leaves the disk");
}

#[test]
fn a_file_that_was_cut_anywhere_gives_every_whole_entry_and_nothing_else() {
    let folder = TempDir::new().expect("a folder");
    let spool = open(&folder);
    let made: Vec<Entry> = (0..3).map(|number| entry(&[number; 50])).collect();
    made.iter().for_each(|entry| keep(&spool, entry));
    spool.close();
    drop(spool);
    let file = files(&folder, "spool").remove(0);
    let mut whole = Vec::new();
    File::open(&file).expect("there").read_to_end(&mut whole).expect("is read");
    let each = (whole.len() - MAGIC.len()) / 3;
    for length in 0..=whole.len() {
        fs::write(&file, &whole[..length]).expect("written");
        let mut reader = Reader::open(&file, 0, u64::MAX).expect("opens");
        let mut found = 0;
        while let Found::Entry(entry) = reader.next().expect("is read") {
            assert_eq!(entry.record.id, made[found].record.id);
            found += 1;
        }
        assert_eq!(found, length.saturating_sub(MAGIC.len()) / each, "cut at {length}");
    }
    for length in [0, 5, MAGIC.len(), each, each * 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).expect("written");
        let spool = open(&folder);
        let expected = length.saturating_sub(MAGIC.len()) / each;
        assert_eq!(ids(&rest(&spool)), ids(&made[..expected]), "cut at {length}");
        assert!(files(&folder, "spool").is_empty(), "cut at {length}");
        // The lock goes with its thread.
        spool.close();
    }
}

#[test]
fn blocks_that_never_reached_the_disk_end_a_file() {
    let folder = TempDir::new().expect("a folder");
    let spool = open(&folder);
    let made = entry(b"x");
    keep(&spool, &made);
    spool.close();
    drop(spool);
    let file = files(&folder, "spool").remove(0);
    OpenOptions::new().append(true).open(&file).expect("opens").write_all(&[0; 4_096]).expect("written");
    assert_eq!(ids(&rest(&open(&folder))), [made.record.id]);
}

#[test]
fn a_damaged_entry_keeps_no_other_away_and_its_file_stays() {
    let folder = TempDir::new().expect("a folder");
    let spool = open(&folder);
    let made: Vec<Entry> = (0..3).map(|number| entry(&[number; 50])).collect();
    made.iter().for_each(|entry| keep(&spool, entry));
    spool.close();
    drop(spool);
    let file = files(&folder, "spool").remove(0);
    let length = fs::metadata(&file).expect("there").len();
    let mut open_file = OpenOptions::new().write(true).open(&file).expect("opens");
    open_file.seek(SeekFrom::Start(length / 2)).expect("sought");
    open_file.write_all(b"!").expect("written");
    drop(open_file);
    assert_eq!(ids(&rest(&open(&folder))), [made[0].record.id, made[2].record.id]);
    assert_eq!(files(&folder, "damaged").len(), 1);
}

/// Writes over a part of the only file that three entries were left in; what comes of it, and the entries.
fn after_damage(change: impl Fn(&mut [u8], usize)) -> (Vec<RecordId>, Vec<RecordId>, usize) {
    let folder = TempDir::new().expect("a folder");
    let spool = open(&folder);
    let made: Vec<Entry> = (0..3).map(|number| entry(&[number; 50])).collect();
    made.iter().for_each(|entry| keep(&spool, entry));
    spool.close();
    drop(spool);
    let file = files(&folder, "spool").remove(0);
    let mut bytes = fs::read(&file).expect("is read");
    let second = MAGIC.len() + (bytes.len() - MAGIC.len()) / 3;
    change(&mut bytes, second);
    fs::write(&file, bytes).expect("written");
    let spool = open(&folder);
    let found = ids(&rest(&spool));
    assert_eq!(files(&folder, "spool"), Vec::<PathBuf>::new(), "nothing is read for ever");
    (found, ids(&made), files(&folder, "damaged").len())
}

#[test]
fn a_damaged_length_hides_nothing_that_stands_behind_it() {
    for (place, byte, lost) in [(0, 1, false), (2, 0x7f, false), (3, 0xff, false), (8, 1, true), (15, 0xff, true)] {
        let (found, made, kept) = after_damage(|bytes, second| bytes[second + place] ^= byte);
        let expected = if lost { vec![made[0], made[2]] } else { made };
        assert_eq!(found, expected, "byte {place}");
        assert_eq!(kept, usize::from(lost), "byte {place}");
    }
    // Both: then nobody knows how long it is, and the file is kept for a person.
    let (found, made, kept) = after_damage(|bytes, second| bytes[second..second + 20].fill(0xff));
    assert_eq!((found, kept), (made[..1].to_vec(), 1));
}

#[test]
fn a_file_with_another_beginning_holds_up_nothing() {
    // As a power cut leaves it: a length, and blocks that never came.
    let (found, _, kept) = after_damage(|bytes, _| bytes.fill(0));
    assert_eq!((found, kept), (vec![], 0));
    let (found, _, kept) = after_damage(|bytes, _| bytes[7] = b'2');
    assert_eq!((found, kept), (vec![], 1), "another program's is kept");
}

#[test]
fn a_file_that_is_damaged_under_a_running_process_holds_up_nothing() {
    let folder = TempDir::new().expect("a folder");
    let spool = open(&folder);
    let (first, second) = (entry(b"first"), entry(b"second"));
    keep(&spool, &first);
    let file = files(&folder, "spool").remove(0);
    let length = fs::metadata(&file).expect("there").len() as usize;
    let mut zeros = OpenOptions::new().write(true).open(&file).expect("opens");
    zeros.seek(SeekFrom::Start(MAGIC.len() as u64)).expect("sought");
    zeros.write_all(&vec![0; length - MAGIC.len()]).expect("written");
    assert_eq!(rest(&spool), []);
    assert_eq!(files(&folder, "damaged").len(), 1, "what was acknowledged and cannot be read is kept for a person");
    keep(&spool, &second);
    assert_eq!(ids(&rest(&spool)), [second.record.id]);
    end(&spool);
    assert_eq!(spool.shared.counts.waiting.get(), 0, "it waits no longer");
}

#[test]
fn a_file_that_becomes_shorter_under_a_running_process_holds_up_nothing() {
    let folder = TempDir::new().expect("a folder");
    let spool = open(&folder);
    let (first, second, third) = (entry(b"first"), entry(b"second"), entry(b"third"));
    keep(&spool, &first);
    assert_eq!(ids(&rest(&spool)), [first.record.id]);
    keep(&spool, &second);
    OpenOptions::new().write(true).open(files(&folder, "spool").remove(0)).expect("opens").set_len(0).expect("cut");
    assert_eq!(rest(&spool), []);
    assert_eq!(files(&folder, "damaged").len(), 1);
    end(&spool);
    keep(&spool, &third);
    assert_eq!(ids(&rest(&spool)), [third.record.id]);
}

#[test]
fn damage_is_told_once_however_often_it_is_read() {
    let folder = TempDir::new().expect("a folder");
    let spool = open(&folder);
    let made: Vec<Entry> = (0..3).map(|number| entry(&[number; 50])).collect();
    made.iter().for_each(|entry| keep(&spool, entry));
    let file = files(&folder, "spool").remove(0);
    let length = fs::metadata(&file).expect("there").len();
    let mut open_file = OpenOptions::new().write(true).open(&file).expect("opens");
    open_file.seek(SeekFrom::Start(length / 2)).expect("sought");
    open_file.write_all(b"!").expect("written");
    for _ in 0..2 {
        let batch = spool.batch(7, 1 << 20).expect("is read").expect("two are whole");
        assert_eq!(ids(&batch.entries), [made[0].record.id, made[2].record.id]);
        spool.again(&batch);
    }
    assert_eq!(spool.shared.counts.of(Outcome::SetAside), 1);
}

#[test]
fn what_cannot_be_taken_over_keeps_nothing_else_away() {
    let folder = TempDir::new().expect("a folder");
    let own = open(&folder);
    // In whatever order the folders are read, some come before one that is damaged.
    let left: Vec<Entry> = (0..8).map(|number| entry(&[number])).collect();
    let others: Vec<Spool> = left.iter().map(|_| open(&folder)).collect();
    for (other, entry) in others.into_iter().zip(&left) {
        keep(&other, entry);
        other.close();
    }
    for number in 20..24 {
        fs::create_dir_all(folder.path().join(format!("{number}/lock"))).expect("made");
    }
    assert!(own.adopt().is_err());
    let mut found = ids(&rest(&own));
    found.sort();
    let mut all = ids(&left);
    all.sort();
    assert_eq!(found, all);
    // And nobody is kept from starting.
    own.close();
    drop(own);
    open(&folder);
}

#[test]
fn a_disk_that_refuses_is_told_of_and_taken_again_when_it_is_back() {
    let folder = TempDir::new().expect("a folder");
    let spool = open(&folder);
    let (before, lost, after) = (entry(b"before"), entry(b"lost"), entry(b"after"));
    keep(&spool, &before);
    assert_eq!(ids(&rest(&spool)), [before.record.id]);
    spool.seal();
    let (own, away) = (folder.path().join("0"), folder.path().join("away"));
    // The file that is open is ended first, or it would be written to wherever it is.
    while !files(&folder, "spool").is_empty() {
        assert_eq!(rest(&spool), []);
    }
    fs::rename(&own, &away).expect("taken away");
    assert_eq!(spool.keep(lost).blocking_recv(), Ok(false), "no promise");
    fs::rename(&away, &own).expect("back");
    keep(&spool, &after);
    assert_eq!(ids(&rest(&spool)), [after.record.id]);
}

#[test]
fn folders_that_are_none_of_ours_are_left_alone() {
    let folder = TempDir::new().expect("a folder");
    let foreign = folder.path().join("lost+found");
    fs::create_dir(&foreign).expect("made");
    let file = foreign.join("old.spool");
    fs::write(&file, MAGIC).expect("written");
    let spool = open(&folder);
    spool.adopt().expect("looks");
    assert!(file.exists() && !foreign.join("lock").exists());
}

#[test]
fn memory_and_disk_are_bounded_and_the_receipt_says_so() {
    let folder = TempDir::new().expect("a folder");
    let limits = Limits { queue_bytes: 10_000, disk_bytes: 30_000, pictures: true };
    let spool = Spool::open(folder.path(), limits, Counts::new()).expect("opens");
    assert_eq!(spool.keep(entry(&[0; 20_000])).blocking_recv(), Ok(false), "larger than the queue");
    let kept = (0..20).filter(|_| spool.keep(entry(&[0; 4_000])).blocking_recv() == Ok(true)).count();
    assert!((4..=7).contains(&kept), "{kept} of 4 kB in 30 kB");
    assert_eq!(rest(&spool).len(), kept);
    spool.seal();
    spool.close();
    assert_eq!(rest(&spool), []);
    assert_eq!(spool.waiting_bytes(), 0);
    // The disk is free again.
    drop(spool);
    let spool = Spool::open(folder.path(), limits, Counts::new()).expect("opens");
    keep(&spool, &entry(&[0; 4_000]));
}

#[test]
fn two_processes_have_folders_of_their_own_and_one_takes_over_what_the_other_leaves() {
    let folder = TempDir::new().expect("a folder");
    let (first, second) = (open(&folder), open(&folder));
    let (a, b) = (entry(b"a"), entry(b"b"));
    keep(&first, &a);
    keep(&second, &b);
    first.adopt().expect("looks");
    assert_eq!(ids(&rest(&first)), [a.record.id], "the other one is alive");
    second.close();
    drop(second);
    first.adopt().expect("looks");
    assert_eq!(ids(&rest(&first)), [b.record.id]);
    // What is taken over does not disturb what is written.
    let c = entry(b"c");
    keep(&first, &c);
    assert_eq!(ids(&rest(&first)), [c.record.id]);
}

#[test]
fn what_a_store_refuses_is_kept_in_a_file_of_its_own() {
    let folder = TempDir::new().expect("a folder");
    let spool = open(&folder);
    let one = entry(b"odd");
    spool.set_aside(&one).expect("kept");
    let file = files(&folder, "refused").remove(0);
    let mut reader = Reader::open(&file, 0, u64::MAX).expect("opens");
    assert_eq!(reader.next().expect("is read"), Found::Entry(Box::new(one)));
    assert_eq!(rest(&spool), []);
}
