// Asks the API through OpenAI's npm package; prints what came as JSON. Arguments: base URL, image file.
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const [baseURL, image] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 300_000 });
const url = `data:image/png;base64,${readFileSync(image).toString("base64")}`;
const question = {
  role: "user",
  content: [
    { type: "text", text: "What word is written in the picture?" },
    { type: "image_url", image_url: { url } },
  ],
};
const model = (await client.models.list()).data[0].id;
const ask = (body) => client.chat.completions.create({ model, temperature: 0, messages: [question], ...body });
const first = await ask({ max_tokens: 30 });
let streamed = "";
for await (const piece of await ask({ stream: true })) streamed += piece.choices[0]?.delta?.content ?? "";
const chat = [question, first.choices[0].message, { role: "user", content: "Describe the picture." }];
const again = await ask({ messages: chat, max_completion_tokens: 20 });
const long = await ask({ max_tokens: 40, ignore_eos: true, min_tokens: 40 });
console.log(
  JSON.stringify({
    answer: first.choices[0].message.content,
    streamed,
    "second answer": again.choices[0].message.content,
    "tokens with ignore_eos": long.usage.completion_tokens,
  }),
);
