"""Runs a server under load with random events from a seed, and compares counts afterwards. CONTRIBUTING.md says how to
run it. `events` is the table of events, `oracle` checks what must hold."""
