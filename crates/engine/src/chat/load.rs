//! A chat model from its folder to its generator.

use std::hash::RandomState;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use generate::{Generator, Limits, Sampling, Template, Vocabulary};
use model_store::Chat;
use runtime::{Decoder, Next, RunError, Session, Stop};
use tracing::info;

use super::{LONGEST_NAME, Slots, Speaker};
use crate::load_failure::LoadFailure;
use crate::model::Model;
use crate::turns::{self, Turns};

/// More answers at the same time than this would each be slower than a person reads, on any device that is served.
const MOST_SLOTS: usize = 256;

/// Reads what belongs to the network, runs it once, and starts its generator.
///
/// # Errors
/// One sentence that names the file, or what the graph lacks.
pub(crate) fn load(model: &Model, session: Session, stop: &Stop) -> Result<Speaker, LoadFailure> {
    let folder = &model.folder.path;
    let settings = &model.folder.settings.chat;
    let vocabulary = Vocabulary::open(folder).map_err(|error| error.to_string())?;
    let template = Template::open(folder).map_err(|error| error.to_string())?;
    let spec = Decoder::spec_of(&session)?;
    let trained = model.folder.trained_context().map_err(|error| error.to_string())?;
    let context = trained.map_or(settings.max_context, |trained| trained.min(settings.max_context));
    let slots = cut(settings.kv_bytes, spec.token_bytes(), context)?;
    let (chosen, placement) = (session.chosen().clone(), session.placement());
    let mut decoder = Decoder::new(session, slots.count, context)?;
    let limits = Limits { waiting: settings.waiting, ..Limits::default() };
    let (prefill, step) = warm_up(&mut decoder, limits.piece, stop)?;
    let tokens = vocabulary.tokens();
    if tokens.bytes.len() > spec.vocabulary {
        let (texts, logits) = (tokens.bytes.len(), spec.vocabulary);
        return Err(format!("tokenizer.json has {texts} tokens, the graph has logits for {logits}").into());
    }
    let longest = tokens.bytes.iter().map(|bytes| bytes.len()).max().unwrap_or(0).max(LONGEST_NAME);
    info!(
        model = %model.name(), slots = slots.count, max_context = context, slot_bytes = slots.bytes,
        kv_bytes = settings.kv_bytes, waiting = settings.waiting, template = template.is_some(),
        prefill_ms = millis(prefill), step_ms = millis(step), "a chat model's slots"
    );
    let count = tokens.bytes.len();
    let generator = Generator::start(decoder, tokens, limits)
        .map_err(|error| format!("the thread that generates could not be started: {error}"))?;
    Ok(Speaker {
        vocabulary,
        template,
        generator,
        defaults: defaults(settings),
        chosen,
        placement,
        slots,
        tokens: count,
        longest,
        tokenizing: Turns::new(turns::cores()),
        owners: RandomState::new(),
        died: OnceLock::new(),
    })
}

/// How many conversations fit.
fn cut(kv_bytes: u64, token_bytes: usize, context: usize) -> Result<Slots, String> {
    if context < 2 {
        return Err(format!("a context of {context} tokens has no room for a prompt and an answer"));
    }
    let bytes = token_bytes.saturating_mul(context);
    let fit = usize::try_from(kv_bytes).unwrap_or(usize::MAX) / bytes.max(1);
    if fit == 0 {
        return Err(format!(
            "`chat.kv_bytes` is {kv_bytes}, one conversation of {context} tokens (`chat.max_context`) takes {bytes} bytes"
        ));
    }
    Ok(Slots { count: fit.min(MOST_SLOTS), context, bytes })
}

/// A prompt as long as one piece, and a token after it: what serving does.
fn warm_up(decoder: &mut Decoder, piece: usize, stop: &Stop) -> Result<(Duration, Duration), RunError> {
    let prompt = vec![0; piece.min(decoder.context() - 1)];
    let begun = Instant::now();
    decoder.prefill(0, 0, &prompt, 1, stop, |_| ())?;
    let prefilled = Instant::now();
    decoder.step(0, &[Next { token: 0, past: prompt.len() }], stop, |_| ())?;
    Ok((prefilled - begun, prefilled.elapsed()))
}

fn defaults(chat: &Chat) -> Sampling {
    Sampling {
        temperature: chat.temperature as f32,
        top_p: chat.top_p as f32,
        top_k: chat.top_k,
        min_p: chat.min_p as f32,
        repetition_penalty: chat.repetition_penalty as f32,
        presence_penalty: chat.presence_penalty as f32,
        frequency_penalty: chat.frequency_penalty as f32,
        ..Sampling::default()
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_cut_into_as_many_conversations_as_fit() {
        assert_eq!(cut(1 << 30, 46_080, 2_048), Ok(Slots { count: 11, context: 2_048, bytes: 94_371_840 }));
        assert_eq!(cut(1 << 40, 46_080, 2_048).map(|slots| slots.count), Ok(MOST_SLOTS));
        let reason = cut(1 << 20, 46_080, 2_048).expect_err("not one fits");
        assert!(reason.contains("`chat.kv_bytes` is 1048576") && reason.contains("94371840 bytes"), "{reason}");
        assert!(cut(1 << 20, 1, 1).is_err());
    }
}
