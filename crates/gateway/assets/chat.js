// The chat page with JavaScript: answers appear as they are made, conversations stay in this browser. Without it the same form
// just posts.
import { Refusal, complete } from "./completion.js";
import { Conversations } from "./conversations.js";
import { Talks } from "./talks.js";
import { TurnView, copy, sends } from "./turns.js";

const TITLE = 48;
// Nearer to the end than this, the page follows the answer.
const NEAR_END = 120;

const page = document.querySelector("[data-chat]");
const at = (name) => page.querySelector(`[data-${name}]`);
const form = at("form");
const input = form.elements.namedItem("message");
const store = new Conversations();
const talks = new Talks(at("list"), store, { open, removed, renamed });
const offersModels = form.elements.namedItem("model").options.length > 0;
// A keyboard that covers half of the screen comes only when it is asked for.
const touch = matchMedia("(pointer: coarse)");

/** What is shown. */
let current = null;
let views = [];
/** The answer that is being made. */
let running = null;

// --- settings ---

const FIELDS = { model: String, system: String, temperature: Number, top_p: Number, max_tokens: Number, seed: Number };

function settings() {
  const found = {};
  for (const [name, as] of Object.entries(FIELDS)) {
    const { value } = form.elements.namedItem(name);
    if (value.trim() !== "") found[name] = as(value);
  }
  return found;
}

function showSettings(values) {
  for (const name of Object.keys(FIELDS)) {
    const field = form.elements.namedItem(name);
    if (name !== "model") field.value = values[name] ?? "";
    else if ([...field.options].some((option) => option.value === values.model)) field.value = values.model;
  }
  const own = Object.keys(FIELDS).filter((name) => name !== "model" && values[name] !== undefined).length;
  at("settings-count").textContent = own ? `(${own} set)` : "";
}

// --- one conversation ---

function open(id) {
  stop();
  show(store.get(id) ?? store.create(store.lastSettings()));
  closeList();
  if (!touch.matches) input.focus();
}

function show(conversation) {
  current = conversation;
  showSettings(conversation.settings);
  views = conversation.turns.map((turn) => new TurnView(turn));
  at("turns").replaceChildren(...views.map((view) => view.node));
  at("problem").replaceChildren();
  offer();
  retitle();
  const address = conversation.turns.length ? `#${conversation.id}` : location.pathname;
  if (location.hash !== (conversation.turns.length ? address : "")) history.pushState(null, "", address);
  scrollTo(0, document.documentElement.scrollHeight);
}

function retitle() {
  const title = current.title || "New chat";
  at("title").textContent = title;
  document.title = current.title ? `${title} · Outboard` : "Chat · Outboard";
  page.classList.toggle("empty", current.turns.length === 0);
  at("kept").textContent = store.lasting
    ? "Conversations are kept in this browser only."
    : "This browser keeps nothing: conversations are gone when the page is closed.";
  talks.show(current.id);
}

function keep() {
  current.changed = Date.now();
  current.settings = settings();
  if (!current.named) {
    const first = current.turns.find((turn) => turn.role === "user")?.text.replace(/\s+/g, " ") ?? "";
    current.title = first.length > TITLE ? `${first.slice(0, TITLE).trimEnd()}…` : first;
  }
  if (current.turns.length) store.save(current);
  retitle();
}

// What can be done with each turn.
function offer() {
  views.forEach((view, index) => {
    const { turn } = view;
    if (running?.view === view) { view.offer([]); return; }
    const actions = [["copy", "Copy", (node) => copy(turn.text, node)]];
    const last = index === views.length - 1;
    if (turn.role === "user") actions.push(["edit", "Edit", () => edit(view)]);
    if (last && offersModels) actions.push(["retry", turn.role === "user" ? "Ask again" : "Retry", retry]);
    view.offer(actions);
  });
}

function edit(view) {
  stop();
  view.edit(input.maxLength, (text) => {
    if (text === null) { view.action("edit")?.focus(); return; }
    // Another question may have been asked meanwhile.
    stop();
    cutFrom(views.indexOf(view));
    ask(text);
  });
}

function retry() {
  stop();
  const before = current.turns.at(-1)?.role === "assistant" ? current.turns.at(-1) : null;
  if (before) cutFrom(current.turns.length - 1);
  if (!touch.matches) input.focus();
  answer(before);
}

function cutFrom(index) {
  current.turns.length = index;
  for (const view of views.splice(index)) view.node.remove();
}

function add(turn) {
  current.turns.push(turn);
  const view = new TurnView(turn);
  views.push(view);
  at("turns").append(view.node);
  return view;
}

function ask(text) {
  add({ role: "user", text });
  keep();
  if (location.hash !== `#${current.id}`) history.pushState(null, "", `#${current.id}`);
  if (!touch.matches) input.focus();
  answer();
}

// --- an answer ---

function messages() {
  const all = [];
  const { system } = current.settings;
  if (system) all.push({ role: "system", content: system });
  for (const { role, text } of current.turns) {
    // A question without its answer goes together with the next one: many models' templates want them in turn.
    if (all.at(-1)?.role === role) all.at(-1).content += `\n\n${text}`;
    else all.push({ role, content: text });
  }
  return all;
}

// `before`: the answer that this one shall replace; it comes back when there is none.
async function answer(before = null) {
  const { system: _, ...asked } = settings();
  current.settings = settings();
  const body = { ...asked, messages: messages() };
  const turn = { role: "assistant", text: "", model: asked.model };
  const view = add(turn);
  const here = { controller: new AbortController(), view, before, begin: performance.now(), first: 0, last: 0, pieces: 0 };
  running = here;
  at("problem").replaceChildren();
  view.waiting = true;
  busy(true);
  say("Answering");
  offer();
  scrollTo(0, document.documentElement.scrollHeight);
  let problem = null;
  try {
    for await (const { text, finish, usage } of complete(body, here.controller.signal)) {
      if (running !== here) return;
      if (text) {
        here.last = performance.now();
        here.first ||= here.last;
        here.pieces += 1;
        view.waiting = false;
        turn.text += text;
        const follow = nearEnd();
        view.showSoon(() => { if (follow) scrollTo(0, document.documentElement.scrollHeight); });
      }
      if (finish === "length") turn.cut = true;
      if (usage) turn.tokens = usage.completion_tokens;
    }
    if (!turn.text) problem = new Refusal("The model answered with nothing.", { code: "empty" });
  } catch (error) {
    if (running !== here) return;
    problem = error instanceof Refusal ? error : new Refusal(`The page failed: ${error.message}.`);
  }
  settle();
  if (problem) complain(problem);
  else say(`Answer: ${turn.text.slice(0, 600)}`);
}

// The answer is over, well or not.
function settle() {
  const { view, before, begin, first, last, pieces } = running;
  const { turn } = view;
  running = null;
  if (first) {
    turn.firstMs = first - begin;
    const tokens = turn.tokens ?? pieces;
    if (tokens > 1 && last > first) turn.rate = ((tokens - 1) * 1_000) / (last - first);
  }
  const follow = nearEnd();
  view.waiting = false;
  if (turn.text) {
    view.show();
  } else {
    cutFrom(views.indexOf(view));
    if (before) add(before);
  }
  busy(false);
  offer();
  keep();
  if (follow) scrollTo(0, document.documentElement.scrollHeight);
}

function stop() {
  if (!running) return;
  running.view.turn.stopped = true;
  running.controller.abort();
  settle();
  say("Stopped");
}

function complain(problem) {
  const alert = document.createElement("div");
  alert.className = "card alert";
  alert.setAttribute("role", "alert");
  const line = (text, name = "p") => Object.assign(document.createElement(name), { textContent: text });
  const message = document.createElement("p");
  message.append(line(problem.message, "strong"));
  alert.append(message, line(problem.advice));
  if (problem.requestId) alert.append(Object.assign(line(`Request ${problem.requestId}`), { className: "hint" }));
  at("problem").replaceChildren(alert);
  scrollTo(0, document.documentElement.scrollHeight);
}

function busy(on) {
  const [shown, gone] = on ? [at("stop"), at("send")] : [at("send"), at("stop")];
  const focused = document.activeElement === gone;
  shown.hidden = false;
  gone.hidden = true;
  // The focus must not go with the button.
  if (focused) (touch.matches ? shown : input).focus();
}

// For screen readers: once at the beginning and once at the end, not with every piece.
function say(text) {
  at("status").textContent = text;
}

function nearEnd() {
  const { scrollHeight, clientHeight } = document.documentElement;
  return scrollHeight - clientHeight - scrollY < NEAR_END;
}

// --- the list ---

function removed(id) {
  if (id === current.id) {
    stop();
    // The end of an answer has kept it once more.
    store.remove(id);
    show(store.create(store.lastSettings()));
  }
  if (document.activeElement === document.body) at("new").focus();
}

function renamed(conversation) {
  if (conversation.id === current.id) retitle();
}

function closeList() {
  page.classList.remove("listing");
  at("open-list").setAttribute("aria-expanded", "false");
}

// --- what people do ---

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text || running || !offersModels) return;
  input.value = "";
  grow();
  ask(text);
});
// A field that is wrong must be seen to be mended.
form.addEventListener("invalid", (event) => {
  if (event.target.closest("details")) event.target.closest("details").open = true;
}, true);
form.addEventListener("change", (event) => {
  if (event.target === input) return;
  if (current.turns.length && !running) keep();
  else current.settings = settings();
  showSettings(current.settings);
});
// What was opened is shown.
form.querySelector("details").addEventListener("toggle", (event) => {
  if (event.target.open) form.scrollIntoView({ block: "end" });
});
function grow() {
  input.rows = Math.max(1, Math.min(8, input.value.split("\n").length));
}
input.addEventListener("input", grow);
input.addEventListener("keydown", (event) => {
  if (!sends(event)) return;
  event.preventDefault();
  if (!running) form.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (page.classList.contains("listing")) { closeList(); at("open-list").focus(); return; }
  stop();
});
at("stop").addEventListener("click", () => {
  stop();
  if (!touch.matches) input.focus();
});
at("new").addEventListener("click", () => open(null));
at("open-list").addEventListener("click", () => {
  const listing = page.classList.toggle("listing");
  at("open-list").setAttribute("aria-expanded", String(listing));
  if (listing) at("new").focus();
});
page.addEventListener("click", (event) => {
  const node = event.target.closest("[data-copy-code]");
  if (node) copy(node.closest(".code").querySelector("pre").textContent, node);
});
addEventListener("popstate", () => {
  const id = location.hash.slice(1);
  if (id === current.id || (!id && !current.turns.length)) return;
  stop();
  show(store.get(id) ?? store.create(store.lastSettings()));
});
// The page can be closed in the middle of an answer.
addEventListener("pagehide", () => stop());
addEventListener("storage", (event) => {
  if (!store.follow(event)) return;
  const theirs = store.get(current.id);
  if (theirs && theirs !== current && !running) show(theirs);
  else talks.show(current.id);
});

// --- the beginning ---

// A form that was sent before this script had come is answered in the page: its conversation goes on here. Null without one.
function answered() {
  const turns = [...form.querySelectorAll("input[type=hidden]")].map(({ name, value }) => ({ role: name, text: value }));
  if (!turns.length && !at("problem").childElementCount) return null;
  const facts = at("turns").querySelector(".turn-facts")?.textContent;
  if (facts) turns.at(-1).facts = facts;
  return { ...store.create(settings()), turns };
}

function begin() {
  const kept = store.get(location.hash.slice(1));
  const sent = kept ? null : answered();
  if (!sent) {
    show(kept ?? store.create(store.lastSettings()));
    return;
  }
  const alert = [...at("problem").children];
  // The form's own address says nothing of the conversation.
  history.replaceState(null, "", sent.turns.length ? `#${sent.id}` : location.pathname);
  show(sent);
  keep();
  at("problem").append(...alert);
}

grow();
begin();
if (!touch.matches) input.focus();
