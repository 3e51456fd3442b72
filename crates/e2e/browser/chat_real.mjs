// The chat page in a real Chromium before the real server with a tiny model.
//
// chat_real.mjs BASE_URL
// Prints one JSON object of what was seen; any surprise is an exception and a non-zero exit status.
import { chromium } from "playwright-core";

const [base] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run"],
});
const seen = { problems: [] };

async function page(options) {
  const page = await (await browser.newContext(options)).newPage();
  page.setDefaultTimeout(30_000);
  page.on("console", (message) => { if (message.type() === "error") seen.problems.push(message.text()); });
  page.on("pageerror", (error) => seen.problems.push(String(error)));
  await page.goto(`${base}/chat`);
  await page.locator("summary").click();
  await page.locator("[name=temperature]").fill("0");
  await page.locator("[name=max_tokens]").fill("40");
  await page.locator("#message").fill("Hello");
  return page;
}
// As the model wrote it, before it was made Markdown.
const last = (p) => p.evaluate(() => {
  const key = Object.keys(localStorage).find((one) => one.startsWith("outboard.chat."));
  return JSON.parse(localStorage.getItem(key)).turns.at(-1).text;
});

{
  const p = await page({});
  await p.keyboard.press("Enter");
  await p.locator("[data-action=retry]").waitFor();
  seen.said = await last(p);
  seen.facts = await p.locator(".turn-facts").last().textContent();
  await p.locator("[data-action=retry]").click();
  await p.locator("[data-action=retry]").waitFor();
  seen.again = await last(p);
  await p.locator("#message").fill("word ".repeat(400));
  await p.locator("#message").press("Enter");
  await p.locator("[data-problem] [role=alert]").waitFor();
  seen.tooLong = await p.locator("[data-problem]").textContent();
  await p.context().close();
}
{
  const p = await page({ javaScriptEnabled: false });
  await p.locator("[data-send]").click();
  await p.locator(".turn.assistant").waitFor();
  seen.plain = await p.locator("[data-said]").last().evaluate((node) => node.textContent);
  seen.plainFacts = await p.locator(".turn-facts").textContent();
  await p.context().close();
}

// Chromium itself writes a line for each answer with an error status.
seen.problems = seen.problems.filter((text) => !/status of 413/.test(text));
await browser.close();
console.log(JSON.stringify(seen));
