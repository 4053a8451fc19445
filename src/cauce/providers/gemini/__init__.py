"""Google's Gemini API, asked over HTTP."""
