"""What the tests are built on: real servers, exact clients, and views of the processes. No test is here."""
