//! Pictures to labels.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fault::Fault;
use units::ModelName;

use crate::decoding::Decoded;
use crate::job::{Answer, Outcome, Want, Work};
use crate::model::{Model, Serving, fault_of};
use crate::observe::Phase;
use crate::scores::Scored;
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
            return Err(Fault::invalid_input(format!("model `{}` does not classify pictures", self.name()))
                .with_param("model"));
        };
        self.check(&pictures, options)?;
        let begin = Instant::now();
        let many = pictures.len() > 1;
        let mut decoded = Vec::with_capacity(pictures.len());
        for (number, picture) in pictures.into_iter().enumerate() {
            let row = self.decoders().row(picture, recipe, options.preview_px, call.deadline).await;
            decoded.push(row.map_err(|fault| name_picture(fault, many, number))?);
        }
        let decode = begin.elapsed();
        self.observer().phase(Phase::Decode, decode);
        let (scored, mut timing) = self.score(serving, &mut decoded, options, call).await?;
        timing.decode = decode;
        timing.total = call.received.elapsed();
        let results = decoded
            .into_iter()
            .zip(scored)
            .map(|(Decoded { header, preview, .. }, labels)| Classification {
                labels,
                width: header.width,
                height: header.height,
                format: header.format,
                preview,
            })
            .collect();
        Ok(Classified { results, timing })
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

    async fn score(
        &self,
        serving: &Serving,
        decoded: &mut [Decoded],
        options: ClassifyOptions,
        call: CallScope,
    ) -> Result<(Vec<Vec<Scored>>, Timing), Fault> {
        let want = Want::Best { top_k: options.top_k, activation: self.activation() };
        let (mut scored, mut timing) = (Vec::with_capacity(decoded.len()), Timing::default());
        for group in decoded.chunks_mut(serving.max_rows()) {
            let rows = group.len();
            let mut data = std::mem::take(&mut group[0].row);
            group[1..].iter_mut().for_each(|one| data.append(&mut one.row));
            let work = Work::Rows { data, want: want.clone() };
            let answer = serving.lane().submit(work, rows, serving.joins(), call.deadline).await?;
            let Answer { outcome, queue, run, batch_rows } = answer;
            timing = Timing { queue: timing.queue + queue, run: timing.run + run, batch_rows, ..timing };
            let outcome = outcome.map_err(|error| fault_of(error, self.name(), Duration::ZERO))?;
            let Outcome::Best(best) = outcome else { return Err(lost(self.name())) };
            for labels in best {
                let not_a_number = || Fault::internal(format!("model `{}` gave scores that are no numbers", self.name()));
                scored.push(labels.ok_or_else(not_a_number)?);
            }
        }
        Ok((scored, timing))
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
