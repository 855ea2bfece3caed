"""The recipes that come with the package, as commented TOML (installed as `wavediff.recipes`)."""
