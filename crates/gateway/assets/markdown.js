// Markdown to DOM nodes: the part of it that language models write. Text only ever becomes text nodes, elements and
// attributes come from the fixed set below, so whatever a model writes is shown and never run.

// Deeper nesting is shown as it is written: no answer is that deep on purpose.
const DEEPEST = 8;
// Of these none has two neighbours that match the same: they would be tried with every split of a long run between them.
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const FENCE = /^ {0,3}(`{3,}(?!`)|~{3,}(?!~))([^`]*)$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])([ \t]+|$)(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*(?:\|[ \t]*)?$/;
const BLANK = /^[ \t]*$/;

/** The blocks of a text, each with its source, so that a caller can tell which of them have changed. */
export function blocks(text) {
  return split(text.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n"));
}

/** The element that shows a block. */
export function element(block, depth = 0) {
  switch (block.kind) {
    case "heading": return make(`h${Math.min(6, block.level + 2)}`, inline(block.text));
    case "code": return code(block);
    case "rule": return make("hr");
    case "quote": return make("blockquote", nested(block.lines, depth));
    case "list": return list(block, depth);
    case "table": return table(block);
    default: return make("p", inline(block.text));
  }
}

function split(lines) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (BLANK.test(lines[at])) { at += 1; continue; }
    const begin = at;
    const [block, next] = one(lines, at);
    at = next;
    block.source = lines.slice(begin, at).join("\n");
    found.push(block);
  }
  return found;
}

// The block that begins at a line that is not blank, and the line after it.
function one(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return fenced(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ kind: "heading", level: heading[1].length, text: headed(heading[2]) }, at + 1];
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (QUOTE.test(line)) {
    const inside = [];
    while (at < lines.length && !BLANK.test(lines[at])) {
      const quote = QUOTE.exec(lines[at]);
      if (!quote && begins(lines, at)) break;
      inside.push(quote ? quote[1] : lines[at]);
      at += 1;
    }
    return [{ kind: "quote", lines: inside }, at];
  }
  if (ITEM.test(line)) return items(lines, at);
  if (isTable(lines, at)) {
    const rows = [];
    const align = cells(lines[at + 1]).map((cell) => `${cell.startsWith(":") ? "l" : ""}${cell.endsWith(":") ? "r" : ""}`);
    const head = cells(line);
    at += 2;
    while (at < lines.length && !BLANK.test(lines[at]) && lines[at].includes("|")) { rows.push(cells(lines[at])); at += 1; }
    return [{ kind: "table", head, align, rows }, at];
  }
  const text = [line];
  at += 1;
  while (at < lines.length && !BLANK.test(lines[at]) && !begins(lines, at)) { text.push(lines[at]); at += 1; }
  return [{ kind: "paragraph", text: text.join("\n") }, at];
}

// The text of a heading, without the marks that may close it.
function headed(text) {
  const whole = text.trimEnd();
  let end = whole.length;
  while (whole[end - 1] === "#") end -= 1;
  const closed = end === 0 || whole[end - 1] === " ";
  return closed ? whole.slice(0, end).trimEnd() : whole;
}

// Whether a line ends the paragraph before it.
function begins(lines, at) {
  const line = lines[at];
  const item = ITEM.exec(line);
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || (item !== null && item[4] !== "")
    || isTable(lines, at);
}

function isTable(lines, at) {
  return lines[at].includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && lines[at + 1].includes("|")
    && TABLE_RULE.test(lines[at + 1]) && cells(lines[at]).length === cells(lines[at + 1]).length;
}

// Until its end, or until the end of the text: while an answer is coming, the closing line is not there yet.
function fenced(lines, at, [opening, fence, info]) {
  const indent = opening.length - opening.trimStart().length;
  const inside = [];
  at += 1;
  while (at < lines.length) {
    const text = lines[at].trim();
    if (text.length >= fence.length && [...text].every((c) => c === fence[0]) && lines[at].search(/\S/) < 4) {
      at += 1;
      break;
    }
    let cut = 0;
    while (cut < indent && lines[at][cut] === " ") cut += 1;
    inside.push(lines[at].slice(cut));
    at += 1;
  }
  return [{ kind: "code", language: info.trim().split(/\s+/)[0].slice(0, 32), text: inside.join("\n") }, at];
}

function items(lines, at) {
  const first = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first[2]);
  const mark = first[2].at(-1);
  const all = [];
  let loose = false;
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item || item[2].at(-1) !== mark || RULE.test(lines[at])) break;
    const width = item[1].length + item[2].length + (item[3].length > 4 || item[4] === "" ? 1 : item[3].length);
    const inside = [item[4]];
    at += 1;
    let blank = false;
    while (at < lines.length) {
      if (BLANK.test(lines[at])) { blank = true; inside.push(""); at += 1; continue; }
      const indent = lines[at].search(/\S/);
      // Models indent by two, whatever the width of the mark.
      const deeper = indent >= Math.min(width, 2) && indent > item[1].length;
      if (!deeper && (blank || begins(lines, at))) break;
      if (blank) loose = true;
      inside.push(lines[at].slice(Math.min(indent, width)));
      blank = false;
      at += 1;
    }
    if (blank && at < lines.length && ITEM.exec(lines[at])?.[2].at(-1) === mark) loose = true;
    all.push(inside);
  }
  return [{ kind: "list", ordered, start: ordered ? Number.parseInt(first[2], 10) : 1, loose, items: all }, at];
}

function cells(line) {
  // A pipe inside of code, or after a backslash, parts nothing.
  const found = [""];
  let open = false;
  const text = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === "\\" && text[at + 1] === "|") { found[found.length - 1] += "|"; at += 1; continue; }
    if (text[at] === "`") open = !open;
    if (text[at] === "|" && !open) found.push("");
    else found[found.length - 1] += text[at];
  }
  return found.map((cell) => cell.trim());
}

function nested(lines, depth) {
  if (depth >= DEEPEST) return [make("p", [document.createTextNode(lines.join("\n"))])];
  return split(lines).map((block) => element(block, depth + 1));
}

function list({ ordered, start, loose, items: all }, depth) {
  const node = make(ordered ? "ol" : "ul");
  if (ordered && start !== 1) node.start = start;
  for (const lines of all) {
    const item = make("li");
    const task = /^\[([ xX])\][ \t]+/.exec(lines[0]);
    if (task) item.append(task[1] === " " ? "\u2610 " : "\u2611 ");
    for (const child of nested(task ? [lines[0].slice(task[0].length), ...lines.slice(1)] : lines, depth)) {
      // A tight list has no paragraphs.
      if (!loose && child.tagName === "P") item.append(...child.childNodes);
      else item.append(child);
    }
    node.append(item);
  }
  return node;
}

function table({ head, align, rows }) {
  const cell = (name, text, column) => {
    const node = make(name, inline(text));
    if (align[column] === "r") node.className = "right";
    if (align[column] === "lr") node.className = "middle";
    return node;
  };
  // No more cells than were written: a wide head above many short rows would be their product.
  const row = (name, texts) => make("tr", texts.slice(0, head.length).map((text, column) => cell(name, text, column)));
  const node = make("table", [make("thead", [row("th", head)]), make("tbody", rows.map((texts) => row("td", texts)))]);
  return scrolled("wide", "Table", [node]);
}

function code({ language, text }) {
  const copy = make("button", [document.createTextNode("Copy")]);
  copy.type = "button";
  copy.className = "quiet";
  copy.dataset.copyCode = "";
  const head = make("div", [make("span", [document.createTextNode(language || "text")]), copy]);
  head.className = "code-head";
  const name = language ? `Code, ${language}` : "Code";
  const pre = make("pre", [make("code", [document.createTextNode(text)])]);
  reachable(pre, name);
  const whole = make("div", [head, pre]);
  whole.className = "code";
  return whole;
}

function scrolled(name, label, children) {
  const node = make("div", children);
  node.className = name;
  reachable(node, label);
  return node;
}

// What can be scrolled sideways must be reached by the keyboard.
function reachable(node, label) {
  node.tabIndex = 0;
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", label);
}

function make(name, children = []) {
  const node = document.createElement(name);
  node.append(...children);
  return node;
}

// --- inside a line ---

const MARKS = { "**": "strong", __: "strong", "*": "em", _: "em", "~~": "del" };
const WORD = /[\p{L}\p{N}_]/u;
const SPACE = /\s/;

/** The nodes of a line of text. */
function inline(text, depth = 0) {
  const nodes = [];
  let plain = "";
  // A mark without its end is looked for once, not again at each of a thousand stars.
  const without = new Set();
  const flush = () => { if (plain) { nodes.push(document.createTextNode(plain)); plain = ""; } };
  const put = (node) => { flush(); nodes.push(node); };
  for (let at = 0; at < text.length;) {
    const c = text[at];
    if (c === "\\" && at + 1 < text.length) {
      if (text[at + 1] === "\n") put(make("br"));
      else plain += /[!-/:-@[-`{-~]/.test(text[at + 1]) ? text[at + 1] : `\\${text[at + 1]}`;
      at += 2;
      continue;
    }
    if (c === "\n") {
      plain = plain.trimEnd();
      put(make("br"));
      at += 1;
      while (text[at] === " ") at += 1;
      continue;
    }
    const found = depth < DEEPEST ? special(text, at, depth, without) : null;
    if (found) {
      put(found.node);
      at = found.next;
      continue;
    }
    // A run of marks that opens nothing is text as a whole.
    let next = at + 1;
    if ("*_~`".includes(c)) while (text[next] === c) next += 1;
    plain += text.slice(at, next);
    at = next;
  }
  flush();
  return nodes;
}

function special(text, at, depth, without) {
  switch (text[at]) {
    case "`": return codeSpan(text, at, without);
    case "*": case "_": case "~": return emphasis(text, at, depth, without);
    case "!": return text[at + 1] === "[" ? link(text, at + 1, depth) : null;
    case "[": return link(text, at, depth);
    case "<": return angled(text, at);
    case "h": return bare(text, at);
    default: return null;
  }
}

function codeSpan(text, at, without) {
  const mark = /^`+/.exec(text.slice(at, at + 64))[0];
  if (without.has(mark)) return null;
  for (let end = text.indexOf(mark, at + mark.length); end >= 0; end = text.indexOf(mark, end)) {
    let after = end + mark.length;
    if (text[after] !== "`" && text[end - 1] !== "`") {
      const inside = text.slice(at + mark.length, end).replaceAll("\n", " ");
      const padded = inside.startsWith(" ") && inside.endsWith(" ") && inside.trim() !== "";
      return { node: make("code", [document.createTextNode(padded ? inside.slice(1, -1) : inside)]), next: after };
    }
    while (text[after] === "`") after += 1;
    end = after;
  }
  without.add(mark);
  return null;
}

function emphasis(text, at, depth, without) {
  const c = text[at];
  for (const mark of [c + c, c]) {
    const tag = MARKS[mark];
    if (!tag || !text.startsWith(mark, at) || without.has(mark)) continue;
    const inside = at + mark.length;
    if (inside >= text.length || SPACE.test(text[inside])) continue;
    // In the middle of a word_with_lines nothing begins.
    if (c === "_" && at > 0 && WORD.test(text[at - 1])) continue;
    const end = closing(text, inside, mark);
    if (end < 0) { without.add(mark); continue; }
    return { node: make(tag, inline(text.slice(inside, end), depth + 1)), next: end + mark.length };
  }
  return null;
}

function closing(text, from, mark) {
  const c = mark[0];
  for (let at = from; at < text.length; at += 1) {
    if (text[at] === "\\") { at += 1; continue; }
    if (text[at] === "`") {
      const run = /^`+/.exec(text.slice(at, at + 64))[0];
      const end = text.indexOf(run, at + run.length);
      at = end < 0 ? at + run.length - 1 : end + run.length - 1;
      continue;
    }
    if (text[at] !== c) continue;
    let run = 1;
    while (text[at + run] === c) run += 1;
    const closes = at > from && !SPACE.test(text[at - 1]) && !(c === "_" && WORD.test(text[at + run] ?? ""));
    // One star closes with one or three of them, two close with two or more: the outer ones are left for what is around.
    const fits = mark.length === 1 ? run !== 2 : run >= 2;
    if (closes && fits) return mark.length === 1 && run >= 3 ? at : at + Math.max(0, run - mark.length);
    at += run - 1;
  }
  return -1;
}

function link(text, at, depth) {
  let open = 0;
  let end = at;
  // No further: a thousand brackets without an end are not each looked for to the end of the text.
  const most = Math.min(text.length, at + 500);
  for (; end < most; end += 1) {
    if (text[end] === "\\") { end += 1; continue; }
    if (text[end] === "[") open += 1;
    if (text[end] === "]" && (open -= 1) === 0) break;
  }
  if (end >= most) return null;
  const target = /^\(\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(text.slice(end + 1, end + 2_100));
  if (!target) return null;
  const next = end + 1 + target[0].length;
  const label = text.slice(at + 1, end);
  const address = safe(target[1]);
  const children = inline(label, depth + 1);
  if (!address) {
    // Shown as it was written: what it would have led to is then in sight.
    return { node: make("span", [document.createTextNode(text.slice(at, next))]), next };
  }
  // No link inside of a link.
  const flat = children.map((child) => (child.tagName === "A" ? document.createTextNode(child.textContent) : child));
  return { node: anchor(address, label ? flat : [document.createTextNode(address)]), next };
}

function angled(text, at) {
  // The one tag that models cannot do without, inside of tables.
  const line = /^<br ?\/?>/i.exec(text.slice(at, at + 6));
  if (line) return { node: make("br"), next: at + line[0].length };
  const found = /^<(https?:\/\/[^\s<>]{1,2000})>/.exec(text.slice(at, at + 2_010));
  const address = found && safe(found[1]);
  return address ? { node: anchor(address, [document.createTextNode(found[1])]), next: at + found[0].length } : null;
}

function bare(text, at) {
  if (!text.startsWith("http", at) || (at > 0 && WORD.test(text[at - 1]))) return null;
  const found = /^https?:\/\/[^\s<>"'`*\\]{1,2000}/.exec(text.slice(at, at + 2_010));
  if (!found) return null;
  let written = found[0];
  // What ends a sentence belongs to the sentence, and a bracket to the one that opened it.
  for (;;) {
    const last = written.at(-1);
    const unmatched = last === ")" && written.split("(").length < written.split(")").length;
    if (!".,;:!?]".includes(last) && !unmatched) break;
    written = written.slice(0, -1);
  }
  const address = safe(written);
  return address ? { node: anchor(address, [document.createTextNode(written)]), next: at + written.length } : null;
}

// Only addresses of the web, and only whole ones.
function safe(written) {
  if (!/^https?:\/\//i.test(written)) return null;
  try {
    const address = new URL(written);
    return address.protocol === "http:" || address.protocol === "https:" ? address.href : null;
  } catch {
    return null;
  }
}

function anchor(address, children) {
  const node = make("a", children);
  node.href = address;
  node.rel = "noopener noreferrer nofollow";
  node.target = "_blank";
  // The text can say anything: this says where it leads.
  node.title = address;
  return node;
}
