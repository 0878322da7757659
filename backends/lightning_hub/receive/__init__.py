"""The hub's socket: events come in and are made durable, requests are answered."""
