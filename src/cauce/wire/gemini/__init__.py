"""Google's Gemini API (`generateContent`), as client and as server speak it.

Unknown fields are carried in `Extra("gemini", …)`, in camel case: on a request those of the body and, under `generationConfig`
and `toolConfig`, those of these two; on a message those of the content; on a part and its deltas those of the part
(`thoughtSignature` of a text among them). A finish has `candidates` (by index, what stands beside the content) and `answer` (what
stands beside the candidates).
"""
