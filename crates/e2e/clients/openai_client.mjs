// OpenAI's own package for Node against the gateway. Prints what it saw as JSON.
//
//     node openai_client.mjs BASE_URL MODEL
import OpenAI from 'openai';

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'not checked', maxRetries: 0 });
const messages = [{ role: 'user', content: 'hello there' }];
const chat = (more) => client.chat.completions.create({ model, messages, temperature: 0, ...more });
const text = (answer, index = 0) => answer.choices[index].message.content;

// What a call fails with: class, status, code, param, whether the request's id is told.
async function error(call) {
  try {
    await call();
  } catch (failed) {
    return [failed.constructor.name, failed.status, failed.code, failed.param, failed.requestID === failed.error?.request_id];
  }
  return 'it did not fail';
}

const seen = {};
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
};

// Leaving in the middle ends the loop without an error.
const stream = await chat({ max_tokens: 200, stream: true });
let chunks = 0;
for await (const _ of stream) {
  chunks += 1;
  if (chunks === 2) stream.controller.abort();
}
seen.aborted = stream.controller.signal.aborted;
console.log(JSON.stringify(seen));
