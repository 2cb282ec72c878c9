"""The service: takes events and samples, keeps them, shows them."""
