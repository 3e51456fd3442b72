//! Pictures to labels.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fault::Fault;
use futures_util::future::try_join_all;
use units::{ModelName, TraceParent};
use vision::Recipe;

use crate::decoding::{Decoded, Held, Prepared, prepare};
use crate::job::{Answer, Floats, Outcome, Want, Work};
use crate::lane::Promise;
use crate::model::{Model, Serving, fault_of};
use crate::observe::{Event, Phase};
use crate::{CallScope, Task, Timing};

/// What the caller wants to know.
#[derive(Clone, Copy, Debug)]
pub struct ClassifyOptions {
    /// How many labels, best first.
    pub top_k: usize,
    /// Longest edge of a preview in pixels; 0 for none.
    pub preview_px: u32,
}

/// What one picture shows.
#[derive(Clone, Debug)]
pub struct Classification {
    /// Class index and score, best first.
    pub labels: Vec<(usize, f32)>,
    /// Of the picture, upright, in pixels.
    pub width: u32,
    /// As `width`.
    pub height: u32,
    /// Of the encoded picture.
    pub format: vision::Format,
    /// A small upright JPEG, when one was asked for.
    pub preview: Option<Bytes>,
}

/// The answer to a call.
#[derive(Clone, Debug)]
pub struct Classified {
    /// One for each picture, in order.
    pub results: Vec<Classification>,
    /// Where the time went.
    pub timing: Timing,
}

/// Pictures of a call that share a run, and everything that the run needs.
struct Group<'a> {
    serving: &'a Serving,
    recipe: &'a Arc<Recipe>,
    pictures: Vec<Prepared>,
    /// What the first one is in the call.
    first: usize,
    /// The call has more than one picture.
    many: bool,
    options: ClassifyOptions,
    call: CallScope,
    promise: Promise,
    room: Held,
}

/// What became of a [`Group`].
struct Part {
    results: Vec<Classification>,
    decode: Duration,
    queue: Duration,
    run: Duration,
    batch_rows: usize,
    began: Instant,
    batch: Option<TraceParent>,
    ended: Instant,
}

impl Model {
    /// Says what encoded pictures show. Dropping the future withdraws the call.
    ///
    /// # Errors
    /// A [`Fault`] whose message names the picture, the value and the limit.
    pub async fn classify(
        &self,
        pictures: Vec<Bytes>,
        options: ClassifyOptions,
        call: CallScope,
    ) -> Result<Classified, Fault> {
        let serving = self.serving()?;
        let (Task::Classify, Some(recipe), Some(_)) = (self.task(), self.recipe(), serving.rows()) else {
            return Err(
                Fault::invalid_input(format!("model `{}` does not classify pictures", self.name())).with_param("model")
            );
        };
        self.check(&pictures, options)?;
        let count = pictures.len();
        let many = count > 1;
        let pictures = pictures.into_iter().enumerate().map(|(number, picture)| {
            let prepared = prepare(picture, recipe, options.preview_px, self.picture_limits());
            prepared.map_err(|fault| name_picture(fault, many, number))
        });
        let mut pictures = pictures.collect::<Result<Vec<_>, _>>()?.into_iter();
        let together = if many { serving.lane().together(count) } else { 1 };
        // All or nothing: of a call that is cut into several runs, the first must not wait for room that the last never gets.
        let mut promise = serving.lane().promise(count, call.deadline)?;
        let promises: Vec<(usize, Promise)> =
            (0..count).step_by(together).map(|first| (first, promise.split(together.min(count - first)))).collect();
        let room = self.decoders().room(count * recipe.row_bytes(), call.deadline).await;
        let room = room.inspect_err(|fault| self.note(fault))?;
        let groups = promises.into_iter().map(|(first, promise)| {
            let pictures = pictures.by_ref().take(together).collect();
            let room = Arc::clone(&room);
            self.group(Group { serving, recipe, pictures, first, many, options, call, promise, room })
        });
        // One after the other is decoded and queued; while one runs, the next is decoded. The first failure withdraws all.
        let parts = try_join_all(groups.collect::<Vec<_>>()).await?;
        let decode = parts.iter().map(|part| part.decode).max().unwrap_or_default();
        self.observer().phase(Phase::Decode, decode);
        let mut timing = Timing { decode, total: call.received.elapsed(), ..Timing::default() };
        if let Some(last) = parts.iter().max_by_key(|part| part.ended) {
            timing = Timing {
                queue: last.queue,
                run: last.run,
                batch_rows: last.batch_rows,
                began: Some(last.began),
                batch: last.batch,
                ..timing
            };
        }
        Ok(Classified { results: parts.into_iter().flat_map(|part| part.results).collect(), timing })
    }

    fn check(&self, pictures: &[Bytes], options: ClassifyOptions) -> Result<(), Fault> {
        let settings = self.settings();
        if pictures.is_empty() {
            return Err(Fault::invalid_input("there is no picture in the request").with_param("images"));
        }
        let (have, limit) = (pictures.len(), settings.pictures_per_call);
        if have > limit {
            let message = format!("{have} pictures in one call, the limit is {limit}");
            return Err(Fault::too_large(message).with_param("images"));
        }
        if !(1..=settings.top_k).contains(&options.top_k) {
            let message = format!("top_k is {}, allowed is 1 to {}", options.top_k, settings.top_k);
            return Err(Fault::invalid_input(message).with_param("top_k"));
        }
        if options.preview_px > settings.preview_px {
            let message = format!("preview_px is {}, allowed is 0 to {}", options.preview_px, settings.preview_px);
            return Err(Fault::invalid_input(message).with_param("preview_px"));
        }
        Ok(())
    }

    async fn group(&self, group: Group<'_>) -> Result<Part, Fault> {
        let Group { serving, recipe, pictures, first, many, options, call, promise, room } = group;
        let (begin, each, rows) = (Instant::now(), recipe.row_elements(), pictures.len());
        let mut data = serving.buffers().take(rows * each);
        let mut seen = Vec::with_capacity(rows);
        for (at, picture) in pictures.into_iter().enumerate() {
            let header = picture.header;
            let range = at * each..(at + 1) * each;
            let decoded = self.decoders().row(picture, recipe, options.preview_px, data, range, call.deadline).await;
            let decoded = decoded.inspect_err(|fault| self.note(fault));
            let Decoded { data: written, preview } = decoded.map_err(|fault| name_picture(fault, many, first + at))?;
            data = written;
            seen.push((header, preview));
        }
        let decode = begin.elapsed();
        let want = Want::Best { top_k: options.top_k, activation: self.activation() };
        let work = Work::Rows { data: Floats::Made(data), want, _room: Some(room) };
        let answer = serving.lane().submit(work, rows, serving.joins(), call, Some(promise)).await?;
        let Answer { outcome, queue, run, batch_rows, began, batch, lonely } = answer;
        let outcome = outcome.map_err(|error| fault_of(error, self.name(), run, lonely))?;
        let Outcome::Best(best) = outcome else { return Err(lost(self.name())) };
        let mut results = Vec::with_capacity(rows);
        for ((header, preview), labels) in seen.into_iter().zip(best) {
            let not_a_number = || Fault::internal(format!("model `{}` gave scores that are no numbers", self.name()));
            let labels = labels.ok_or_else(not_a_number)?;
            let (width, height, format) = (header.width, header.height, header.format);
            results.push(Classification { labels, width, height, format, preview });
        }
        if results.len() < rows {
            return Err(lost(self.name()));
        }
        Ok(Part { results, decode, queue, run, batch_rows, began, batch, ended: Instant::now() })
    }

    /// Counts what ended before the queue was reached.
    pub(crate) fn note(&self, fault: &Fault) {
        if fault.kind == fault::Kind::DeadlineExceeded {
            self.observer().event(Event::Expired);
        }
    }
}

fn lost(model: &ModelName) -> Fault {
    Fault::internal(format!("model `{model}` gave no scores"))
}

fn name_picture(mut fault: Fault, many: bool, number: usize) -> Fault {
    if fault.param.as_deref() == Some("image") {
        fault.param = Some("images".into());
    }
    if many {
        fault.message = format!("picture {} of the call: {}", number + 1, fault.message).into();
    }
    fault
}
