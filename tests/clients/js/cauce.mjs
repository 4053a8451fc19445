// Our own client, as it is built in `clients/js`.
import { Cauce } from "../../../clients/js/dist/index.js";
import * as given from "./given.mjs";
import { serve } from "./worker.mjs";

await serve({
  async stream({ base_url, api_key, model }) {
    const client = new Cauce({ baseUrl: base_url, apiKey: api_key });
    const stream = client.stream({ model, messages: [{ role: "user", content: given.sayHello }] });
    let [text, last] = ["", 0];
    for await (const event of stream) {
      if (event.seq !== last + 1) throw new Error(`event ${event.seq} came after ${last}`);
      last = event.seq;
      if (event.type === "text") text += event.text;
    }
    const result = await stream.result;
    if (result.text !== text) throw new Error(`the events say ${text}, the result ${result.text}`);
    return { text, outcome: result.outcome };
  },
});
