// Drives the chat page in a real Chromium, as a person would, before a model that does what the last message says:
//   hold        "First half" at once, " second half." when another chat says `release`
//   break       "Only this", then the server is lost
//   history     the messages that arrived
//   empty       nothing
//   show TEXT   TEXT, a word at a time
//   the name of a fault's kind: that fault
//
// chat.mjs BASE_URL SCREENSHOT_FOLDER
// Prints one JSON object of what was seen; any surprise is an exception and a non-zero exit status.
import { launch } from "./browser.mjs";

const [base, folder] = process.argv.slice(2);
const { seen, page, shot, end } = await launch(base, folder);
const said = (p) => p.locator("[data-said]").allTextContents();
const shown = (p, text) => p.locator("[data-said]").getByText(text).last().waitFor();
const last = (p) => p.locator(".turn").last();
const idle = (p) => p.locator("[data-stop]").waitFor({ state: "hidden" });
async function send(p, text) {
  await p.locator("#message").fill(text);
  await p.locator("#message").press("Enter");
}
// Until the answer is there as a whole.
async function ask(p, text) {
  await send(p, text);
  await last(p).locator("[data-action=copy]").waitFor();
  await idle(p);
}
const release = () => fetch(`${base}/v1/chat/completions`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ model: "talker", messages: [{ role: "user", content: "release" }] }),
});
// Every answer that waits, however the two requests came.
async function releaseUntil(p, done) {
  for (let round = 0; round < 500; round += 1) {
    await release();
    if (await done()) return;
    await p.waitForTimeout(40);
  }
  throw new Error(`nothing came of a release: ${await said(p)}`);
}
const wide = (p) => p.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
const focused = (p) => p.evaluate(() => document.activeElement.id || document.activeElement.dataset.action || document.activeElement.tagName);

// Text before the end, stop, retry, edit, a reload.
{
  const p = await page();
  await p.goto(`${base}/chat`);
  seen.models = await p.locator("#model option").evaluateAll((all) => all.map((one) => one.value));
  seen.focusAtStart = await focused(p);
  await shot(p, "chat-empty");

  await send(p, "hold");
  await shown(p, "First half");
  seen.early = (await said(p)).at(-1);
  seen.stopShown = await p.locator("[data-stop]").isVisible();
  seen.liveWhileAnswering = await p.locator("[data-status]").textContent();
  seen.focusWhileAnswering = await focused(p);
  // The button under the focus goes when the answer ends; the focus stays.
  await p.locator("[data-stop]").focus();
  await releaseUntil(p, async () => !(await p.locator("[data-stop]").isVisible()));
  seen.focusAtEnd = await focused(p);
  seen.whole = (await said(p)).at(-1);
  seen.liveAtEnd = await p.locator("[data-status]").textContent();
  seen.facts = await last(p).locator(".turn-facts").textContent();

  await send(p, "hold");
  await p.locator(".turn.assistant").nth(1).getByText("First half").waitFor();
  await p.locator("[data-stop]").click();
  await last(p).locator("[data-action=retry]").waitFor();
  seen.stopped = (await said(p)).at(-1);
  seen.stoppedFacts = await last(p).locator(".turn-facts").textContent();
  seen.focusAfterStop = await focused(p);

  // Retry: the same question, a new answer in the place of the old one.
  await last(p).locator("[data-action=retry]").click();
  await releaseUntil(p, async () => (await said(p)).at(-1) === "First half second half.");
  await idle(p);
  seen.retried = await said(p);

  // Edit the first message: what came after is gone, and the model is asked anew.
  await p.locator(".turn").first().locator("[data-action=edit]").click();
  await p.locator("[data-edit]").fill("history");
  await p.locator("[data-edit]").press("Enter");
  await shown(p, "user: history");
  await idle(p);
  await ask(p, "history");
  seen.edited = await said(p);
  await p.locator(".turn").first().locator("[data-action=edit]").click();
  await p.keyboard.press("Escape");
  seen.editCancelled = (await said(p)).length;
  seen.focusAfterCancel = await focused(p);

  // Another question while the first one is being edited: what was edited takes the place of both, and its answer is the only one.
  await p.locator(".turn").first().locator("[data-action=edit]").click();
  await p.locator("[data-edit]").fill("history");
  const left = p.waitForEvent("requestfailed");
  await send(p, "hold");
  await last(p).locator("[data-said]").getByText("First half").waitFor();
  await p.locator("[data-edit]").press("Enter");
  seen.editedBeside = (await left).url().endsWith("/v1/chat/completions");
  await shown(p, "user: history");
  await idle(p);
  seen.afterEditBeside = await said(p);
  await ask(p, "history");

  await p.reload();
  seen.reloaded = await said(p);
  seen.reloadedTitle = await p.locator("[data-title]").textContent();

  // A question that was on its way when the page was closed can be asked again.
  await send(p, "hold");
  await last(p).locator("[data-said]").getByText("First half").waitFor();
  await p.reload();
  seen.cutByReload = (await said(p)).at(-1);
  await p.context().close();
}

// Several conversations: new, open, rename, delete; settings go along.
{
  const p = await page();
  await p.goto(`${base}/chat`);
  await p.locator("summary").click();
  await p.locator("[name=system]").fill("Be brief.");
  await p.locator("[name=temperature]").fill("0.5");
  await p.locator("[name=max_tokens]").fill("40");
  await p.locator("[name=seed]").fill("7");
  const asking = p.waitForRequest((request) => request.url().endsWith("/v1/chat/completions"));
  await ask(p, "history");
  const { model, temperature, top_p, max_tokens, seed } = (await asking).postDataJSON();
  seen.asked = { model, temperature, top_p, max_tokens, seed };
  seen.settings = (await said(p)).at(-1);
  await p.locator("[data-new]").click();
  await ask(p, "show The second conversation");
  seen.talks = await p.locator("[data-list] [data-action=open]").allTextContents();
  await p.locator("[data-list] li").last().locator("[data-action=open]").click();
  seen.opened = (await said(p)).at(0);
  await p.locator("[data-list] li").last().locator("[data-action=rename]").click();
  await p.keyboard.type("A better name");
  await p.keyboard.press("Enter");
  seen.renamed = await p.locator("[data-title]").textContent();
  p.once("dialog", (dialog) => dialog.accept());
  await p.locator("[data-list] li").last().locator("[data-action=delete]").click();
  await p.reload();
  seen.afterDelete = await p.locator("[data-list] [data-action=open]").allTextContents();
  // Another tab has its own, and both see them all.
  const other = await p.context().newPage();
  await other.goto(`${base}/chat`);
  await ask(other, "show From the other tab");
  await p.locator("[data-list] li").nth(1).waitFor();
  seen.bothTabs = await p.locator("[data-list] [data-action=open]").allTextContents();
  await p.context().close();
}

// Markdown, and what must not become markup.
{
  const p = await page();
  await p.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await p.goto(`${base}/chat`);
  const text = [
    "# Pasta for two", "", "Take **one** pan, *some* `salt` and [a recipe](https://example.com/a_b?c=d).", "",
    "1. Boil water", "2. Add", "   - pasta", "   - salt", "3. Wait", "", "> Taste it\n> first.", "",
    "```python", "def cook(minutes):", "    return '<b>done</b>' if minutes > 9 else None  # and a line that is much too long for a phone", "```", "",
    "| what | grams |", "|---|--:|", "| pasta<br>or rice | 200 |", "| `salt|sea` | 5 |", "", "~~Burn it.~~ See https://example.com/more.",
  ].join("\n");
  await ask(p, `show ${text}`);
  const answer = last(p).locator("[data-said]");
  seen.tags = await answer.evaluate((node) => [...new Set([...node.querySelectorAll("*")].map((one) => one.tagName.toLowerCase()))].sort());
  seen.nested = await answer.locator("ol > li > ul > li").allTextContents();
  seen.code = await answer.locator("pre code").textContent();
  seen.cells = await answer.locator("td").allTextContents();
  seen.links = await answer.locator("a").evaluateAll((all) => all.map((a) => [a.getAttribute("href"), a.rel, a.target]));
  await answer.locator("[data-copy-code]").click();
  await answer.getByText("Copied").waitFor();
  seen.copiedCode = await p.evaluate(() => navigator.clipboard.readText());
  await last(p).locator("[data-action=copy]").click();
  await last(p).locator("[data-action=copy]").getByText("Copied").waitFor();
  seen.copied = (await p.evaluate(() => navigator.clipboard.readText())) === text;
  await p.evaluate(() => scrollTo(0, 0));
  await shot(p, "chat-markdown");

  await p.locator("[data-new]").click();
  const attacks = [
    "<script>window.hit = 1</script>", "<img src=x onerror=window.hit=2>", "[a](javascript:window.hit=3)", "[b](JaVaScRiPt:window.hit=4)",
    "[c](data:text/html,<script>window.hit=5</script>)", "![d](https://tracker.invalid/x.png)", "<https://ok.invalid/\" onmouseover=\"window.hit=6>",
    "[e](https://ok.invalid/\"onmouseover=\"window.hit=7)", "[f]( java\tscript:window.hit=8)", "[g](//tracker.invalid/x)", "[h](vbscript:window.hit=9)",
    "`<svg onload=window.hit=10>`", "```<style>*{display:none}</style>\n</code></pre><script>window.hit=11</script>\n```",
    "| <iframe src=javascript:window.hit=12> |\n|---|\n| <math><mi xlink:href=\"javascript:window.hit=13\"> |",
    "[i](https://user:pass@ok.invalid)", "<a href=\"javascript:window.hit=14\">click</a>", "&lt;script&gt;", "[j][k]\n\n[k]: javascript:window.hit=15",
  ];
  // As the model's answer, and as what a person writes.
  await ask(p, `show ${attacks.join("\n\n")}`);
  for (const link of await last(p).locator("[data-said] *").all()) await link.dispatchEvent("mouseover");
  seen.attack = await p.evaluate(() => ({
    hit: window.hit ?? null,
    tags: [...new Set([...document.querySelectorAll("[data-said] *")].map((one) => one.tagName.toLowerCase()))].sort(),
    handlers: [...document.querySelectorAll("[data-said] *")].flatMap((one) => one.getAttributeNames()).filter((name) => name.startsWith("on")),
    schemes: [...new Set([...document.querySelectorAll("[data-said] a")].map((a) => a.protocol))],
    shown: document.querySelector(".turn.assistant [data-said]").textContent.includes("<img src=x onerror=window.hit=2>"),
  }));
  // Nothing that a model writes takes long to show.
  for (const hard of ["*a ".repeat(300), "*a".repeat(8_000), "[".repeat(15_000), ">".repeat(15_000), "`a``".repeat(4_000), "**_~~".repeat(3_000), "- ".repeat(300), "|".repeat(8_000) + "\n|-|",
    `# a${" ".repeat(30_000)}b`, `a|b\n-${" ".repeat(30_000)}x|`, `\`\`\`${" ".repeat(30_000)}\``, `${"~".repeat(30_000)}\``, `\` ${"a".repeat(30_000)}\``,
    `${"a|".repeat(4_000)}\n${"-|".repeat(4_000)}${"\n|".repeat(600)}`]) {
    await p.locator("[data-new]").click();
    await ask(p, `show ${hard}`);
  }
  seen.hard = (await said(p)).length;
  await p.context().close();
}

// What went wrong is told, with what to do.
{
  const p = await page();
  await p.goto(`${base}/chat`);
  seen.errors = {};
  for (const kind of ["Overloaded", "Unavailable", "TooLarge", "DeadlineExceeded", "Internal", "NotFound", "empty", "break"]) {
    await send(p, kind);
    await p.locator("[data-problem] [role=alert]").waitFor();
    await idle(p);
    seen.errors[kind] = await p.locator("[data-problem]").textContent();
    await p.locator("[data-new]").click();
  }
  await send(p, "Overloaded");
  await p.locator("[data-problem] [role=alert]").waitFor();
  await shot(p, "chat-error");
  seen.askAgain = await last(p).locator("[data-action=retry]").textContent();
  // The connection itself.
  await p.locator("[data-new]").click();
  await p.context().setOffline(true);
  await send(p, "history");
  await p.locator("[data-problem] [role=alert]").waitFor();
  seen.offline = await p.locator("[data-problem]").textContent();
  await p.context().setOffline(false);
  await last(p).locator("[data-action=retry]").click();
  await shown(p, "user: history");
  await idle(p);
  seen.afterOffline = await p.locator("[data-problem] [role=alert]").count();
  // A new answer that does not come leaves the old one.
  await p.context().setOffline(true);
  await last(p).locator("[data-action=retry]").click();
  await p.locator("[data-problem] [role=alert]").waitFor();
  seen.failedRetry = await said(p);
  await p.context().setOffline(false);
  await p.context().close();
}

// Keyboard only.
{
  const p = await page();
  await p.goto(`${base}/chat`);
  await p.keyboard.type("show one");
  await p.keyboard.press("Shift+Enter");
  await p.keyboard.type("two");
  seen.twoLines = await p.locator("#message").inputValue();
  await p.keyboard.press("Enter");
  await last(p).locator("[data-action=copy]").waitFor();
  await p.keyboard.type("hold");
  await p.keyboard.press("Enter");
  await shown(p, "First half");
  await p.keyboard.press("Escape");
  await last(p).locator("[data-action=retry]").waitFor();
  seen.escaped = (await said(p)).at(-1);
  seen.focusAfterEscape = await focused(p);
  const stops = new Set();
  await p.locator(".brand").focus();
  for (let i = 0; i < 40; i += 1) {
    await p.keyboard.press("Tab");
    const stop = await p.evaluate(() => {
      const e = document.activeElement;
      return e === document.body ? null : e.dataset.action ?? (e.matches("[data-new]") ? "new" : e.id || e.name || e.type || e.tagName.toLowerCase());
    });
    if (stop === null) break;
    stops.add(stop);
  }
  seen.stops = [...stops];
  await p.context().close();
}

// Where nothing may be kept: it works until the page is closed, and says so.
{
  const p = await page();
  await p.addInitScript(() => {
    const refuse = () => { throw new DOMException("no", "SecurityError"); };
    Object.defineProperty(window, "localStorage", { get: refuse });
  });
  await p.goto(`${base}/chat`);
  await ask(p, "history");
  seen.private = { said: await said(p), kept: await p.locator("[data-kept]").textContent() };
  await p.context().close();
}

// A browser that is full: the oldest conversations make room.
{
  const p = await page();
  await p.goto(`${base}/chat`);
  await p.evaluate(() => {
    const fill = "x".repeat(400_000);
    for (let i = 0; i < 20; i += 1) {
      const id = `old${i}`;
      const turns = [{ role: "user", text: fill }];
      try { localStorage.setItem(`outboard.chat.${id}`, JSON.stringify({ id, title: id, changed: i, settings: {}, turns })); } catch { break; }
    }
  });
  await p.reload();
  await ask(p, `show ${"word".repeat(6_000)}`);
  await p.reload();
  seen.full = {
    kept: await p.locator("[data-list] li").count(),
    first: (await p.locator("[data-list] [data-action=open]").first().textContent()).slice(0, 9),
    oldest: await p.evaluate(() => localStorage.getItem("outboard.chat.old0") === null),
  };
  await p.context().close();
}

// Without JavaScript: the answer comes whole, the form carries the conversation.
{
  const p = await page({ javaScriptEnabled: false });
  await p.goto(`${base}/chat`);
  seen.plainHidden = await p.locator("[data-new]").isVisible();
  await p.locator("#message").fill("history");
  await p.locator("[data-send]").click();
  await p.locator(".turn.assistant").waitFor();
  await p.locator("#message").fill("show <b>bold</b>\nand \"more\"");
  await p.locator("[data-send]").click();
  await p.locator(".turn.assistant").nth(1).waitFor();
  await p.locator("#message").fill("history");
  await p.locator("[data-send]").click();
  await p.locator(".turn.assistant").nth(2).waitFor();
  seen.plain = await said(p);
  seen.plainWidth = (await p.locator("[data-form]").boundingBox()).width;
  await shot(p, "chat-plain");
  await p.locator("#message").fill("Overloaded");
  await p.locator("[data-send]").click();
  await p.locator("[role=alert]").waitFor();
  seen.plainError = {
    alert: await p.locator("[role=alert]").textContent(),
    draft: await p.locator("#message").inputValue(),
    turns: await p.locator(".turn").count(),
  };
  await p.context().close();
}

// A form that is sent before its script has come is answered in the page; the script takes the conversation over.
{
  const p = await page();
  await p.goto(`${base}/chat`);
  await p.locator("#message").fill("history");
  // Not `requestSubmit`: no script hears of it.
  await Promise.all([p.waitForNavigation(), p.locator("[data-form]").evaluate((form) => form.submit())]);
  await last(p).locator("[data-action=copy]").waitFor();
  seen.sentEarly = {
    said: await said(p),
    kept: await p.locator("[data-list] li").count(),
    hash: new URL(p.url()).hash.length > 1,
    title: await p.locator("[data-title]").textContent(),
  };
  await p.reload();
  seen.sentEarly.reloaded = await said(p);
  // What went wrong stays in sight.
  await p.goto(`${base}/chat`);
  await p.locator("#message").fill("Overloaded");
  await Promise.all([p.waitForNavigation(), p.locator("[data-form]").evaluate((form) => form.submit())]);
  await p.locator("[data-list] li").first().waitFor();
  seen.sentEarlyProblem = await p.locator("[data-problem] [role=alert]").textContent();
  await p.context().close();
}

// A phone, dark and light.
for (const [width, colorScheme] of [[360, "dark"], [390, "light"]]) {
  const p = await page({ viewport: { width, height: 740 }, colorScheme, hasTouch: true, isMobile: true });
  await p.goto(`${base}/chat`);
  const begin = await wide(p);
  await ask(p, "show What can I cook tonight?");
  await ask(p, "show ## Try this\n\n| what | how much | and why it is there | more |\n|---|---|---|---|\n| pasta | 200 grams | fills | x |\n\n```sh\ncurl -fsSL https://example.com/a-very-long-address/that-does-not-end/anywhere-soon | sh\n```\n\nA_very_long_word_" + "without_an_end_".repeat(20));
  await shot(p, `chat-phone-${colorScheme}`);
  await p.locator("summary").tap();
  const open = await wide(p);
  await shot(p, `chat-phone-${colorScheme}-settings`);
  await p.locator("summary").tap();
  await p.locator("[data-open-list]").tap();
  await p.locator("[data-new]").waitFor();
  await shot(p, `chat-phone-${colorScheme}-list`);
  seen[`overflow${width}`] = [begin, await wide(p), open];
  await p.context().close();
}

// The way between the pages.
{
  const p = await page({ colorScheme: "dark" });
  await p.goto(`${base}/upload`);
  await p.getByRole("link", { name: "Chat" }).click();
  // With its script: before that, Enter makes a line.
  await p.waitForURL("**/chat", { waitUntil: "load" });
  await ask(p, "show Some **bold** text and `code`.\n\n```rust\nfn main() {}\n```");
  await shot(p, "chat-dark");
  await p.getByRole("link", { name: "API" }).click();
  await p.getByRole("link", { name: "Upload" }).click();
  seen.way = new URL(p.url()).pathname;
  await p.context().close();
}

// Chromium itself writes a line for each answer with an error status, and for a connection that is cut.
await end(/status of [45]\d\d|ERR_INTERNET_DISCONNECTED/);
