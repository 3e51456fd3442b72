// The chat page in a real Chromium before the real server with a tiny model.
//
// chat_real.mjs BASE_URL
// Prints one JSON object of what was seen; any surprise is an exception and a non-zero exit status.
import { launch } from "./browser.mjs";

const [base] = process.argv.slice(2);
const { seen, page: empty, end } = await launch(base);

async function page(options) {
  const page = await empty(options);
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
await end(/status of 413/);
