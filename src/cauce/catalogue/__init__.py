"""What is known of models: prices, context windows and capabilities, as data that ships with the server (`facts.json`)."""
