// Conversations, kept in this browser and nowhere else. Each has a key of its own, so that two tabs do not undo each other.

const PREFIX = "outboard.chat.";
const LAST = "outboard.chat-last";
// A browser gives a site about 5 million characters; with this much all of them are read in a moment.
const MOST = 100;
const MOST_CHARACTERS = 3_000_000;

export class Conversations {
  #kept = new Map();
  /** Whether they are still there after the page was closed. */
  lasting = true;

  constructor() {
    try {
      for (let index = 0; index < localStorage.length; index += 1) {
        const key = localStorage.key(index);
        if (!key.startsWith(PREFIX)) continue;
        const conversation = parse(localStorage.getItem(key));
        if (conversation && PREFIX + conversation.id === key) this.#kept.set(conversation.id, conversation);
      }
    } catch {
      // Private windows and strict settings refuse: then this page's memory has to do.
      this.lasting = false;
    }
  }

  /** The newest first. */
  list() {
    return [...this.#kept.values()].sort((a, b) => b.changed - a.changed);
  }

  get(id) {
    return this.#kept.get(id);
  }

  /** A new one, which is not kept before it has a message. */
  create(settings) {
    const bytes = crypto.getRandomValues(new Uint8Array(8));
    const id = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return { id, title: "", named: false, changed: Date.now(), settings: { ...settings }, turns: [] };
  }

  save(conversation) {
    this.#kept.set(conversation.id, conversation);
    this.#bound(conversation);
    const text = JSON.stringify(conversation);
    // Full: the oldest makes room.
    for (;;) {
      try {
        localStorage.setItem(PREFIX + conversation.id, text);
        localStorage.setItem(LAST, JSON.stringify(conversation.settings));
        this.lasting = true;
        return;
      } catch {
        const oldest = this.list().findLast((other) => other !== conversation);
        if (!oldest || !this.#stored(oldest.id)) break;
        this.remove(oldest.id);
      }
    }
    this.lasting = false;
  }

  remove(id) {
    this.#kept.delete(id);
    try { localStorage.removeItem(PREFIX + id); } catch { /* it was never there */ }
  }

  /** The settings of the conversation that was changed last, for the next one. */
  lastSettings() {
    try { return JSON.parse(localStorage.getItem(LAST)) ?? {}; } catch { return {}; }
  }

  /** What another tab has written; true when it was about conversations. */
  follow(event) {
    if (event.key === null) { this.#kept.clear(); return true; }
    if (!event.key.startsWith(PREFIX)) return false;
    const id = event.key.slice(PREFIX.length);
    const conversation = parse(event.newValue);
    if (conversation?.id === id) this.#kept.set(id, conversation);
    else this.#kept.delete(id);
    return true;
  }

  #stored(id) {
    try { return localStorage.getItem(PREFIX + id) !== null; } catch { return false; }
  }

  #bound(keep) {
    let characters = 0;
    let count = 0;
    for (const conversation of this.list()) {
      count += 1;
      characters += conversation.turns.reduce((sum, turn) => sum + turn.text.length + 100, 200);
      if ((count > MOST || characters > MOST_CHARACTERS) && conversation !== keep) this.remove(conversation.id);
    }
  }
}

// What is kept can be of another version of this page, or of somebody's hand.
function parse(text) {
  let found;
  try { found = JSON.parse(text); } catch { return null; }
  if (!found || typeof found.id !== "string" || !Array.isArray(found.turns)) return null;
  const turn = (one) => (one?.role === "user" || one?.role === "assistant") && typeof one.text === "string";
  return {
    id: found.id,
    title: String(found.title ?? ""),
    named: found.named === true,
    changed: Number(found.changed) || 0,
    settings: found.settings && typeof found.settings === "object" ? found.settings : {},
    turns: found.turns.filter(turn),
  };
}
