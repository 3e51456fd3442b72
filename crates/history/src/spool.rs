//! Where records wait for the stores: files that are only appended to, and synced before a record counts as kept.
//!
//! Why: the stores may be away, slow or restarting, and the gateway may be killed at any moment. What lies here is not lost
//! by any of it, and storing it again changes nothing, so it may be read again from the beginning of a file.
//! Promises: an entry whose receipt said yes is handed out until it was said to be stored, over restarts; one that was not
//! whole when the process died is never handed out; memory and disk that it takes are bounded.
//! Not here: bringing entries into the stores (`delivery`).

mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Result, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, oneshot};
use tracing::{error, info, warn};
use uuid::Uuid;

pub use self::segment::Entry;
use self::segment::{Found, MAGIC, Reader};
use crate::folder::sync_folder;
use crate::metrics::{Counts, Outcome};

/// A file is closed at this size: so much is read again after a restart, at most, though all of it was stored.
const SEGMENT: u64 = 16 << 20;
/// Entries that share one sync.
const GROUP: usize = 256;
/// Entries in the queue: with tiny pictures it is full by number, with large ones by bytes.
const QUEUE: usize = 4_096;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// In memory, until it is written.
    pub(crate) queue_bytes: usize,
    /// On disk.
    pub(crate) disk_bytes: u64,
    /// Where nothing keeps pictures, they are not written to the disk either.
    pub(crate) pictures: bool,
}

enum Job {
    Keep {
        entry: Box<Entry>,
        size: usize,
        receipt: oneshot::Sender<bool>,
    },
    /// Nothing more goes into the open file.
    Seal,
    /// The last one.
    Close,
}

/// A file and how far it is.
#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    /// Everything before is on the disk.
    durable: u64,
    /// Nothing more comes.
    sealed: bool,
    /// Left by an earlier process, which may have been cut while it wrote.
    recovered: bool,
    /// What is in it may be in the stores already.
    maybe_again: bool,
    /// Everything before is in the stores.
    stored: u64,
    /// Entries of this process that are not; at its end, those that nobody can read any more.
    waiting: i64,
}

/// Entries to bring into the stores, all from one file.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    /// They may be in the stores already, and may have been deleted there.
    pub(crate) maybe_again: bool,
    path: PathBuf,
    upto: u64,
}

struct Shared {
    folder: PathBuf,
    segments: Mutex<VecDeque<Segment>>,
    grown: Notify,
    queued_bytes: AtomicUsize,
    limits: Limits,
    counts: Counts,
    /// Held as long as the process lives: two processes never share a folder.
    _lock: File,
}

/// The spool of this process.
#[derive(Clone)]
pub(crate) struct Spool {
    shared: Arc<Shared>,
    jobs: SyncSender<Job>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Spool {
    /// Takes the first folder in `parent` that no other process has, and what processes that are gone have left in others.
    pub(crate) fn open(parent: &Path, limits: Limits, counts: Counts) -> Result<Self> {
        fs::create_dir_all(parent)?;
        let (folder, lock) = first_free(parent)?;
        // What cannot be taken over now is looked for again and again.
        if let Err(error) = adopt(parent, &folder, &mut Vec::new()) {
            warn!(%error, "the history's spool cannot take over what other processes have left");
        }
        let mut files = files_of(&folder)?;
        // The names begin with the moment.
        files.sort();
        let segments: VecDeque<_> = files.into_iter().map(|(path, bytes)| left_over(path, bytes)).collect();
        if !segments.is_empty() {
            let bytes: u64 = segments.iter().map(|segment| segment.durable).sum();
            info!(files = segments.len(), bytes, "the history's spool has records of an earlier process");
        }
        let shared = Arc::new(Shared {
            folder,
            segments: Mutex::new(segments),
            grown: Notify::new(),
            queued_bytes: AtomicUsize::new(0),
            limits,
            counts,
            _lock: lock,
        });
        shared.tell();
        let (jobs, receiver) = sync_channel(QUEUE);
        let writing = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("spool".to_owned()).spawn(move || Writer::new(writing).run(&receiver))?;
        Ok(Self { shared, jobs, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Puts an entry in line, without waiting. The receipt says whether it is durable.
    pub(crate) fn keep(&self, entry: Entry) -> oneshot::Receiver<bool> {
        let (receipt, told) = oneshot::channel();
        let size = entry.size();
        let shared = &self.shared;
        if shared.queued_bytes.fetch_add(size, Ordering::AcqRel) + size > shared.limits.queue_bytes {
            shared.queued_bytes.fetch_sub(size, Ordering::AcqRel);
            shared.counts.records(Outcome::QueueFull, 1);
            let _ = receipt.send(false);
            return told;
        }
        match self.jobs.try_send(Job::Keep { entry: Box::new(entry), size, receipt }) {
            Ok(()) => {}
            // Dropping the receipt says no.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                shared.queued_bytes.fetch_sub(size, Ordering::AcqRel);
                shared.counts.records(Outcome::QueueFull, 1);
            }
        }
        told
    }

    /// The next entries: at most `most` and about `bytes`, at least one. None when there are none now.
    pub(crate) fn batch(&self, most: usize, bytes: usize) -> Result<Option<Batch>> {
        loop {
            let front = self.shared.segments.lock().front().cloned();
            let Some(segment) = front else { return Ok(None) };
            if segment.stored >= segment.durable {
                if !segment.sealed {
                    return Ok(None);
                }
                self.shared.finish(&segment.path)?;
                continue;
            }
            let mut reader = Reader::open(&segment.path, segment.stored, segment.durable)?;
            let (mut entries, mut size, mut ended) = (Vec::new(), 0, false);
            while entries.len() < most && size < bytes {
                match reader.next()? {
                    Found::Entry(entry) => {
                        size += entry.size();
                        entries.push(*entry);
                    }
                    Found::Damaged => self.shared.keep_damaged(&segment.path)?,
                    Found::End => {
                        ended = true;
                        break;
                    }
                }
            }
            // What stands behind the last whole entry of a file that an earlier process left was never acknowledged.
            if ended && reader.at < segment.durable && !segment.recovered {
                self.shared.keep_damaged(&segment.path)?;
            }
            let upto = if ended { segment.durable } else { reader.at };
            let batch = Batch { entries, maybe_again: segment.maybe_again, path: segment.path.clone(), upto };
            if !batch.entries.is_empty() {
                return Ok(Some(batch));
            }
            self.stored(&batch);
        }
    }

    /// These need not be handed out again.
    pub(crate) fn stored(&self, batch: &Batch) {
        // Not always the first any more: others may have been taken over.
        let mut segments = self.shared.segments.lock();
        if let Some(segment) = segments.iter_mut().find(|segment| segment.path == batch.path) {
            segment.stored = batch.upto;
            // What an earlier process has left was not counted by this one.
            let counted = segment.waiting.min(batch.entries.len() as i64);
            segment.waiting -= counted;
            self.shared.counts.waiting.dec_by(counted);
        }
    }

    /// These were not stored, and will be handed out again; some of them may have arrived.
    pub(crate) fn again(&self, batch: &Batch) {
        let mut segments = self.shared.segments.lock();
        if let Some(segment) = segments.iter_mut().find(|segment| segment.path == batch.path) {
            segment.maybe_again = true;
        }
    }

    /// Keeps entries that no store takes in a file beside the others, where a person finds them.
    pub(crate) fn set_aside(&self, entry: &Entry) -> Result<()> {
        let path = self.shared.folder.join(format!("{}.refused", entry.record.id));
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(MAGIC)?;
        entry.write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        sync_folder(&self.shared.folder)
    }

    /// Waits until there may be more.
    pub(crate) async fn grown(&self) {
        self.shared.grown.notified().await;
    }

    /// Ends the open file, so that what is stored leaves the disk.
    pub(crate) fn seal(&self) {
        // With a full queue there is more to come anyway.
        let _ = self.jobs.try_send(Job::Seal);
    }

    /// Takes over what processes that have ended since have left.
    pub(crate) fn adopt(&self) -> Result<()> {
        let parent = self.shared.folder.parent().unwrap_or(&self.shared.folder);
        let mut found = Vec::new();
        let done = adopt(parent, &self.shared.folder, &mut found);
        if !found.is_empty() {
            info!(files = found.len(), "the history takes over the spool of a process that is gone");
            let mut segments = self.shared.segments.lock();
            for (path, bytes) in found {
                // In front: the open file must stay the last.
                segments.push_front(left_over(path, bytes));
            }
        }
        self.shared.tell();
        self.shared.grown.notify_one();
        done
    }

    /// Writes what is in line, and ends. Nothing is kept after it.
    pub(crate) fn close(&self) {
        // This waits for a place in the queue.
        let _ = self.jobs.send(Job::Close);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            error!("the history's spool has panicked");
        }
    }

    /// Bytes on the disk that wait.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.shared.waiting_bytes()
    }
}

impl Shared {
    fn waiting_bytes(&self) -> u64 {
        self.segments.lock().iter().map(|segment| segment.durable - segment.stored.min(segment.durable)).sum()
    }

    fn disk_bytes(&self) -> u64 {
        self.segments.lock().iter().map(|segment| segment.durable).sum()
    }

    fn tell(&self) {
        self.counts.spool_bytes.set(self.disk_bytes() as i64);
    }

    /// Keeps a file that cannot be read everywhere, for a person.
    fn keep_damaged(&self, path: &Path) -> Result<()> {
        match fs::hard_link(path, path.with_extension("damaged")) {
            Ok(()) => {
                error!(file = %path.display(), "an entry of the history's spool is damaged; the file is kept");
                self.counts.records(Outcome::SetAside, 1);
                Ok(())
            }
            // It was read before, or has more than one.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All of a file is stored.
    fn finish(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        self.segments.lock().retain(|segment| {
            let ended = segment.path == path;
            if ended {
                self.counts.waiting.dec_by(segment.waiting);
            }
            !ended
        });
        self.tell();
        Ok(())
    }
}

fn left_over(path: PathBuf, durable: u64) -> Segment {
    Segment { path, durable, sealed: true, recovered: true, maybe_again: true, stored: 0, waiting: 0 }
}

fn try_lock(folder: &Path) -> Result<Option<File>> {
    let lock = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn first_free(parent: &Path) -> Result<(PathBuf, File)> {
    for number in 0..1_024 {
        let folder = parent.join(number.to_string());
        fs::create_dir_all(&folder)?;
        if let Some(lock) = try_lock(&folder)? {
            sync_folder(parent)?;
            return Ok((folder, lock));
        }
    }
    Err(std::io::Error::other("1,024 processes use this folder"))
}

/// Moves the files of folders whose process is gone into `own`. `found` has each that lies there, with its length, also after an
/// error: nobody else looks for it there.
fn adopt(parent: &Path, own: &Path, found: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    let mut done = Ok(());
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let folder = entry.path();
        // Folders of other names are none of ours: a volume has its lost+found, which nobody may open.
        let ours = entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if folder == own || !ours || !folder.is_dir() {
            continue;
        }
        // One that cannot be read, as another user's, keeps nobody from the others.
        done = done.and(adopt_from(&folder, own, found));
    }
    done
}

fn adopt_from(folder: &Path, own: &Path, found: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    // Held until they are moved.
    let Some(_lock) = try_lock(folder)? else { return Ok(()) };
    for (path, bytes) in files_of(folder)? {
        let here = own.join(path.file_name().unwrap_or_default());
        fs::rename(&path, &here)?;
        found.push((here, bytes));
    }
    sync_folder(own)
}

/// The spool's files in a folder, each with its length.
fn files_of(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "spool") {
            files.push((path, entry.metadata()?.len()));
        }
    }
    Ok(files)
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    open: Option<Open>,
}

struct Open {
    path: PathBuf,
    file: BufWriter<File>,
    length: u64,
}

impl Writer {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: None }
    }

    fn run(mut self, jobs: &Receiver<Job>) {
        let mut closing = false;
        while !closing {
            let Ok(first) = jobs.recv() else { return };
            let mut group = Vec::new();
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Keep { entry, size, receipt } => group.push((entry, size, receipt)),
                    Job::Seal => self.seal_when_empty(&group),
                    Job::Close => closing = true,
                }
                next = if group.len() < GROUP { jobs.try_recv().ok() } else { None };
            }
            self.write_group(group);
        }
    }

    fn seal_when_empty(&mut self, group: &[(Box<Entry>, usize, oneshot::Sender<bool>)]) {
        if group.is_empty() {
            self.seal();
        }
    }

    fn write_group(&mut self, mut group: Vec<(Box<Entry>, usize, oneshot::Sender<bool>)>) {
        if group.is_empty() {
            return;
        }
        let size: usize = group.iter().map(|(_, size, _)| size).sum();
        let limit = self.shared.limits.disk_bytes;
        let written = if self.shared.disk_bytes() + size as u64 > limit {
            self.shared.counts.records(Outcome::SpoolFull, group.len() as u64);
            false
        } else {
            for (entry, ..) in &mut group {
                complete(entry, self.shared.limits.pictures);
            }
            match self.append(&group) {
                Ok(()) => true,
                Err(error) => {
                    warn!(%error, records = group.len(), "the history's spool cannot be written: records are lost");
                    self.shared.counts.records(Outcome::SpoolFailed, group.len() as u64);
                    // What the file has now is not known: what it had before is durable, and nothing more is written to it.
                    self.seal();
                    false
                }
            }
        };
        self.shared.queued_bytes.fetch_sub(size, Ordering::AcqRel);
        for (.., receipt) in group {
            // Most do not wait for it.
            let _ = receipt.send(written);
        }
        self.shared.tell();
        self.shared.grown.notify_one();
    }

    fn append(&mut self, group: &[(Box<Entry>, usize, oneshot::Sender<bool>)]) -> Result<()> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(self.shared.open_segment()?),
        };
        for (entry, ..) in group {
            open.length += entry.write(&mut open.file)?;
        }
        open.file.flush()?;
        open.file.get_ref().sync_data()?;
        let (path, length) = (open.path.clone(), open.length);
        {
            let mut segments = self.shared.segments.lock();
            if let Some(segment) = segments.iter_mut().rev().find(|segment| segment.path == path) {
                segment.durable = length;
                segment.waiting += group.len() as i64;
                self.shared.counts.waiting.inc_by(group.len() as i64);
            }
        }
        if length >= SEGMENT {
            self.seal();
        }
        Ok(())
    }

    fn seal(&mut self) {
        let Some(open) = self.open.take() else { return };
        // Without its drop, which would write what a failed write has left in its buffer.
        let _ = open.file.into_parts();
        let mut segments = self.shared.segments.lock();
        if let Some(segment) = segments.iter_mut().rev().find(|segment| segment.path == open.path) {
            segment.sealed = true;
        }
        drop(segments);
        self.shared.grown.notify_one();
    }
}

impl Shared {
    fn open_segment(&self) -> Result<Open> {
        let path = self.folder.join(format!("{}.spool", Uuid::now_v7()));
        let mut file = BufWriter::with_capacity(256 << 10, File::create_new(&path)?);
        file.write_all(MAGIC)?;
        sync_folder(&self.folder)?;
        let segment = Segment {
            path: path.clone(),
            durable: 0,
            sealed: false,
            recovered: false,
            maybe_again: false,
            stored: 0,
            waiting: 0,
        };
        self.segments.lock().push_back(segment);
        Ok(Open { path, file, length: MAGIC.len() as u64 })
    }
}

/// What takes some time to know: not on the threads that answer.
fn complete(entry: &mut Entry, pictures: bool) {
    if let Some(picture) = &entry.picture {
        entry.record.sha256 = Sha256::digest(picture).iter().map(|byte| format!("{byte:02x}")).collect();
    }
    if !pictures {
        (entry.picture, entry.preview) = (None, None);
    }
    let kept = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
    entry.record.kept_bytes = kept(&entry.picture) + kept(&entry.preview);
    entry.record.has_preview = entry.preview.is_some();
}
