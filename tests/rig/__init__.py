"""What the tests are built on: real servers, exact clients, and eyes on the processes. No test lives here."""
