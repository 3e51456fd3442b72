// Drives the upload page in a real Chromium, as a person would.
//
// page.mjs BASE_URL SHOE.png COFFEE.jpg SCREENSHOT_FOLDER
// Prints one JSON object of what was seen; any surprise is an exception and a non-zero exit status.
import { launch } from "./browser.mjs";

const [base, shoe, coffee, folder] = process.argv.slice(2);
const { seen, page, shot: screenshot, end } = await launch(base, folder, { width: 1100, height: 900 });
const shot = (page, name) => screenshot(page, name, { fullPage: true });
const label = (page) => page.locator("[data-label]").first().textContent();

// With JavaScript: choose a file, read the answer.
{
  const p = await page();
  await p.goto(`${base}/`);
  seen.address = new URL(p.url()).pathname;
  seen.title = await p.title();
  seen.models = await p.locator("[name=model]").evaluateAll((all) =>
    all.flatMap((e) => (e.tagName === "SELECT" ? [...e.options].map((o) => o.value) : [e.value])));
  await shot(p, "upload");
  await choose(p, "fashion-mnist");
  await p.setInputFiles("input[type=file]", shoe);
  await p.locator("form button[type=submit]").click();
  await p.locator("[data-label]").first().waitFor();
  seen.label = (await label(p)).trim();
  seen.bars = await p.locator("[data-label]").count();
  seen.picture = await p.locator("img[src^='data:'], img[src^='blob:']").count();
  await shot(p, "result");
  await p.context().close();
}

// Keyboard only: the first Tab stops lead through the form, and Enter sends it.
{
  const p = await page();
  await p.goto(`${base}/upload`);
  const stops = [];
  for (let i = 0; i < 30; i++) {
    await p.keyboard.press("Tab");
    const stop = await p.evaluate(() => {
      const e = document.activeElement;
      return e === document.body ? null : `${e.tagName.toLowerCase()}${e.type ? ":" + e.type : ""}`;
    });
    if (stop === null) break;
    stops.push(stop);
    if (stop === "button:submit") break;
  }
  seen.stops = stops;
  await choose(p, "fashion-mnist");
  await p.setInputFiles("input[type=file]", shoe);
  await p.locator("form button[type=submit]").focus();
  await p.keyboard.press("Enter");
  await p.locator("[data-label]").first().waitFor();
  seen.keyboard = (await label(p)).trim();
  await p.context().close();
}

// Dropped on the page, and pasted: both send at once.
{
  const p = await page();
  await p.goto(`${base}/upload`);
  await choose(p, "fashion-mnist");
  const { readFileSync } = await import("node:fs");
  const bytes = [...readFileSync(shoe)];
  const transfer = await p.evaluateHandle((bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "shoe.png", { type: "image/png" }));
    return transfer;
  }, bytes);
  await p.dispatchEvent("[data-drop]", "drop", { dataTransfer: transfer });
  await p.locator("[data-label]").first().waitFor();
  seen.dropped = (await label(p)).trim();
  await p.goto(`${base}/upload`);
  await choose(p, "fashion-mnist");
  await p.evaluate((transfer) => {
    document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
  }, await p.evaluateHandle((bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
    return transfer;
  }, bytes));
  await p.locator("[data-label]").first().waitFor();
  seen.pasted = (await label(p)).trim();
  await p.context().close();
}

// An error is readable on the page.
{
  const p = await page();
  await p.goto(`${base}/upload`);
  await p.setInputFiles("input[type=file]", { name: "notes.png", mimeType: "image/png", buffer: Buffer.from("only text") });
  await p.locator("form button[type=submit]").click();
  await p.locator("[role=alert]").first().waitFor();
  seen.alert = (await p.locator("[role=alert]").first().textContent()).trim();
  await shot(p, "error");
  await p.context().close();
}

// Without JavaScript.
{
  const p = await page({ javaScriptEnabled: false });
  await p.goto(`${base}/upload`);
  await choose(p, "fashion-mnist");
  await p.setInputFiles("input[type=file]", shoe);
  await p.locator("form button[type=submit]").click();
  seen.plain = (await label(p)).trim();
  await shot(p, "plain");
  await p.context().close();
}

// Dark, on a phone, another model.
{
  const p = await page({ colorScheme: "dark", viewport: { width: 390, height: 800 } });
  await p.goto(`${base}/upload`);
  await shot(p, "phone-dark");
  seen.overflow = await p.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  await choose(p, "efficientnet-lite0");
  await p.setInputFiles("input[type=file]", coffee);
  await p.locator("form button[type=submit]").click();
  await p.locator("[data-label]").first().waitFor();
  seen.photo = (await label(p)).trim();
  await shot(p, "phone-dark-result");
  await p.goto(`${base}/docs`);
  seen.docs = await p.title();
  await shot(p, "docs");
  await p.context().close();
}

async function choose(p, model) {
  const select = p.locator("select[name=model]");
  if (await select.count()) await select.selectOption(model);
  else await p.locator(`input[name=model][value="${model}"]`).check();
}

// Chromium itself writes a line for each answer with an error status; the error test makes one.
await end(/status of 4\d\d/);
