// The turns of a conversation as they stand on the page.
import { blocks, element } from "./markdown.js";

/** A turn's place on the page, without its actions. */
export class TurnView {
  #said;
  #facts;
  #actions;
  #blocks = [];
  #next = null;
  #frame = 0;

  constructor(turn) {
    this.turn = turn;
    this.node = document.createElement("article");
    this.node.className = `turn ${turn.role}`;
    this.node.setAttribute("aria-label", turn.role === "user" ? "You" : "Answer");
    this.#said = document.createElement("div");
    this.#said.className = "said";
    this.#said.dir = "auto";
    this.#said.dataset.said = "";
    const under = document.createElement("div");
    under.className = "under";
    this.#actions = document.createElement("div");
    this.#actions.className = "actions";
    this.#facts = document.createElement("p");
    this.#facts.className = "turn-facts";
    under.append(this.#actions, this.#facts);
    this.node.append(this.#said, under);
    this.show();
  }

  /** Shows the text and the facts as they are now. */
  show() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#write(this.turn.text);
    this.#facts.textContent = facts(this.turn);
  }

  /** Shows the text with the next picture of the screen: many pieces can come between two of them. */
  showSoon(after) {
    this.#next = after;
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#write(this.turn.text);
      this.#next?.();
    });
  }

  /** The dots before the first piece. */
  set waiting(on) {
    this.node.classList.toggle("waiting", on);
  }

  /** Buttons under the turn: `[name, label, action]`. */
  offer(actions) {
    this.#actions.replaceChildren(...actions.map(([name, label, act]) => button(name, label, act)));
  }

  action(name) {
    return this.#actions.querySelector(`[data-action="${name}"]`);
  }

  /** Puts a form with the text, of at most so many characters, in the turn's place. `done` gets the new text, or null. */
  edit(most, done) {
    const form = document.createElement("form");
    form.className = "edit";
    const text = document.createElement("textarea");
    text.value = this.turn.text;
    text.maxLength = most;
    text.rows = Math.min(10, this.turn.text.split("\n").length + 1);
    text.setAttribute("aria-label", "Edit the message");
    text.dataset.edit = "";
    const end = (value) => {
      form.replaceWith(this.#said);
      this.node.classList.remove("editing");
      done(value);
    };
    const send = document.createElement("button");
    send.type = "submit";
    send.textContent = "Send again";
    const row = document.createElement("div");
    row.className = "actions";
    row.append(send, button("cancel", "Cancel", () => end(null)));
    form.append(text, row);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (text.value.trim()) end(text.value.trim());
    });
    text.addEventListener("keydown", (event) => {
      if (sends(event)) { event.preventDefault(); form.requestSubmit(); }
      if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); end(null); }
    });
    this.node.classList.add("editing");
    this.#said.replaceWith(form);
    text.focus();
    text.setSelectionRange(text.value.length, text.value.length);
  }

  // Only the blocks that have changed are made anew: what somebody has selected further up stays selected.
  #write(text) {
    if (this.turn.role === "user") {
      this.#said.textContent = text;
      return;
    }
    const next = blocks(text);
    let same = 0;
    while (same < next.length && next[same].source === this.#blocks[same]?.source) same += 1;
    while (this.#said.childNodes.length > same) this.#said.lastChild.remove();
    this.#said.append(...next.slice(same).map((block) => element(block)));
    this.#blocks = next;
  }
}

/** Enter by itself, but not the one that ends a word of an input method. */
export function sends(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}

/** A small button of a turn or of the list. */
export function button(name, label, act) {
  const node = document.createElement("button");
  node.type = "button";
  node.className = "quiet";
  node.dataset.action = name;
  node.textContent = label;
  node.addEventListener("click", () => act(node));
  return node;
}

/** Copies, and says so on the button. */
export async function copy(text, node) {
  const before = node.textContent;
  const done = await write(text);
  node.textContent = done ? "Copied" : "Not allowed";
  setTimeout(() => { node.textContent = before; }, 1_500);
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Over plain HTTP there is no clipboard but the old one.
    const place = document.createElement("textarea");
    const had = document.activeElement;
    place.value = text;
    place.className = "sr";
    document.body.append(place);
    place.select();
    const done = document.execCommand("copy");
    place.remove();
    had?.focus();
    return done;
  }
}

function facts(turn) {
  // The server's own words, where it made the whole page.
  if (typeof turn.facts === "string") return turn.facts;
  const all = [];
  if (turn.stopped) all.push("stopped");
  if (turn.cut) all.push("ended at the most tokens");
  if (turn.firstMs >= 0) all.push(`first token ${seconds(turn.firstMs)}`);
  if (turn.rate > 0) all.push(`${turn.rate < 10 ? turn.rate.toFixed(1) : Math.round(turn.rate)} tokens/s`);
  if (turn.tokens > 0) all.push(`${turn.tokens} token${turn.tokens === 1 ? "" : "s"}`);
  if (turn.role === "assistant" && turn.model) all.push(turn.model);
  return all.join(" · ");
}

function seconds(millis) {
  return millis < 1_000 ? `${Math.round(millis)} ms` : `${(millis / 1_000).toFixed(1)} s`;
}
