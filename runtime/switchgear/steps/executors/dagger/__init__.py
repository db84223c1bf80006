"""Steps in the containers of an engine; `executor` is the way in, and all else is below it."""
