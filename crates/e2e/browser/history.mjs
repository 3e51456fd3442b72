// Drives the history's pages in a real Chromium, as a person would, with JavaScript and without.
//
// history.mjs BASE_URL SHOE.png COFFEE.jpg SCREENSHOT_FOLDER
// Prints one JSON object of what was seen; any surprise is an exception and a non-zero exit status.
import { launch } from "./browser.mjs";

const [base, shoe, coffee, folder] = process.argv.slice(2);
const { seen, page, shot, end } = await launch(base, folder);

async function upload(p, model, file) {
  await p.goto(`${base}/upload`);
  await p.locator(`input[name=model][value="${model}"]`).check();
  await p.setInputFiles("input[type=file]", file);
  await p.locator("form button[type=submit]").click();
  await p.locator("[data-label]").first().waitFor();
}
// A record is in the list a moment after its answer.
async function records(p, count, address = "/history") {
  for (let look = 0; look < 100; look++) {
    await p.goto(`${base}${address}`);
    if (await p.locator("[data-record]").count() === count) return;
    await p.waitForTimeout(100);
  }
  throw new Error(`${address} never had ${count} records`);
}
const texts = async (locator) => (await locator.allTextContents()).map((text) => text.trim());

for (const [name, options] of [["script", {}], ["plain", { javaScriptEnabled: false }]]) {
  const p = await page(options);
  const run = (seen[name] = {});
  await upload(p, "fashion-mnist", shoe);
  await upload(p, "efficientnet-lite0", coffee);
  await records(p, 2);
  run.answers = await texts(p.locator("[data-answer]"));
  // Thumbnails have been drawn, not only named.
  await p.locator("[data-record] img").evaluateAll((all) => Promise.all(all.map((image) => image.decode?.())));
  run.drawn = await p.locator("[data-record] img").evaluateAll((all) => all.map((image) => image.naturalWidth > 0));
  await shot(p, `history-${name}`, { fullPage: true });

  await p.fill("input[name=model]", "fashion-mnist");
  await p.locator("form[role=search] button").click();
  await p.waitForURL(/model=fashion-mnist/);
  run.filtered = await texts(p.locator("[data-answer]"));

  // The picture on click, and the original behind it.
  await p.locator("[data-record]").first().click();
  await p.locator("[data-label]").first().waitFor();
  run.labels = await p.locator("[data-label]").count();
  const original = await p.request.get(base + await p.locator("[data-picture]").getAttribute("href"));
  run.original = [original.status(), original.headers()["content-type"], (await original.body()).length];
  await p.fill("input[name=label]", "Sandal <b>");
  await p.locator("form button[type=submit]").first().click();
  run.right = (await p.locator("[data-right]").textContent()).trim();
  await shot(p, `record-${name}`, { fullPage: true });
  await p.goto(`${base}/history`);
  run.listed = await texts(p.locator("[data-right]"));

  // Delete asks once more; without its button nothing goes.
  await p.locator("a", { hasText: "Delete" }).first().click();
  run.asked = await p.locator("h1").textContent();
  await shot(p, `delete-${name}`);
  await p.locator("a", { hasText: "Keep it" }).click();
  await records(p, 2);
  for (let left = 1; left >= 0; left--) {
    await p.locator("a", { hasText: "Delete" }).first().click();
    await p.locator("form[action*='/delete'] button").click();
    run.landed = new URL(p.url()).pathname;
    await records(p, left);
  }
  run.empty = (await p.locator("main .lead").textContent()).trim();
  await p.context().close();
}

// On a phone nothing is wider than the screen.
{
  const p = await page({ viewport: { width: 390, height: 800 }, colorScheme: "dark" });
  await upload(p, "fashion-mnist", shoe);
  await records(p, 1);
  seen.overflow = await p.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  await shot(p, "history-phone", { fullPage: true });
  await p.context().close();
}
await end();
