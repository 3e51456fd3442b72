// The list of conversations: open, rename, delete.
import { button } from "./turns.js";

export class Talks {
  #list;
  #store;
  #act;

  /** `act` has `open(id)` and `removed(id)`. */
  constructor(list, store, act) {
    this.#list = list;
    this.#store = store;
    this.#act = act;
  }

  show(currentId) {
    // A list that is made anew while a name is written would take the name away.
    if (this.#list.querySelector("input")) return;
    const held = this.#list.contains(document.activeElement) ? document.activeElement : null;
    const focus = held && [held.closest("li")?.dataset.id, held.dataset.action];
    this.#list.replaceChildren(...this.#store.list().map((one) => this.#item(one, one.id === currentId)));
    if (focus) this.#list.querySelector(`li[data-id="${CSS.escape(focus[0])}"] [data-action="${focus[1]}"]`)?.focus();
  }

  #item(conversation, current) {
    const item = document.createElement("li");
    item.dataset.id = conversation.id;
    const title = conversation.title || "New chat";
    const open = button("open", title, () => this.#act.open(conversation.id));
    open.dir = "auto";
    if (current) open.setAttribute("aria-current", "true");
    const rename = button("rename", "\u270e", () => this.#rename(item, conversation));
    rename.setAttribute("aria-label", `Rename ${title}`);
    rename.title = "Rename";
    const remove = button("delete", "\u00d7", () => this.#remove(item, conversation, title));
    remove.setAttribute("aria-label", `Delete ${title}`);
    remove.title = "Delete";
    item.append(open, rename, remove);
    return item;
  }

  #rename(item, conversation) {
    const input = document.createElement("input");
    input.value = conversation.title;
    input.maxLength = 80;
    input.setAttribute("aria-label", "Name of the conversation");
    let ended = false;
    const end = (keep) => {
      if (ended) return;
      ended = true;
      const title = input.value.trim();
      if (keep && title) {
        conversation.title = title;
        conversation.named = true;
        this.#store.save(conversation);
      }
      const current = item.querySelector("[aria-current]") !== null;
      const next = this.#item(conversation, current);
      item.replaceWith(next);
      if (document.activeElement === document.body) next.querySelector("[data-action=rename]").focus();
      this.#act.renamed(conversation);
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { event.preventDefault(); end(true); }
      if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); end(false); }
    });
    input.addEventListener("blur", () => end(true));
    item.querySelector("[data-action=open]").hidden = true;
    item.prepend(input);
    input.focus();
    input.select();
  }

  #remove(item, conversation, title) {
    if (!confirm(`Delete “${title}”? It cannot be brought back.`)) return;
    const near = item.nextElementSibling ?? item.previousElementSibling;
    this.#store.remove(conversation.id);
    item.remove();
    near?.querySelector("[data-action=delete]").focus();
    this.#act.removed(conversation.id);
  }
}
