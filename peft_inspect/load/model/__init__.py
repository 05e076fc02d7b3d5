"""The forms of MODEL: hub ids, folders, configs, architectures, and what is built of them."""
