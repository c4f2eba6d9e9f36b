"""The benchmark behind bench/run: servers side by side, their loads, and the table and charts of what came out."""
