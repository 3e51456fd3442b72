// OpenAI's own package for Node against the gateway. Prints what it saw as JSON.
//
//     node openai_client.mjs BASE_URL all|embed|limited|gone|cancel MODEL
import http from 'node:http';
import OpenAI from 'openai';

const [baseURL, part, model] = process.argv.slice(2);
const connect = (more) => new OpenAI({ baseURL, apiKey: 'not checked', maxRetries: 0, ...more });
const client = connect();
const messages = [{ role: 'user', content: 'hello there' }];
const chat = (more, options) => client.chat.completions.create({ model, messages, temperature: 0, ...more }, options);
const text = (answer, index = 0) => answer.choices[index].message.content;
const seen = {};

// What a call fails with: class, status, code, param, whether the request's id is told.
async function error(call) {
  try {
    await call();
  } catch (failed) {
    return [failed.constructor.name, failed.status, failed.code, failed.param, failed.requestID === failed.error?.request_id];
  }
  return 'it did not fail';
}

async function everything() {
  seen.models = [];
  for await (const one of client.models.list()) seen.models.push(one.id);
  seen.model = (await client.models.retrieve(model)).id;

  const whole = await chat({ max_tokens: 12 });
  seen.finish = whole.choices[0].finish_reason;
  seen.tokens = whole.usage.completion_tokens;

  let said = '';
  let usage;
  for await (const chunk of await chat({ max_tokens: 12, stream: true, stream_options: { include_usage: true } })) {
    said += chunk.choices[0]?.delta.content ?? '';
    usage = chunk.usage ?? usage;
  }
  seen['the stream says the same'] = said === text(whole);
  seen['streamed usage'] = usage.completion_tokens;

  const helped = client.chat.completions.stream({ model, messages, temperature: 0, max_tokens: 12 });
  seen['the helper puts it together'] = (await helped.finalContent()) === said;

  const at = [...said].findIndex((letter, at) => at > 0 && /^[ -~]{2}/.test([...said].slice(at, at + 2).join('')));
  const stop = [...said].slice(at, at + 2).join('');
  const stopped = await chat({ max_tokens: 12, stop });
  seen.stopped = [stopped.choices[0].finish_reason, text(stopped) === said.slice(0, said.indexOf(stop))];

  const dice = { max_tokens: 8, n: 2, seed: 5, temperature: 1 };
  const [many, again] = [await chat(dice), await chat(dice)];
  seen['the same seed'] = many.choices.length === 2 && [0, 1].every((index) => text(many, index) === text(again, index));

  const told = (await chat({ max_tokens: 6, logprobs: true, top_logprobs: 3 })).choices[0].logprobs.content;
  seen.logprobs = [told.length, told.every((one) => one.top_logprobs.length === 3)];

  const schema = { type: 'object', properties: { sure: { type: 'boolean' } }, required: ['sure'], additionalProperties: false };
  const held = await chat({ response_format: { type: 'json_schema', json_schema: { name: 'it', schema, strict: true } } });
  seen['a schema holds'] = typeof JSON.parse(text(held)).sure;

  const completion = await client.completions.create({ model, prompt: 'once upon', max_tokens: 6, temperature: 0 });
  seen.completion = completion.object;

  seen.errors = {
    temperature: await error(() => chat({ temperature: 3 })),
    model: await error(() => chat({ model: 'nope' })),
    stream: await error(() => chat({ model: 'nope', stream: true })),
    context: await error(() => chat({ messages: [{ role: 'user', content: 'hello '.repeat(2000) }] })),
    body: await error(() => chat({ messages: [{ role: 'user', content: 'x'.repeat(5 << 20) }] })),
  };
}

async function embed() {
  const texts = [
    'How do I change my password?',
    'I cannot log in any more and need a new secret word.',
    'The orchestra played until midnight.',
  ];
  const ask = (input, more) => client.embeddings.create({ model, input, ...more });
  const dot = (one, other) => one.reduce((sum, value, at) => sum + value * other[at], 0);
  const near = (one, other) => one.length === other.length && one.every((value, at) => Math.abs(value - other[at]) < 1e-6);
  // Without a format the package asks for base64 and unpacks it.
  const unasked = await ask(texts);
  const vectors = unasked.data.map((one) => one.embedding);
  seen.object = [unasked.object, unasked.data[0].object, unasked.model];
  seen.places = unasked.data.map((one) => one.index);
  seen.numbers = vectors.map((vector) => vector.length);
  seen['length 1'] = vectors.every((vector) => Math.abs(Math.hypot(...vector) - 1) < 1e-5);
  const floats = (await ask(texts, { encoding_format: 'float' })).data;
  seen['both formats say the same'] = floats.every((one, at) => near(one.embedding, vectors[at]));
  seen['alike is nearer'] = dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]) + 0.2;
  seen.cut = (await ask(texts[0], { dimensions: 16 })).data[0].embedding.length;
  seen.errors = {
    model: await error(() => ask('x', { model: 'absent' })),
    empty: await error(() => ask('')),
    long: await error(() => ask('word '.repeat(300))),
  };
}

// Leaves in the middle of a long answer, which has no end of its own; another comes back too late for its client, a third for the
// time that it named.
async function cancel() {
  const endless = { max_tokens: 1500, logit_bias: { 2: -100 } };
  const { data: stream, response } = await chat({ ...endless, stream: true }).withResponse();
  seen.request = response.headers.get('x-request-id');
  seen.chunks = 0;
  for await (const _ of stream) {
    seen.chunks += 1;
    if (seen.chunks === 3) stream.controller.abort();
  }
  seen.timeout = await chat(endless, { timeout: 50 }).catch((failed) => failed.constructor.name);
  seen['too late'] = await error(() => chat(endless, { headers: { 'X-Request-Timeout-Ms': '100' } }));
}

// From another address, which nginx limits: the package's own connections have no setting for it.
async function limited() {
  const far = connect({
    fetch: (url, { headers }) =>
      new Promise((resolve, reject) => {
        const asked = http.get(url, { headers: Object.fromEntries(headers), localAddress: '127.0.0.3' }, (answer) => {
          const chunks = [];
          answer.on('data', (chunk) => chunks.push(chunk));
          answer.on('end', () => resolve(new Response(Buffer.concat(chunks), { status: answer.statusCode, headers: answer.headers })));
        });
        asked.on('error', reject);
      }),
  });
  for (let count = 0; count < 200; count += 1) {
    seen.limited = await error(() => far.models.retrieve(model));
    if (seen.limited !== 'it did not fail') return;
  }
}

async function gone() {
  seen.gone = await error(() => chat({ max_tokens: 2 }));
  seen['gone streamed'] = await error(() => chat({ max_tokens: 2, stream: true }));
}

await { all: everything, embed, limited, gone, cancel }[part]();
console.log(JSON.stringify(seen));
