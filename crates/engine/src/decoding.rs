//! Pictures to rows, under a budget.
//!
//! Why: a picture of some kilobytes can unpack to hundreds of megabytes, and a row lies in memory until its run has ended.
//! Promises: what a picture takes is known from its header and taken from the budget before anything is decoded; so are the
//! rows of a call, all at once; waiters keep their deadline; work that nobody waits for any more is counted until it has
//! ended. The budget is cut in two, rows and pictures in work, because a call that holds its rows waits for the other part:
//! of one common budget, several such calls could hold everything and wait for each other.
//! Tiny pictures are decoded where the call is, because the way to another thread costs more than the work; others go to the
//! runtime's blocking threads, at most so many at a time as there are decoders.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fault::Fault;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use units::Deadline;

use crate::turns::Turns;
use vision::{Header, ImageError, Limits, Recipe, Scratch, Wanted};

/// Decoding less than this takes some tens of microseconds, about what two thread switches do.
const INLINE_BYTES: usize = 8 << 10;
/// As [`INLINE_BYTES`], in pixels of the picture.
const INLINE_PIXELS: u64 = 64 * 64;
/// As [`INLINE_BYTES`], in numbers of the row: enlarging a tiny picture costs as much as decoding a large one.
const INLINE_ROW: usize = 64 * 64 * 3;
/// The budgets count in these, because a semaphore's permits are 32 bit wide.
const UNIT: u64 = 1 << 10;
/// The part of all bytes that rows may have: one in so many.
const ROWS_PART: u64 = 4;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// A picture whose header was read.
pub(crate) struct Prepared {
    picture: Bytes,
    pub(crate) header: Header,
    wanted: Wanted,
}

/// Reads the header of an encoded picture; `preview_px` is 0 when no preview is wanted.
pub(crate) fn prepare(picture: Bytes, recipe: &Recipe, preview_px: u32, limits: &Limits) -> Result<Prepared, Fault> {
    let header = vision::inspect(&picture, limits)?;
    let mut wanted = recipe.wanted(&header);
    if preview_px > 0 {
        // The preview is in colour, and may be larger than the row: one decode serves both.
        wanted.gray = false;
        wanted.min_width = wanted.min_width.max(preview_px.min(header.width));
        wanted.min_height = wanted.min_height.max(preview_px.min(header.height));
    }
    Ok(Prepared { picture, header, wanted })
}

/// What decoding a picture gave, besides the row that was written.
pub(crate) struct Decoded {
    /// The buffer that the row was written into.
    pub(crate) data: Vec<f32>,
    /// A small JPEG, when one was asked for.
    pub(crate) preview: Option<Bytes>,
}

/// Bytes that are counted for as long as this lives.
pub(crate) type Held = Arc<OwnedSemaphorePermit>;

/// A number of bytes that calls share.
struct Budget {
    units: Arc<Semaphore>,
    bytes: u64,
}

impl Budget {
    fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), bytes }
    }

    async fn take(&self, what: &str, bytes: u64, deadline: Deadline) -> Result<OwnedSemaphorePermit, Fault> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        if u64::from(units) > self.bytes / UNIT {
            let limit = self.bytes;
            let message = format!("{what} takes {bytes} bytes of memory, the limit is {limit}");
            return Err(Fault::too_large(message).with_param("images"));
        }
        let taken = Arc::clone(&self.units).acquire_many_owned(units);
        let taken = tokio::time::timeout_at(deadline.instant().into(), taken).await;
        Ok(taken.map_err(|_| overdue())?.expect("the budget is never closed"))
    }
}

/// The decoders of a process and their budgets.
pub(crate) struct Decoders {
    slots: Turns,
    threads: usize,
    rows: Budget,
    pictures: Budget,
}

impl Decoders {
    pub(crate) fn new(threads: usize, bytes: u64) -> Self {
        let (rows, threads) = (bytes / ROWS_PART, threads.max(1));
        Self { slots: Turns::new(threads), threads, rows: Budget::new(rows), pictures: Budget::new(bytes - rows) }
    }

    /// Whether no picture is being decoded now, tiny ones aside.
    pub(crate) fn are_idle(&self) -> bool {
        self.slots.free() == self.threads
    }

    /// Takes room for all rows of a call, to be held until their runs have ended.
    pub(crate) async fn room(&self, bytes: usize, deadline: Deadline) -> Result<Held, Fault> {
        self.rows.take("what the model sees of the pictures", bytes as u64, deadline).await.map(Arc::new)
    }

    /// Decodes a picture and writes its row to `range` of `data`.
    pub(crate) async fn row(
        &self,
        picture: Prepared,
        recipe: &Arc<Recipe>,
        preview_px: u32,
        data: Vec<f32>,
        range: Range<usize>,
        deadline: Deadline,
    ) -> Result<Decoded, Fault> {
        let header = &picture.header;
        let pixels = u64::from(header.width) * u64::from(header.height);
        let tiny = picture.picture.len() <= INLINE_BYTES && pixels <= INLINE_PIXELS && range.len() <= INLINE_ROW;
        if tiny {
            return decode(&picture, recipe, preview_px, data, range);
        }
        let bytes = header.decoded_bytes(picture.wanted) + u64::from(preview_px) * u64::from(preview_px) * 3;
        let budget = self.pictures.take("decoding the picture", bytes, deadline).await?;
        let recipe = Arc::clone(recipe);
        let decoded = self.on_thread(deadline, move || {
            let _held = budget;
            decode(&picture, &recipe, preview_px, data, range)
        });
        decoded.await?
    }

    /// Decodes on a thread of its own, in its turn.
    async fn on_thread<R: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Fault> {
        let turn = self.slots.take(deadline).await.ok_or_else(overdue)?;
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        let done = task.await.map_err(|_| Fault::internal("the decoder panicked"))?;
        if deadline.is_over(Instant::now()) { Err(overdue()) } else { Ok(done) }
    }
}

fn overdue() -> Fault {
    Fault::deadline_exceeded("the deadline passed while the picture was decoded or waited for its turn")
}

fn decode(
    picture: &Prepared,
    recipe: &Recipe,
    preview_px: u32,
    mut data: Vec<f32>,
    range: Range<usize>,
) -> Result<Decoded, Fault> {
    let Prepared { picture, header, wanted } = picture;
    let preview = SCRATCH.with_borrow_mut(|scratch| {
        let pixels = vision::decode_with(scratch, picture, header, wanted, recipe.background())?;
        recipe.write_row(&pixels, scratch, &mut data[range])?;
        let preview = (preview_px > 0).then(|| vision::preview(&pixels, preview_px)).transpose()?;
        scratch.keep(pixels);
        Ok::<_, ImageError>(preview)
    })?;
    Ok(Decoded { data, preview: preview.map(Bytes::from) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_waiter_for_the_budget_leaves_at_its_deadline_and_takes_nothing() {
        let budget = Budget::new(10 * UNIT);
        let now = tokio::time::Instant::now().into_std();
        let long = Deadline::after(now, Duration::from_secs(60));
        let held = budget.take("it", 8 * UNIT, long).await.expect("there is room");
        let short = Deadline::after(now, Duration::from_secs(1));
        let fault = budget.take("it", 4 * UNIT, short).await.expect_err("there is no room");
        assert_eq!(fault.kind, fault::Kind::DeadlineExceeded);
        drop(held);
        let all = budget.take("it", 10 * UNIT, long).await;
        assert!(all.is_ok(), "all is free again");
    }

    #[tokio::test]
    async fn what_can_never_fit_is_refused_at_once_with_the_limit() {
        let decoders = Decoders::new(1, 1 << 20);
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(60));
        let fault = decoders.room(300 << 10, deadline).await.expect_err("a quarter is for rows");
        assert_eq!((fault.kind, fault.param.as_deref()), (fault::Kind::TooLarge, Some("images")));
        assert!(fault.message.contains("307200") && fault.message.contains("262144"), "{fault}");
    }
}
