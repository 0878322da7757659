"""What is recorded, as plain data: the scope that code runs in, calls to models, and the names on spans."""
