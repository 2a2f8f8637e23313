"""The PyTorch inference server: a process of its own that speaks the OpenAI protocol."""
