// Does what cases.json lists with Apache's library for Node and generated code; prints what it saw, one JSON object a line.
//
//     GENERATED=FOLDER node client.js CASES.json HOST:PORT
"use strict";

const fs = require("fs");
const path = require("path");
const crypto = require("crypto");
const thrift = require("thrift");

// The generated files ask for the library as if it lay beside them.
const generated = process.env.GENERATED;
const load = (name) => require(path.join(generated, name));
const [Chat, Health, Inference, Stranger, Misreader] =
  ["Chat", "Health", "Inference", "Stranger", "Misreader"].map(load);
const base = load("base_types");
const chat = load("chat_types");
const fault = load("fault_types");
const health = load("health_types");
const inference = load("inference_types");
const stranger = load("stranger_types");

const number = (value) => (value === null || value === undefined ? value : Number(value));

class Timeout extends Error {}

class Client {
  constructor(address, protocol, transport, given) {
    const [host, port] = address.split(":");
    this.given = given;
    this.patience = given.patience_ms || 30000;
    this.multiplexed = transport === "multiplexed";
    this.connection = thrift.createConnection(host, Number(port), {
      transport: transport === "buffered" ? thrift.TBufferedTransport : thrift.TFramedTransport,
      protocol: protocol === "compact" ? thrift.TCompactProtocol : thrift.TBinaryProtocol,
      connect_timeout: 5000,
    });
    this.lost = new Promise((_, reject) => {
      this.connection.on("error", reject);
      this.connection.on("close", () => reject(new Error("closed")));
    });
    this.lost.catch(() => {});
  }

  as(service, name) {
    if (!this.multiplexed) return thrift.createClient(service, this.connection);
    return new thrift.Multiplexer().createClient(name, service, this.connection);
  }

  // The library itself waits for ever for an answer that does not come.
  async wait(answer) {
    let timer;
    const over = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Timeout("no answer in time")), this.patience);
    });
    try {
      return await Promise.race([answer, over, this.lost]);
    } finally {
      clearTimeout(timer);
    }
  }

  base() {
    return new base.Base({
      request_id: "conformance-" + this.given.name, caller: "node", timeout_ms: this.given.timeout_ms || 20000,
    });
  }

  inferRequest(callId) {
    const input = this.given.input;
    const data = input.hex !== undefined ? Buffer.from(input.hex, "hex")
      : input.zeros !== undefined ? Buffer.alloc(input.zeros) : undefined;
    const tensor = new inference.Tensor({
      name: input.name, data_type: input.type, shape: input.shape, data, strings: input.strings,
    });
    const about = this.base();
    if (callId) about.call_id = callId;
    return new inference.InferRequest({ base: about, model: this.given.model, inputs: [tensor] });
  }

  inferred(reply) {
    const output = reply.outputs[0];
    const seen = {
      outputs: reply.outputs.length, type: output.data_type, shape: output.shape.map(number), request_id: reply.request_id,
    };
    if (output.strings !== null) seen.strings = output.strings;
    if (output.data !== null) {
      seen.bytes = output.data.length;
      if (output.data.length <= 64) seen.hex = output.data.toString("hex");
    }
    return seen;
  }

  chat() {
    const { model, message, max_tokens } = this.given;
    return new chat.ChatRequest({
      base: this.base(), model, messages: [new chat.Message({ role: "user", content: message })], max_tokens,
      sampling: new chat.Sampling({ temperature: 0 }),
    });
  }

  start(bound) {
    return new chat.StartRequest({ base: this.base(), stream_key: crypto.randomBytes(16), chat: this.chat(), bound });
  }

  next(stream_id, from_piece) {
    return new chat.NextRequest({ stream_id, from_piece, wait_ms: 10000 });
  }

  // What was seen; nothing when the call was oneway.
  async make() {
    const { given } = this;
    const about = { base: this.base(), model: given.model };
    switch (given.way) {
      case "check": {
        const reply = await this.wait(this.as(Health, given.service || "Health").check(new health.CheckRequest(about)));
        return { status: reply.status, live: reply.live, models: reply.models.length };
      }
      case "models": {
        const reply = await this.wait(this.as(Inference, "Inference").models(new inference.ModelsRequest(about)));
        return {
          names: reply.models.map((model) => model.name).sort(), labels: reply.models[0].labels.length,
          request_id: reply.request_id,
        };
      }
      case "classify": {
        const images = given.pictures.map((picture) => fs.readFileSync(picture));
        const request = new inference.ClassifyRequest({
          ...about, images, top_k: given.top_k, preview_px: given.preview_px,
        });
        const reply = await this.wait(this.as(Inference, "Inference").classify(request));
        const first = reply.results[0];
        return {
          label: first.labels[0].label, labels: first.labels.length, results: reply.results.length, format: first.format,
          size: [first.width, first.height], preview: first.preview !== null, request_id: reply.request_id,
        };
      }
      case "infer":
        return this.inferred(await this.wait(this.as(Inference, "Inference").infer(this.inferRequest())));
      case "infer-cancelled": {
        const client = this.as(Inference, "Inference");
        const call_id = crypto.randomBytes(16);
        const answer = client.infer(this.inferRequest(call_id));
        client.cancel(new inference.CancelRequest({ call_id }));
        return this.inferred(await this.wait(answer));
      }
      case "embed": {
        const texts = [...given.texts];
        while (texts.length < (given.repeat || 1)) texts.push(given.texts[0]);
        const reply = await this.wait(this.as(Inference, "Inference").embed(new inference.EmbedRequest({ ...about, texts })));
        return {
          dimensions: reply.dimensions, bytes: reply.vectors.length, texts: reply.token_counts.length,
          tokens: reply.token_counts, request_id: reply.request_id,
        };
      }
      case "cancel":
        this.as(Inference, "Inference").cancel(new inference.CancelRequest({ call_id: Buffer.alloc(16) }));
        return undefined;
      case "complete": {
        const reply = await this.wait(this.as(Chat, "Chat").complete(this.chat()));
        const first = reply.choices[0];
        return {
          choices: reply.choices.length, text: first.text, finish: first.finish,
          completion_tokens: reply.usage.completion_tokens, request_id: reply.request_id,
        };
      }
      case "stream":
        return this.stream();
      case "stop": {
        const client = this.as(Chat, "Chat");
        const { stream_id } = await this.wait(client.start(this.start()));
        await this.wait(client.stop(new chat.StopRequest({ stream_id })));
        const reply = await this.wait(client.next_pieces(this.next(stream_id, 0)));
        return { ended: reply.ended };
      }
      case "next": {
        const request = this.next(given.stream, 0);
        request.base = this.base();
        await this.wait(this.as(Chat, "Chat").next_pieces(request));
        return {};
      }
      case "frobnicate":
        await this.wait(this.as(Stranger, "Stranger").frobnicate(new stranger.Anything()));
        return {};
      case "misread":
        await this.wait(this.as(Misreader, "Health").check(new stranger.Misunderstood({ base: this.base(), model: 7 })));
        return {};
      default:
        throw new Error("no way is called " + given.way);
    }
  }

  async stream() {
    const client = this.as(Chat, "Chat");
    const request = this.start(true);
    const { stream_id } = await this.wait(client.start(request));
    const again = await this.wait(client.start(request));
    const seen = { text: "", gapless: true, again: again.stream_id === stream_id ? "same" : "another" };
    let from = 0;
    for (let ended = false; !ended;) {
      const reply = await this.wait(client.next_pieces(this.next(stream_id, from)));
      for (const piece of reply.pieces) {
        seen.gapless = seen.gapless && number(piece.number) === from;
        from += 1;
        seen.text += piece.text;
        if (piece.finish !== null) seen.finish = piece.finish;
        if (piece.usage !== null) seen.completion_tokens = piece.usage.completion_tokens;
      }
      ended = reply.ended;
    }
    return seen;
  }

  async outcome() {
    try {
      const seen = await this.make();
      return seen === undefined ? { outcome: "oneway" } : { outcome: "reply", ...seen };
    } catch (error) {
      if (error instanceof fault.Fault) {
        const { code, message, param, request_id } = error;
        return { outcome: "fault", code, message, param, request_id };
      }
      if (error instanceof thrift.Thrift.TApplicationException) {
        return { outcome: "application", type: error.type, message: error.message };
      }
      return { outcome: error instanceof Timeout ? "timeout" : "transport", message: String(error) };
    }
  }

  async goesOn() {
    try {
      const reply = await this.wait(this.as(Health, "Health").check(new health.CheckRequest()));
      return reply.status === health.ServingStatus.SERVING;
    } catch (error) {
      return String(error);
    }
  }
}

async function main() {
  const [plan, address] = process.argv.slice(2);
  const { clients, cases } = JSON.parse(fs.readFileSync(plan, "utf8"));
  const me = clients.find((client) => client.name === "node");
  for (const protocol of me.protocols) {
    for (const transport of me.transports) {
      for (const given of cases) {
        if (!(given.transports || ["framed", "multiplexed"]).includes(transport)) continue;
        const client = new Client(address, protocol, transport, given);
        const seen = await client.outcome();
        if (!given.last) seen.goes_on = await client.goesOn();
        client.connection.destroy();
        process.stdout.write(JSON.stringify({ protocol, transport, case: given.name, ...seen }) + "\n");
      }
    }
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
