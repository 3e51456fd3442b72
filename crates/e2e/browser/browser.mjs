// The Chromium that the scripts here drive, and what surprises them in it.
import { mkdirSync } from "node:fs";
import { chromium } from "playwright-core";

/**
 * A browser for the pages at `base`; screenshots go to `folder`. `seen` is what a script prints at its end; `seen.problems` has every
 * error of a page and every request to another host.
 */
export async function launch(base, folder, viewport = { width: 1180, height: 860 }) {
  if (folder) mkdirSync(folder, { recursive: true });
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--no-first-run"],
  });
  const seen = { problems: [] };

  /** A page in a context of its own. */
  async function page(options = {}) {
    const context = await browser.newContext({ viewport, ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    page.on("console", (message) => { if (message.type() === "error") seen.problems.push(message.text()); });
    page.on("pageerror", (error) => seen.problems.push(String(error)));
    page.on("request", (request) => {
      const url = request.url();
      if (!url.startsWith(base) && !url.startsWith("data:") && !url.startsWith("blob:")) seen.problems.push(`asked ${url}`);
    });
    return page;
  }

  const shot = (page, name, options = {}) => page.screenshot({ path: `${folder}/${name}.png`, ...options });

  /** Prints what was seen, without problems like `expected`, which Chromium tells of answers that are errors. */
  async function end(expected = null) {
    if (expected) seen.problems = seen.problems.filter((text) => !expected.test(text));
    await browser.close();
    console.log(JSON.stringify(seen, null, 1));
  }

  return { seen, page, shot, end };
}
