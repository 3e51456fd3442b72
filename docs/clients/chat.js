// Streams a chat with generated code and Apache's library for Node, and nothing else.
//
//     npm install thrift@0.24.0
//     mkdir gen && thrift -r --gen js:node,es6 -out gen idl/chat.thrift
//     GENERATED=$PWD/gen node docs/clients/chat.js 127.0.0.1:9090 smollm2-135m-instruct "What is a rainbow?"
//
// The answer is printed as it comes. The generated files look for the library in the folders above their own.
"use strict";

const crypto = require("crypto");
const path = require("path");

const generated = (name) => require(path.join(process.env.GENERATED || "./gen", name));
const thrift = require(require.resolve("thrift", { paths: [process.env.GENERATED || __dirname] }));
const Chat = generated("Chat");
const { Base } = generated("base_types");
const { ChatRequest, FinishReason, Message, NextRequest, StartRequest } = generated("chat_types");
const { Fault } = generated("fault_types");

const WAIT_MS = 10000;

// The library waits for ever for an answer that does not come, so each call has a time of its own here.
async function within(ms, call) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([call, late]);
  } finally {
    clearTimeout(timer);
  }
}

// Yields the text of one answer as it comes.
async function* stream(chat, model, question) {
  // The id stands in the server's log; a service hands on the one that it was called with.
  const base = new Base({ request_id: "node-" + crypto.randomUUID(), caller: "docs", timeout_ms: 120000 });
  const request = new ChatRequest({ model, messages: [new Message({ role: "user", content: question })] });
  // bound: when this program ends in whatever way, so does the answer.
  const start = new StartRequest({ base, stream_key: crypto.randomBytes(16), chat: request, bound: true });
  const { stream_id } = await within(WAIT_MS, chat.start(start));
  let from_piece = 0;
  for (;;) {
    const reply = await within(WAIT_MS + 5000, chat.next_pieces(new NextRequest({ stream_id, from_piece, wait_ms: WAIT_MS })));
    for (const piece of reply.pieces) {
      from_piece += 1;
      if (piece.error !== null) {
        throw new Fault({ code: piece.error, message: piece.error_message, request_id: base.request_id });
      }
      yield piece.text;
      if (piece.usage !== null) {
        const finish = Object.keys(FinishReason).find((name) => FinishReason[name] === piece.finish);
        console.error(`\n[${finish}, ${piece.usage.prompt_tokens} + ${piece.usage.completion_tokens} tokens]`);
      }
    }
    if (reply.ended) return;
  }
}

async function main() {
  if (process.argv.length !== 5) {
    console.error("usage: chat.js HOST:PORT MODEL QUESTION");
    process.exit(2);
  }
  const [address, model, question] = process.argv.slice(2);
  const [host, port] = address.split(":");
  const connection = thrift.createConnection(host, Number(port), {
    transport: thrift.TFramedTransport, protocol: thrift.TBinaryProtocol, connect_timeout: 5000,
  });
  const lost = new Promise((_, reject) => connection.on("error", reject));
  const show = async () => {
    for await (const text of stream(thrift.createClient(Chat, connection), model, question)) process.stdout.write(text);
    process.stdout.write("\n");
  };
  try {
    await Promise.race([show(), lost]);
  } catch (error) {
    console.error(error instanceof Fault ? `${error.message} (request ${error.request_id})` : String(error));
    process.exitCode = 1;
  }
  // After a call that was given up the connection cannot be used any more.
  connection.destroy();
}

main();
