"""The PyTorch inference server: a process of its own that speaks the OpenAI protocol."""

import os

# Read once, when torch is first imported, so it has to stand here. Threads that wait for one another by spinning keep
# the processor from those they wait for: beside other busy processes a step took up to ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
