//! Conversations: from messages or a prompt to the events of its answers.
//!
//! A request goes: [`Model::chat`] -> checks (`ask`) -> tokens, on a thread that may wait -> the model's generator, once for each
//! answer that is wanted -> [`Answers`]. Dropping what is in hand withdraws it, wherever it is: its slots are free at the next step.
//!
//! Promises: what is out of its range is named with the range before anything is generated; an answer that was begun ends by
//! itself, by its deadline or by being dropped; prefixes of one owner are never another's.
//! Not here: choosing tokens, slots and steps (`generate`), streams that outlive a call (`server`).

mod answers;
mod ask;
mod load;

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fault::Fault;
use generate::{Generator, Owner, Refusal, Request, Sampling, Template, Vocabulary};
use model_store::Task;
use runtime::Chosen;
use tokio::sync::mpsc::unbounded_channel;
use units::{Deadline, ModelName};

pub use answers::{Answers, Finish, Said, Token};
pub use ask::{Ask, Input, MOST_ANSWERS, Wishes};
pub use generate::{Format, Message};
pub(crate) use load::load;

use crate::model::Model;
use crate::observe::{Event, Phase};
use crate::turns::{Turn, Turns};
use crate::{CallScope, ChatLoad};

/// When a prompt that found no room is to be sent again. Nobody knows when an answer ends; a slot changes hands every second or so.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Names of special tokens are no bytes of the vocabulary, and longer than most of it.
const LONGEST_NAME: usize = 64;

/// The inside of a chat model.
pub(crate) struct Speaker {
    vocabulary: Vocabulary,
    template: Option<Template>,
    generator: Generator,
    defaults: Sampling,
    pub(crate) chosen: Chosen,
    pub(crate) placement: Vec<(String, usize)>,
    pub(crate) slots: Slots,
    /// How many tokens there are.
    tokens: usize,
    /// Bytes of the longest one.
    longest: usize,
    /// Prompts that become tokens at the same time.
    tokenizing: Turns,
    /// Keyed anew in each process, so that nobody can look for owners with the same number.
    owners: RandomState,
    /// When it was noticed that the generator's thread is gone.
    died: OnceLock<Instant>,
}

/// How the cache of a chat model is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Answers that can be in work at the same time.
    pub count: usize,
    /// Tokens of one conversation.
    pub context: usize,
    /// Bytes of one slot.
    pub bytes: usize,
}

impl Speaker {
    pub(crate) fn load(&self) -> ChatLoad {
        self.generator.load()
    }

    /// What is broken inside, and since when: the generator has ended, or is at one turn for longer than `limit`.
    pub(crate) fn trouble(&self, limit: Duration) -> Option<(&'static str, Instant)> {
        let hangs = self.generator.turn_began().filter(|began| began.elapsed() >= limit);
        let since = || *self.died.get_or_init(Instant::now);
        let died = self.generator.has_ended().then(|| ("the thread that generates has ended", since()));
        died.or(hangs.map(|began| ("hangs in a turn of generating", began + limit)))
    }

    /// Why an answer came to nothing without a word.
    fn ended(&self, model: &ModelName) -> Fault {
        if !self.generator.has_ended() {
            return Fault::internal(format!("model `{model}` lost the request, the log says why"));
        }
        Fault::internal(format!("the thread that generates for model `{model}` has ended"))
    }

    /// Refuses at once what cannot fit the context, however it is written: templates render, and tokenizers take, as long as a
    /// text is long.
    fn check_size(&self, input: &Input) -> Result<(), Fault> {
        let context = self.slots.context;
        match input {
            Input::Prompt(prompt) => self.check_bytes(prompt.len(), input),
            Input::Messages(messages) if messages.len() > context => {
                let count = messages.len();
                let message = format!("there are {count} messages, a context of {context} tokens holds fewer");
                Err(Fault::too_large(message).with_param(input.param()))
            }
            Input::Messages(messages) => {
                let bytes = |it: &Message| it.role.len() + it.content.len() + it.name.as_ref().map_or(0, String::len);
                self.check_bytes(messages.iter().map(bytes).sum(), input)
            }
        }
    }

    fn check_bytes(&self, bytes: usize, input: &Input) -> Result<(), Fault> {
        let context = self.slots.context;
        let most = context.saturating_mul(self.longest);
        if bytes <= most {
            return Ok(());
        }
        let message = format!("the prompt has {bytes} bytes, {context} tokens of context hold at most {most}");
        Err(Fault::too_large(message).with_param(input.param()))
    }

    /// The tokens of what was asked. Takes as long as the text is long.
    fn read(&self, input: &Input) -> Result<Vec<u32>, Fault> {
        let (text, is_prompt) = match (input, &self.template) {
            (Input::Prompt(prompt), _) => (Cow::Borrowed(prompt.as_str()), true),
            (Input::Messages(messages), Some(template)) => {
                let refused = |reason| {
                    Fault::invalid_input(format!("the chat template refuses the messages: {reason}"))
                        .with_param("messages")
                };
                (Cow::Owned(template.render(messages).map_err(refused)?), false)
            }
            (Input::Messages(_), None) => {
                let message = "the model has no chat template, it takes a prompt and no messages";
                return Err(Fault::invalid_input(message).with_param("messages"));
            }
        };
        // With what the template has added.
        self.check_bytes(text.len(), input)?;
        self.vocabulary.encode(&text, is_prompt).map_err(|reason| {
            Fault::invalid_input(format!("the prompt cannot be made tokens of: {reason}")).with_param(input.param())
        })
    }

    fn refusal(&self, refusal: Refusal, model: &ModelName, input: &'static str) -> Fault {
        match refusal {
            // The prompt alone fits: it is the asked length of the answer that does not.
            Refusal::TooLong { .. } => {
                Fault::too_large(format!("{refusal} of model `{model}`")).with_param("max_tokens")
            }
            Refusal::Full { .. } | Refusal::Share { .. } | Refusal::Compiler(_) => {
                Fault::overloaded(format!("model `{model}`: {refusal}")).with_retry_after(TRY_AGAIN)
            }
            Refusal::TooMany { .. } => Fault::invalid_input(format!("{refusal} by model `{model}`")).with_param("n"),
            Refusal::Empty(_) => Fault::invalid_input(refusal.to_string()).with_param(input),
            Refusal::Format(_) => Fault::invalid_input(refusal.to_string()).with_param("format"),
            Refusal::Late => Fault::deadline_exceeded(refusal.to_string()),
            Refusal::Ended => self.ended(model),
        }
    }
}

impl Model {
    /// Begins to answer: the answers come from what is returned. Dropping it, or the future, withdraws all of them.
    ///
    /// # Errors
    /// A [`Fault`] whose message names the value and the range, before anything was generated.
    pub async fn chat(&self, ask: Ask, call: CallScope) -> Result<Answers, Fault> {
        let speaker = self.speaker()?;
        let plan = ask.check(&speaker.defaults, speaker.tokens)?;
        let overdue = || {
            self.observer().event(Event::Expired);
            Fault::deadline_exceeded(format!("the deadline passed before model `{}` had read the prompt", self.name()))
        };
        if call.deadline.is_over(Instant::now()) {
            return Err(overdue());
        }
        speaker.check_size(&ask.input)?;
        let turn = speaker.tokenizing.take(call.deadline).await.ok_or_else(overdue)?;
        let (begun, name) = (Instant::now(), self.name().clone());
        let worker = Arc::clone(speaker);
        let work = tokio::task::spawn_blocking(move || submit(&worker, ask, plan, &name, turn, call.deadline));
        let submitted = work.await.map_err(|_| Fault::internal("making tokens of the prompt panicked"))?;
        let submitted = submitted.inspect_err(|fault| match fault.kind {
            fault::Kind::Overloaded => self.observer().event(Event::Full),
            fault::Kind::DeadlineExceeded => self.observer().event(Event::Expired),
            _ => {}
        })?;
        self.observer().phase(Phase::Tokenize, begun.elapsed());
        let first = call.received + self.settings().first_token;
        Ok(Answers::new(submitted, Arc::clone(speaker), self, call, first))
    }

    /// The inside, when the model chats and takes work.
    fn speaker(&self) -> Result<&Arc<Speaker>, Fault> {
        if self.task() != Task::Chat {
            return Err(self.wrong_task("chat"));
        }
        self.answering()?;
        self.speaker.get().ok_or_else(|| Fault::internal("a chat model is ready and has no inside"))
    }
}

/// Requests that the generator has taken.
pub(crate) struct Submitted {
    tickets: Vec<generate::Ticket>,
    events: tokio::sync::mpsc::UnboundedReceiver<(usize, generate::Event)>,
    prompt_tokens: usize,
    stops: Vec<String>,
    logprobs: bool,
}

fn submit(
    speaker: &Speaker,
    ask: Ask,
    plan: ask::Plan,
    model: &ModelName,
    turn: Turn,
    deadline: Deadline,
) -> Result<Submitted, Fault> {
    let prompt = speaker.read(&ask.input)?;
    // What comes now may wait for a schema to be compiled; those that want plain text are not to wait for that.
    drop(turn);
    let (prompt_tokens, context, input) = (prompt.len(), speaker.slots.context, ask.input.param());
    if prompt_tokens >= context {
        let message = format!(
            "the prompt has {prompt_tokens} tokens, model `{model}` has a context of {context} with the answer"
        );
        return Err(Fault::too_large(message).with_param(input));
    }
    let refused = |refusal| speaker.refusal(refusal, model, input);
    let owner = Owner(speaker.owners.hash_one(&ask.owner));
    speaker.generator.prepare(owner, &ask.format, deadline.instant()).map_err(refused)?;
    let request = Request {
        prompt,
        max_tokens: plan.max_tokens.unwrap_or(context - prompt_tokens),
        sampling: plan.sampling,
        stops: ask.stops,
        format: ask.format,
        logprobs: plan.logprobs,
        owner,
    };
    // Bounded by what the answers can have: their tokens fit the context.
    let (send, events) = unbounded_channel();
    let one = |answer| {
        let send = send.clone();
        let mut request = request.clone();
        request.sampling.seed = ask::seed_of(request.sampling.seed, answer);
        let sink: generate::Sink = Box::new(move |event| send.send((answer, event)).is_ok());
        (request, sink)
    };
    let wanted = (0..plan.answers).map(one).collect();
    let tickets = speaker.generator.submit_all(request.owner, wanted).map_err(refused)?;
    Ok(Submitted { tickets, events, prompt_tokens, stops: request.stops, logprobs: request.logprobs.is_some() })
}
