"""The UI messages of the AI SDK: what `useChat` posts, and the stream of chunks it reads.

The stream is version 1 of the protocol; its source is `ui-message-chunks.ts` and `process-ui-message-stream.ts` of the npm package
`ai`, 5 to 7. A chunk of an unknown type ends the reader's stream with an error, so we invent none: what is ours travels in `data-…`
chunks and in metadata.
"""
