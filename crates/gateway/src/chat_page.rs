//! The chat page: complete without JavaScript, where the form carries the whole conversation and the answer comes in one piece.

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use fault::{Fault, Kind};
use idl::chat::{ChatReply, ChatRequest, ChatTiming, FinishReason, Message, Sampling};
use idl::inference::{ModelInfo, ModelState, Task};
use minijinja::value::Serde;
use minijinja::{Value, context};
use serde::Serialize;

use crate::ask::Ask;
use crate::body;
use crate::classify::checked;
use crate::memory::Share;
use crate::metrics::Route;
use crate::openai;
use crate::origin;
use crate::pages::{self, Choice, page_head};
use crate::problem::{Problem, start_of, unreadable};
use crate::site::Site;

/// Most characters of a message; a model's context is shorter.
const MOST_MESSAGE: usize = 32_000;
/// Most bytes of a form. A character of most languages takes up to nine of them.
const MOST_FORM: usize = 1 << 20;
/// Most messages of a conversation in a form.
const MOST_TURNS: usize = 200;

/// A message of the conversation so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Turn {
    /// `user` or `assistant`.
    role: &'static str,
    text: String,
}

/// The settings as they were written into the form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Written {
    model: String,
    system: String,
    temperature: String,
    top_p: String,
    max_tokens: String,
    seed: String,
    /// Whether there is any besides the model.
    any: bool,
}

/// What the page shows of a conversation.
#[derive(Debug, Default, PartialEq, Eq)]
struct Talk {
    turns: Vec<Turn>,
    /// What stands in the field for the next message.
    draft: String,
    written: Written,
    /// About the last answer.
    facts: String,
}

/// `GET /chat`: the form.
pub(crate) async fn form(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Page);
    let result = async {
        let offer = offer(&request, &site, &ask).await?;
        let page = ask.page("chat.html", values(offer, Talk::default(), None))?;
        Ok::<_, Problem>(page_head(HttpResponse::Ok()).body(page))
    };
    let result = result.await;
    pages::finish(&mut ask, &site, result)
}

/// `POST /chat`: the form with the answer. What went wrong stands above the form, which keeps what was written.
pub(crate) async fn post(request: HttpRequest, payload: web::Payload, site: web::Data<Site>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Chat);
    let (mut talk, _share) = match site.process.in_time(read(&request, payload, &site)).await {
        Ok(read) => read,
        Err(fault) => return pages::finish(&mut ask, &site, Err(fault.into())),
    };
    let answered = site.process.in_time(answer(&request, &site, &mut ask, &mut talk)).await;
    let problem = answered.err().map(Problem::from);
    let offer = offer(&request, &site, &ask).await.unwrap_or_default();
    let shown = problem.as_ref().map(|problem| (problem, ask.names.request_id.as_str()));
    let page = ask.page("chat.html", values(offer, talk, shown));
    match (page, problem) {
        (Ok(page), None) => ask.finish(page_head(HttpResponse::Ok()).body(page), None),
        (Ok(page), Some(problem)) => ask.finish(page_head(problem.head()).body(page), Some(&problem)),
        (Err(broken), _) => pages::finish(&mut ask, &site, Err(broken)),
    }
}

/// Which chat models there are, or why there is none.
#[derive(Default)]
struct Offer {
    ready: Vec<Choice>,
    /// The first that gets ready.
    coming: Option<String>,
    /// The first that failed, and why.
    failed: Option<(String, String)>,
    /// Why the servers could not be asked.
    notice: Option<String>,
}

impl Offer {
    fn of(models: &[ModelInfo]) -> Self {
        let first = |states: &[ModelState]| {
            models.iter().find(|model| {
                model.task == Some(Task::CHAT) && model.state.is_some_and(|state| states.contains(&state))
            })
        };
        let name = |model: &ModelInfo| model.name.clone().unwrap_or_default();
        let reason = |model: &ModelInfo| model.reason.clone().unwrap_or_default();
        Self {
            ready: pages::choices(models, Task::CHAT),
            coming: first(&[ModelState::LOADING, ModelState::WARMING]).map(name),
            failed: first(&[ModelState::FAILED]).map(|model| (name(model), reason(model))),
            notice: None,
        }
    }
}

async fn offer(request: &HttpRequest, site: &web::Data<Site>, ask: &Ask) -> Result<Offer, Problem> {
    let deadline = ask.deadline(request)?;
    // The conversations in the browser can be read without a server, too.
    Ok(match site.process.in_time(site.backend.models(&ask.names, deadline)).await {
        Ok(models) => Offer::of(&models),
        Err(fault) => Offer { notice: Some(fault.message.into_owned()), ..Offer::default() },
    })
}

fn values(mut offer: Offer, talk: Talk, problem: Option<(&Problem, &str)>) -> Value {
    // The servers cannot be asked: the one that was chosen stays, so that the form can be sent again.
    if offer.notice.is_some() && !talk.written.model.is_empty() {
        offer.ready.push(Choice { name: talk.written.model.clone(), description: String::new() });
    }
    let (failed, reason) = offer.failed.unzip();
    context! {
        models => Value::from(Serde(&offer.ready)),
        coming => offer.coming,
        failed,
        reason,
        notice => offer.notice,
        turns => Value::from(Serde(&talk.turns)),
        draft => talk.draft,
        written => Value::from(Serde(&talk.written)),
        facts => talk.facts,
        most_message => MOST_MESSAGE,
        message => problem.map(|(problem, _)| problem.message()),
        advice => problem.map(|(problem, _)| advice(problem)),
        status => problem.map(|(problem, _)| problem.status()),
        request_id => problem.map(|(_, request_id)| request_id),
    }
}

/// What a person who chats can do.
fn advice(problem: &Problem) -> &'static str {
    match problem {
        Problem::Fault(fault) if fault.kind == Kind::TooLarge => {
            "The conversation is longer than the model can read. Write a shorter message, or begin a new chat."
        }
        Problem::Fault(fault) if fault.kind == Kind::DeadlineExceeded => {
            "It took too long. Try again, or set a smaller number of tokens."
        }
        other => other.advice(),
    }
}

/// Reads the form; the share is of the memory for bodies, which the conversation takes until it is answered.
async fn read(request: &HttpRequest, payload: web::Payload, site: &web::Data<Site>) -> Result<(Talk, Share), Fault> {
    if let Err(fault) = origin::own_page(request) {
        body::discard(&mut payload.into_inner(), &site.process).await;
        return Err(fault);
    }
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/x-www-form-urlencoded" {
        body::discard(&mut payload.into_inner(), &site.process).await;
        let kind = start_of(&essence, 64);
        return Err(Fault::unsupported_media(format!(
            "content type is {kind:?}, allowed is application/x-www-form-urlencoded"
        )));
    }
    let (body, share) = body::read(request, payload, MOST_FORM, "the form", &site.process).await?;
    let text = std::str::from_utf8(&body).map_err(|error| unreadable("the form", &error))?;
    let fields = web::Query::<Vec<(String, String)>>::from_query(text);
    let fields = fields.map_err(|error| unreadable("the form", &error))?;
    Ok((talk(fields.into_inner())?, share))
}

fn talk(fields: Vec<(String, String)>) -> Result<Talk, Fault> {
    let mut talk = Talk::default();
    for (name, value) in fields {
        // Forms have the line ends of the network.
        let value = value.replace("\r\n", "\n");
        let mut turn = |role| talk.turns.push(Turn { role, text: value.clone() });
        let written = &mut talk.written;
        match name.as_str() {
            "user" => turn("user"),
            "assistant" => turn("assistant"),
            "message" => talk.draft = value,
            "model" => written.model = value.trim().to_owned(),
            "system" => written.system = value.trim().to_owned(),
            "temperature" => written.temperature = value.trim().to_owned(),
            "top_p" => written.top_p = value.trim().to_owned(),
            "max_tokens" => written.max_tokens = value.trim().to_owned(),
            "seed" => written.seed = value.trim().to_owned(),
            // As in the other forms: a field that is not known is harmless.
            _ => {}
        }
        let have = talk.turns.len();
        if have > MOST_TURNS {
            return Err(Fault::too_large(format!(
                "the conversation has {have} messages or more, the limit is {MOST_TURNS}"
            )));
        }
    }
    let Written { system, temperature, top_p, max_tokens, seed, .. } = &talk.written;
    talk.written.any = [system, temperature, top_p, max_tokens, seed].iter().any(|value| !value.is_empty());
    Ok(talk)
}

/// Asks the model; then the message and its answer are part of the conversation.
async fn answer(request: &HttpRequest, site: &web::Data<Site>, ask: &mut Ask, talk: &mut Talk) -> Result<(), Fault> {
    let deadline = ask.deadline_or(request, site.process.settings.limits.chat_deadline)?;
    let chat = wanted(talk)?;
    ask.told.model = Some(checked(&talk.written.model)?);
    let reply = site.backend.chat_complete(chat, &ask.caller(), &ask.names, deadline).await?;
    let (text, facts) = told(ask, reply)?;
    if text.is_empty() {
        return Err(Fault::unavailable("the model answered with nothing"));
    }
    talk.turns.push(Turn { role: "user", text: std::mem::take(&mut talk.draft) });
    talk.turns.push(Turn { role: "assistant", text });
    talk.facts = facts;
    Ok(())
}

/// The request that a form stands for.
fn wanted(talk: &Talk) -> Result<ChatRequest, Fault> {
    let Written { model, system, temperature, top_p, max_tokens, seed, .. } = &talk.written;
    if talk.draft.trim().is_empty() {
        return Err(Fault::invalid_input("the message is empty").with_param("message"));
    }
    if model.is_empty() {
        return Err(Fault::invalid_input("no model is chosen").with_param("model"));
    }
    let message =
        |role: &str, text: &str| Message { role: Some(role.to_owned()), content: Some(text.to_owned()), name: None };
    let instruction = (!system.is_empty()).then(|| message("system", system));
    let before = talk.turns.iter().map(|turn| message(turn.role, &turn.text));
    let now = message("user", talk.draft.trim());
    let sampling = Sampling {
        temperature: number::<f64>("temperature", temperature)?.map(Into::into),
        top_p: number::<f64>("top_p", top_p)?.map(Into::into),
        seed: number("seed", seed)?,
        ..Sampling::default()
    };
    Ok(ChatRequest {
        model: Some(model.clone()),
        messages: Some(instruction.into_iter().chain(before).chain([now]).collect()),
        max_tokens: number("max_tokens", max_tokens)?,
        sampling: Some(sampling),
        ..ChatRequest::default()
    })
}

fn number<N: std::str::FromStr>(name: &'static str, text: &str) -> Result<Option<N>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let text = start_of(text, 32);
        Fault::invalid_input(format!("{name} is {text:?}, allowed is a number")).with_param(name)
    })
}

/// The answer, and what is shown small below it.
fn told(ask: &mut Ask, reply: ChatReply) -> Result<(String, String), Fault> {
    openai::answered(ask, &reply)?;
    let choice = reply.choices.and_then(|choices| choices.into_iter().next()).unwrap_or_default();
    let cut = choice.finish == Some(FinishReason::LENGTH);
    let facts = facts(cut, ask.told.tokens_out, reply.timing.as_ref(), reply.model.as_deref());
    Ok((choice.text.unwrap_or_default().trim().to_owned(), facts))
}

fn facts(cut: bool, tokens: u32, timing: Option<&ChatTiming>, model: Option<&str>) -> String {
    let mut all = Vec::new();
    if cut {
        all.push("ended at the most tokens".to_owned());
    }
    if let Some(first) = timing.and_then(|timing| timing.first_token_us) {
        all.push(format!("first token {:.0} ms", first as f64 / 1e3));
    }
    let decode = timing.and_then(|timing| timing.decode_us).filter(|us| *us > 0);
    if let Some(decode) = decode
        && tokens > 1
    {
        all.push(format!("{:.0} tokens/s", f64::from(tokens - 1) / (decode as f64 / 1e6)));
    }
    all.push(format!("{tokens} token{}", if tokens == 1 { "" } else { "s" }));
    all.extend(model.map(str::to_owned));
    all.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_form_becomes_a_request_with_the_conversation_in_order() {
        let talk = talk(fields(&[
            ("user", "one\r\ntwo"),
            ("assistant", "three"),
            ("message", " four "),
            ("model", "m"),
            ("system", "be brief"),
            ("temperature", "0.5"),
            ("top_p", ""),
            ("max_tokens", "9"),
            ("seed", "7"),
        ]))
        .expect("a good form");
        let request = wanted(&talk).expect("a request");
        let messages: Vec<_> = request.messages.iter().flatten().collect();
        let texts: Vec<_> = messages
            .iter()
            .map(|message| {
                (message.role.as_deref().unwrap_or_default(), message.content.as_deref().unwrap_or_default())
            })
            .collect();
        assert_eq!(texts, [("system", "be brief"), ("user", "one\ntwo"), ("assistant", "three"), ("user", "four")]);
        let sampling = request.sampling.expect("sampling");
        assert_eq!((sampling.temperature, sampling.top_p, sampling.seed), (Some(0.5.into()), None, Some(7)));
        assert_eq!((request.model.as_deref(), request.max_tokens), (Some("m"), Some(9)));
    }

    #[test]
    fn what_is_wrong_in_a_form_is_named() {
        for (all, says) in [
            (&[("message", "  "), ("model", "m")][..], "the message is empty"),
            (&[("message", "x")], "no model is chosen"),
            (&[("message", "x"), ("model", "m"), ("seed", "often")], "seed is \"often\", allowed is a number"),
            (&[("message", "x"), ("model", "m"), ("max_tokens", "1.5")], "max_tokens is \"1.5\""),
        ] {
            let fault = wanted(&talk(fields(all)).expect("few fields")).expect_err(says);
            assert!(fault.message.starts_with(says), "{fault}");
        }
        let many = vec![("user", "x"); MOST_TURNS + 1];
        let fault = talk(fields(&many)).expect_err("too many");
        assert_eq!(fault.message, "the conversation has 201 messages or more, the limit is 200");
    }

    #[test]
    fn the_facts_of_an_answer_are_told_as_far_as_they_are_known() {
        let timing = ChatTiming { first_token_us: Some(81_500), decode_us: Some(2_000_000), ..ChatTiming::default() };
        assert_eq!(facts(false, 201, Some(&timing), Some("m")), "first token 82 ms · 100 tokens/s · 201 tokens · m");
        assert_eq!(facts(true, 1, None, None), "ended at the most tokens · 1 token");
    }

    #[test]
    fn without_a_model_that_is_ready_the_page_knows_why() {
        let model = |task, state| ModelInfo {
            name: Some("m".to_owned()),
            task: Some(task),
            state: Some(state),
            reason: Some("no memory".to_owned()),
            ..ModelInfo::default()
        };
        let offer = |models: &[ModelInfo]| {
            let offer = Offer::of(models);
            (offer.ready.len(), offer.coming.is_some(), offer.failed.map(|(_, reason)| reason))
        };
        assert_eq!(offer(&[model(Task::CHAT, ModelState::READY)]), (1, false, None));
        assert_eq!(offer(&[model(Task::CHAT, ModelState::WARMING)]), (0, true, None));
        assert_eq!(offer(&[model(Task::CHAT, ModelState::FAILED)]), (0, false, Some("no memory".to_owned())));
        assert_eq!(offer(&[model(Task::CLASSIFY, ModelState::READY)]), (0, false, None));
    }
}
