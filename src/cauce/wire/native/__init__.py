"""Cauce's own wire: the body of `/llm/message` and `/chat/stream/{id}`, its plain answer, and its stream frames."""
