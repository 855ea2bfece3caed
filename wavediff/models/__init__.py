"""The trained models that come with the package, one safetensors file each."""
