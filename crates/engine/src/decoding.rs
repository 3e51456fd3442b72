//! Pictures to rows, under a budget.
//!
//! What a picture will take is known from its header and taken from the budget before anything is decoded; waiters keep
//! their deadline. Tiny pictures are decoded where the call is, because the way to another thread costs more than the work;
//! others go to the runtime's blocking threads, at most so many at a time as there are decoders.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fault::Fault;
use tokio::sync::Semaphore;
use units::Deadline;
use vision::{Header, Limits, Recipe, Scratch};

/// Decoding less than this takes some tens of microseconds, about what two thread switches do.
const INLINE_BYTES: usize = 8 << 10;
/// As [`INLINE_BYTES`], in pixels of the picture.
const INLINE_PIXELS: u64 = 64 * 64;
/// The budget counts in these, because a semaphore's permits are 32 bit wide.
const UNIT: u64 = 1 << 10;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// A picture that has become a row.
pub(crate) struct Decoded {
    pub(crate) row: Vec<f32>,
    pub(crate) header: Header,
    /// A small JPEG of it, when one was asked for.
    pub(crate) preview: Option<Bytes>,
}

/// The decoders of a process and their budget.
pub(crate) struct Decoders {
    slots: Semaphore,
    budget: Arc<Semaphore>,
    budget_bytes: u64,
    pub(crate) limits: Limits,
}

impl Decoders {
    pub(crate) fn new(threads: usize, budget_bytes: u64, limits: Limits) -> Self {
        let units = usize::try_from(budget_bytes / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { slots: Semaphore::new(threads.max(1)), budget: Arc::new(Semaphore::new(units)), budget_bytes, limits }
    }

    /// Makes a row of an encoded picture, and a preview of at most `preview_px` unless that is 0.
    pub(crate) async fn row(
        &self,
        picture: Bytes,
        recipe: &Arc<Recipe>,
        preview_px: u32,
        deadline: Deadline,
    ) -> Result<Decoded, Fault> {
        let header = vision::inspect(&picture, &self.limits)?;
        let wanted = recipe.wanted(&header);
        let pixels = u64::from(header.width) * u64::from(header.height);
        if picture.len() <= INLINE_BYTES && pixels <= INLINE_PIXELS {
            return decode(&picture, header, recipe, preview_px);
        }
        let mut bytes = header.decoded_bytes(wanted) + recipe.row_bytes() as u64;
        if preview_px > 0 {
            bytes += header.decoded_bytes(vision::Wanted {
                min_width: preview_px.min(header.width),
                min_height: preview_px.min(header.height),
                gray: false,
            });
        }
        if bytes > self.budget_bytes {
            let limit = self.budget_bytes;
            return Err(Fault::too_large(format!("decoding the picture takes {bytes} bytes, the limit is {limit}"))
                .with_param("images"));
        }
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let waited = async {
            let budget = Arc::clone(&self.budget).acquire_many_owned(units).await;
            let slot = self.slots.acquire().await;
            (budget.expect("the budget is never closed"), slot.expect("the slots are never closed"))
        };
        let waited = tokio::time::timeout_at(deadline.instant().into(), waited).await;
        let (budget, slot) = waited.map_err(|_| overdue())?;
        let recipe = Arc::clone(recipe);
        let task = tokio::task::spawn_blocking(move || {
            let decoded = decode(&picture, header, &recipe, preview_px);
            drop(budget);
            decoded
        });
        let decoded = task.await.map_err(|_| Fault::internal("the decoder panicked"))?;
        drop(slot);
        if deadline.is_over(Instant::now()) { Err(overdue()) } else { decoded }
    }
}

fn overdue() -> Fault {
    Fault::deadline_exceeded("the deadline passed while the picture was decoded or waited for a decoder")
}

fn decode(picture: &[u8], header: Header, recipe: &Recipe, preview_px: u32) -> Result<Decoded, Fault> {
    let mut wanted = recipe.wanted(&header);
    if preview_px > 0 {
        // The preview is in colour, and may be larger than the row: one decode serves both.
        wanted.gray = false;
        wanted.min_width = wanted.min_width.max(preview_px.min(header.width));
        wanted.min_height = wanted.min_height.max(preview_px.min(header.height));
    }
    let pixels = vision::decode(picture, &header, &wanted, recipe.background())?;
    let mut row = vec![0.0; recipe.row_elements()];
    SCRATCH.with_borrow_mut(|scratch| recipe.write_row(&pixels, scratch, &mut row))?;
    let preview = (preview_px > 0).then(|| vision::preview(&pixels, preview_px)).transpose()?;
    Ok(Decoded { row, header, preview: preview.map(Bytes::from) })
}
