//! What form an answer must have: the grammar that says which tokens may come next.
//!
//! Why a thread of its own: schemas come from outside. Compiling one takes a deep stack and up to some tens of milliseconds, which
//! neither the step of the network nor a caller's event loop may wait for; one at a time bounds what that costs.
//! Promises: a schema that cannot be kept to is refused with a reason before anything runs; an answer that ends by itself is
//! whole JSON that the schema allows; an end token comes only there.
//! Leaves to `llguidance`: what of JSON Schema there is, and the masks. A keyword that it does not keep is refused by name.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use parking_lot::Mutex;
use serde_json::Value;

use crate::generator::Tokens;
use crate::multiples;
use crate::request::Refusal;
use crate::slots::Owner;

/// The form of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// JSON that this JSON Schema allows, of at most [`SCHEMA_BYTES`].
    JsonSchema(String),
}

/// Longest schema. What OpenAI's service takes is of the same size.
pub const SCHEMA_BYTES: usize = 128 * 1024;

/// A grammar that compiles at all does so in a fraction of this; a caller waits behind others as long at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Schemas that may wait for the compiler.
const WAITING: usize = 32;

/// ... and those of one owner: the others' turns come soon enough.
const WAITING_OF_ONE: usize = WAITING / 2;

/// Compiled grammars that are kept: those of an application come again and again.
const KEPT: usize = 32;

/// The compiler goes down as far as a schema is nested, `$ref`s included.
const STACK: usize = 64 * 1024 * 1024;

/// Whitespace between two tokens of JSON, as people and models write it: a space, or a new line with its indentation. A small
/// model that may put as much as it likes sometimes puts nothing else any more.
const WHITESPACE: &str = r"\x20|\n\x20{0,24}";

/// Reasons quote the schema: no more of them than this.
const REASON_CHARS: usize = 300;

type Reply = SyncSender<Result<Grammar, String>>;

/// A grammar that somebody waits for.
struct Asked {
    format: Format,
    reply: Reply,
    /// When nobody waits any more.
    until: Instant,
    /// When its turn came.
    begun: Arc<OnceLock<Instant>>,
}

/// Compiles grammars for the tokens of one model, and keeps those that were asked for last.
#[derive(Clone)]
pub(crate) struct Grammars {
    asked: SyncSender<Asked>,
    kept: Kept,
    waiting: Arc<Mutex<HashMap<Owner, usize>>>,
}

/// The grammars that were asked for last, at their beginning; each format once.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<VecDeque<(Format, Grammar)>>>);

impl Kept {
    fn get(&self, format: &Format) -> Option<Grammar> {
        let mut kept = self.0.lock();
        let at = kept.iter().position(|(known, _)| known == format)?;
        let found = kept.remove(at)?;
        let grammar = found.1.fresh();
        kept.push_front(found);
        Some(grammar)
    }

    fn put(&self, format: Format, grammar: &Grammar) {
        let mut kept = self.0.lock();
        kept.truncate(KEPT - 1);
        kept.push_front((format, grammar.fresh()));
    }
}

/// A schema of an owner that waits, until dropped.
struct Waiting<'a> {
    all: &'a Mutex<HashMap<Owner, usize>>,
    owner: Owner,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut waiting) = self.all.lock().entry(self.owner) {
            *waiting.get_mut() -= 1;
            if *waiting.get() == 0 {
                waiting.remove();
            }
        }
    }
}

impl Grammars {
    /// Starts the thread, which ends with the last handle.
    pub(crate) fn start(tokens: &Tokens) -> std::io::Result<Self> {
        let (asked, asks) = sync_channel::<Asked>(WAITING);
        let (tokens, kept) = (tokens.clone(), Kept::default());
        let known = kept.clone();
        let run = move || {
            // What masks are made with is made when the first is wanted: many servers never do.
            let mut compiler = None;
            let mut compiled = |format: Format| {
                let compiler = compiler.get_or_insert_with(|| compiler_for(&tokens));
                let compiler = compiler.as_ref().map_err(Clone::clone)?;
                let grammar = unbroken(|| compile(compiler, &format))?;
                known.put(format, &grammar);
                Ok(grammar)
            };
            for Asked { format, reply, until, begun } in asks {
                if until <= Instant::now() {
                    continue;
                }
                begun.get_or_init(Instant::now);
                // Requests that come together often have the same schema: the first of them has brought it.
                let grammar = known.get(&format).map_or_else(|| compiled(format), Ok);
                // Nobody waits any more: it took too long.
                let _ = reply.send(grammar);
            }
        };
        std::thread::Builder::new().name("grammars".to_owned()).stack_size(STACK).spawn(run)?;
        Ok(Self { asked, kept, waiting: Arc::default() })
    }

    /// The grammar of a format; none for text. Waits for the compiler, no longer than `until`.
    pub(crate) fn of(&self, owner: Owner, format: &Format, until: Option<Instant>) -> Result<Option<Grammar>, Refusal> {
        if *format == Format::Text {
            return Ok(None);
        }
        if let Format::JsonSchema(schema) = format
            && schema.len() > SCHEMA_BYTES
        {
            return Err(Refusal::Format(format!("the schema has {} bytes, the limit is {SCHEMA_BYTES}", schema.len())));
        }
        if let Some(grammar) = self.kept.get(format) {
            return Ok(Some(grammar));
        }
        let _waiting = self.wait(owner)?;
        let (reply, compiled): (Reply, Receiver<_>) = sync_channel(1);
        let (behind, begun) = (Instant::now() + PATIENCE, Arc::new(OnceLock::new()));
        let turn = until.map_or(behind, |until| until.min(behind));
        let asked = Asked { format: format.clone(), reply, until: turn, begun: Arc::clone(&begun) };
        self.asked.try_send(asked).map_err(|error| match error {
            TrySendError::Full(_) => {
                Refusal::Compiler(format!("{WAITING} schemas wait to be compiled already, which is the limit"))
            }
            TrySendError::Disconnected(_) => Refusal::Ended,
        })?;
        compiled_in_time(&compiled, &begun, turn, until, PATIENCE).map(Some)
    }

    /// One more of this owner's.
    fn wait(&self, owner: Owner) -> Result<Waiting<'_>, Refusal> {
        let mut all = self.waiting.lock();
        let waiting = all.entry(owner).or_default();
        if *waiting >= WAITING_OF_ONE {
            return Err(Refusal::Compiler(format!(
                "{WAITING_OF_ONE} schemas of this caller wait to be compiled already, the rest is for others"
            )));
        }
        *waiting += 1;
        Ok(Waiting { all: &self.waiting, owner })
    }
}

/// Waits for a grammar: until `turn` for its turn, from there for as long as one may take; in any case no longer than `until`.
fn compiled_in_time(
    compiled: &Receiver<Result<Grammar, String>>,
    begun: &OnceLock<Instant>,
    turn: Instant,
    until: Option<Instant>,
    patience: Duration,
) -> Result<Grammar, Refusal> {
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    let mut received = compiled.recv_timeout(left(turn));
    if received.is_err()
        && let Some(begun) = begun.get()
    {
        let end = *begun + patience;
        received = compiled.recv_timeout(left(until.map_or(end, |until| until.min(end))));
    }
    match received {
        Ok(grammar) => grammar.map_err(Refusal::Format),
        // Its sender is dropped with what nobody waits for any more, and with the thread.
        Err(RecvTimeoutError::Disconnected) if turn > Instant::now() => Err(Refusal::Ended),
        Err(_) if until.is_some_and(|until| until <= Instant::now()) => Err(Refusal::Late),
        Err(_) if begun.get().is_some() => {
            Err(Refusal::Format(format!("the schema was not compiled after {} s", patience.as_secs())))
        }
        Err(_) => Err(Refusal::Compiler(format!(
            "the schema was not compiled after {} s, those of others were before it",
            patience.as_secs()
        ))),
    }
}

/// Where one answer is in its grammar.
pub(crate) struct Grammar(Matcher);

impl Grammar {
    /// The same from the beginning; only before the first token.
    fn fresh(&self) -> Self {
        Self(self.0.deep_clone())
    }

    /// Which tokens may come next: one bit each.
    pub(crate) fn allowed(&mut self) -> Result<SimpleVob, String> {
        self.0.compute_mask().map_err(reason)
    }

    /// A token came. True: nothing can come any more.
    pub(crate) fn take(&mut self, token: u32) -> Result<bool, String> {
        self.0.consume_token(token).map_err(reason)?;
        Ok(self.0.is_stopped())
    }
}

fn compiler_for(tokens: &Tokens) -> Result<ParserFactory, String> {
    // Tokens without bytes are no text and never allowed, but for the ends, which the grammar knows by number.
    let words: Vec<Vec<u8>> = tokens.bytes.iter().map(|bytes| bytes.to_vec()).collect();
    let Some((end, _)) = tokens.ends.split_first().filter(|(end, _)| (**end as usize) < words.len()) else {
        return Err("the model has no end token".to_owned());
    };
    let ends: Vec<u32> = tokens.ends.iter().copied().filter(|end| (*end as usize) < words.len()).collect();
    let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, *end), &words).with_eos_tokens(&ends);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&environment).map_err(reason)?;
    factory.quiet();
    let limits = factory.limits_mut();
    // A fifth of what the library takes by default, a tenth of the lexer's states: large real schemas (FHIR's aside) stay well below.
    // By its own figures the worst schema then costs 4 ms to build its lexer, a step 5 ms, an answer 25 to 50 MB.
    limits.initial_lexer_fuel = 200_000;
    limits.max_grammar_size = 100_000;
    limits.step_lexer_fuel = 40_000;
    limits.step_max_items = 20_000;
    limits.max_lexer_states = 25_000;
    limits.precompute_large_lexemes = false;
    // What was said must not get into a reason, which is logged.
    limits.verbose_errors = false;
    Ok(factory)
}

/// The library's panic is the end of one schema, and not of all that come after it.
fn unbroken<T>(compile: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(compile)).unwrap_or_else(|_| Err("the compiler of schemas broke on it".to_owned()))
}

fn compile(factory: &ParserFactory, format: &Format) -> Result<Grammar, String> {
    let mut schema = match format {
        Format::JsonSchema(text) => {
            serde_json::from_str(text).map_err(|error| format!("the schema is not JSON: {error}"))?
        }
        Format::Text | Format::Json => serde_json::json!({"type": "object"}),
    };
    if schema == Value::Bool(true) {
        schema = serde_json::json!({});
    }
    if !schema.is_object() {
        return Err("the schema is no JSON object".to_owned());
    }
    multiples::check(&schema)?;
    // The library's own options may stand in a schema; here they are ours.
    let options =
        JsonCompileOptions { whitespace_pattern: Some(WHITESPACE.to_owned()), ..JsonCompileOptions::default() };
    options.apply_to(&mut schema);
    let parser = factory.create_parser(TopLevelGrammar::from_json_schema(schema)).map_err(reason)?;
    let mut matcher = Matcher::new(Ok(parser));
    if let Some(error) = matcher.get_error() {
        return Err(shortened(&error));
    }
    // What nothing can satisfy is sometimes only seen here.
    let first = matcher.compute_mask().map_err(reason)?;
    if first.is_zero() {
        return Err("nothing satisfies the schema".to_owned());
    }
    Ok(Grammar(matcher))
}

fn reason(error: impl std::fmt::Display) -> String {
    shortened(&error.to_string())
}

/// In one line, and not longer than a reason should be.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(REASON_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a caller is told whose grammar does not come.
    fn told(has_begun: bool, until: Option<Instant>) -> Refusal {
        let (_reply, compiled): (Reply, Receiver<_>) = sync_channel(1);
        let begun = OnceLock::new();
        if has_begun {
            begun.get_or_init(Instant::now);
        }
        let waited = compiled_in_time(&compiled, &begun, Instant::now(), until, Duration::ZERO);
        waited.err().expect("there is no grammar")
    }

    #[test]
    fn a_schema_that_others_kept_from_its_turn_is_not_called_wrong() {
        let now = Instant::now();
        let later = now + Duration::from_secs(3_600);
        assert!(matches!(told(false, Some(later)), Refusal::Compiler(reason) if reason.contains("those of others")));
        assert!(matches!(told(false, None), Refusal::Compiler(_)));
        assert!(matches!(told(true, Some(later)), Refusal::Format(reason) if reason.contains("not compiled")));
        assert_eq!([told(false, Some(now)), told(true, Some(now))], [Refusal::Late, Refusal::Late]);
    }

    /// Each compiled it, and each kept it: thirty requests with one schema threw all other schemas out.
    #[test]
    fn a_schema_that_many_bring_at_once_is_compiled_once() {
        let mut bytes: Vec<Box<[u8]>> = (0..=u8::MAX).map(|byte| Box::from([byte])).collect();
        bytes.push(Box::default());
        let grammars = Grammars::start(&Tokens { bytes, ends: vec![256] }).expect("a thread");
        let format = Format::JsonSchema("{\"type\": \"integer\", \"multipleOf\": 19997}".to_owned());
        std::thread::scope(|scope| {
            for owner in 0..8 {
                let (grammars, format) = (&grammars, &format);
                scope.spawn(move || assert!(grammars.of(Owner(owner), format, None).is_ok_and(|it| it.is_some())));
            }
        });
        assert_eq!(grammars.kept.0.lock().len(), 1);
    }

    #[test]
    fn one_owners_schemas_leave_room_for_those_of_others() {
        // Nobody compiles: what is asked for only waits.
        let (asked, _asks) = sync_channel(WAITING);
        let grammars = Grammars { asked, kept: Kept::default(), waiting: Arc::default() };
        let many: Vec<_> = (0..WAITING_OF_ONE).map(|_| grammars.wait(Owner(1)).expect("there is room")).collect();
        let Err(refused) = grammars.of(Owner(1), &Format::Json, Some(Instant::now())) else { panic!("one too many") };
        assert!(matches!(&refused, Refusal::Compiler(reason) if reason.contains("of this caller")), "{refused}");
        let Err(refused) = grammars.of(Owner(2), &Format::Json, Some(Instant::now())) else { panic!("who compiled?") };
        assert_eq!(refused, Refusal::Late, "it waited");
        drop(many);
        assert!(grammars.waiting.lock().is_empty(), "nothing is left of those that have gone");
    }

    #[test]
    fn a_schema_that_breaks_the_compiler_is_refused() {
        let refused = unbroken::<()>(|| panic!("an index out of bounds"));
        assert_eq!(refused, Err("the compiler of schemas broke on it".to_owned()));
    }
}
