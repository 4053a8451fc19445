// How a client's script is spoken to: a line of JSON in is a case to run, a line of JSON out is what it saw.
// By hand, for one case: `BASE_URL=http://127.0.0.1:8000 node openai.mjs plain`.
import { createInterface } from "node:readline";

export async function serve(cases) {
  const { BASE_URL, API_KEY = "any", MODEL = "auto", API } = process.env;
  if (process.argv.length > 2) {
    const asked = { case: process.argv[2], base_url: BASE_URL, api_key: API_KEY, model: MODEL, api: API };
    console.log(JSON.stringify(await cases[asked.case](asked), null, 2));
    return;
  }
  // What a library prints must not be taken for an answer.
  console.log = console.info = console.debug = console.error;
  for await (const line of createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    let told;
    try {
      const work = () => cases[asked.case](asked);
      told = { result: await (asked.refused ? refused(work) : work()) };
    } catch (error) {
      told = { failed: error.stack ?? String(error) };
    }
    process.stdout.write(JSON.stringify(told) + "\n");
  }
}

// What kind of error a client raised, and what it knows of it.
export async function refused(work) {
  try {
    return { error: null, result: String(await work()) };
  } catch (error) {
    const headers = error.headers ?? error.responseHeaders;
    const retryAfter = typeof headers?.get === "function" ? headers.get("retry-after") : headers?.["retry-after"];
    const known = headers ? { retry_after: retryAfter ?? null } : {};
    return { error: error.name, message: error.message, status: error.status ?? error.statusCode ?? null, ...known };
  }
}
