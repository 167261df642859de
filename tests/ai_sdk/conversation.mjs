// Two turns and a Stop with the Vercel AI SDK; prints one JSON object. Called by test_clients.py:
//     node conversation.mjs http://127.0.0.1:8001/v1 KEY FIRST SECOND LONG
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

const [baseURL, apiKey, first, second, long] = process.argv.slice(2);
const medraft = createOpenAICompatible({ name: "medraft", baseURL, apiKey, includeUsage: true });
const messages = [];
const answers = [];

for (const content of [first, second]) {
  messages.push({ role: "user", content });
  const result = streamText({ model: medraft("RAG"), messages, maxRetries: 0, maxOutputTokens: 40 });
  let text = "";
  let pieces = 0;
  for await (const piece of result.textStream) {
    text += piece;
    pieces += 1;
  }
  messages.push({ role: "assistant", content: text });
  answers.push({ text, pieces, finish: await result.finishReason, usage: await result.usage });
}

const abort = new AbortController();
const stopped = streamText({
  model: medraft("base"),
  messages: [{ role: "user", content: long }],
  maxRetries: 0,
  abortSignal: abort.signal,
  onError: () => {},
});
let heard = "";
try {
  for await (const piece of stopped.textStream) {
    heard += piece;
    abort.abort();
  }
} catch (error) {
  if (error.name !== "AbortError") throw error;
}
console.log(JSON.stringify({ answers, heard }));
