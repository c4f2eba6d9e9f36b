"""Load, while things happen to the server at random from a seed; and an oracle that counts. CONTRIBUTING.md says how to
run it. `events` is the table of what happens, `oracle` what must hold."""
