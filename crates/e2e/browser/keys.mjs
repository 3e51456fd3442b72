// Signs in with a key in a real Chromium, chats and signs out.
//
// keys.mjs BASE_URL KEY
// Prints one JSON object of what was seen; any surprise is an exception and a non-zero exit status.
import { launch } from "./browser.mjs";

const [base, key] = process.argv.slice(2);
const { seen, page, end } = await launch(base);

for (const javaScriptEnabled of [true, false]) {
  const p = await page({ javaScriptEnabled });
  const found = seen[javaScriptEnabled ? "scripted" : "plain"] = {};
  const door = await p.goto(`${base}/chat`);
  found.door = door.status();
  await p.locator("#key").fill("ob_wrong");
  await p.getByRole("button", { name: "Sign in" }).click();
  found.wrong = await p.locator("[role=alert]").textContent();
  await p.locator("#key").fill(key);
  await p.getByRole("button", { name: "Sign in" }).click();
  await p.locator("#message").waitFor();
  found.back = new URL(p.url()).pathname;
  found.visitor = await p.locator(".who span").textContent();
  found.cookie = (await p.context().cookies()).map(({ name, httpOnly, sameSite, value }) => [name, httpOnly, sameSite, value.includes(key.slice(3))]);
  await p.locator("summary").click();
  await p.locator("[name=max_tokens]").fill("8");
  // What a random model draws may be nothing at all.
  await p.locator("[name=temperature]").fill("0");
  await p.locator("#message").fill("Hello");
  await p.locator("[data-send]").click();
  await p.locator(".turn.assistant").waitFor();
  if (javaScriptEnabled) await p.locator("[data-action=retry]").waitFor();
  found.turns = await p.locator(".turn").count();
  found.problems = await p.locator("[data-problem] [role=alert]").count();
  await p.getByRole("button", { name: "Sign out" }).click();
  await p.locator("#key").waitFor();
  found.out = new URL(p.url()).pathname;
  found.after = (await p.goto(`${base}/upload`)).status();
  await p.context().close();
}

await end(/status of 401/);
