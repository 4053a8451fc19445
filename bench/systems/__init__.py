"""The systems that are measured, one module each: how to install, configure, start and call it."""
