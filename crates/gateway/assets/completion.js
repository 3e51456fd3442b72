// One answer of the chat API, piece by piece as it is made.

/** Why there is no answer, or no more of it. */
export class Refusal extends Error {
  constructor(message, { status = 0, code = "", requestId = "", retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }

  /** What a person can do about it. */
  get advice() {
    const soon = this.retryAfter ? `in ${this.retryAfter} s` : "in a moment";
    switch (this.code) {
      case "connection": return "Check the connection, then try again. The conversation is kept.";
      case "ended_early": return "The gateway or the model server went away. What has come so far is kept; try again.";
      case "too_large": return "The conversation is longer than the model can read. Start a new one, or edit an earlier message: what came after it is then left out. A smaller number of tokens in the settings helps, too.";
      case "model_not_found": return "Choose another model in the settings, or reload the page to see which there are.";
      case "overloaded": case "quota_exceeded": case "rate_limited": return `Many people are asking. Try again ${soon}.`;
      case "unavailable": case "upstream_unavailable": case "upstream_timeout":
        return `The model server cannot be reached or is starting. Try again ${soon}; the conversation is kept.`;
      case "deadline_exceeded": return "It took too long. Try again, or set a smaller number of tokens in the settings.";
      case "empty": return "Ask again, perhaps in other words.";
      case "cancelled": return "The answer was ended by the server. Try again.";
      case "invalid_api_key": return "Reload this page to sign in; the conversation is kept.";
      case "forbidden": return "Reload this page and try again, or ask the operator for access.";
      case "invalid_input": return "Check the settings and the message, then try again.";
      default: return "Try again. If it stays like this, tell the operator the request id.";
    }
  }
}

/**
 * Asks, and gives `{ text }` for each piece, `{ finish }` with the reason for the end and `{ usage }` with the count of tokens.
 *
 * Throws a Refusal, or what `signal` was aborted with.
 */
export async function* complete(body, signal) {
  const answer = await ask(body, signal);
  const requestId = answer.headers.get("x-request-id") ?? "";
  let finished = false;
  for await (const data of events(answer, signal)) {
    // Read on to the end: a connection that is closed before looks like somebody who has left.
    if (data === "[DONE]") continue;
    const event = read(data, requestId);
    const choice = event.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) {
      finished = true;
      yield { finish: choice.finish_reason };
    }
    if (event.usage) yield { usage: event.usage };
  }
  if (!finished) throw new Refusal("The answer broke off.", { code: "ended_early", requestId });
}

// Who has signed in proves that it is this page that asks.
function token() {
  const found = document.querySelector("meta[name=csrf-token]")?.content;
  return found ? { "x-csrf-token": found } : {};
}

async function ask(body, signal) {
  let answer;
  try {
    answer = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json", accept: "text/event-stream", ...token() },
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
      signal,
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refusal("The server cannot be reached.", { code: "connection" });
  }
  if (answer.ok && answer.headers.get("content-type")?.startsWith("text/event-stream")) return answer;
  const text = await answer.text().catch(() => "");
  let error = {};
  // Something between here and the gateway can answer with anything.
  try { error = JSON.parse(text).error ?? {}; } catch { /* told below */ }
  throw new Refusal(sentence(error.message) || `The server answered with status ${answer.status}.`, {
    status: answer.status,
    code: error.code ?? "",
    requestId: error.request_id ?? answer.headers.get("x-request-id") ?? "",
    retryAfter: Number.parseInt(answer.headers.get("retry-after") ?? "", 10) || null,
  });
}

function read(data, requestId) {
  let event;
  try {
    event = JSON.parse(data);
  } catch {
    throw new Refusal("The answer cannot be read.", { code: "ended_early", requestId });
  }
  if (!event.error) return event;
  const { message, code } = event.error;
  throw new Refusal(sentence(message) || "The answer broke off.", { code: code ?? "", requestId: event.error.request_id ?? requestId });
}

// The `data` of each event of the stream; comments, which only keep the connection alive, and other fields are passed over.
async function* events(answer, signal) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const raw of lines) {
        const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
        if (line === "") {
          if (data.length) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof Refusal) throw error;
    throw new Refusal("The connection broke in the middle of the answer.", { code: "connection" });
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Messages are written for programs: lower case, no full stop.
function sentence(message) {
  if (!message) return "";
  const text = String(message);
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}
